#include "pipeline/rules.h"

#include <stdio.h>
#include <string.h>

enum { SHOWN_NAMES = 3 };

typedef bool (*slot_test)(const void *context, const qd_slot *slot);

static bool any_slot(const qd_model *model, slot_test test, const void *context) {
  qd_slot slot;
  for (int64_t block = 0; block < model->n_blocks; block++)
    for (int i = qd_model_n_slots(model, block) - 1; i >= 0; i--) {
      qd_model_slot(model, block, i, &slot);
      if (test(context, &slot)) return true;
    }
  return false;
}

static bool is_found_linear(const void *rule, const qd_slot *slot) {
  return qd_role_is_linear(slot->role) && qd_pattern_finds(((const qd_rule *)rule)->pattern, slot->name);
}

static bool is_found_other(const void *rule, const qd_slot *slot) {
  return !qd_role_is_linear(slot->role) && qd_pattern_finds(((const qd_rule *)rule)->pattern, slot->name);
}

/* What is kept anyway, of this model or of one that has a head of its own. */
static bool finds_kept(const qd_rule *rule, const qd_model *model) {
  for (int i = 0; i < model->arch->n_rest; i++)
    if (qd_pattern_finds(rule->pattern, model->arch->rest[i].name)) return true;
  return any_slot(model, is_found_other, rule);
}

static qd_status refuse(const qd_rule *rule, const qd_job *job, const qd_model *model) {
  qd_slot slot;
  char names[600] = "";
  int n = qd_model_n_slots(model, 0), shown = 0;
  for (int i = 0; i < n && shown < SHOWN_NAMES; i++) {
    size_t used = strlen(names);
    qd_model_slot(model, 0, i, &slot);
    if (qd_role_is_linear(slot.role)) snprintf(names + used, sizeof names - used, "%s%s", shown++ > 0 ? ", " : "", slot.name);
  }
  QD_FAIL(QD_EINVAL, "%s \"%s\" finds no %s in %s, whose linears are %s ...", rule->bits ? "--override" : "--ignore",
          rule->expression, rule->bits ? "linear" : "tensor", job->model, names);
}

static bool is_quantized(const void *job, const qd_slot *slot) {
  qd_scheme scheme;
  return qd_role_is_linear(slot->role) && qd_fate_is_quantized(qd_job_scheme(job, slot->name, slot->dim[1], &scheme));
}

/* What is asked to be quantized must not be kept by another option. */
static qd_status check_asked(const qd_job *job, const qd_model *model, const qd_arch_tensor *row, const char *option) {
  for (int i = 0; i < job->n_rules; i++)
    QD_CHECK(job->rule[i].bits != 0 || !qd_pattern_finds(job->rule[i].pattern, row->name), QD_EINVAL,
             "--ignore \"%s\" finds %s, which %s is to quantize", job->rule[i].expression, row->name, option);
  QD_CHECK(qd_job_quantizes(job, row->role, model), QD_EINVAL,
           "%s is to quantize %s, but no group of %" PRId64 " divides its %" PRId64 " columns and --odd-shape skip keeps it",
           option, row->name, job->scheme.group_size, model->hidden);
  return QD_OK;
}

static qd_status check_rest(const qd_job *job, const qd_model *model) {
  for (int i = 0; i < model->arch->n_rest; i++) {
    const qd_arch_tensor *row = &model->arch->rest[i];
    if (row->role == QD_HEAD && job->head_bits > 0) QD_TRY(check_asked(job, model, row, "--quant-lm-head"));
    if (row->role == QD_EMBEDDING && job->embedding_bits > 0) QD_TRY(check_asked(job, model, row, "--quant-embeddings"));
  }
  return QD_OK;
}

qd_status qd_rules_check(const qd_job *job, const qd_model *model) {
  for (int i = 0; i < job->n_rules; i++) {
    const qd_rule *rule = &job->rule[i];
    bool found = any_slot(model, is_found_linear, rule) || (rule->bits == 0 && finds_kept(rule, model));
    if (!found) QD_TRY(refuse(rule, job, model));
  }
  QD_TRY(check_rest(job, model));
  QD_CHECK(any_slot(model, is_quantized, job), QD_EINVAL,
           "no linear of %s is left to quantize: --ignore finds them all, or --odd-shape skip keeps them", job->model);
  return QD_OK;
}
