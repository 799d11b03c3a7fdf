#include "pipeline/evaluate/task_document.h"

#include "kernels/base/heap.h"
#include "storage/utf8.h"

#include <string.h>

#define JOIN(out, ...) qd_text_join((const char *const[]){__VA_ARGS__, NULL}, (out))

qd_status qd_text_join(const char *const *parts, char **out) {
  size_t n = 0;
  for (const char *const *part = parts; *part != NULL; part++) n += strlen(*part);
  QD_TRY(qd_heap_new(n + 1, 1, out));
  char *to = *out;
  for (const char *const *part = parts; *part != NULL; part++) {
    size_t bytes = strlen(*part);
    memcpy(to, *part, bytes);
    to += bytes;
  }
  return QD_OK;
}

const char *qd_task_context(const qd_task_document *document, size_t choice) {
  const char *own = document->choice[choice].context;
  return own != NULL ? own : document->context;
}

void qd_task_document_release(qd_task_document *document) {
  for (size_t i = 0; i < document->n_choices; i++) {
    qd_heap_free(document->choice[i].context);
    qd_heap_free(document->choice[i].continuation);
  }
  qd_heap_free(document->choice);
  qd_heap_free(document->context);
  qd_heap_free(document->subject);
  *document = (qd_task_document){0};
}

/* ---- fields -------------------------------------------------------------------------------------------------------------- */

static qd_status check_text(const qd_json *value, const char *what, const char *key, const char **out) {
  *out = "";
  QD_CHECK(value != NULL && qd_json_is_text(value), QD_EBADINPUT, "%s: \"%s\" is not what a task needs: a text is expected",
           what, key);
  *out = qd_json_text(value);
  QD_CHECK(strlen(*out) == qd_json_text_bytes(value), QD_EBADINPUT, "%s: there is a NUL in \"%s\"", what, key);
  return QD_OK;
}

static qd_status text_of(const qd_json *line, const char *what, const char *key, const char **out) {
  return check_text(qd_json_get(line, key), what, key, out);
}

/* A list of texts, one for each choice. */
static qd_status choices_of(const qd_json *line, const char *what, const char *key, const qd_json **out) {
  enum { MOST = 1024 };
  *out = qd_json_get(line, key);
  QD_CHECK(*out != NULL && qd_json_is_array(*out), QD_EBADINPUT, "%s: \"%s\" is not what a task needs: a list is expected",
           what, key);
  size_t n = qd_json_length(*out);
  QD_CHECK(n >= 2 && n <= MOST, QD_EBADINPUT, "%s: \"%s\" has %zu choices, expected 2 to %d", what, key, n, MOST);
  return QD_OK;
}

static qd_status gold_of(const qd_json *line, const char *what, const char *key, qd_task_document *document) {
  int64_t gold;
  QD_TRY(qd_json_need_integer(line, what, key, 0, (int64_t)document->n_choices - 1, &gold));
  document->gold = (size_t)gold;
  return QD_OK;
}

static qd_status new_choices(qd_task_document *document, size_t n) {
  QD_TRY(qd_heap_new(n, sizeof *document->choice, &document->choice));
  document->n_choices = n;
  return QD_OK;
}

static qd_status set_choice(qd_task_document *document, size_t i, const char *what, const char *text) {
  qd_task_choice *choice = &document->choice[i];
  QD_CHECK(*text != '\0', QD_EBADINPUT, "%s: choice %zu is empty", what, i);
  choice->characters = (int64_t)qd_utf8_length(text, strlen(text));
  return JOIN(&choice->continuation, " ", text);
}

/* The texts of a list as continuations. */
static qd_status take_choices(const qd_json *line, const char *what, const char *key, qd_task_document *out) {
  const qd_json *list;
  QD_TRY(choices_of(line, what, key, &list));
  QD_TRY(new_choices(out, qd_json_length(list)));
  for (size_t i = 0; i < out->n_choices; i++) {
    const char *text;
    QD_TRY(check_text(qd_json_at(list, i), what, key, &text));
    QD_TRY(set_choice(out, i, what, text));
  }
  return QD_OK;
}

/* ---- tasks --------------------------------------------------------------------------------------------------------------- */

/* The query ends in a newline where it is PIQA's. */
static qd_status read_query(const qd_json *line, const char *what, const char *newline, qd_task_document *out) {
  const char *query;
  QD_TRY(text_of(line, what, "query", &query));
  QD_TRY(take_choices(line, what, "choices", out));
  QD_TRY(gold_of(line, what, "gold", out));
  return JOIN(&out->context, query, newline, "Answer:");
}

