#include "pipeline/evaluate/subject.h"

#include "kernels/base/heap.h"
#include "pipeline/plan.h"
#include "pipeline/record.h"
#include "pipeline/same_model.h"
#include "storage/bytes.h"
#include "workers/agree.h"

#include <stdio.h>
#include <string.h>

bool qd_subject_is_store(const char *path) {
  char manifest[4096], partial[4096];
  snprintf(manifest, sizeof manifest, "%s/manifest.json", path);
  snprintf(partial, sizeof partial, "%s/partial/job.json", path);
  return qd_file_exists(manifest) || qd_file_exists(partial);
}

static qd_status open_store(qd_subject *subject) {
  char what[4096];
  qd_json *config;
  QD_TRY(qd_store_open(subject->path, false, &subject->store));
  snprintf(what, sizeof what, "%s/config.json", subject->path);
  QD_TRY(qd_json_read(what, (size_t)64 << 20, &config));
  qd_status status = qd_model_from_config(config, what, &subject->model);
  qd_json_free(config);
  QD_TRY(status);
  QD_TRY(qd_feed_check_store(&subject->store, &subject->model));
  subject->model.dtype = qd_feed_record(&subject->store.rest, QD_EMBEDDING, -1)->dtype;
  return QD_OK;
}

/* What the store was made with. */
static qd_status store_arithmetic(const qd_store *store, qd_arithmetic *out) {
  const qd_json *stored = qd_json_get(store->job, "arithmetic");
  if (stored == NULL || !qd_json_is_text(stored)) return QD_OK;
  for (*out = QD_ARITHMETIC_F32; *out <= QD_ARITHMETIC_BF16_AMX; ++*out)
    if (strcmp(qd_json_text(stored), qd_arithmetic_name(*out)) == 0) return QD_OK;
  QD_FAIL(QD_EUNSUPPORTED,
          "%s was made with the arithmetic \"%.64s\", which this program does not know; --arithmetic chooses another",
          store->folder, qd_json_text(stored));
}

static bool multiplies_codes(const qd_store *store) {
  for (int64_t b = QD_REST; b < store->n_blocks; b++) {
    const qd_entry *entry = qd_feed_entry(store, b);
    for (int i = 0; i < entry->n_records; i++) {
      const qd_record *record = &entry->record[i];
      if (qd_record_is_quantized(record) && strcmp(record->role, qd_role_name(QD_EMBEDDING)) != 0) return true;
    }
  }
  return false;
}

static qd_status check_int8(const qd_subject *subject) {
  QD_CHECK(subject->source == NULL && multiplies_codes(&subject->store), QD_EUSAGE,
           "--arithmetic int8 is one of products with quantized weights, and %s has none", subject->path);
  return QD_OK;
}

static qd_status choose_arithmetic(qd_subject *subject, qd_compute compute) {
  subject->arithmetic = qd_compute_arithmetic(compute, subject->model.dtype);
  if (compute == QD_COMPUTE_MODEL && subject->source == NULL) QD_TRY(store_arithmetic(&subject->store, &subject->arithmetic));
  if (compute == QD_COMPUTE_INT8) QD_TRY(check_int8(subject));
  subject->act = qd_arithmetic_act(subject->arithmetic);
  return qd_device_use_arithmetic(subject->device, subject->arithmetic);
}

static qd_status open_local(qd_subject *subject, qd_compute compute) {
  if (qd_subject_is_store(subject->path)) {
    QD_TRY(open_store(subject));
  } else {
    QD_TRY(qd_source_open(subject->path, &subject->source));
    QD_TRY(qd_model_from_source(subject->source, &subject->model));
  }
  QD_TRY(choose_arithmetic(subject, compute));
  return qd_arena_open(&subject->block_arena, "block",
                       qd_plan_evaluated_block(&subject->model, subject->act, subject->comm->rank, subject->comm->size));
}

qd_status qd_subject_open(qd_subject *subject, const char *path, qd_compute compute, qd_comm *comm, qd_device *device) {
  *subject = (qd_subject){.path = path, .comm = comm, .device = device};
  QD_TRY(qd_agree(comm, open_local(subject, compute)));
  return subject->source != NULL ? qd_same_model(subject->source, comm) : qd_same_store(path, comm);
}

static bool has_experts(const qd_subject *subject) { return qd_model_has_blocks(&subject->model, true); }

static qd_acts_shape acts_shape(const qd_subject *subject, int64_t windows, int64_t tokens) {
  return (qd_acts_shape){.dtype = subject->act,
                         .sequences = windows,
                         .tokens = tokens,
                         .hidden = subject->model.hidden,
                         .widest = qd_decoder_mid_widest(&subject->model)};
}

