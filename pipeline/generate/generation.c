#include "pipeline/generate/generation.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/generate/new_text.h"
#include "workers/agree.h"
#include "workers/interrupt.h"

#include <stdio.h>
#include <string.h>

enum { MOST_EOS = 16, MOST_PROMPT_BYTES = 64 << 20 };

typedef enum ending { GOES_ON, BY_EOS, BY_STOP, BY_LENGTH } ending;

typedef struct work {
  const qd_generation_request *request;
  qd_comm      *comm;
  qd_device    *device;
  qd_resident   resident;
  qd_tokenizer *tokenizer; /* this and what follows: rank 0 */
  int32_t      *ids;
  size_t        n_ids, capacity;
  int32_t       eos[MOST_EOS];
  int           n_eos;
  qd_new_text   text;
  int64_t       prompt_tokens, new_tokens; /* of all ranks */
  int64_t       most_new;
} work;

/* ---- prompt -------------------------------------------------------------------------------------------------------------- */

static void add_eos(work *g, const qd_json *id) {
  if (id != NULL && g->n_eos < MOST_EOS && qd_json_is_integer(id)) g->eos[g->n_eos++] = (int32_t)qd_json_integer(id);
}

/* A number or a list of them; generation_config.json comes before config.json, as in transformers. */
static void take_eos(work *g, const qd_json *config) {
  const qd_json *value = qd_json_get(config, "eos_token_id");
  if (qd_json_is_array(value))
    for (size_t i = 0; i < qd_json_length(value); i++) add_eos(g, qd_json_at(value, i));
  else add_eos(g, value);
}

static qd_status find_eos(work *g) {
  static const char *const files[] = {"generation_config.json", "config.json"};
  for (size_t i = 0; i < sizeof files / sizeof files[0] && g->n_eos == 0; i++) {
    char *what = NULL;
    qd_json *config = NULL;
    qd_status status = qd_side_file_json(g->request->model, files[i], (size_t)64 << 20, &what, &config);
    qd_heap_free(what);
    if (status == QD_ENOTFOUND) continue;
    QD_TRY(status);
    take_eos(g, config);
    qd_json_free(config);
  }
  return QD_OK;
}

static qd_status encode_prompt(work *g) {
  const qd_generation_request *r = g->request;
  char *read = NULL;
  size_t n = r->prompt_file != NULL ? 0 : strlen(r->prompt);
  if (r->prompt_file != NULL) QD_TRY(qd_file_read(r->prompt_file, MOST_PROMPT_BYTES, &read, &n));
  qd_status status = qd_tokenizer_encode(g->tokenizer, read != NULL ? read : r->prompt, n, r->bos, &g->ids, &g->n_ids);
  g->capacity = g->n_ids;
  qd_heap_free(read);
  return status;
}

static qd_status load_prompt(work *g) {
  const qd_generation_request *r = g->request;
  qd_status status = qd_tokenizer_open(r->model, &g->tokenizer);
  QD_CHECK(status != QD_ENOTFOUND, QD_ENOTFOUND, "%s has no tokenizer.json, without which there is no text", r->model);
  QD_TRY(status);
  int64_t size = qd_tokenizer_size(g->tokenizer), vocabulary = g->resident.subject.model.vocabulary;
  QD_CHECK(size <= vocabulary, QD_EBADINPUT,
           "%s: the tokenizer has %" PRId64 " entries, the model's vocabulary (vocab_size, embedding rows) only %" PRId64,
           r->model, size, vocabulary);
  QD_TRY(find_eos(g));
  QD_TRY(encode_prompt(g));
  g->text = qd_new_text_behind(g->tokenizer, g->n_ids, r->stop, r->n_stops);
  return QD_OK;
}

static qd_status check_lengths(work *g) {
  int64_t positions = g->resident.subject.model.max_positions, room = positions - g->prompt_tokens + 1;
  QD_CHECK(g->prompt_tokens > 0, QD_EINVAL,
           "the prompt has no tokens, and this tokenizer adds none: there is nothing to go on from");
  QD_CHECK(g->prompt_tokens <= positions, QD_EINVAL,
           "the prompt has %" PRId64 " tokens, the model %" PRId64 " positions (max_position_embeddings)", g->prompt_tokens,
           positions);
  g->most_new = g->request->max_new_tokens;
  if (g->most_new == 0) g->most_new = room < QD_USUAL_NEW_TOKENS ? room : QD_USUAL_NEW_TOKENS;
  QD_CHECK(g->most_new <= room, QD_EINVAL,
           "--max-new-tokens %" PRId64 " behind a prompt of %" PRId64 " tokens pass the model's %" PRId64
           " positions (max_position_embeddings)",
           g->most_new, g->prompt_tokens, positions);
  return QD_OK;
}

/* The last token is never looked back at. */
static int64_t positions_of(const work *g) { return g->prompt_tokens + g->most_new - 1; }

