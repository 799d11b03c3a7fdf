/* Which rows are taken of the tokens: GPTQ's datautils (IST-DASLab/gptq, datautils.py), draw for draw. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "storage/tokens_parts.h"

enum { C4_WINDOWS = 256, C4_NEW_DOCUMENTS = 1100 };

static qd_status make_rows(qd_tokens *out, int64_t rows) {
  QD_TRY(qd_heap_new((size_t)rows, (size_t)out->sequence_tokens * sizeof *out->ids, &out->ids));
  out->rows = rows;
  return QD_OK;
}

static void fill_row(qd_tokens *out, int64_t row, const int32_t *from) {
  memcpy(out->ids + row * out->sequence_tokens, from, (size_t)out->sequence_tokens * sizeof *from);
}

static int in_order(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* How many tokens some row holds, of rows that begin at these places.  Sorts them. */
static int64_t covered_tokens(int64_t *begin, int64_t rows, int64_t length) {
  int64_t covered = rows > 0 ? length : 0;
  qsort(begin, (size_t)rows, sizeof *begin, in_order);
  for (int64_t i = 1; i < rows; i++) covered += begin[i] - begin[i - 1] < length ? begin[i] - begin[i - 1] : length;
  return covered;
}

/* Calibration: rows at random places; they may overlap.  The last window that would fit is never drawn, as in the reference. */
static qd_status draw_windows(qd_tokens_job *job, const qd_token_list *ids) {
  int64_t length = job->out->sequence_tokens, rows = job->request->rows, n = (int64_t)ids->n;
  QD_CHECK(n > length, QD_EBADINPUT,
           "%s: %" PRId64 " tokens are too few for rows of %" PRId64 ": at least %" PRId64 " are needed", job->path, n, length,
           length + 1);
  int64_t *begin;
  QD_TRY(make_rows(job->out, rows));
  QD_TRY(qd_heap_new((size_t)rows, sizeof *begin, &begin));
  qd_python_random random;
  qd_python_random_seed(&random, job->request->seed);
  for (int64_t row = 0; row < rows; row++) {
    begin[row] = qd_python_randint(&random, 0, n - length - 1);
    fill_row(job->out, row, ids->at + begin[row]);
  }
  job->out->distinct_tokens = covered_tokens(begin, rows, length);
  qd_heap_free(begin);
  return QD_OK;
}

/* Evaluation: one after the other from the start, the tail left out. */
static qd_status cut_windows(qd_tokens_job *job, const qd_token_list *ids, int64_t limit) {
  int64_t length = job->out->sequence_tokens, rows = (int64_t)ids->n / length;
  QD_CHECK(rows > 0, QD_EBADINPUT, "%s: %zu tokens are too few for one row of %" PRId64, job->path, ids->n, length);
  if (limit > 0 && rows > limit) rows = limit;
  QD_TRY(make_rows(job->out, rows));
  for (int64_t row = 0; row < rows; row++) fill_row(job->out, row, ids->at + row * length);
  return QD_OK;
}

static qd_status take_windows(qd_tokens_job *job, const qd_token_list *ids) {
  job->out->text_tokens = (int64_t)ids->n;
  if (job->request->use == QD_TOKENS_CALIBRATION) return draw_windows(job, ids);
  return cut_windows(job, ids, job->request->rows);
}

