/* A finished block to disk, behind the work on the next one.  Records are put into files in order, a new file begins when the
 * shard size would be passed: the cut depends on the job alone.  Each file is compressed and written by one rank, blocks in
 * turn, in a thread of its own from a copy of its data; when all are on disk the coordinator notes it in the journal. */
#include "kernels/base/heap.h"
#include "pipeline/keep.h"
#include "pipeline/progress.h"
#include "pipeline/stages.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RECORDS = QD_MAX_SLOTS + QD_N_STAGES, MAX_FILES = MAX_RECORDS };

enum { MAX_TENSORS = MAX_RECORDS * 4 }; /* of a file */

typedef struct plan {
  const qd_run *run;
  double        seconds, loss; /* of the block */
  qd_digest     digest[MAX_FILES][MAX_TENSORS];
  qd_entry      entry;
  qd_record     record[MAX_RECORDS];
  qd_entry_file file[MAX_FILES];
  qd_tensor     tensor[MAX_RECORDS][QD_MAX_PARTS];
  int           file_of[MAX_RECORDS];
} plan;

static size_t record_bytes(const plan *p, int i) {
  size_t bytes = 0;
  for (int k = 0; k < p->record[i].n_parts; k++) bytes += qd_tensor_bytes(p->tensor[i][k]);
  return bytes;
}

static void name_file(int64_t block, int index, char *name, size_t size) {
  if (block == QD_REST && index == 0) snprintf(name, size, "model.h5");
  else if (block == QD_REST) snprintf(name, size, "model.%d.h5", index);
  else if (index == 0) snprintf(name, size, "block-%05" PRId64 ".h5", block);
  else snprintf(name, size, "block-%05" PRId64 ".%d.h5", block, index);
}

static void cut_files(plan *p, int64_t block, int64_t shard_bytes) {
  size_t used = 0;
  for (int i = 0; i < p->entry.n_records; i++) {
    size_t bytes = record_bytes(p, i);
    if (p->entry.n_files == 0 || (used > 0 && used + bytes > (size_t)shard_bytes)) {
      name_file(block, p->entry.n_files, p->file[p->entry.n_files].name, sizeof p->file[0].name);
      p->entry.n_files++;
      used = 0;
    }
    used += bytes;
    p->file_of[i] = p->entry.n_files - 1;
    for (int k = 0; k < p->record[i].n_parts; k++) {
      qd_stored_part *part = &p->record[i].part[k];
      part->file = p->file_of[i];
      snprintf(part->dataset, sizeof part->dataset, "%.120s/%s", p->record[i].name, part->name);
    }
  }
}

static void plan_block(const qd_run *run, const qd_block *block, plan *p) {
  static const qd_linear_result nothing;
  p->entry = (qd_entry){.block = block->index, .record = p->record, .file = p->file};
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    const qd_linear_result *result = qd_role_is_linear(weight->slot.role) ? &run->result[weight->slot.role] : &nothing;
    qd_record_of_weight(weight, result, &p->record[p->entry.n_records], p->tensor[p->entry.n_records]);
    p->entry.n_records++;
  }
  if (block->index != QD_REST && qd_run_calibrates(run))
    for (qd_stage s = 0; s < QD_N_STAGES; s++, p->entry.n_records++)
      qd_record_of_input(&run->input[s], block->index, &p->record[p->entry.n_records], p->tensor[p->entry.n_records]);
  if (block->index != QD_REST) p->entry.facts = qd_report_facts(&run->report);
  cut_files(p, block->index, run->job->shard_bytes);
}

static qd_status write_file(plan *p, int file) {
  qd_out_tensor out[MAX_TENSORS];
  int n = 0;
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; p->file_of[i] == file && k < p->record[i].n_parts; k++) {
      QD_ASSERT(n < MAX_TENSORS);
      out[n++] = (qd_out_tensor){.dataset = p->record[i].part[k].dataset, .tensor = p->tensor[i][k]};
    }
  char name[sizeof p->file[0].name];
  memcpy(name, p->file[file].name, sizeof name);
  return qd_store_write_file(p->run->job->output, name, out, n, &p->file[file], p->digest[file]);
}

static void take_digests(plan *p, int file) {
  int n = 0;
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; p->file_of[i] == file && k < p->record[i].n_parts; k++) p->record[i].part[k].digest = p->digest[file][n++];
}

static int writer_of(const plan *p, int file) {
  return p->entry.block == QD_REST ? 0 : (int)((p->entry.block + file) % p->run->comm->size);
}

static bool is_mine(const plan *p, int file) { return writer_of(p, file) == p->run->comm->rank; }

static void take_times(const plan *p, qd_run *run) {
  for (int f = 0; f < p->entry.n_files; f++) {
    if (!is_mine(p, f)) continue;
    run->times.seconds[QD_TIME_COMPRESS] += p->file[f].compress_seconds;
    run->times.seconds[QD_TIME_WRITE] += p->file[f].write_seconds;
  }
}