static qd_status read_piqa(const qd_json *line, const char *what, qd_task_document *out) {
  return read_query(line, what, "", out);
}

static qd_status read_arc(const qd_json *line, const char *what, qd_task_document *out) {
  return read_query(line, what, "\n", out);
}

static qd_status read_boolq(const qd_json *line, const char *what, qd_task_document *out) {
  static const char passage[] = "Passage: ";
  const char *query;
  QD_TRY(text_of(line, what, "query", &query));
  if (strncmp(query, passage, sizeof passage - 1) == 0) query += sizeof passage - 1;
  QD_TRY(take_choices(line, what, "choices", out));
  QD_TRY(gold_of(line, what, "gold", out));
  return JOIN(&out->context, query, "\nAnswer:");
}

static qd_status read_winogrande(const qd_json *line, const char *what, qd_task_document *out) {
  const qd_json *options;
  const char *continuation, *option;
  QD_TRY(choices_of(line, what, "context_options", &options));
  QD_TRY(text_of(line, what, "continuation", &continuation));
  QD_TRY(new_choices(out, qd_json_length(options)));
  for (size_t i = 0; i < out->n_choices; i++) {
    QD_TRY(check_text(qd_json_at(options, i), what, "context_options", &option));
    QD_TRY(set_choice(out, i, what, continuation));
    QD_TRY(JOIN(&out->choice[i].context, option));
  }
  return gold_of(line, what, "gold", out);
}

static qd_status read_lambada(const qd_json *line, const char *what, qd_task_document *out) {
  const char *context, *continuation;
  QD_TRY(text_of(line, what, "context", &context));
  QD_TRY(text_of(line, what, "continuation", &continuation));
  QD_TRY(new_choices(out, 1));
  QD_TRY(set_choice(out, 0, what, continuation));
  return JOIN(&out->context, context);
}

/* A copy without the white space at both ends. */
static qd_status stripped(const char *text, char **out) {
  size_t begin, bytes = qd_utf8_strip(text, strlen(text), &begin);
  return qd_heap_text(text + begin, bytes, out);
}

static qd_status join_mmlu(const char *question, const char *const *choice, qd_task_document *out) {
  return JOIN(&out->context, question, "\nA. ", choice[0], "\nB. ", choice[1], "\nC. ", choice[2], "\nD. ", choice[3],
              "\nAnswer:");
}

/* The choices stand in the context as they are; what is scored are their letters. */
static qd_status read_mmlu(const qd_json *line, const char *what, qd_task_document *out) {
  enum { CHOICES = 4 };
  static const char *const letters[CHOICES] = {"A", "B", "C", "D"};
  const char *question, *subject, *choice[CHOICES];
  const qd_json *list;
  char *bare;
  QD_TRY(text_of(line, what, "question", &question));
  QD_TRY(text_of(line, what, "subject", &subject));
  QD_TRY(choices_of(line, what, "choices", &list));
  QD_CHECK(qd_json_length(list) == CHOICES, QD_EBADINPUT, "%s: %zu choices, MMLU has %d", what, qd_json_length(list), CHOICES);
  QD_TRY(new_choices(out, CHOICES));
  for (size_t i = 0; i < CHOICES; i++) {
    QD_TRY(check_text(qd_json_at(list, i), what, "choices", &choice[i]));
    QD_TRY(set_choice(out, i, what, letters[i]));
  }
  QD_TRY(gold_of(line, what, "answer", out));
  QD_TRY(JOIN(&out->subject, subject));
  QD_TRY(stripped(question, &bare));
  qd_status status = join_mmlu(bare, choice, out);
  qd_heap_free(bare);
  return status;
}

/* ---- HellaSwag ----------------------------------------------------------------------------------------------------------- */

/* What regular expression and replacements of the harness do: "\[.*?\]" does not cross a line. */
static void without_brackets(char *text) {
  char *to = text;
  for (const char *from = text; *from != '\0';) {
    size_t line = strcspn(from, "\n");
    const char *end = *from == '[' ? memchr(from, ']', line) : NULL;
    if (end != NULL) from = end + 1;
    else *to++ = *from++;
  }
  *to = '\0';
}

static void blanks_to_one(char *text) {
  char *to = text;
  for (const char *from = text; *from != '\0';) {
    if (from[0] == ' ' && from[1] == ' ') from++;
    *to++ = *from++;
  }
  *to = '\0';
}

/* No replacement is longer than what it replaces. */
static void replace_titles(char *text) {
  static const char title[] = " [title]";
  char *to = text;
  for (const char *from = text; *from != '\0';) {
    if (strncmp(from, title, sizeof title - 1) != 0) *to++ = *from++;
    else *to++ = '.', *to++ = ' ', from += sizeof title - 1;
  }
  *to = '\0';
}

