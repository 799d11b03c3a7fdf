#include "pipeline/evaluate/task_set.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/python_random.h"
#include "storage/text_file.h"
#include "storage/utf8.h"

#include <string.h>

/* ---- which file ---------------------------------------------------------------------------------------------------------- */

static qd_status refuse(const char *item) {
  char names[256] = "";
  for (int i = 0; i < QD_N_TASKS; i++) {
    if (i > 0) strcat(names, ", ");
    strcat(names, qd_tasks[i].name);
  }
  QD_FAIL(QD_EINVAL, "--tasks: \"%.200s\" names no task: %s, or TASK:FILE", item, names);
}

static qd_status file_in_folder(const qd_task *task, const char *folder, char **out) {
  QD_CHECK(folder != NULL, QD_EINVAL, "--tasks: where is the file of %s? --tasks-path names its folder", task->name);
  const char *const names[] = {task->file, task->other_file};
  for (int i = 0; i < 2 && names[i] != NULL; i++) {
    QD_TRY(qd_path_join(folder, names[i], out));
    if (qd_file_exists(*out)) return QD_OK;
    qd_heap_free(*out);
    *out = NULL;
  }
  QD_FAIL(QD_ENOTFOUND, "%s has no file of the task %s: %s%s%s", folder, task->name, task->file,
          task->other_file != NULL ? " or " : "", task->other_file != NULL ? task->other_file : "");
}

/* A file comes before a task of that name. */
static qd_status find_file(const qd_tasks_request *request, const char *item, qd_task_set *out) {
  const char *colon = strchr(item, ':');
  const qd_task *named = colon != NULL ? qd_task_find(item, (size_t)(colon - item)) : NULL;
  const char *path = named != NULL ? colon + 1 : item;
  out->task = named != NULL ? named : qd_task_of_file(path);
  if (out->task == NULL) return refuse(item);
  if (named == NULL && !qd_file_exists(path) && qd_task_find(item, strlen(item)) != NULL)
    return file_in_folder(out->task, request->folder, &out->path);
  QD_CHECK(qd_file_exists(path), QD_ENOTFOUND, "--tasks: there is no file %s", path);
  return qd_heap_text(path, strlen(path), &out->path);
}

static qd_status find_shots(qd_task_set *set) {
  const char *slash = strrchr(set->path, '/');
  size_t folder = slash != NULL ? (size_t)(slash - set->path) + 1 : 0;
  if (set->shots_path != NULL || set->task->shots_file == NULL || set->shots == 0) return QD_OK;
  char *front;
  QD_TRY(qd_heap_text(set->path, folder, &front));
  qd_status status = qd_text_join((const char *const[]){front, set->task->shots_file, NULL}, &set->shots_path);
  qd_heap_free(front);
  return status;
}

static qd_status resolve(const qd_tasks_request *request, char *item, qd_task_set *out) {
  char *plus = strchr(item, '+');
  if (plus != NULL) {
    *plus = '\0';
    QD_TRY(qd_heap_text(plus + 1, strlen(plus + 1), &out->shots_path));
  }
  QD_TRY(find_file(request, item, out));
  out->shots = request->shots != QD_USUAL_SHOTS ? request->shots : out->task->usual_shots;
  QD_TRY(find_shots(out));
  QD_CHECK(out->shots == 0 || out->shots_path == NULL || qd_file_exists(out->shots_path), QD_ENOTFOUND,
           "there is no file %s, from which the shots of %s are taken (--num-fewshot 0: none)", out->shots_path,
           out->task->name);
  return QD_OK;
}

qd_status qd_task_set_resolve(const qd_tasks_request *request, const char *item, size_t n, qd_task_set *out) {
  char *copy;
  *out = (qd_task_set){0};
  QD_TRY(qd_heap_text(item, n, &copy));
  qd_status status = resolve(request, copy, out);
  qd_heap_free(copy);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- documents ----------------------------------------------------------------------------------------------------------- */

typedef struct documents {
  qd_task_document *at;
  size_t            n, capacity;
} documents;

static qd_status read_line(const qd_task *task, const qd_jsonl *lines, size_t i, documents *out) {
  char what[QD_JSONL_WHAT_BYTES];
  qd_json *line;
  QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + 1, sizeof *out->at));
  QD_TRY(qd_jsonl_parse(lines, i, what, &line));
  qd_status status = qd_task_read(task, line, what, &out->at[out->n]);
  qd_json_free(line);
  QD_TRY(status);
  out->n++;
  return QD_OK;
}

static bool same_subject(const qd_task_document *a, const qd_task_document *b) {
  return a->subject == NULL || b->subject == NULL || strcmp(a->subject, b->subject) == 0;
}

/* How many of the documents are of the last one's subject. */
static int64_t count_like_last(const documents *d) {
  int64_t n = 0;
  for (size_t i = 0; i < d->n; i++) n += same_subject(&d->at[i], &d->at[d->n - 1]);
  return n;
}

