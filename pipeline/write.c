/* A finished block to disk, behind the work on the next one.  Records are put into files in order, a new file begins when the
 * shard size would be passed: the cut depends on the job alone.  Each file is compressed and written by one rank, blocks in
 * turn, in a thread of its own from a copy of its data; when all are on disk the coordinator notes it in the journal. */
#include "kernels/base/heap.h"
#include "pipeline/keep.h"
#include "pipeline/progress.h"
#include "pipeline/stages.h"

#include <stdio.h>
#include <string.h>

typedef struct plan {
  const qd_run *run;
  double        seconds, loss; /* of the block */
  qd_entry      entry;
  qd_record    *record;
  qd_entry_file *file;
  int          *file_of;                /* by record */
  qd_tensor   (*tensor)[QD_MAX_PARTS];  /* by record: its parts */
  qd_digest   (*digest)[QD_MAX_PARTS];
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
      char dataset[sizeof part->dataset];
      snprintf(dataset, sizeof dataset, "%.120s/%s", p->record[i].name, part->name);
      memcpy(part->dataset, dataset, sizeof dataset);
    }
  }
}

static void add_input(plan *p, const qd_input_result *input) {
  qd_record_of_input(input, p->entry.block, &p->record[p->entry.n_records], p->tensor[p->entry.n_records]);
  p->entry.n_records++;
}

static void plan_inputs(const qd_run *run, plan *p) {
  QD_FOR_STAGES(stage, &run->model, p->entry.block) {
    if (!qd_stage_is_routed(stage)) add_input(p, &run->input[stage]);
    for (int64_t e = 0; qd_stage_is_routed(stage) && e < run->model.experts; e++)
      add_input(p, &run->expert_input[stage - QD_STAGE_EXPERT_GATE_UP][e]);
  }
}

/* Of the rest only where its head was calibrated. */
static bool has_inputs(const qd_run *run, const qd_block *block) {
  bool head = false;
  for (int i = 0; i < block->n; i++) head = head || (block->weight[i].slot.role == QD_HEAD && block->weight[i].quantized);
  return qd_run_calibrates(run) && (block->index != QD_REST || head);
}

static void plan_block(const qd_run *run, const qd_block *block, plan *p) {
  p->entry = (qd_entry){.block = block->index, .record = p->record, .file = p->file};
  for (int i = 0; i < block->n; i++, p->entry.n_records++)
    qd_record_of_weight(&block->weight[i], &p->record[p->entry.n_records], p->tensor[p->entry.n_records]);
  if (has_inputs(run, block)) plan_inputs(run, p);
  if (block->index != QD_REST) p->entry.facts = qd_report_facts(&run->report);
  cut_files(p, block->index, run->job->shard_bytes);
}

static int parts_of_file(const plan *p, int file) {
  int n = 0;
  for (int i = 0; i < p->entry.n_records; i++) n += p->file_of[i] == file ? p->record[i].n_parts : 0;
  return n;
}

/* The parts of a file, in order, with `digest` a list of theirs. */
static qd_status write_parts(plan *p, int file, qd_out_tensor *out, qd_digest *digest) {
  int n = 0;
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; p->file_of[i] == file && k < p->record[i].n_parts; k++)
      out[n++] = (qd_out_tensor){.dataset = p->record[i].part[k].dataset, .tensor = p->tensor[i][k]};
  char name[sizeof p->file[0].name];
  memcpy(name, p->file[file].name, sizeof name);
  QD_TRY(qd_store_write_file(p->run->job->output, name, out, n, &p->file[file], digest));
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; p->file_of[i] == file && k < p->record[i].n_parts; k++) p->digest[i][k] = *digest++;
  return QD_OK;
}

