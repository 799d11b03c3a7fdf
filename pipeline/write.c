/* A finished block to disk.  Records are put into files in order, a new file begins when the shard size would be passed: the cut depends on the
 * job alone.  Each file is compressed and written by one rank, blocks in turn; when all are on disk the coordinator notes it in the journal. */
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/stages.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RECORDS = QD_MAX_SLOTS + QD_N_STAGES, MAX_FILES = MAX_RECORDS };

typedef struct plan {
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
  cut_files(p, block->index, run->job->shard_bytes);
}

static qd_status write_file(const qd_run *run, plan *p, int file, qd_digest *digests) {
  qd_out_tensor out[MAX_RECORDS * 4];
  int n = 0;
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; p->file_of[i] == file && k < p->record[i].n_parts; k++) {
      QD_ASSERT(n < MAX_RECORDS * 4);
      out[n++] = (qd_out_tensor){.dataset = p->record[i].part[k].dataset, .tensor = p->tensor[i][k]};
    }
  char name[sizeof p->file[0].name];
  memcpy(name, p->file[file].name, sizeof name);
  return qd_store_write_file(run->job->output, name, out, n, &p->file[file], digests);
}

static void take_digests(plan *p, int file, const qd_digest *digests) {
  int n = 0;
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; p->file_of[i] == file && k < p->record[i].n_parts; k++) p->record[i].part[k].digest = digests[n++];
}

static int writer_of(const qd_run *run, int64_t block, int file) {
  return block == QD_REST ? 0 : (int)((block + file) % run->comm->size);
}

static qd_status write_my_files(const qd_run *run, plan *p, qd_digest digests[][MAX_RECORDS * 4]) {
  for (int f = 0; f < p->entry.n_files; f++)
    if (writer_of(run, p->entry.block, f) == run->comm->rank) QD_TRY(write_file(run, p, f, digests[f]));
  return QD_OK;
}

static void release_plan(plan *p) {
  for (int i = 0; i < p->entry.n_records; i++) qd_json_free(p->record[i].facts);
  qd_heap_free(p);
}

static qd_status gather_files(const qd_run *run, plan *p, qd_digest digests[][MAX_RECORDS * 4]) {
  for (int f = 0; f < p->entry.n_files; f++) {
    int writer = writer_of(run, p->entry.block, f);
    QD_TRY(qd_comm_bcast(run->comm, &p->file[f], sizeof p->file[f], writer));
    QD_TRY(qd_comm_bcast(run->comm, digests[f], sizeof digests[f], writer));
    take_digests(p, f, digests[f]);
  }
  return QD_OK;
}

qd_status qd_write(qd_run *run, const qd_block *block) {
  double start = qd_seconds();
  plan *p = NULL;
  qd_digest(*digests)[MAX_RECORDS * 4] = NULL;
  qd_status status = qd_heap_new(1, sizeof *p, &p);
  if (status == QD_OK) status = qd_heap_new(MAX_FILES, sizeof *digests, &digests);
  if (status == QD_OK) plan_block(run, block, p);
  status = qd_agree(run->comm, status == QD_OK ? write_my_files(run, p, digests) : status);
  if (status == QD_OK) status = gather_files(run, p, digests);
  if (status == QD_OK) status = qd_agree(run->comm, run->comm->rank == 0 ? qd_store_journal(run->job->output, &p->entry) : QD_OK);
  if (p != NULL) release_plan(p);
  qd_heap_free(digests);
  run->seconds.write += qd_seconds() - start;
  return status;
}

/* ---- embedding, final norm, head -------------------------------------------------------------------------------------------------------------- */

static qd_status load_rest(qd_run *run, qd_block *rest, qd_arena *arena) {
  qd_slot slots[QD_MAX_SLOTS];
  *rest = (qd_block){.index = QD_REST, .n = qd_model_slots(&run->model, QD_REST, slots)};
  for (int i = 0; i < rest->n; i++) {
    const qd_source_tensor *tensor = qd_source_find(run->source, slots[i].name);
    qd_weight *weight = &rest->weight[i];
    *weight = (qd_weight){.slot = slots[i], .dtype = tensor->dtype};
    weight->original = slots[i].rank == 2 ? qd_tensor_2d(NULL, tensor->dtype, slots[i].dim[0], slots[i].dim[1])
                                          : qd_tensor_1d(NULL, tensor->dtype, slots[i].dim[0]);
    QD_TRY(qd_arena_new(arena, (size_t)tensor->bytes, 1, &weight->original.data));
    QD_TRY(qd_source_read(run->source, tensor, 0, weight->original.data, (size_t)tensor->bytes));
    int64_t index;
    QD_TRY(qd_find_nonfinite(run->device, weight->original, &index));
    QD_CHECK(index < 0, QD_EBADINPUT, "%s: element %" PRId64 " of %s is NaN or infinite", run->job->model, index, slots[i].name);
    qd_digest_of(weight->original.data, (size_t)tensor->bytes, &weight->source);
  }
  return QD_OK;
}

static qd_status load_rest_everywhere(qd_run *run, qd_block *rest) {
  qd_arena_rewind(&run->block_arena, 0);
  if (run->comm->rank == 0) return load_rest(run, rest, &run->block_arena);
  *rest = (qd_block){.index = QD_REST};
  return QD_OK;
}

qd_status qd_write_rest(qd_run *run) {
  qd_block rest;
  QD_TRY_ALL(run->comm, load_rest_everywhere(run, &rest));
  plan *p;
  QD_TRY(qd_heap_new(1, sizeof *p, &p));
  qd_digest *digests = NULL;
  qd_status status = qd_heap_new(MAX_RECORDS * 4, sizeof *digests, &digests);
  if (status == QD_OK) plan_block(run, &rest, p);
  for (int f = 0; status == QD_OK && run->comm->rank == 0 && f < p->entry.n_files; f++) {
    status = write_file(run, p, f, digests);
    take_digests(p, f, digests);
  }
  if (status == QD_OK && run->comm->rank == 0) status = qd_store_journal(run->job->output, &p->entry);
  release_plan(p);
  qd_heap_free(digests);
  return qd_agree(run->comm, status);
}