qd_device qd_subject_device(const qd_subject *subject) {
  qd_device device = *subject->device;
  device.arithmetic = subject->arithmetic;
  return device;
}

size_t qd_subject_window_bytes(const qd_subject *subject, int64_t tokens) {
  qd_acts_shape one = acts_shape(subject, 1, tokens);
  return has_experts(subject) ? qd_acts_bytes(&one) : qd_acts_h_bytes(&one);
}

qd_experts_shape qd_subject_experts(const qd_subject *subject, int64_t windows, int64_t tokens) {
  int ranks = subject->comm->size;
  return (qd_experts_shape){.model = &subject->model,
                            .act = subject->act,
                            .tokens = tokens,
                            .sequences = windows,
                            .all_sequences = windows * ranks,
                            .ranks = ranks};
}

/* Without experts a window goes through a block by itself, and all share one mid. */
size_t qd_subject_acts_bytes(const qd_subject *subject, int64_t windows, int64_t tokens) {
  qd_acts_shape shape = acts_shape(subject, windows, tokens);
  return has_experts(subject) ? qd_acts_bytes(&shape)
                              : qd_plan_activations(&subject->model, subject->act, tokens, windows, 1);
}

static qd_status reserve(qd_subject *subject, int64_t windows, int64_t tokens) {
  qd_acts_shape shape = acts_shape(subject, windows, tokens);
  bool all = has_experts(subject);
  QD_TRY(qd_arena_open(&subject->acts_arena, "activations", qd_subject_acts_bytes(subject, windows, tokens)));
  subject->h = qd_tensor_3d(NULL, subject->act, windows, tokens, subject->model.hidden);
  if (all) {
    QD_TRY(qd_acts_open(&subject->acts, &shape, &subject->acts_arena));
    subject->h.data = subject->acts.h;
  } else {
    QD_TRY(qd_arena_new(&subject->acts_arena, (size_t)windows, qd_acts_h_bytes(&shape), &subject->h.data));
    QD_TRY(qd_arena_new(&subject->acts_arena, qd_acts_mid_bytes(&shape), 1, &subject->mid));
  }
  return qd_decoder_open(&subject->decoder, subject->device, &subject->model, subject->act, tokens);
}

qd_status qd_subject_reserve(qd_subject *subject, int64_t windows, int64_t tokens) {
  qd_experts_shape shape = qd_subject_experts(subject, windows, tokens);
  qd_subject_release(subject);
  QD_TRY(qd_agree(subject->comm, reserve(subject, windows, tokens)));
  return qd_experts_open(&subject->experts, &shape, subject->comm, &subject->decoder, &subject->acts);
}

/* ---- forward ------------------------------------------------------------------------------------------------------------- */

/* Two subjects share a device; its unit was tried when the subject was opened. */
static void take_device(qd_subject *subject) { subject->device->arithmetic = subject->arithmetic; }

static qd_status next(qd_subject *subject, qd_block *block) {
  qd_arena_rewind(&subject->block_arena, 0);
  QD_TRY(qd_feed_next(&subject->feed, block));
  QD_TRY_ALL(subject->comm, qd_block_check_finite(block, subject->device, subject->path));
  return qd_agree(subject->comm, qd_block_prepare(block, subject->act, &subject->block_arena));
}

static qd_status embed(qd_subject *subject, qd_block *rest, qd_tensor ids) {
  for (int64_t i = 0; i < ids.dim[0]; i++)
    QD_TRY(qd_decoder_embed(&subject->decoder, rest, qd_tensor_at(ids, i), qd_tensor_at(subject->h, i)));
  return QD_OK;
}

/* With one window a weight is used once: then it is multiplied as it is stored, as an expert's always is.  Same bits either
 * way; int8 is an arithmetic of weights as they are stored. */
static qd_status expand(qd_subject *subject, qd_block *block, int64_t windows) {
  bool is_used_often = windows > 1 && subject->arithmetic != QD_ARITHMETIC_INT8;
  for (int i = 0; is_used_often && i < block->n; i++)
    if (block->weight[i].quantized && block->weight[i].slot.expert < 0)
      QD_TRY(qd_weight_expand(subject->device, &block->weight[i], subject->act, &subject->block_arena));
  return QD_OK;
}

static void *mid_of(const qd_subject *subject, int64_t window) {
  if (subject->mid != NULL) return subject->mid;
  return subject->acts.mid + (size_t)window * qd_acts_mid_bytes(&subject->acts.shape);
}

