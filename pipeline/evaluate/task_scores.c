#include "pipeline/evaluate/task_scores.h"

#include "kernels/base/heap.h"
#include "kernels/vecmath.h"

#include <math.h>
#include <string.h>

/* ---- one document -------------------------------------------------------------------------------------------------------- */

/* The choice that is best, of equals the first; norm: by log-likelihood a character. */
static size_t best_choice(const qd_task_document *d, const qd_loglikelihood *found, bool norm) {
  size_t best = 0;
  double top = -INFINITY;
  for (size_t i = 0; i < d->n_choices; i++) {
    double value = norm ? found[i].value / (double)d->choice[i].characters : found[i].value;
    if (value > top) top = value, best = i;
  }
  return best;
}

static bool is_right(const qd_task *task, const qd_task_document *d, const qd_loglikelihood *found) {
  return task->metric == QD_TASK_GREEDY ? found[0].greedy != 0 : best_choice(d, found, false) == d->gold;
}

/* ---- scores -------------------------------------------------------------------------------------------------------------- */

static qd_status find_group(qd_task_score *score, const char *name, qd_group_score **out) {
  *out = NULL;
  for (size_t i = 0; i < score->n_groups; i++) {
    *out = &score->group[i];
    if (strcmp((*out)->name, name) == 0) return QD_OK;
  }
  QD_TRY(qd_heap_grow(&score->group, &score->group_capacity, score->n_groups + 1, sizeof *score->group));
  *out = &score->group[score->n_groups];
  **out = (qd_group_score){0};
  QD_TRY(qd_heap_text(name, strlen(name), &(*out)->name));
  score->n_groups++;
  return QD_OK;
}

/* The harness's pooled_sample_stderr: the variance within groups, over all documents.  Where no group has two documents
 * there is none within them (the harness divides by zero): the error of the mean as it is. */
static double pooled_error(const qd_task_score *score) {
  double sum = 0, n = (double)score->documents, spare = n - (double)score->n_groups;
  for (size_t i = 0; i < score->n_groups; i++) {
    const qd_group_score *g = &score->group[i];
    sum += (double)(g->documents - 1) * g->acc.error * g->acc.error * (double)g->documents;
  }
  return spare > 0 ? sqrt(sum / spare / n) : score->acc.error;
}

static qd_status score_groups(const qd_task_set *set, const qd_loglikelihood *found, qd_task_score *out) {
  for (size_t i = 0; i < set->n; found += set->document[i++].n_choices) {
    qd_group_score *group;
    if (set->document[i].subject == NULL) continue;
    QD_TRY(find_group(out, set->document[i].subject, &group));
    group->documents++;
    group->acc.value += is_right(set->task, &set->document[i], found); /* the sum so far */
  }
  for (size_t i = 0; i < out->n_groups; i++) {
    qd_group_score *g = &out->group[i];
    g->acc = qd_mean_of(g->acc.value, g->acc.value, g->documents);
  }
  if (out->n_groups > 0) out->acc.error = pooled_error(out);
  return QD_OK;
}

qd_status qd_task_score_of(const qd_task_set *set, const qd_loglikelihood *found, qd_task_score *out) {
  double right = 0, norm = 0, sum = 0, squares = 0;
  const qd_loglikelihood *at = found;
  *out = (qd_task_score){.task = set->task, .documents = (int64_t)set->n, .shots = set->shots};
  for (size_t i = 0; i < set->n; at += set->document[i++].n_choices) {
    const qd_task_document *d = &set->document[i];
    right += is_right(set->task, d, at);
    norm += best_choice(d, at, true) == d->gold;
    sum -= at[0].value, squares += at[0].value * at[0].value;
  }
  out->acc = qd_mean_of(right, right, out->documents);
  if (set->task->metric == QD_TASK_ACC_AND_NORM) out->acc_norm = qd_mean_of(norm, norm, out->documents);
  if (set->task->metric == QD_TASK_GREEDY) {
    qd_mean nll = qd_mean_of(sum, squares, out->documents);
    double perplexity = qd_vm_exp(nll.value);
    out->perplexity = (qd_mean){perplexity, perplexity * nll.error};
  }
  return score_groups(set, found, out);
}

void qd_task_score_release(qd_task_score *score) {
  for (size_t i = 0; i < score->n_groups; i++) qd_heap_free(score->group[i].name);
  qd_heap_free(score->group);
  *score = (qd_task_score){0};
}

/* ---- lines --------------------------------------------------------------------------------------------------------------- */

static qd_json *document_json(const qd_task_set *set, size_t i, const qd_request *request, const qd_loglikelihood *found) {
  const qd_task_document *d = &set->document[i];
  qd_json *out = qd_json_object(), *values = qd_json_array(), *greedy = qd_json_array(), *tokens = qd_json_array(),
          *characters = qd_json_array();
  for (size_t c = 0; c < d->n_choices; c++) {
    qd_json_append_number(values, found[c].value);
    qd_json_append_integer(greedy, found[c].greedy);
    qd_json_append_integer(tokens, request[c].scored);
    qd_json_append_integer(characters, d->choice[c].characters);
  }
  qd_json_set_text(out, "task", set->task->name);
  qd_json_set_integer(out, "document", (int64_t)i + 1);
  if (d->subject != NULL) qd_json_set_text(out, "subject", d->subject);
  qd_json_set_integer(out, "gold", (int64_t)d->gold);
  qd_json_set_integer(out, "best", (int64_t)best_choice(d, found, false));
  qd_json_set_bool(out, "right", is_right(set->task, d, found));
  qd_json_set(out, "loglikelihoods", values);
  qd_json_set(out, "greedy", greedy);
  qd_json_set(out, "tokens", tokens);
  qd_json_set(out, "characters", characters);
  return out;
}

static qd_status append_line(const qd_json *line, char **text, size_t *n, size_t *capacity) {
  char *one;
  QD_TRY(qd_json_print(line, 0, &one));
  size_t bytes = strlen(one);
  qd_status status = qd_heap_grow(text, capacity, *n + bytes + 1, 1);
  if (status == QD_OK) {
    memcpy(*text + *n, one, bytes);
    (*text)[*n + bytes] = '\n';
    *n += bytes + 1;
  }
  qd_heap_free(one);
  return status;
}

qd_status qd_task_lines(const qd_task_set *set, const qd_request *request, const qd_loglikelihood *found, qd_task_text *out) {
  for (size_t i = 0; i < set->n; i++) {
    qd_json *line = document_json(set, i, request, found);
    qd_status status = append_line(line, &out->text, &out->n, &out->capacity);
    qd_json_free(line);
    QD_TRY(status);
    request += set->document[i].n_choices, found += set->document[i].n_choices;
  }
  return QD_OK;
}
