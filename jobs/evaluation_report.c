#include "jobs/evaluation_options.h"

#include <stdio.h>

/* ---- for machines -------------------------------------------------------------------------------------------------------- */

static void set_mean(qd_json *out, const char *name, qd_mean mean) {
  char error[64];
  snprintf(error, sizeof error, "%s_stderr", name);
  qd_json_set_number(out, name, mean.value);
  qd_json_set_number(out, error, mean.error);
}

static void set_text(qd_json *out, const qd_evaluation_request *request, const qd_evaluation *e) {
  qd_json_set_number(out, "perplexity", e->perplexity);
  qd_json_set_number(out, "mean_nll", e->mean_nll);
  qd_json_set_number(out, "standard_error", e->standard_error);
  qd_json_set_text(out, "dataset", request->dataset);
  qd_json_set_text(out, "dataset_kind", qd_text_kind_name(e->text_kind));
  qd_json_set_integer(out, "dataset_tokens", e->text_tokens);
  qd_json_set_integer(out, "seqlen", e->sequence_tokens);
  qd_json_set_integer(out, "windows", e->windows);
  qd_json_set_integer(out, "tokens", e->tokens);
  qd_json_set_text(out, "ppl_style", qd_ppl_style_name(request->style));
}

static void set_divergence(qd_json *out, const qd_evaluation *e) {
  const qd_divergence *d = &e->divergence;
  set_mean(out, "kl_mean", d->kl);
  qd_json_set_number(out, "kl_median", d->kl_median);
  qd_json_set_number(out, "kl_99", d->kl_99);
  qd_json_set_number(out, "kl_99.9", d->kl_99_9);
  qd_json_set_number(out, "kl_max", d->kl_max);
  set_mean(out, "top1_agreement", d->top1);
  set_mean(out, "ln_ppl_ratio", d->log_ratio);
  set_mean(out, "delta_p_mean", d->delta_p);
  set_mean(out, "delta_p_rms", d->delta_p_rms);
  qd_json_set_number(out, "reference_mean_nll", e->reference_mean_nll);
  qd_json_set_text(out, "reference_arithmetic", qd_arithmetic_name(e->reference_arithmetic));
}

static qd_json *groups_json(const qd_task_score *score) {
  qd_json *all = qd_json_object();
  for (size_t i = 0; i < score->n_groups; i++) {
    qd_json *group = qd_json_object();
    qd_json_set_integer(group, "documents", score->group[i].documents);
    set_mean(group, "acc", score->group[i].acc);
    qd_json_set(all, score->group[i].name, group);
  }
  return all;
}

static qd_json *task_json(const qd_task_score *score) {
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "task", score->task->name);
  qd_json_set_integer(out, "documents", score->documents);
  qd_json_set_integer(out, "num_fewshot", score->shots);
  set_mean(out, "acc", score->acc);
  if (score->task->metric == QD_TASK_ACC_AND_NORM) set_mean(out, "acc_norm", score->acc_norm);
  if (score->task->metric == QD_TASK_GREEDY) set_mean(out, "perplexity", score->perplexity);
  if (score->n_groups > 0) qd_json_set(out, "subjects", groups_json(score));
  return out;
}

void qd_evaluation_set_json(qd_json *out, const qd_evaluation_request *request, const qd_evaluation *e) {
  if (e->has_text) set_text(out, request, e);
  if (e->has_reference) set_divergence(out, e);
  if (e->tasks.n > 0) {
    qd_json *tasks = qd_json_array();
    for (size_t i = 0; i < e->tasks.n; i++) qd_json_append(tasks, task_json(&e->tasks.at[i]));
    qd_json_set(out, "tasks", tasks);
  }
  qd_json_set_text(out, "arithmetic", qd_arithmetic_name(e->arithmetic));
  qd_json_set_integer(out, "planned_host_bytes", e->planned_bytes);
  qd_json_set_integer(out, "peak_host_bytes", e->peak_bytes);
  qd_json_set_number(out, "seconds", e->seconds);
}

/* ---- for people ---------------------------------------------------------------------------------------------------------- */

static void print_divergence(const qd_evaluation_request *request, const qd_evaluation *e) {
  const qd_divergence *d = &e->divergence;
  printf("against %s (arithmetic %s): KL divergence %.6f +/- %.6f nats (median %.6f, 99 %% %.6f, 99.9 %% %.6f, largest %.6f), "
         "top-1 agreement %.2f +/- %.2f %%\n",
         request->reference, qd_arithmetic_name(e->reference_arithmetic), d->kl.value, d->kl.error, d->kl_median, d->kl_99,
         d->kl_99_9, d->kl_max, 100 * d->top1.value, 100 * d->top1.error);
  printf("  ln of the perplexities' ratio %.6f +/- %.6f (mean NLL there %.6f, here %.6f), change of the right token's "
         "probability: mean %.3f %%, RMS %.3f +/- %.3f %%\n",
         d->log_ratio.value, d->log_ratio.error, e->reference_mean_nll, e->mean_nll, 100 * d->delta_p.value,
         100 * d->delta_p_rms.value, 100 * d->delta_p_rms.error);
}

static void print_task(const qd_task_score *score) {
  printf("%-14s %" PRId64 "-shot  %6" PRId64 " documents  acc %6.2f +/- %.2f %%", score->task->name, score->shots,
         score->documents, 100 * score->acc.value, 100 * score->acc.error);
  if (score->task->metric == QD_TASK_ACC_AND_NORM)
    printf("  acc_norm %6.2f +/- %.2f %%", 100 * score->acc_norm.value, 100 * score->acc_norm.error);
  if (score->task->metric == QD_TASK_GREEDY)
    printf("  perplexity %.4f +/- %.4f", score->perplexity.value, score->perplexity.error);
  printf("\n");
  for (size_t i = 0; i < score->n_groups; i++)
    printf("  %-40s %6" PRId64 " documents  acc %6.2f +/- %.2f %%\n", score->group[i].name, score->group[i].documents,
           100 * score->group[i].acc.value, 100 * score->group[i].acc.error);
}

void qd_evaluation_print(const qd_evaluation_request *request, const qd_evaluation *e) {
  if (e->has_text)
    printf("perplexity %.4f +/- %.4f  (%s style, %" PRId64 " windows of %" PRId64 " from %" PRId64 " tokens, %" PRId64
           " predictions, arithmetic %s, %.1f s)\n",
           e->perplexity, e->standard_error, qd_ppl_style_name(request->style), e->windows, e->sequence_tokens, e->text_tokens,
           e->tokens, qd_arithmetic_name(e->arithmetic), e->seconds);
  if (e->has_reference) print_divergence(request, e);
  for (size_t i = 0; i < e->tasks.n; i++) print_task(&e->tasks.at[i]);
  if (!e->has_text) printf("(arithmetic %s, %.1f s)\n", qd_arithmetic_name(e->arithmetic), e->seconds);
}
