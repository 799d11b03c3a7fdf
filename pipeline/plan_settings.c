#include "pipeline/plan_settings.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool is_listed(qd_role role) { return qd_role_is_linear(role) || role == QD_EMBEDDING || role == QD_HEAD; }

static bool same_setting(const qd_plan_tensor *a, const qd_plan_tensor *b) {
  return a->slot.role == b->slot.role && a->fate == b->fate && a->scheme.bits == b->scheme.bits &&
         a->scheme.group_size == b->scheme.group_size;
}

/* Experts of one role that are alike count once, at the first of them. */
static bool is_counted_before(const qd_plan_kind *kind, int i) {
  for (int k = 0; k < i; k++)
    if (kind->tensor[k].slot.expert >= 0 && same_setting(&kind->tensor[k], &kind->tensor[i])) return true;
  return false;
}

static int64_t count_experts(const qd_plan_kind *kind, int i) {
  int64_t n = 0;
  for (int k = i; k < kind->n; k++) n += kind->tensor[k].slot.expert >= 0 && same_setting(&kind->tensor[k], &kind->tensor[i]);
  return n;
}

bool qd_plan_setting_at(const qd_plan *plan, size_t index, qd_plan_setting *out) {
  for (size_t k = 0; k < plan->n_kinds; k++) {
    const qd_plan_kind *kind = &plan->kind[k];
    for (int i = 0; i < kind->n; i++) {
      bool is_expert = kind->tensor[i].slot.expert >= 0;
      if (!is_listed(kind->tensor[i].slot.role) || (is_expert && is_counted_before(kind, i)) || index-- > 0) continue;
      *out = (qd_plan_setting){.first_block = kind->first_block,
                               .blocks = kind->blocks,
                               .tensor = &kind->tensor[i],
                               .experts = is_expert ? count_experts(kind, i) : 0};
      return true;
    }
  }
  return false;
}

static void append(char text[QD_SETTING_BYTES], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(char text[QD_SETTING_BYTES], const char *format, ...) {
  va_list arguments;
  size_t n = strlen(text);
  va_start(arguments, format);
  vsnprintf(text + n, QD_SETTING_BYTES - n, format, arguments);
  va_end(arguments);
}

/* The rule that decides is the last that finds the name. */
static const char *deciding_rule(const qd_job *job, const char *name) {
  const char *found = NULL;
  for (int i = 0; i < job->n_rules; i++)
    if (qd_pattern_finds(job->rule[i].pattern, name)) found = job->rule[i].expression;
  return found;
}

static void append_kept(const qd_job *job, const qd_plan_tensor *t, char *text) {
  const char *rule = deciding_rule(job, t->slot.name);
  if (!qd_role_is_linear(t->slot.role) && rule == NULL)
    append(text, "kept; %s quantizes it", t->slot.role == QD_HEAD ? "--quant-lm-head" : "--quant-embeddings");
  else if (t->fate == QD_FATE_SKIPPED)
    append(text, "kept: no group of %" PRId64 " divides its columns (--odd-shape skip)", t->scheme.group_size);
  else
    append(text, "kept: --ignore \"%s\"", rule != NULL ? rule : "");
}

static void append_fallback(const qd_job *job, const qd_plan_setting *s, char *text) {
  bool factored = job->method->needs_factor && s->tensor->slot.role != QD_EMBEDDING;
  if (!factored) return;
  append(text, ", act-order %s, damping ", qd_act_order_name(job->act_order));
  if (job->damp_auto) append(text, "auto");
  else append(text, "%g", job->damp);
  append(text, "; without a factor %s", job->on_failure == QD_FAILURE_RTN ? "rtn" : "the job stops");
  if (s->experts > 0)
    append(
        text, "; with fewer than %" PRId64 " tokens %s", job->moe_min_tokens,
        job->moe_fallback == QD_MOE_RTN || s->tensor->slot.role == QD_EXPERT_DOWN_PROJ ? "rtn" : "the Hessian of all tokens");
}

/* What SpQR stores beside codes. */
static void append_statistics(const qd_job *job, const qd_scheme *scheme, char *text) {
  append(text, ", scales of %d and zero points of %d bits over %" PRId64 " rows", scheme->scale_bits, scheme->zero_bits,
         scheme->stat_group);
  if (job->avg_bits > 0) append(text, ", outliers up to %g bits a weight of the whole job", job->avg_bits);
  else if (isinf(job->outlier_threshold)) append(text, ", no outliers");
  else append(text, ", outliers beyond %g", job->outlier_threshold);
}

static void append_codes(const qd_job *job, const qd_plan_setting *s, char *text) {
  const qd_plan_tensor *t = s->tensor;
  append(text, "%s, %d bits, ", t->slot.role == QD_EMBEDDING ? "rtn" : job->method->name, t->scheme.bits);
  if (t->scheme.group_size == QD_PER_CHANNEL)
    append(text, "one group a row");
  else
    append(text, "groups of %" PRId64, t->scheme.group_size);
  if (t->fate == QD_FATE_RAGGED) append(text, " (the last of a row is shorter)");
  if (t->fate == QD_FATE_WHOLE_ROWS) append(text, " (no group divides its columns)");
  append(text, ", %s", t->scheme.symmetric ? "symmetric" : "zero points");
  if (t->scheme.spqr) append_statistics(job, &t->scheme, text);
  else append(text, ", scales %s%s", qd_dtype_name(t->scheme.scale_dtype), t->scheme.mse ? ", clipping searched" : "");
  append_fallback(job, s, text);
}

void qd_plan_setting_text(const qd_plan *plan, const qd_plan_setting *s, char text[QD_SETTING_BYTES]) {
  const qd_plan_tensor *t = s->tensor;
  *text = '\0';
  if (s->first_block != QD_REST)
    append(text, "%" PRId64 " block%s as block %" PRId64 ": ", s->blocks, s->blocks == 1 ? "" : "s", s->first_block);
  if (s->experts > 0) append(text, "%" PRId64 " x ", s->experts);
  append(text, "%s [%" PRId64 ", %" PRId64 "]: ", qd_role_name(t->slot.role), t->slot.dim[0], t->slot.dim[1]);
  if (t->quantized)
    append_codes(plan->request.job, s, text);
  else
    append_kept(plan->request.job, t, text);
}

double qd_plan_weights(const qd_plan *plan) {
  double n = 0;
  for (size_t k = 0; k < plan->n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++) {
      const qd_plan_tensor *t = &plan->kind[k].tensor[i];
      if (t->quantized) n += (double)plan->kind[k].blocks * (double)t->slot.dim[0] * (double)t->slot.dim[1];
    }
  return n;
}