static qd_status prepare(work *g) {
  QD_TRY_ALL(g->comm, g->comm->rank == 0 ? load_prompt(g) : QD_OK);
  g->prompt_tokens = (int64_t)g->n_ids;
  QD_TRY(qd_comm_bcast(g->comm, &g->prompt_tokens, sizeof g->prompt_tokens, 0));
  QD_TRY_ALL(g->comm, check_lengths(g));
  return qd_agree(g->comm, qd_resident_check(&g->resident, positions_of(g), g->request->max_host_bytes));
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */

static qd_status choose(work *g, int32_t *token) {
  const qd_resident *r = &g->resident;
  int64_t wrong;
  QD_TRY(qd_find_nonfinite(g->device, r->logits, &wrong));
  QD_CHECK(wrong < 0, QD_ENUMERIC, "%s: a logit behind position %" PRId64 " is not a number: its activations overflow",
           g->request->model, g->prompt_tokens + g->new_tokens - 1);
  *token = qd_sampling_choose(&g->request->sampling, r->logits, (uint64_t)g->new_tokens, r->candidates);
  return QD_OK;
}

static bool is_eos(const work *g, int32_t token) {
  for (int i = 0; i < g->n_eos; i++)
    if (g->eos[i] == token) return true;
  return false;
}

static qd_status show(work *g, bool ends, bool *stopped) {
  size_t ready;
  QD_TRY(qd_new_text_add(&g->text, g->ids, g->n_ids, ends, &ready, stopped));
  const char *text = g->text.text + g->text.emitted;
  g->text.emitted += ready;
  return ready > 0 && g->request->emit != NULL ? g->request->emit(text, ready) : QD_OK;
}

/* An end-of-text token belongs to the tokens, not to the text. */
static qd_status take_token(work *g, int32_t token, ending *how) {
  bool stopped = false;
  *how = g->new_tokens + 1 == g->most_new ? BY_LENGTH : GOES_ON;
  if (is_eos(g, token)) *how = BY_EOS;
  QD_TRY(qd_heap_grow(&g->ids, &g->capacity, g->n_ids + 1, sizeof *g->ids));
  if (*how == BY_EOS) QD_TRY(show(g, true, &stopped));
  g->ids[g->n_ids++] = token;
  if (*how != BY_EOS) QD_TRY(show(g, *how != GOES_ON, &stopped));
  if (stopped) *how = BY_STOP;
  return QD_OK;
}

static qd_status check_signals(work *g) {
  bool stop, stopped = false;
  QD_TRY(qd_interrupt_agree(g->comm, &stop));
  if (stop && g->comm->rank == 0 && g->new_tokens > 0) QD_TRY(show(g, true, &stopped));
  QD_CHECK(!stop, QD_ESTOPPED, "a signal ended it after %" PRId64 " new tokens", g->new_tokens);
  return QD_OK;
}

/* From the last rank to the first, who tells all whether it goes on. */
static qd_status next_token(work *g, int32_t *token, ending *how) {
  int last = g->comm->size - 1;
  qd_status mine = g->comm->rank == last ? choose(g, token) : QD_OK;
  QD_TRY(qd_comm_move(g->comm, token, token, sizeof *token, last, 0));
  QD_TRY_ALL(g->comm, mine);
  if (g->comm->rank == 0) mine = take_token(g, *token, how);
  QD_TRY_ALL(g->comm, mine);
  g->new_tokens++;
  return qd_comm_bcast(g->comm, how, sizeof *how, 0);
}

static qd_status go_on(work *g, qd_generation *out) {
  int32_t token = 0;
  ending how = GOES_ON;
  double start = qd_seconds();
  QD_TRY(qd_resident_pass(&g->resident, g->ids, g->prompt_tokens, 0));
  QD_TRY(next_token(g, &token, &how));
  out->prompt_seconds = qd_seconds() - start;
  while (how == GOES_ON) {
    QD_TRY_ALL(g->comm, check_signals(g));
    QD_TRY(qd_resident_pass(&g->resident, &token, 1, g->prompt_tokens + g->new_tokens - 1));
    QD_TRY(next_token(g, &token, &how));
  }
  out->new_seconds = qd_seconds() - start - out->prompt_seconds;
  out->ended_by = how == BY_EOS ? "eos" : how == BY_STOP ? "stop" : "length";
  return QD_OK;
}

static qd_status generate(work *g, qd_generation *out) {
  const qd_generation_request *r = g->request;
  qd_plan_rank plan;
  char memory[32];
  double start = qd_seconds();
  QD_TRY(qd_resident_open(&g->resident, r->model, r->compute, g->comm, g->device));
  g->resident.subject.readers = r->readers;
  QD_TRY(prepare(g));
  qd_resident_plan(&g->resident, positions_of(g), g->comm->rank, &plan);
  qd_size_text((double)plan.host_bytes, memory, sizeof memory);
  qd_log("plan: %s of memory on rank 0, %" PRId64 " positions", memory, positions_of(g));
  out->planned_bytes = (int64_t)plan.host_bytes, out->arithmetic = g->resident.subject.arithmetic;
  QD_TRY(qd_resident_load(&g->resident, positions_of(g)));
  out->load_seconds = qd_seconds() - start;
  QD_TRY_ALL(g->comm, check_signals(g));
  return go_on(g, out);
}

qd_status qd_generate(const qd_generation_request *request, qd_comm *comm, qd_device *device, qd_generation *out) {
  work g = {.request = request, .comm = comm, .device = device};
  *out = (qd_generation){0};
  qd_status status = generate(&g, out);
  qd_resident_close(&g.resident);
  qd_tokenizer_close(g.tokenizer);
  out->text = g.text.text, out->ids = g.ids;
  out->prompt_tokens = g.prompt_tokens, out->new_tokens = g.new_tokens;
  out->peak_bytes = qd_memory_now().peak;
  return status;
}

void qd_generation_release(qd_generation *generation) {
  qd_heap_free(generation->text);
  qd_heap_free(generation->ids);
  *generation = (qd_generation){0};
}