/* limit: of each subject; 0: none. */
static qd_status read_documents(const qd_task *task, const qd_jsonl *lines, int64_t limit, documents *out) {
  for (size_t i = 0; i < lines->n; i++) {
    QD_TRY(read_line(task, lines, i, out));
    if (limit == 0 || count_like_last(out) <= limit) continue;
    qd_task_document_release(&out->at[--out->n]);
    if (task->description == NULL) return QD_OK; /* one subject: nothing more can come */
  }
  return QD_OK;
}

static qd_status read_file(const qd_task *task, const char *path, int64_t limit, documents *out) {
  qd_text_file file;
  qd_jsonl lines;
  QD_TRY(qd_text_file_read(path, true, &file));
  qd_status status = qd_jsonl_open(file.text, file.n, path, &lines);
  if (status == QD_OK) {
    status = read_documents(task, &lines, limit, out);
    qd_jsonl_close(&lines);
  }
  qd_text_file_release(&file);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* Shots that are drawn from the documents come from all of them, also from those beyond the limit. */
qd_status qd_task_set_read(qd_task_set *set, const qd_tasks_request *request) {
  documents own = {0}, shots = {0};
  qd_status status = read_file(set->task, set->path, request->limit, &own);
  set->document = own.at, set->n = own.n, set->capacity = own.capacity;
  const char *from = set->shots_path != NULL ? set->shots_path : set->path;
  if (status == QD_OK && set->shots > 0) status = read_file(set->task, from, 0, &shots);
  set->shot = shots.at, set->n_shots = shots.n, set->shot_capacity = shots.capacity;
  QD_TRY(status);
  int64_t own_place = set->shots_path == NULL; /* a document is no shot of itself */
  QD_CHECK(set->shots == 0 || (int64_t)set->n_shots >= set->shots + own_place, QD_EBADINPUT,
           "%s: %zu documents are too few for %" PRId64 " shots", from, set->n_shots, set->shots);
  return QD_OK;
}

void qd_task_set_release(qd_task_set *set) {
  for (size_t i = 0; i < set->n; i++) qd_task_document_release(&set->document[i]);
  for (size_t i = 0; i < set->n_shots; i++) qd_task_document_release(&set->shot[i]);
  qd_heap_free(set->document);
  qd_heap_free(set->shot);
  qd_heap_free(set->path);
  qd_heap_free(set->shots_path);
  *set = (qd_task_set){0};
}

/* ---- shots --------------------------------------------------------------------------------------------------------------- */

/* One stream of draws a task: every document draws, in their order.  index (shots + 1). */
static qd_status draw_shots(const qd_task_set *set, qd_python_random *random, size_t document, int64_t *index) {
  bool own = set->shots_path == NULL; /* then one more is drawn, and the document itself is left out */
  int64_t n = 0, drawn = set->shots + own;
  QD_TRY(qd_python_sample(random, (int64_t)set->n_shots, drawn, index));
  for (int64_t i = 0; i < drawn && n < set->shots; i++)
    if (!own || index[i] != (int64_t)document) index[n++] = index[i];
  return QD_OK;
}

/* The first ones of the document's subject, as they come. */
static qd_status first_shots(const qd_task_set *set, size_t document, int64_t *index) {
  const qd_task_document *d = &set->document[document];
  int64_t n = 0;
  for (size_t i = 0; i < set->n_shots && n < set->shots; i++)
    if (same_subject(d, &set->shot[i])) index[n++] = (int64_t)i;
  QD_CHECK(n == set->shots, QD_EBADINPUT, "%s: %" PRId64 " documents of %.200s are too few for %" PRId64 " shots",
           set->shots_path, n, d->subject != NULL ? d->subject : set->task->name, set->shots);
  return QD_OK;
}

/* parts: description (3), then 3 a shot: context, right continuation, blank line. */
static void list_parts(const qd_task_set *set, const qd_task_document *d, const char *subject, const int64_t *index,
                       const char **part) {
  size_t n = 0;
  if (set->task->description != NULL && d->subject != NULL)
    part[n++] = set->task->description, part[n++] = subject, part[n++] = ".\n\n";
  for (int64_t i = 0; i < set->shots; i++) {
    const qd_task_document *shot = &set->shot[index[i]];
    part[n++] = qd_task_context(shot, shot->gold), part[n++] = shot->choice[shot->gold].continuation, part[n++] = "\n\n";
  }
  part[n] = NULL;
}

static qd_status join_prefix(const qd_task_set *set, const qd_task_document *d, const int64_t *index, char **out) {
  char subject[256] = "";
  const char **part;
  QD_TRY(qd_heap_new((size_t)(3 * set->shots) + 4, sizeof *part, &part));
  for (size_t i = 0; d->subject != NULL && d->subject[i] != '\0' && i + 1 < sizeof subject; i++)
    subject[i] = d->subject[i] == '_' ? ' ' : d->subject[i];
  list_parts(set, d, subject, index, part);
  qd_status status = qd_text_join(part, out);
  qd_heap_free(part);
  return status;
}

/* What stands in front of a document's context. */
static qd_status make_prefix(const qd_task_set *set, qd_python_random *random, size_t document, char **out) {
  int64_t *index;
  QD_TRY(qd_heap_new((size_t)set->shots + 1, sizeof *index, &index));
  qd_status status = QD_OK;
  if (set->shots > 0)
    status = set->task->shots_file != NULL ? first_shots(set, document, index) : draw_shots(set, random, document, index);
  if (status == QD_OK) status = join_prefix(set, &set->document[document], index, out);
  qd_heap_free(index);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */

typedef struct encoder {
  const qd_tokenizer *tokenizer;
  int64_t      positions;
  qd_requests *out;
  char        *context; /* whose tokens are kept: most choices share it */
  size_t       context_bytes; /* without the white space at its end */
  int32_t     *ids;
  size_t       n;
} encoder;

static void forget_context(encoder *e) {
  qd_heap_free(e->context);
  qd_heap_free(e->ids);
  e->context = NULL, e->ids = NULL;
}

/* Without a text the harness predicts from BOS alone. */
static qd_status encode_context(encoder *e, const char *prefix, const char *context) {
  size_t begin = 0;
  forget_context(e);
  QD_TRY(qd_text_join((const char *const[]){prefix, context, NULL}, &e->context));
  size_t bytes = qd_utf8_strip(e->context, strlen(e->context), &begin);
  e->context_bytes = bytes > 0 ? begin + bytes : 0;
  return qd_tokenizer_encode(e->tokenizer, e->context, e->context_bytes, QD_BOS_AUTO, &e->ids, &e->n);
}

static qd_status append_request(encoder *e, const int32_t *continuation, size_t n) {
  qd_requests *out = e->out;
  size_t all = e->n + n, most = (size_t)e->positions + 1, left_out = all > most ? all - most : 0;
  QD_CHECK(n + 1 <= (all < most ? all : most) && all >= 2, QD_EBADINPUT,
           "a continuation of %zu tokens behind a context of %zu: at least one of context must stand in front of it, within "
           "the model's %" PRId64 " positions", n, e->n, e->positions);
  QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + 1, sizeof *out->at));
  QD_TRY(qd_heap_grow(&out->ids, &out->ids_capacity, out->n_ids + all, sizeof *out->ids));
  out->at[out->n++] = (qd_request){(int64_t)out->n_ids, (int64_t)(all - left_out), (int64_t)n};
  memcpy(out->ids + out->n_ids, e->ids + left_out, (e->n - left_out) * sizeof *out->ids);
  if (n > 0) memcpy(out->ids + out->n_ids + e->n - left_out, continuation, n * sizeof *out->ids);
  out->n_ids += all - left_out;
  return QD_OK;
}

