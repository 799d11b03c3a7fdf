#include "jobs/job_config.h"

#include "jobs/config.h"
#include "jobs/job_options.h"
#include "kernels/base/heap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 512, VALUE_BYTES = 64 };

typedef struct settings {
  qd_given item[MOST];
  char value[MOST][VALUE_BYTES];
  const qd_job *job;
  size_t n, n_given;
} settings;

/* Unless it was given. */
static void settle(settings *s, const char *name, const char *value) {
  for (size_t i = 0; i < s->n_given; i++)
    if (qd_config_same_setting(s->item[i].name, name)) return;
  QD_ASSERT(s->n < MOST);
  if (value != NULL) snprintf(s->value[s->n], VALUE_BYTES, "%s", value);
  s->item[s->n] = (qd_given){name, value != NULL ? s->value[s->n] : NULL};
  s->n++;
}

static void settle_integer(settings *s, const char *name, int64_t value) {
  char text[VALUE_BYTES];
  snprintf(text, sizeof text, "%" PRId64, value);
  settle(s, name, text);
}

/* The fewest digits that give the number back. */
static void settle_number(settings *s, const char *name, double value) {
  char text[VALUE_BYTES];
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  settle(s, name, text);
}

/* What gptq and rtn choose codes by. */
static void settle_codes(settings *s) {
  const qd_job *job = s->job;
  settle_integer(s, "bits", job->scheme.bits);
  settle_integer(s, "group-size", job->scheme.group_size);
  settle(s, job->scheme.symmetric ? "sym" : "asym", NULL);
  settle(s, job->scheme.mse ? "mse" : "no-mse", NULL);
  settle(s, "scale-dtype", job->scheme.scale_dtype == QD_F32 ? "f32" : "f16");
  if (!job->method->needs_factor) return;
  settle(s, "act-order", qd_act_order_name(job->act_order));
  settle_integer(s, "block-size", job->block);
  if (job->gptaq) settle_number(s, "gptaq-alpha", job->gptaq_alpha);
}

/* What SpQR does: how outliers are bounded, and the grids, which follow from that unless they were given. */
static void settle_spqr(settings *s) {
  const qd_job *job = s->job;
  const qd_scheme *scheme = &job->scheme;
  settle_integer(s, "bits", scheme->bits);
  settle_integer(s, "group-size", scheme->group_size);
  settle(s, scheme->symmetric ? "sym" : "asym", NULL);
  settle_integer(s, "scale-bits", scheme->scale_bits);
  settle_integer(s, "zero-bits", scheme->zero_bits);
  settle_integer(s, "stat-group", scheme->stat_group);
  settle(s, "scale-dtype", scheme->scale_dtype == QD_F32 ? "f32" : "f16");
  settle(s, "permutation-order", qd_permutation_name(job->act_order));
  settle_integer(s, "block-size", job->block);
  if (job->avg_bits > 0) settle_number(s, "avg-bits", job->avg_bits);
  else if (isinf(job->outlier_threshold)) settle(s, "outlier-threshold", "none");
  else settle_number(s, "outlier-threshold", job->outlier_threshold);
}

static void settle_damping(settings *s) {
  if (s->job->damp_auto) settle(s, "damp", "auto");
  else settle_number(s, "damp", s->job->damp);
}

static void settle_job(settings *s, const qd_job_settled *settled) {
  const qd_job *job = s->job;
  static const char *const bos[] = {"auto", "yes", "no"};
  settle(s, "odd-shape", qd_odd_shape_name(job->odd_shape));
  settle(s, job->true_sequential ? "true-sequential" : "no-true-sequential", NULL);
  settle_damping(s);
  settle(s, "on-hessian-failure", job->on_failure == QD_FAILURE_RTN ? "rtn" : "stop");
  settle(s, "moe-fallback", job->moe_fallback == QD_MOE_RTN ? "rtn" : "shared-hessian");
  settle_integer(s, "moe-min-tokens", job->moe_min_tokens);
  settle_integer(s, "nsamples", job->nsamples);
  if (settled->sequence_tokens > 0) settle_integer(s, "seqlen", settled->sequence_tokens);
  settle_integer(s, "seed", job->seed);
  settle(s, "add-bos", bos[job->bos]);
  settle(s, "arithmetic", qd_arithmetic_name(settled->arithmetic));
  if (job->kl_positions > 0) settle_integer(s, "kl-positions", job->kl_positions);
  settle_integer(s, "shard-size", job->shard_bytes);
  settle(s, "activations", "memory");
  settle(s, "readers", qd_readers_name(job->readers));
}

qd_status qd_job_config_print(const qd_job *job, const qd_job_settled *settled, char **text) {
  settings *s;
  const qd_given *given;
  size_t n = qd_config_given(&given);
  *text = NULL;
  QD_CHECK(n < MOST / 2, QD_EUSAGE, "%zu options are too many to be written down", n);
  QD_TRY(qd_heap_new(1, sizeof *s, &s));
  s->job = job, s->n = s->n_given = n;
  if (n > 0) memcpy(s->item, given, n * sizeof *given);
  settle(s, "method", job->method->name);
  if (job->method->has_outliers) settle_spqr(s);
  else settle_codes(s);
  settle_job(s, settled);
  qd_status status = qd_config_print(s->item, s->n, text);
  qd_heap_free(s);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