qd_status qd_hellaswag_clean(const char *text, char **out) {
  QD_TRY(stripped(text, out));
  replace_titles(*out);
  without_brackets(*out);
  blanks_to_one(*out);
  return QD_OK;
}

/* The files hold the second part of a context in lower case where the harness begins it with a capital: the letter behind the
 * last end of a sentence, quotes or brackets, and blanks: [.!?]["')]* +([a-z][^.!?]*)$ */
static void begin_with_capital(char *context) {
  char *at = NULL;
  for (char *c = context; *c != '\0'; c++)
    if (strchr(".!?", *c) != NULL) at = c;
  if (at == NULL) return;
  at += 1 + strspn(at + 1, "\"')");
  size_t blanks = strspn(at, " ");
  at += blanks;
  if (blanks > 0 && *at >= 'a' && *at <= 'z') *at = (char)(*at - 'a' + 'A');
}

static qd_status clean_context(const char *text, char **out) {
  char *copy;
  QD_TRY(JOIN(&copy, text));
  begin_with_capital(copy);
  qd_status status = qd_hellaswag_clean(copy, out);
  qd_heap_free(copy);
  return status;
}

static qd_status read_hellaswag(const qd_json *line, const char *what, qd_task_document *out) {
  const qd_json *endings;
  const char *context, *ending;
  QD_TRY(text_of(line, what, "ctx", &context));
  QD_TRY(choices_of(line, what, "endings", &endings));
  QD_TRY(new_choices(out, qd_json_length(endings)));
  for (size_t i = 0; i < out->n_choices; i++) {
    char *clean;
    QD_TRY(check_text(qd_json_at(endings, i), what, "endings", &ending));
    QD_TRY(qd_hellaswag_clean(ending, &clean));
    qd_status status = set_choice(out, i, what, clean);
    qd_heap_free(clean);
    QD_TRY(status);
  }
  QD_TRY(gold_of(line, what, "label", out));
  return clean_context(context, &out->context);
}

/* ---- the table ----------------------------------------------------------------------------------------------------------- */

const qd_task qd_tasks[QD_N_TASKS] = {
    {.name = "piqa", .file = "piqa.jsonl", .metric = QD_TASK_ACC_AND_NORM, .read = read_piqa},
    {.name = "arc_easy", .file = "arc_easy.jsonl", .metric = QD_TASK_ACC_AND_NORM, .read = read_arc},
    {.name = "arc_challenge", .file = "arc_challenge.jsonl", .metric = QD_TASK_ACC_AND_NORM, .read = read_arc},
    {.name = "boolq", .file = "boolq.jsonl", .metric = QD_TASK_ACC, .read = read_boolq},
    {.name = "hellaswag", .file = "hellaswag.jsonl", .other_file = "hellaswag_val.jsonl", .metric = QD_TASK_ACC_AND_NORM,
     .read = read_hellaswag},
    {.name = "winogrande", .file = "winogrande.jsonl", .metric = QD_TASK_ACC, .read = read_winogrande},
    {.name = "lambada", .file = "lambada.jsonl", .other_file = "lambada_openai.jsonl", .metric = QD_TASK_GREEDY,
     .read = read_lambada},
    {.name = "mmlu", .file = "mmlu.jsonl", .other_file = "mmlu_test.jsonl", .shots_file = "mmlu_dev.jsonl", .usual_shots = 5,
     .metric = QD_TASK_ACC, .read = read_mmlu,
     .description = "The following are multiple choice questions (with answers) about "},
};

const qd_task *qd_task_find(const char *name, size_t n) {
  for (int i = 0; i < QD_N_TASKS; i++)
    if (strlen(qd_tasks[i].name) == n && strncmp(qd_tasks[i].name, name, n) == 0) return &qd_tasks[i];
  return NULL;
}

const qd_task *qd_task_of_file(const char *path) {
  const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path;
  for (int i = 0; i < QD_N_TASKS; i++)
    if (strncmp(base, qd_tasks[i].name, strlen(qd_tasks[i].name)) == 0) return &qd_tasks[i];
  return NULL;
}

qd_status qd_task_read(const qd_task *task, const qd_json *line, const char *what, qd_task_document *out) {
  *out = (qd_task_document){0};
  QD_CHECK(qd_json_is_object(line), QD_EBADINPUT, "%s: not an object, as each line of the task %s is", what, task->name);
  qd_status status = task->read(line, what, out);
  if (status == QD_OK) return QD_OK;
  qd_task_document_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}