qd_status qd_tokens_from_text(qd_tokens_job *job, const char *text, size_t n) {
  qd_token_list ids = {0};
  qd_status status = qd_tokens_encode(job, text, n, job->path, &ids);
  if (status == QD_OK) status = take_windows(job, &ids);
  qd_heap_free(ids.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- documents ------------------------------------------------------------------------------------------------------ */

/* Adds the ids of document `index`. */
static qd_status encode_document(qd_tokens_job *job, const qd_jsonl *lines, size_t index, qd_token_list *ids) {
  qd_json *line = NULL;
  char where[QD_JSONL_WHAT_BYTES];
  QD_TRY(qd_jsonl_parse(lines, index, where, &line));
  qd_status status = qd_tokens_encode_line(job, line, where, ids);
  qd_json_free(line);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_tokens_from_packed(qd_tokens_job *job, const qd_jsonl *lines) {
  qd_token_list ids = {0};
  qd_status status = QD_OK;
  for (size_t i = 0; i < lines->n && status == QD_OK; i++) status = encode_document(job, lines, i, &ids);
  if (status == QD_OK) status = take_windows(job, &ids);
  qd_heap_free(ids.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* The first documents that are long enough, until there are as many as wanted. */
static qd_status gather_documents(qd_tokens_job *job, const qd_jsonl *lines, qd_token_list *document, qd_token_list *rows) {
  qd_tokens *out = job->out;
  size_t length = (size_t)out->sequence_tokens;
  for (size_t i = 0; i < lines->n && (job->request->rows == 0 || out->rows < job->request->rows); i++) {
    document->n = 0;
    QD_TRY(encode_document(job, lines, i, document));
    out->text_tokens += (int64_t)document->n;
    if (document->n < length) {
      out->dropped_documents++;
      continue;
    }
    QD_TRY(qd_heap_grow(&rows->at, &rows->capacity, rows->n + length, sizeof *rows->at));
    memcpy(rows->at + rows->n, document->at, length * sizeof *rows->at);
    rows->n += length;
    out->rows++;
  }
  return QD_OK;
}

qd_status qd_tokens_from_documents(qd_tokens_job *job, const qd_jsonl *lines) {
  qd_token_list document = {0}, rows = {0};
  qd_status status = gather_documents(job, lines, &document, &rows);
  qd_heap_free(document.at);
  job->out->ids = rows.at;
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  int64_t wanted = job->request->use == QD_TOKENS_CALIBRATION ? job->request->rows : 1;
  QD_CHECK(job->out->rows >= wanted, QD_EBADINPUT,
           "%s: %" PRId64 " of its %zu documents have %" PRId64 " tokens or more, but %" PRId64 " rows are needed", job->path,
           job->out->rows, lines->n, job->out->sequence_tokens, wanted);
  return QD_OK;
}

/* ---- C4 ------------------------------------------------------------------------------------------------------------- */

typedef struct draw {
  qd_python_random random;
  int64_t *length;   /* of each document; -1: not known yet */
  size_t   index;    /* of the document drawn last */
  int64_t *begin;    /* of each row: its document's number, and where in it */
  size_t   too_short, longest;
  qd_token_list ids; /* of the document drawn last */
} draw;

/* Draw documents until one has a row's tokens: it is in draw->ids then. */
static qd_status draw_document(qd_tokens_job *job, const qd_jsonl *lines, draw *d) {
  size_t wanted = (size_t)job->out->sequence_tokens;
  for (;;) {
    size_t i = (size_t)qd_python_randint(&d->random, 0, (int64_t)lines->n - 1);
    if (d->length[i] >= 0 && (size_t)d->length[i] < wanted) continue;
    d->ids.n = 0;
    QD_TRY(encode_document(job, lines, i, &d->ids));
    if (d->length[i] < 0) job->out->text_tokens += (int64_t)d->ids.n;
    d->length[i] = (int64_t)d->ids.n;
    d->index = i;
    if (d->ids.n >= wanted) return QD_OK;
    if (d->ids.n > d->longest) d->longest = d->ids.n;
    d->too_short++;
    QD_CHECK(d->too_short < lines->n, QD_EBADINPUT, "%s: none of its %zu documents has %zu tokens, the longest has %zu",
             job->path, lines->n, wanted, d->longest);
  }
}

/* A document of exactly a row's tokens is taken whole, without a second draw (the reference fails on it). */
static qd_status draw_rows(qd_tokens_job *job, const qd_jsonl *lines, draw *d) {
  for (int64_t row = 0; row < job->out->rows; row++) {
    QD_TRY(draw_document(job, lines, d));
    int64_t spare = (int64_t)d->ids.n - job->out->sequence_tokens;
    int64_t begin = spare > 0 ? qd_python_randint(&d->random, 0, spare - 1) : 0;
    fill_row(job->out, row, d->ids.at + begin);
    d->begin[row] = ((int64_t)d->index << 32) + begin; /* rows of two documents never meet */
  }
  job->out->distinct_tokens = covered_tokens(d->begin, job->out->rows, job->out->sequence_tokens);
  return QD_OK;
}

/* Evaluation draws 256 windows with seed 0, whatever the job's seed. */
qd_status qd_tokens_draw_documents(qd_tokens_job *job, const qd_jsonl *lines) {
  bool calibration = job->request->use == QD_TOKENS_CALIBRATION;
  int64_t rows = job->request->rows;
  if (!calibration && (rows == 0 || rows > C4_WINDOWS)) rows = C4_WINDOWS;
  draw d = {0};
  QD_TRY(make_rows(job->out, rows));
  QD_TRY(qd_heap_new(lines->n, sizeof *d.length, &d.length));
  memset(d.length, 0xFF, lines->n * sizeof *d.length); /* -1 */
  qd_python_random_seed(&d.random, calibration ? job->request->seed : 0);
  qd_status status = qd_heap_new((size_t)rows, sizeof *d.begin, &d.begin);
  if (status == QD_OK) status = draw_rows(job, lines, &d);
  qd_heap_free(d.begin);
  qd_heap_free(d.length);
  qd_heap_free(d.ids.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status append(char **all, size_t *n, size_t *capacity, const char *text, size_t bytes) {
  QD_TRY(qd_heap_grow(all, capacity, *n + bytes + 1, 1));
  memcpy(*all + *n, text, bytes);
  *n += bytes;
  return QD_OK;
}

static qd_status join_texts(const qd_jsonl *lines, char **all, size_t *n) {
  size_t capacity = 0;
  for (size_t i = 0; i < lines->n && i < C4_NEW_DOCUMENTS; i++) {
    char *text;
    size_t bytes;
    QD_TRY(qd_jsonl_text(lines, i, &text, &bytes));
    qd_status status = i > 0 ? append(all, n, &capacity, " ", 1) : QD_OK;
    if (status == QD_OK) status = append(all, n, &capacity, text, bytes);
    qd_heap_free(text);
    if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  }
  return QD_OK;
}

static qd_status cut_joined(qd_tokens_job *job, const char *text, size_t n) {
  qd_token_list ids = {0};
  int64_t rows = job->request->rows;
  qd_status status = qd_tokens_encode(job, text, n, job->path, &ids);
  job->out->text_tokens = (int64_t)ids.n;
  if (status == QD_OK) status = cut_windows(job, &ids, rows == 0 || rows > C4_WINDOWS ? C4_WINDOWS : rows);
  qd_heap_free(ids.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_tokens_join_documents(qd_tokens_job *job, const qd_jsonl *lines) {
  char *all = NULL;
  size_t n = 0;
  qd_status status = join_texts(lines, &all, &n);
  if (status == QD_OK) status = cut_joined(job, all, n);
  qd_heap_free(all);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- ids ------------------------------------------------------------------------------------------------------------ */

static int32_t little_endian(const char *bytes) {
  const unsigned char *b = (const unsigned char *)bytes;
  return (int32_t)((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
}

qd_status qd_tokens_from_ids(qd_tokens_job *job) {
  size_t length = (size_t)job->out->sequence_tokens, row_bytes = length * sizeof(int32_t), n = job->file.n;
  QD_CHECK(n % row_bytes == 0, QD_EBADINPUT, "%s: %zu bytes are no whole number of rows of %zu tokens (%zu bytes each)",
           job->path, n, length, row_bytes);
  int64_t there = (int64_t)(n / row_bytes), wanted = job->request->rows;
  if (wanted > there && job->request->use == QD_TOKENS_CALIBRATION)
    qd_log_warning("%s: has %" PRId64 " rows, %" PRId64 " are wanted: all are taken", job->path, there, wanted);
  QD_TRY(make_rows(job->out, wanted > 0 && wanted < there ? wanted : there));
  size_t taken = (size_t)job->out->rows * length;
  for (size_t i = 0; i < taken; i++) {
    int32_t id = little_endian(job->file.text + i * sizeof id);
    QD_CHECK(id >= 0, QD_EBADINPUT, "%s: row %zu, position %zu: the id %" PRId32 " is negative", job->path, i / length,
             i % length, id);
    job->out->ids[i] = id;
  }
  job->out->text_tokens = (int64_t)(n / sizeof(int32_t));
  return QD_OK;
}