static qd_status run_window(qd_subject *subject, qd_block *block, int64_t window, int64_t tokens) {
  qd_tensor h = qd_tensor_rows(qd_tensor_at(subject->h, window), 0, tokens);
  void *mid = mid_of(subject, window);
  qd_decoder_set_tokens(&subject->decoder, tokens);
  QD_TRY(qd_decoder_enter(&subject->decoder, block, h, mid));
  QD_FOR_STAGES(stage, &subject->model, block->index)
    QD_TRY(qd_decoder_advance(&subject->decoder, block, stage, h, mid));
  return QD_OK;
}

static qd_status run_dense(qd_subject *subject, qd_block *block, int64_t windows) {
  int64_t tokens = subject->h.dim[1];
  QD_TRY(expand(subject, block, windows));
  for (int64_t i = 0; i < windows; i++)
    QD_TRY(run_window(subject, block, i, subject->length != NULL ? subject->length[i] : tokens));
  qd_decoder_set_tokens(&subject->decoder, tokens);
  return QD_OK;
}

static qd_status enter(qd_subject *subject, qd_block *block, int64_t windows) {
  QD_TRY(expand(subject, block, windows));
  for (int64_t i = 0; i < windows; i++)
    QD_TRY(qd_decoder_enter(&subject->decoder, block, qd_tensor_at(subject->h, i), mid_of(subject, i)));
  return QD_OK;
}

static qd_status advance(qd_subject *subject, qd_block *block, qd_stage stage, int64_t windows) {
  for (int64_t i = 0; i < windows; i++)
    QD_TRY(qd_decoder_advance(&subject->decoder, block, stage, qd_tensor_at(subject->h, i), mid_of(subject, i)));
  return QD_OK;
}

/* All windows of all ranks stage by stage, since their tokens travel together. */
static qd_status run_sparse(qd_subject *subject, qd_block *block, int64_t windows) {
  subject->acts.shape.sequences = windows;
  QD_TRY_ALL(subject->comm, enter(subject, block, windows));
  QD_FOR_STAGES(stage, &subject->model, block->index) {
    if (stage == QD_STAGE_EXPERT_DOWN) QD_TRY(qd_experts_advance(&subject->experts, block));
    if (!qd_stage_is_routed(stage)) QD_TRY_ALL(subject->comm, advance(subject, block, stage, windows));
    if (stage == QD_STAGE_O) QD_TRY(qd_experts_route(&subject->experts, block));
  }
  return QD_OK;
}

qd_status qd_subject_block(qd_subject *subject, qd_block *block, int64_t windows) {
  if (qd_model_is_sparse(&subject->model, block->index)) return run_sparse(subject, block, windows);
  QD_TRY_ALL(subject->comm, run_dense(subject, block, windows));
  return QD_OK;
}

static qd_status final_norm(qd_subject *subject, qd_block *rest, int64_t windows) {
  for (int64_t i = 0; i < windows; i++) QD_TRY(qd_decoder_final_norm(&subject->decoder, rest, qd_tensor_at(subject->h, i)));
  return QD_OK;
}

qd_feed qd_subject_feed(const qd_subject *subject) {
  bool stored = subject->source == NULL;
  return (qd_feed){.model = &subject->model, .source = subject->source, .store = stored ? &subject->store : NULL,
                   .blocks_stored = stored ? subject->model.n_blocks : 0, .readers = subject->readers};
}

qd_status qd_subject_forward(qd_subject *subject, qd_tensor ids, qd_block *rest) {
  qd_block block;
  take_device(subject);
  subject->feed = qd_subject_feed(subject);
  QD_TRY(qd_feed_open(&subject->feed, subject->comm));
  QD_TRY(next(subject, &block));
  QD_TRY(qd_agree(subject->comm, embed(subject, &block, ids)));
  for (int64_t b = 0; b < subject->model.n_blocks; b++) {
    QD_TRY(next(subject, &block));
    QD_TRY(qd_subject_block(subject, &block, ids.dim[0]));
  }
  QD_TRY(next(subject, rest));
  return qd_agree(subject->comm, final_norm(subject, rest, ids.dim[0]));
}

qd_status qd_subject_logits(qd_subject *subject, qd_block *rest, qd_tensor rows, qd_tensor logits) {
  take_device(subject);
  return qd_decoder_logits(&subject->decoder, rest, rows, logits);
}

void qd_subject_forward_done(qd_subject *subject) { qd_feed_close(&subject->feed); }

void qd_subject_release(qd_subject *subject) {
  qd_experts_close(&subject->experts);
  qd_acts_close(&subject->acts);
  qd_decoder_close(&subject->decoder);
  qd_arena_close(&subject->acts_arena);
  subject->mid = NULL;
}

void qd_subject_close(qd_subject *subject) {
  qd_feed_close(&subject->feed);
  qd_subject_release(subject);
  qd_arena_close(&subject->block_arena);
  qd_store_close(&subject->store);
  qd_source_close(subject->source);
}
