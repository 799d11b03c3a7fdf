#include "pipeline/text.h"

#include "kernels/base/heap.h"
#include "workers/agree.h"

#include <string.h>

static qd_status load_on_coordinator(const char *folder, const qd_model *model, const qd_tokens_request *request,
                                     qd_tokens *tokens, qd_tokenizer **tokenizer) {
  const char *path;
  bool ids = qd_tokens_kind(request->dataset, &path) == QD_TEXT_IDS;
  for (int i = 0; i < request->n_texts; i++) ids = ids && qd_tokens_kind(request->text[i].dataset, &path) == QD_TEXT_IDS;
  qd_status status = qd_tokenizer_open(folder, tokenizer);
  if (status == QD_ENOTFOUND && ids) status = QD_OK; /* token ids need none; it would only show the first row */
  QD_CHECK(status != QD_ENOTFOUND, QD_ENOTFOUND, "%s has no tokenizer.json, which the text %s needs", folder, path);
  QD_TRY(status);
  if (*tokenizer != NULL)
    QD_CHECK(qd_tokenizer_size(*tokenizer) <= model->vocabulary, QD_EBADINPUT,
             "%s: the tokenizer has %" PRId64 " entries, the model's vocabulary (vocab_size, embedding rows) only %" PRId64,
             folder, qd_tokenizer_size(*tokenizer), model->vocabulary);
  return qd_tokens_load(*tokenizer, request, tokens);
}

static qd_status receive(qd_comm *comm, qd_tokens *tokens) {
  qd_tokens header = *tokens;
  QD_TRY(qd_comm_bcast(comm, &header, sizeof header, 0));
  if (comm->rank != 0) {
    *tokens = header;
    tokens->ids = NULL, tokens->path = NULL;
  }
  size_t n = (size_t)(tokens->rows * tokens->sequence_tokens);
  qd_status status = comm->rank == 0 ? QD_OK : qd_heap_new(n, sizeof *tokens->ids, &tokens->ids);
  QD_TRY_ALL(comm, status);
  return qd_comm_bcast(comm, tokens->ids, n * sizeof *tokens->ids, 0);
}

static qd_status check_length(const qd_model *model, const qd_tokens_request *request) {
  QD_CHECK(request->sequence_tokens <= model->max_positions, QD_EINVAL,
           "--seqlen %" PRId64 " is more than the model's %" PRId64 " positions (max_position_embeddings)",
           request->sequence_tokens, model->max_positions);
  return QD_OK;
}

enum { USUAL_SEQUENCE_TOKENS = 2048 };

qd_status qd_text_load(qd_comm *comm, const char *folder, const qd_model *model, const qd_tokens_request *given,
                       qd_tokens *tokens, qd_tokenizer **tokenizer) {
  qd_tokens_request with_length = *given, *request = &with_length;
  *tokenizer = NULL;
  *tokens = (qd_tokens){0};
  request->folder = folder;
  if (request->sequence_tokens == 0)
    request->sequence_tokens = model->max_positions < USUAL_SEQUENCE_TOKENS ? model->max_positions : USUAL_SEQUENCE_TOKENS;
  QD_TRY_ALL(comm, check_length(model, request));
  qd_status status = comm->rank == 0 ? load_on_coordinator(folder, model, request, tokens, tokenizer) : QD_OK;
  status = qd_agree(comm, status);
  if (status == QD_OK) status = receive(comm, tokens);
  if (status == QD_OK) return QD_OK;
  qd_tokenizer_close(*tokenizer);
  *tokenizer = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}
