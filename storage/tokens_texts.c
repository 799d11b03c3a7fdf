#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokens_parts.h"
#include "storage/utf8.h"

/* A NUL is a character like any other where the tokenizer has a token for it, and a sign of a file that is no text where it has
 * not. */
static qd_status check_nul(const qd_tokens_job *job, const char *text, size_t n, const char *where) {
  const char *nul = memchr(text, '\0', n);
  if (nul == NULL) return QD_OK;
  int32_t *ids = NULL, unknown = qd_tokenizer_unknown(job->tokenizer);
  size_t n_ids;
  bool known = qd_tokenizer_encode(job->tokenizer, "", 1, QD_BOS_NO, &ids, &n_ids) == QD_OK;
  for (size_t i = 0; known && i < n_ids; i++) known = ids[i] != unknown;
  qd_heap_free(ids);
  QD_CHECK(known, QD_EBADINPUT, "%s: byte %zu is NUL, for which the tokenizer has no token: not a text", where,
           (size_t)(nul - text));
  return QD_OK;
}

static qd_status encode(const qd_tokens_job *job, qd_add_bos bos, const char *text, size_t n, const char *where,
                        qd_token_list *ids) {
  int32_t *made = NULL;
  size_t n_made;
  QD_TRY(check_nul(job, text, n, where));
  qd_status status = qd_tokenizer_encode(job->tokenizer, text, n, bos, &made, &n_made);
  if (status != QD_OK) QD_FAIL(status, "%s: %s", where, qd_error_text());
  if (ids->at == NULL) { /* the usual case: no copy */
    *ids = (qd_token_list){.at = made, .n = n_made, .capacity = n_made};
    return QD_OK;
  }
  status = qd_heap_grow(&ids->at, &ids->capacity, ids->n + n_made, sizeof *ids->at);
  if (status == QD_OK && n_made > 0) memcpy(ids->at + ids->n, made, n_made * sizeof *made);
  if (status == QD_OK) ids->n += n_made;
  qd_heap_free(made);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_tokens_encode(const qd_tokens_job *job, const char *text, size_t n, const char *where, qd_token_list *ids) {
  return encode(job, job->request->bos, text, n, where, ids);
}

/* ---- messages ------------------------------------------------------------------------------------------------------- */

static qd_status open_chat(qd_tokens_job *job) {
  if (job->chat.jinja != NULL) return QD_OK;
  QD_CHECK(job->request->folder != NULL, QD_EINVAL, "messages need a folder with a chat template");
  QD_TRY(qd_chat_template_open(job->request->folder, &job->chat));
  job->out->chat_digest = job->chat.digest;
  return QD_OK;
}

/* The template writes the special tokens itself: the tokenizer adds none of its own, and a BOS that is asked for is not put
 * before one that is there. */
static qd_status encode_messages(qd_tokens_job *job, const qd_json *line, const char *where, qd_token_list *ids) {
  char *text = NULL;
  size_t n;
  qd_status status = open_chat(job);
  if (status == QD_OK) status = qd_chat_template_render(&job->chat, line, &text, &n);
  if (status != QD_OK) QD_FAIL(status, "%s: %s", where, qd_error_text());
  status = encode(job, job->request->bos == QD_BOS_YES ? QD_BOS_YES : QD_BOS_NO, text, n, where, ids);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_tokens_encode_line(qd_tokens_job *job, const qd_json *line, const char *where, qd_token_list *ids) {
  const qd_json *text = qd_json_is_object(line) ? qd_json_get(line, "text") : NULL;
  if (qd_json_is_text(text)) return qd_tokens_encode(job, qd_json_text(text), qd_json_text_bytes(text), where, ids);
  bool has_messages = qd_json_is_object(line) && text == NULL && qd_json_is_array(qd_json_get(line, "messages"));
  QD_CHECK(has_messages, QD_EBADINPUT, "%s: not an object with a text \"text\" or a list \"messages\"", where);
  return encode_messages(job, line, where, ids);
}

/* ---- rows ----------------------------------------------------------------------------------------------------------- */

typedef struct stretch {
  const char *at;
  size_t      n;
} stretch;

/* The rows of the data sets as the `datasets` library gives them: WikiText-2's are lines with their newline, "" for a blank
 * one; PTB's are stripped lines. */
static stretch row_of_line(qd_text_kind kind, stretch line) {
  size_t begin, bytes = qd_utf8_strip(line.at, line.n, &begin);
  stretch bare = {line.at + begin, bytes};
  return kind == QD_TEXT_PTB || bare.n == 0 ? bare : line;
}

qd_status qd_tokens_join_rows(const qd_tokens_job *job, qd_text_kind kind, char **text, size_t *n) {
  const char *all = job->file.text;
  size_t capacity = 0, end = job->file.n;
  *text = NULL;
  *n = 0;
  for (size_t begin = 0; begin < end;) {
    const char *newline = memchr(all + begin, '\n', end - begin);
    size_t bytes = newline ? (size_t)(newline - all) + 1 - begin : end - begin;
    stretch row = row_of_line(kind, (stretch){all + begin, bytes});
    qd_status status = qd_heap_grow(text, &capacity, *n + row.n + 3, 1);
    if (status != QD_OK) {
      qd_heap_free(*text);
      *text = NULL;
      return qd_forward(status, __FILE__, __LINE__);
    }
    if (begin > 0) memcpy(*text + *n, "\n\n", 2), *n += 2;
    memcpy(*text + *n, row.at, row.n);
    *n += row.n;
    job->out->text_rows++;
    begin += bytes;
  }
  return QD_OK;
}
