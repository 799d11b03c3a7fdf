/* Multiple-choice tasks as lm-evaluation-harness (0.4) has them: what a line of a task's file asks, in texts.
 *
 * docs/evaluation.md says the fields of each file and the text that is made of them. */
#ifndef QDIST_PIPELINE_EVALUATE_TASK_DOCUMENT_H
#define QDIST_PIPELINE_EVALUATE_TASK_DOCUMENT_H

#include "storage/json.h"

typedef struct qd_task_choice {
  char   *context;      /* NULL: the document's */
  char   *continuation; /* with the blank in front */
  int64_t characters;   /* of the choice without that blank: what acc_norm divides by */
} qd_task_choice;

typedef struct qd_task_document { /* all from the heap */
  char           *context;
  qd_task_choice *choice;
  size_t          n_choices, gold;
  char           *subject; /* of a task of several subjects; else NULL */
} qd_task_document;

typedef enum qd_task_metric {
  QD_TASK_ACC,           /* the choice with the largest log-likelihood is right */
  QD_TASK_ACC_AND_NORM,  /* and the same by log-likelihood a character */
  QD_TASK_GREEDY,        /* the one continuation is what greedy decoding gives; perplexity of continuations */
} qd_task_metric;

typedef struct qd_task {
  const char    *name;
  const char    *file, *other_file; /* in a folder of tasks; the second name, or NULL */
  const char    *shots_file;        /* beside it: shots are its first of the subject; NULL: they are drawn */
  int64_t        usual_shots;
  qd_task_metric metric;
  const char    *description; /* in front of all, with the subject and a full stop behind it; NULL: none */
  qd_status (*read)(const qd_json *line, const char *what, qd_task_document *out);
} qd_task;

enum { QD_N_TASKS = 8 };
extern const qd_task qd_tasks[QD_N_TASKS];

const qd_task *qd_task_find(const char *name, size_t n);   /* by the first n bytes of `name`; NULL: there is none */
const qd_task *qd_task_of_file(const char *path);          /* whose name the file's own begins with; NULL: there is none */

/* QD_EBADINPUT: not an object, a field that is missing or of another type, a gold that is no choice; names `what`. */
qd_status qd_task_read(const qd_task *task, const qd_json *line, const char *what, qd_task_document *out) QD_MUST_USE;
void      qd_task_document_release(qd_task_document *document);

/* Texts one after the other, from the heap; `parts` ends in NULL. */
qd_status qd_text_join(const char *const *parts, char **out) QD_MUST_USE;

/* The text of a shot: context and the right continuation. */
const char *qd_task_context(const qd_task_document *document, size_t choice);

/* HellaSwag's texts, as the harness cleans them: stripped, " [title]" to ". ", what is in brackets gone, two blanks to one. */
qd_status qd_hellaswag_clean(const char *text, char **out) QD_MUST_USE;

#endif