static qd_status encode_choice(encoder *e, const char *continuation) {
  char *both;
  int32_t *ids = NULL;
  size_t n;
  QD_TRY(qd_text_join((const char *const[]){e->context, continuation, NULL}, &both));
  qd_status status = qd_tokenizer_encode(e->tokenizer, both, strlen(both), QD_BOS_AUTO, &ids, &n);
  if (status == QD_OK) status = n > e->n ? append_request(e, ids + e->n, n - e->n) : append_request(e, NULL, 0);
  qd_heap_free(both);
  qd_heap_free(ids);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status encode_document(encoder *e, const qd_task_document *d, const char *prefix) {
  for (size_t i = 0; i < d->n_choices; i++) {
    if (i == 0 || d->choice[i].context != NULL) QD_TRY(encode_context(e, prefix, qd_task_context(d, i)));
    QD_TRY(encode_choice(e, d->choice[i].continuation));
  }
  return QD_OK;
}

static qd_status encode_next(qd_task_set *set, encoder *e, qd_python_random *random, size_t document) {
  char *prefix;
  QD_TRY(make_prefix(set, random, document, &prefix));
  qd_status status = encode_document(e, &set->document[document], prefix);
  qd_heap_free(prefix);
  if (status != QD_OK) QD_FAIL(status, "%s, document %zu: %s", set->path, document + 1, qd_error_text());
  return QD_OK;
}

qd_status qd_task_set_encode(qd_task_set *set, const qd_tokenizer *tokenizer, int64_t positions, qd_requests *out) {
  enum { HARNESS_SEED = 1234 };
  encoder e = {.tokenizer = tokenizer, .positions = positions, .out = out};
  qd_python_random random;
  qd_status status = QD_OK;
  qd_python_random_seed(&random, HARNESS_SEED);
  set->first_request = out->n;
  for (size_t i = 0; i < set->n && status == QD_OK; i++) status = encode_next(set, &e, &random, i);
  forget_context(&e);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