static qd_status write_file(plan *p, int file) {
  size_t parts = (size_t)parts_of_file(p, file);
  qd_out_tensor *out;
  qd_digest *digest = NULL;
  QD_TRY(qd_heap_new(parts, sizeof *out, &out));
  qd_status status = qd_heap_new(parts, sizeof *digest, &digest);
  if (status == QD_OK) status = write_parts(p, file, out, digest);
  qd_heap_free(digest);
  qd_heap_free(out);
  return status;
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
static qd_status make_room(plan *p, qd_arena *arena, void *(*room)[QD_MAX_PARTS]) {
  qd_arena_rewind(arena, 0);
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; is_mine(p, p->file_of[i]) && k < p->record[i].n_parts; k++)
      QD_TRY(qd_arena_new(arena, qd_tensor_bytes(p->tensor[i][k]), 1, &room[i][k]));
  return QD_OK;
}

/* What only its owner has: codes of experts that were made in this run, and what is known of their inputs. */
static int holder_of(const plan *p, const qd_block *block, int i) {
  const qd_run *run = p->run;
  bool made = i >= block->n || (block->weight[i].quantized && block->weight[i].slot.expert >= 0);
  int writer = writer_of(p, p->file_of[i]);
  return made && p->record[i].expert >= 0 ? qd_partition_expert(p->record[i].expert, run->comm->size) : writer;
}

/* In the order of the records on every rank, so that sender and writer meet. */
static qd_status copy_tensors(plan *p, const qd_block *block, void *(*room)[QD_MAX_PARTS]) {
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; k < p->record[i].n_parts; k++) {
      qd_tensor *tensor = &p->tensor[i][k];
      QD_TRY(qd_comm_move(p->run->comm, tensor->data, room[i][k], qd_tensor_bytes(*tensor), holder_of(p, block, i),
                          writer_of(p, p->file_of[i])));
      tensor->data = room[i][k];
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
  qd_heap_free(p->record);
  qd_heap_free(p->file);
  qd_heap_free(p->file_of);
  qd_heap_free(p->tensor);
  qd_heap_free(p->digest);
  qd_heap_free(p);
}

