/* Several texts in one calibration set. */
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokens_parts.h"

qd_status qd_tokens_shares(const qd_text_share *text, int n, int64_t rows, int64_t *share) {
  double sum = 0, rest[QD_MAX_TEXTS];
  int64_t given = 0;
  const double least = 1e-300; /* below the normal numbers a share is one of nothing */
  for (int i = 0; i < n; i++) sum += text[i].weight;
  QD_CHECK(sum >= least, QD_EINVAL, "the weights of all --dataset are %g together, expected %g at least", sum, least);
  for (int i = 0; i < n; i++) {
    double exact = (double)rows * (text[i].weight / sum);
    share[i] = (int64_t)exact;
    rest[i] = exact - (double)share[i];
    given += share[i];
  }
  for (; given < rows; given++) {
    int most = 0;
    for (int i = 1; i < n; i++) most = rest[i] > rest[most] ? i : most;
    share[most]++, rest[most] -= 1;
  }
  for (int i = 0; i < n; i++)
    QD_CHECK(share[i] > 0, QD_EINVAL, "--dataset %s with the weight %g gives none of %" PRId64 " sequences", text[i].dataset,
             text[i].weight, rows);
  return QD_OK;
}

/* The text whose next row has the smallest (2 j + 1) / share; the earlier one where they are equal. */
static int next_text(const int64_t *taken, const int64_t *share, int n) {
  int next = -1;
  for (int i = 0; i < n; i++) {
    if (taken[i] == share[i]) continue;
    if (next < 0 || (2 * taken[i] + 1) * share[next] < (2 * taken[next] + 1) * share[i]) next = i;
  }
  return next;
}

static void deal(const qd_tokens *part, const int64_t *share, int n, qd_tokens *out) {
  int64_t taken[QD_MAX_TEXTS] = {0}, length = out->sequence_tokens;
  for (int64_t row = 0; row < out->rows; row++) {
    int from = next_text(taken, share, n);
    memcpy(out->ids + row * length, part[from].ids + taken[from]++ * length, (size_t)length * sizeof *out->ids);
  }
}

static qd_status load_parts(const qd_tokenizer *tokenizer, const qd_tokens_request *request, const int64_t *share,
                            qd_tokens *part) {
  for (int i = 0; i < request->n_texts; i++) {
    qd_tokens_request one = *request;
    one.dataset = request->text[i].dataset, one.n_texts = 0, one.rows = share[i];
    QD_TRY(qd_tokens_load(tokenizer, &one, &part[i]));
    QD_CHECK(part[i].rows == share[i], QD_EBADINPUT, "%s: has %" PRId64 " rows, but its weight asks for %" PRId64, part[i].path,
             part[i].rows, share[i]);
  }
  return QD_OK;
}

static qd_status join_parts(const qd_tokens_request *request, const int64_t *share, qd_tokens *part, qd_tokens *out) {
  *out = (qd_tokens){.sequence_tokens = request->sequence_tokens, .rows = request->rows, .n_parts = request->n_texts};
  out->kind = part[0].kind, out->text_digest = part[0].text_digest;
  QD_TRY(qd_heap_new((size_t)out->rows, (size_t)out->sequence_tokens * sizeof *out->ids, &out->ids));
  for (int i = 0; i < request->n_texts; i++) {
    out->part[i] = (qd_tokens_part){.kind = part[i].kind,
                                    .text_digest = part[i].text_digest,
                                    .weight = request->text[i].weight,
                                    .rows = part[i].rows,
                                    .text_tokens = part[i].text_tokens,
                                    .dropped_documents = part[i].dropped_documents};
    out->text_tokens += part[i].text_tokens, out->distinct_tokens += part[i].distinct_tokens;
    out->dropped_documents += part[i].dropped_documents;
    if (part[i].chat_digest.hex[0] != '\0') out->chat_digest = part[i].chat_digest; /* the folder's: the same for all */
  }
  deal(part, share, request->n_texts, out);
  out->path = part[0].path, part[0].path = NULL;
  return QD_OK;
}

qd_status qd_tokens_mix(const qd_tokenizer *tokenizer, const qd_tokens_request *request, qd_tokens *out) {
  int64_t share[QD_MAX_TEXTS];
  qd_tokens *part;
  *out = (qd_tokens){0};
  QD_CHECK(request->use == QD_TOKENS_CALIBRATION, QD_EINVAL, "a mixture of texts is for calibration only");
  QD_CHECK(request->n_texts <= QD_MAX_TEXTS, QD_EINVAL, "%d texts, expected %d at most", request->n_texts, QD_MAX_TEXTS);
  QD_TRY(qd_tokens_shares(request->text, request->n_texts, request->rows, share));
  QD_TRY(qd_heap_new((size_t)request->n_texts, sizeof *part, &part));
  qd_status status = load_parts(tokenizer, request, share, part);
  if (status == QD_OK) status = join_parts(request, share, part, out);
  for (int i = 0; i < request->n_texts; i++) qd_tokens_release(&part[i]);
  qd_heap_free(part);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
