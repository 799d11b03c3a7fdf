#include "storage/tokens.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "storage/tokens_parts.h"
#include "storage/utf8.h"

/* ---- kinds ---------------------------------------------------------------------------------------------------------- */

static const char *const kind_name[] = {
    [QD_TEXT_PLAIN] = "plain", [QD_TEXT_WIKITEXT2] = "wikitext2", [QD_TEXT_PTB] = "ptb", [QD_TEXT_C4] = "c4",
    [QD_TEXT_C4_NEW] = "c4-new", [QD_TEXT_JSONL] = "jsonl", [QD_TEXT_IDS] = "ids"};

const char *qd_text_kind_name(qd_text_kind kind) { return kind_name[kind]; }

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

qd_text_kind qd_tokens_kind(const char *dataset, const char **path) {
  for (size_t i = 0; i < sizeof kind_name / sizeof *kind_name; i++) {
    size_t n = strlen(kind_name[i]);
    if (strncmp(dataset, kind_name[i], n) != 0 || dataset[n] != ':') continue;
    *path = dataset + n + 1;
    return (qd_text_kind)i;
  }
  *path = dataset;
  if (ends_with(dataset, ".i32")) return QD_TEXT_IDS;
  bool lines = ends_with(dataset, ".jsonl") || ends_with(dataset, ".jsonl.gz") || ends_with(dataset, ".json.gz");
  return lines ? QD_TEXT_JSONL : QD_TEXT_PLAIN;
}

/* ---- loading -------------------------------------------------------------------------------------------------------- */

static qd_status check_request(const qd_tokenizer *tokenizer, const qd_tokens_request *r, qd_text_kind kind, const char *path) {
  enum { LONGEST = 1 << 30 };
  QD_CHECK(*path != '\0', QD_EINVAL, "the dataset \"%s\" names no file", r->dataset);
  QD_CHECK(r->sequence_tokens >= 1 && r->sequence_tokens <= LONGEST, QD_EINVAL, "rows of %" PRId64 " tokens, expected 1 to %d",
           r->sequence_tokens, LONGEST);
  int64_t least = r->use == QD_TOKENS_CALIBRATION && kind != QD_TEXT_IDS ? 1 : 0;
  QD_CHECK(r->rows >= least, QD_EINVAL, "%" PRId64 " rows of %s, expected at least %" PRId64, r->rows, path, least);
  QD_CHECK(tokenizer != NULL || kind == QD_TEXT_IDS, QD_EINVAL, "%s is text, which needs a tokenizer", path);
  return QD_OK;
}

