#include "pipeline/rules.h"

#include <stdio.h>
#include <string.h>

enum { SHOWN_NAMES = 3 };

static bool finds_linear(const qd_rule *rule, const qd_model *model) {
  qd_slot slots[QD_MAX_SLOTS];
  for (int64_t block = 0; block < model->n_blocks; block++) {
    int n = qd_model_slots(model, block, slots);
    for (int i = 0; i < n; i++)
      if (qd_role_is_linear(slots[i].role) && qd_pattern_finds(rule->pattern, slots[i].name)) return true;
  }
  return false;
}

/* What is kept anyway, of this model or of one that has a head of its own. */
static bool finds_kept(const qd_rule *rule, const qd_model *model) {
  qd_slot slots[QD_MAX_SLOTS];
  for (int i = 0; i < model->arch->n_rest; i++)
    if (qd_pattern_finds(rule->pattern, model->arch->rest[i].name)) return true;
  for (int64_t block = 0; block < model->n_blocks; block++) {
    int n = qd_model_slots(model, block, slots);
    for (int i = 0; i < n; i++)
      if (!qd_role_is_linear(slots[i].role) && qd_pattern_finds(rule->pattern, slots[i].name)) return true;
  }
  return false;
}

static qd_status refuse(const qd_rule *rule, const qd_job *job, const qd_model *model) {
  qd_slot slots[QD_MAX_SLOTS];
  char names[600] = "";
  int n = qd_model_slots(model, 0, slots), shown = 0;
  for (int i = 0; i < n; i++) {
    bool shows = qd_role_is_linear(slots[i].role) && shown < SHOWN_NAMES;
    size_t used = strlen(names);
    if (shows) snprintf(names + used, sizeof names - used, "%s%s", shown++ > 0 ? ", " : "", slots[i].name);
  }
  QD_FAIL(QD_EINVAL, "%s \"%s\" finds no %s in %s, whose linears are %s ...", rule->bits ? "--override" : "--ignore",
          rule->expression, rule->bits ? "linear" : "tensor", job->model, names);
}

static bool any_is_quantized(const qd_job *job, const qd_model *model) {
  qd_slot slots[QD_MAX_SLOTS];
  qd_scheme scheme;
  for (int64_t block = 0; block < model->n_blocks; block++) {
    int n = qd_model_slots(model, block, slots);
    for (int i = 0; i < n; i++)
      if (qd_role_is_linear(slots[i].role) &&
          qd_fate_is_quantized(qd_job_scheme(job, slots[i].name, slots[i].dim[1], &scheme)))
        return true;
  }
  return false;
}

qd_status qd_rules_check(const qd_job *job, const qd_model *model) {
  for (int i = 0; i < job->n_rules; i++) {
    const qd_rule *rule = &job->rule[i];
    bool found = finds_linear(rule, model) || (rule->bits == 0 && finds_kept(rule, model));
    if (!found) QD_TRY(refuse(rule, job, model));
  }
  QD_CHECK(any_is_quantized(job, model), QD_EINVAL,
           "no linear of %s is left to quantize: --ignore finds them all, or --odd-shape skip keeps them", job->model);
  return QD_OK;
}