/* What this rank writes must outlive the block: the next one takes its place in memory. */
static qd_status copy_my_tensors(plan *p, qd_arena *arena) {
  qd_arena_rewind(arena, 0);
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; is_mine(p, p->file_of[i]) && k < p->record[i].n_parts; k++) {
      qd_tensor *tensor = &p->tensor[i][k];
      const void *from = tensor->data;
      QD_TRY(qd_arena_new(arena, qd_tensor_bytes(*tensor), 1, &tensor->data));
      memcpy(tensor->data, from, qd_tensor_bytes(*tensor));
    }
  return QD_OK;
}

static qd_status write_my_files(void *context) {
  plan *p = context;
  for (int f = 0; f < p->entry.n_files; f++)
    if (is_mine(p, f)) QD_TRY(write_file(p, f));
  return QD_OK;
}

static void release_plan(plan *p) {
  if (p == NULL) return;
  for (int i = 0; i < p->entry.n_records; i++) qd_json_free(p->record[i].facts);
  qd_json_free(p->entry.facts);
  qd_heap_free(p);
}

static qd_status gather_files(plan *p) {
  qd_comm *comm = p->run->comm;
  for (int f = 0; f < p->entry.n_files; f++) {
    QD_TRY(qd_comm_bcast(comm, &p->file[f], sizeof p->file[f], writer_of(p, f)));
    QD_TRY(qd_comm_bcast(comm, p->digest[f], sizeof p->digest[f], writer_of(p, f)));
    take_digests(p, f);
  }
  return QD_OK;
}

qd_status qd_write_wait(qd_run *run) {
  qd_moment begin = qd_times_begin(run);
  plan *p = run->writing;
  if (p == NULL) return QD_OK;
  QD_TRY_ALL(run->comm, qd_task_wait(&run->writer));
  take_times(p, run);
  QD_TRY(gather_files(p));
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? qd_store_journal(run->job->output, &p->entry) : QD_OK);
  int64_t block = p->entry.block;
  if (block != QD_REST) QD_TRY(qd_keep_note(run, block + 1));
  double seconds = p->seconds, loss = p->loss;
  run->writing = NULL;
  release_plan(p);
  qd_times_end(run, begin, QD_TIME_STORE);
  return block == QD_REST ? QD_OK : qd_progress_block(run, block, seconds, loss);
}

static qd_status start_writing(qd_run *run, const qd_block *block, double seconds) {
  plan *p;
  QD_TRY(qd_heap_new(1, sizeof *p, &p));
  run->writing = p;
  p->run = run, p->seconds = seconds, p->loss = qd_progress_loss(run);
  plan_block(run, block, p);
  QD_TRY(copy_my_tensors(p, &run->write_arena));
  return qd_task_start(&run->writer, write_my_files, p);
}

qd_status qd_write(qd_run *run, const qd_block *block, double seconds) {
  QD_TRY(qd_write_wait(run));
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, start_writing(run, block, seconds));
  qd_times_end(run, begin, QD_TIME_STORE);
  return QD_OK;
}

void qd_write_close(qd_run *run) {
  qd_task_close(&run->writer);
  release_plan(run->writing);
  run->writing = NULL;
}

/* ---- embedding, final norm, head ----------------------------------------------------------------------------------------- */

static qd_status load_values(qd_run *run, const qd_source_tensor *tensor, qd_weight *weight) {
  int64_t index;
  QD_TRY(qd_arena_new(&run->block_arena, (size_t)tensor->bytes, 1, &weight->original.data));
  QD_TRY(qd_source_read(run->source, tensor, 0, weight->original.data, (size_t)tensor->bytes));
  QD_TRY(qd_find_nonfinite(run->device, weight->original, &index));
  QD_CHECK(index < 0, QD_EBADINPUT, "%s: element %" PRId64 " of %s is NaN or infinite", run->job->model, index,
           weight->slot.name);
  qd_digest_of(weight->original.data, (size_t)tensor->bytes, &weight->source);
  return QD_OK;
}

/* The coordinator loads and writes; the others know the shapes. */
static qd_status load_rest(qd_run *run, qd_block *rest) {
  qd_slot slots[QD_MAX_SLOTS];
  qd_arena_rewind(&run->block_arena, 0);
  *rest = (qd_block){.index = QD_REST, .n = qd_model_slots(&run->model, QD_REST, slots)};
  for (int i = 0; i < rest->n; i++) {
    const qd_source_tensor *tensor = qd_source_find(run->source, slots[i].name);
    qd_weight *weight = &rest->weight[i];
    *weight = (qd_weight){.slot = slots[i], .dtype = tensor->dtype};
    weight->original = slots[i].rank == 2 ? qd_tensor_2d(NULL, tensor->dtype, slots[i].dim[0], slots[i].dim[1])
                                          : qd_tensor_1d(NULL, tensor->dtype, slots[i].dim[0]);
    if (run->comm->rank == 0) QD_TRY(load_values(run, tensor, weight));
  }
  return QD_OK;
}

/* One block more, whose only writer is the coordinator. */
qd_status qd_write_rest(qd_run *run) {
  qd_block rest;
  QD_TRY_ALL(run->comm, load_rest(run, &rest));
  QD_TRY(qd_write(run, &rest, 0));
  return qd_write_wait(run);
}