static qd_status check_text(const qd_tokens_job *job) {
  size_t bad = 0;
  const char *text = job->file.text;
  QD_CHECK(qd_utf8_valid(text, job->file.n, &bad), QD_EBADINPUT, "%s: not UTF-8: byte 0x%02X at offset %zu", job->path,
           (unsigned char)text[bad], bad);
  if (job->file.n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
    qd_log_warning("%s: begins with a byte order mark, which is tokenized as it stands", job->path);
  return QD_OK;
}

/* A text of another kind would be told as a mistake of JSON. */
static qd_status check_first_line(const qd_jsonl *lines) {
  const qd_jsonl_line *line = &lines->line[0];
  const char *text = lines->text + line->begin;
  QD_CHECK(text[strspn(text, " \t\r")] == '{', QD_EBADINPUT,
           "%s, line %zu: no JSON object: lines of JSON, each with a text \"text\", are wanted for this kind of text",
           lines->path, line->number);
  return QD_OK;
}

static qd_status take_lines(qd_tokens_job *job, qd_text_kind kind, const qd_jsonl *lines) {
  bool evaluation = job->request->use == QD_TOKENS_EVALUATION;
  QD_TRY(check_first_line(lines));
  if (kind == QD_TEXT_C4_NEW && evaluation) return qd_tokens_join_documents(job, lines);
  if (kind != QD_TEXT_JSONL) return qd_tokens_draw_documents(job, lines); /* both C4 calibrate alike */
  return (job->request->pack ? qd_tokens_from_packed : qd_tokens_from_documents)(job, lines);
}

static qd_status load_lines(qd_tokens_job *job, qd_text_kind kind) {
  qd_jsonl lines;
  QD_TRY(qd_jsonl_open(job->file.text, job->file.n, job->path, &lines));
  qd_status status = take_lines(job, kind, &lines);
  qd_jsonl_close(&lines);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status load_rows(qd_tokens_job *job, qd_text_kind kind) {
  char *text = NULL;
  size_t n;
  QD_TRY(qd_tokens_join_rows(job, kind, &text, &n));
  qd_status status = qd_tokens_from_text(job, text, n);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status load_plain(qd_tokens_job *job) {
  size_t n = job->file.n;
  bool llama_cpp = job->request->llama_cpp;
  if (llama_cpp && job->file.text[n - 1] == '\n') n--;
  QD_TRY(qd_tokens_from_text(job, job->file.text, n));
  QD_CHECK(!llama_cpp || job->out->text_tokens >= 2 * job->out->sequence_tokens, QD_EBADINPUT,
           "%s: %" PRId64 " tokens are too few for the style of llama.cpp, which wants two windows of %" PRId64, job->path,
           job->out->text_tokens, job->out->sequence_tokens);
  return QD_OK;
}

/* "wikitext-2:FILE" is a file's name as far as anybody can know, but none that is there. */
static qd_status read_file(qd_tokens_job *job, qd_text_kind kind) {
  char kinds[128] = "";
  size_t n = strspn(job->path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
  qd_status status = qd_text_file_read(job->path, kind != QD_TEXT_IDS, &job->file);
  bool like_kind = job->path == job->request->dataset && n > 0 && job->path[n] == ':';
  if (status != QD_ENOTFOUND || !like_kind) return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
  for (size_t i = 0; i < sizeof kind_name / sizeof *kind_name; i++)
    snprintf(kinds + strlen(kinds), sizeof kinds - strlen(kinds), "%s%s", i ? ", " : "", kind_name[i]);
  QD_FAIL(QD_ENOTFOUND, "there is no file %s, and no kind of text \"%.*s\" (%s)", job->path, (int)n, job->path, kinds);
}

static qd_status load(qd_tokens_job *job, qd_text_kind kind) {
  QD_TRY(read_file(job, kind));
  QD_CHECK(job->file.n > 0, QD_EBADINPUT, "%s is empty", job->path);
  job->out->text_digest = job->file.digest;
  if (kind == QD_TEXT_IDS) return qd_tokens_from_ids(job);
  QD_TRY(check_text(job));
  if (kind == QD_TEXT_PLAIN) return load_plain(job);
  if (kind == QD_TEXT_WIKITEXT2 || kind == QD_TEXT_PTB) return load_rows(job, kind);
  return load_lines(job, kind);
}

static qd_status check_ids(const qd_tokens *tokens, int64_t vocabulary) {
  int64_t n = tokens->sequence_tokens;
  for (int64_t i = 0; vocabulary > 0 && i < tokens->rows * n; i++) {
    QD_CHECK(tokens->ids[i] < vocabulary, QD_EBADINPUT,
             "%s: row %" PRId64 ", position %" PRId64 ": the id %" PRId32 " is outside the model's vocabulary of %" PRId64,
             tokens->path, i / n, i % n, tokens->ids[i], vocabulary);
  }
  return QD_OK;
}

qd_status qd_tokens_load(const qd_tokenizer *tokenizer, const qd_tokens_request *request, qd_tokens *out) {
  if (request->n_texts > 1) return qd_tokens_mix(tokenizer, request, out);
  qd_tokens_job job = {.tokenizer = tokenizer, .request = request, .out = out};
  *out = (qd_tokens){.sequence_tokens = request->sequence_tokens};
  out->kind = qd_tokens_kind(request->dataset, &job.path);
  QD_TRY(check_request(tokenizer, request, out->kind, job.path));
  QD_TRY(qd_heap_text(job.path, strlen(job.path), &out->path));
  qd_status status = load(&job, out->kind);
  if (out->distinct_tokens == 0) out->distinct_tokens = out->rows * out->sequence_tokens; /* rows that do not overlap */
  if (status == QD_OK) status = check_ids(out, request->vocabulary);
  qd_text_file_release(&job.file);
  qd_chat_template_close(&job.chat);
  if (status == QD_OK) return QD_OK;
  qd_tokens_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_tokens_release(qd_tokens *tokens) {
  qd_heap_free(tokens->ids);
  qd_heap_free(tokens->path);
  *tokens = (qd_tokens){0};
}