static qd_status gather_files(plan *p) {
  qd_comm *comm = p->run->comm;
  for (int first = 0, end; first < p->entry.n_records; first = end) { /* a file's records follow each other */
    int f = p->file_of[first];
    for (end = first; end < p->entry.n_records && p->file_of[end] == f;) end++;
    QD_TRY(qd_comm_bcast(comm, &p->file[f], sizeof p->file[f], writer_of(p, f)));
    QD_TRY(qd_comm_bcast(comm, p->digest[first], (size_t)(end - first) * sizeof *p->digest, writer_of(p, f)));
  }
  for (int i = 0; i < p->entry.n_records; i++)
    for (int k = 0; k < p->record[i].n_parts; k++) p->record[i].part[k].digest = p->digest[i][k];
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

static qd_status new_plan(qd_run *run, const qd_block *block, double seconds) {
  plan *p;
  size_t most = (size_t)block->n + QD_N_STAGES + 2 * (size_t)run->model.experts;
  QD_TRY(qd_heap_new(1, sizeof *p, &p));
  run->writing = p;
  p->run = run, p->seconds = seconds, p->loss = qd_progress_loss(block);
  QD_TRY(qd_heap_new(most, sizeof *p->record, &p->record));
  QD_TRY(qd_heap_new(most, sizeof *p->file, &p->file));
  QD_TRY(qd_heap_new(most, sizeof *p->file_of, &p->file_of));
  QD_TRY(qd_heap_new(most, sizeof *p->tensor, &p->tensor));
  QD_TRY(qd_heap_new(most, sizeof *p->digest, &p->digest));
  plan_block(run, block, p);
  return QD_OK;
}

static qd_status take_tensors(qd_run *run, const qd_block *block) {
  plan *p = run->writing;
  void *(*room)[QD_MAX_PARTS] = NULL;
  qd_status status = qd_heap_new((size_t)p->entry.n_records, sizeof *room, &room);
  if (status == QD_OK) status = make_room(p, &run->write_arena, room);
  status = qd_agree(run->comm, status);
  if (status == QD_OK) status = copy_tensors(p, block, room);
  qd_heap_free(room);
  return status;
}

qd_status qd_write(qd_run *run, const qd_block *block, double seconds) {
  QD_TRY(qd_write_wait(run));
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, new_plan(run, block, seconds));
  QD_TRY(take_tensors(run, block));
  QD_TRY_ALL(run->comm, qd_task_start(&run->writer, write_my_files, run->writing));
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

static qd_status load_plain(qd_run *run, qd_weight *weight) {
  const qd_slot *slot = &weight->slot;
  const qd_source_tensor *tensor = qd_model_original(&run->model, run->source, slot);
  weight->dtype = tensor->dtype;
  weight->original = slot->rank == 2 ? qd_tensor_2d(NULL, tensor->dtype, slot->dim[0], slot->dim[1])
                                     : qd_tensor_1d(NULL, tensor->dtype, slot->dim[0]);
  return run->comm->rank == 0 ? load_values(run, tensor, weight) : QD_OK;
}

/* What an earlier call wrote quantized; the others know the shapes. */
static qd_status read_back(qd_run *run, const qd_store *written, qd_weight *weight) {
  qd_scheme scheme;
  const qd_source_tensor *tensor = qd_model_original(&run->model, run->source, &weight->slot);
  qd_job_rest_scheme(run->job, weight->slot.role, weight->slot.dim[1], &scheme);
  weight->quantized = true;
  weight->dtype = tensor->dtype;
  weight->q = qd_qtensor_shape(scheme, weight->slot.dim[0], weight->slot.dim[1], false);
  if (run->comm->rank != 0) return QD_OK;
  const qd_record *record = qd_feed_record(&written->rest, weight->slot.role, weight->slot.expert);
  QD_CHECK(record != NULL && qd_record_is_quantized(record), QD_ECORRUPT,
           "%s: %s, which was written quantized, is gone from what is stored", run->job->output, weight->slot.name);
  weight->source = record->source, weight->facts = record->facts;
  for (int i = 0; i < record->n_parts; i++) {
    const qd_stored_part *part = &record->part[i];
    void *data;
    QD_TRY(qd_arena_new(&run->block_arena, qd_stored_part_bytes(part), 1, &data));
    QD_TRY(qd_store_read_part(written, &written->rest, part, data));
    QD_TRY(qd_record_bind_part(record, i, data, &weight->q));
  }
  return QD_OK;
}

static qd_status load_weight(qd_run *run, const qd_store *written, qd_block *made, qd_weight *weight) {
  const qd_weight *known = made != NULL ? qd_block_find(made, weight->slot.role) : NULL;
  if (known != NULL && known->quantized) return *weight = *known, QD_OK;
  bool before = weight->slot.role == QD_EMBEDDING && written != NULL && qd_job_quantizes(run->job, QD_EMBEDDING, &run->model);
  return before ? read_back(run, written, weight) : load_plain(run, weight);
}

/* The coordinator loads and writes; the others know the shapes. */
static qd_status load_rest(qd_run *run, const qd_store *written, qd_block *made, qd_block *rest) {
  if (made == NULL) qd_arena_rewind(&run->block_arena, 0);
  rest->index = QD_REST, rest->n = qd_model_n_slots(&run->stored_model, QD_REST);
  for (int i = 0; i < rest->n; i++) {
    rest->weight[i] = (qd_weight){0};
    qd_model_slot(&run->stored_model, QD_REST, i, &rest->weight[i].slot);
    QD_TRY(load_weight(run, written, made, &rest->weight[i]));
  }
  return QD_OK;
}

static qd_status write_over(qd_run *run, const qd_store *written, qd_block *made) {
  qd_weight weights[QD_N_ROLES];
  qd_block rest = {.weight = weights};
  QD_TRY_ALL(run->comm, load_rest(run, written, made, &rest));
  QD_TRY(qd_write(run, &rest, 0));
  return qd_write_wait(run);
}

/* One block more, whose only writer is the coordinator. */
qd_status qd_write_rest(qd_run *run, qd_block *made) {
  qd_store written = {0};
  bool again = made != NULL && qd_block_find(made, QD_HEAD) != NULL;
  QD_TRY(qd_write_wait(run));
  QD_TRY_ALL(run->comm, again && run->comm->rank == 0 ? qd_store_open(run->job->output, true, &written) : QD_OK);
  qd_status status = write_over(run, again ? &written : NULL, made);
  qd_store_close(&written);
  return status;
}
