#include "pipeline/job.h"

#include "kernels/base/heap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const order_names[] = {"none", "static", "dynamic", "group-aware", "spearman"};

const char *qd_act_order_name(qd_act_order order) { return order_names[order]; }

bool qd_act_order_find(const char *name, qd_act_order *out) {
  for (int i = 0; i < (int)(sizeof order_names / sizeof order_names[0]); i++)
    if (strcmp(name, order_names[i]) == 0) return *out = (qd_act_order)i, true;
  return false;
}

qd_arithmetic qd_compute_arithmetic(qd_compute compute, qd_dtype model) {
  switch (compute) {
    case QD_COMPUTE_BF16_AMX: return QD_ARITHMETIC_BF16_AMX;
    case QD_COMPUTE_BF16: return QD_ARITHMETIC_BF16_PAIRS;
    case QD_COMPUTE_INT8: return QD_ARITHMETIC_INT8;
    case QD_COMPUTE_FP32: return QD_ARITHMETIC_F32;
    case QD_COMPUTE_MODEL: break;
  }
  return model == QD_BF16 ? QD_ARITHMETIC_BF16_PAIRS : QD_ARITHMETIC_F32;
}

qd_dtype qd_arithmetic_act(qd_arithmetic arithmetic) {
  return arithmetic == QD_ARITHMETIC_F32 || arithmetic == QD_ARITHMETIC_INT8 ? QD_F32 : QD_BF16;
}

const char *qd_odd_shape_name(qd_odd_shape odd_shape) {
  static const char *const names[] = {"ragged", "per-channel", "skip"};
  return names[odd_shape];
}

const char *qd_fate_name(qd_fate fate) {
  static const char *const names[] = {"plain", "ragged", "per-channel", "ignore", "odd-shape"};
  return names[fate];
}

static bool is_odd(const qd_scheme *scheme, int64_t columns) {
  return scheme->group_size != QD_PER_CHANNEL && columns % scheme->group_size != 0;
}

/* What the width asks for. */
static qd_fate fit_width(const qd_job *job, int64_t columns, qd_scheme *out) {
  if (!is_odd(out, columns)) return QD_FATE_PLAIN;
  if (job->odd_shape == QD_ODD_SKIP) return QD_FATE_SKIPPED;
  if (job->odd_shape == QD_ODD_RAGGED) return QD_FATE_RAGGED;
  out->group_size = QD_PER_CHANNEL;
  return QD_FATE_WHOLE_ROWS;
}

qd_fate qd_job_scheme(const qd_job *job, const char *tensor_name, int64_t columns, qd_scheme *out) {
  *out = job->scheme;
  bool keep = false;
  for (int i = 0; i < job->n_rules; i++) {
    if (!qd_pattern_finds(job->rule[i].pattern, tensor_name)) continue;
    keep = job->rule[i].bits == 0;
    if (keep) continue;
    out->bits = job->rule[i].bits;
    out->group_size = job->rule[i].group_size;
  }
  return keep ? QD_FATE_IGNORED : fit_width(job, columns, out);
}

qd_fate qd_job_rest_scheme(const qd_job *job, qd_role role, int64_t columns, qd_scheme *out) {
  int bits = role == QD_HEAD ? job->head_bits : role == QD_EMBEDDING ? job->embedding_bits : 0;
  *out = job->scheme;
  if (bits == 0) return QD_FATE_IGNORED;
  out->bits = bits;
  return fit_width(job, columns, out);
}

bool qd_job_quantizes(const qd_job *job, qd_role role, const qd_model *model) {
  qd_scheme scheme;
  return qd_fate_is_quantized(qd_job_rest_scheme(job, role, model->hidden, &scheme));
}

static qd_json *describe_rules(const qd_job *job) {
  qd_json *rules = qd_json_array();
  for (int i = 0; i < job->n_rules; i++) {
    qd_json *rule = qd_json_object();
    qd_json_set_text(rule, "expression", job->rule[i].expression);
    qd_json_set_integer(rule, "bits", job->rule[i].bits);
    if (job->rule[i].bits != 0) qd_json_set_integer(rule, "group_size", job->rule[i].group_size);
    qd_json_append(rules, rule);
  }
  return rules;
}

static qd_json *describe_parts(const qd_tokens *tokens) {
  qd_json *texts = qd_json_array();
  for (int i = 0; i < tokens->n_parts; i++) {
    const qd_tokens_part *part = &tokens->part[i];
    qd_json *text = qd_json_object();
    qd_json_set_text(text, "kind", qd_text_kind_name(part->kind));
    qd_json_set_text(text, "digest", part->text_digest.hex);
    qd_json_set_number(text, "weight", part->weight);
    qd_json_set_integer(text, "sequences", part->rows);
    qd_json_set_integer(text, "text_tokens", part->text_tokens);
    qd_json_set_integer(text, "dropped_documents", part->dropped_documents);
    qd_json_append(texts, text);
  }
  return texts;
}

static qd_json *describe_tokens(const qd_job *job, const qd_tokens *tokens) {
  static const char *const bos[] = {"auto", "yes", "no"};
  qd_json *text = qd_json_object();
  qd_json_set_text(text, "kind", tokens->n_parts > 0 ? "mixture" : qd_text_kind_name(tokens->kind));
  if (tokens->n_parts > 0) qd_json_set(text, "texts", describe_parts(tokens));
  else qd_json_set_text(text, "digest", tokens->text_digest.hex);
  if (tokens->chat_digest.hex[0] != '\0') qd_json_set_text(text, "chat_template", tokens->chat_digest.hex);
  qd_json_set_integer(text, "sequences", tokens->rows);
  qd_json_set_integer(text, "sequence_tokens", tokens->sequence_tokens);
  qd_json_set_integer(text, "seed", job->seed);
  qd_json_set_text(text, "add_bos", bos[job->bos]);
  qd_json_set_bool(text, "pack", job->pack);
  qd_json_set_integer(text, "text_tokens", tokens->text_tokens);
  qd_json_set_integer(text, "dropped_documents", tokens->dropped_documents);
  return text;
}

/* Of models with experts only. */
static void describe_experts(const qd_job *job, const qd_model *model, qd_json *out) {
  if (model->experts == 0) return;
  qd_json_set_text(out, "moe_fallback", job->moe_fallback == QD_MOE_RTN ? "rtn" : "shared-hessian");
  qd_json_set_integer(out, "moe_min_tokens", job->moe_min_tokens);
}

/* Of methods with outliers only. */
static void describe_outliers(const qd_job *job, qd_json *out) {
  if (!job->scheme.spqr) return;
  qd_json_set_integer(out, "scale_bits", job->scheme.scale_bits);
  qd_json_set_integer(out, "zero_bits", job->scheme.zero_bits);
  qd_json_set_integer(out, "stat_group", job->scheme.stat_group);
  qd_json_set_bool(out, "round_zero", job->scheme.round_zero);
  qd_json_set_bool(out, "simplified_outliers", job->simplified_outliers);
  if (job->avg_bits > 0) qd_json_set_number(out, "avg_bits", job->avg_bits);
  else if (isinf(job->outlier_threshold)) qd_json_set_text(out, "outlier_threshold", "none");
  else qd_json_set_number(out, "outlier_threshold", job->outlier_threshold);
}

static void describe_method(const qd_job *job, qd_json *out) {
  qd_json_set_text(out, "method", job->method->name);
  qd_json_set_integer(out, "bits", job->scheme.bits);
  qd_json_set_integer(out, "group_size", job->scheme.group_size);
  qd_json_set_bool(out, "symmetric", job->scheme.symmetric);
  qd_json_set_bool(out, "mse", job->scheme.mse);
  qd_json_set_text(out, "scale_dtype", qd_dtype_name(job->scheme.scale_dtype));
  qd_json_set_text(out, "act_order", qd_act_order_name(job->act_order));
  qd_json_set_bool(out, "true_sequential", job->true_sequential);
  if (job->damp_auto) qd_json_set_text(out, "damp", "auto");
  else qd_json_set_number(out, "damp", job->damp);
  qd_json_set_integer(out, "block_size", job->block);
  qd_json_set_text(out, "on_hessian_failure", job->on_failure == QD_FAILURE_RTN ? "rtn" : "stop");
  if (job->gptaq) qd_json_set_number(out, "gptaq_alpha", job->gptaq_alpha);
  if (job->kl_positions > 0) qd_json_set_integer(out, "kl_positions", job->kl_positions);
  if (job->hessian_bound != QD_HESSIAN_BOUND) qd_json_set_number(out, "hessian_bound", job->hessian_bound);
  qd_json_set_text(out, "compat", job->scheme.compat ? "reference" : "none");
  qd_json_set_text(out, "odd_shape", qd_odd_shape_name(job->odd_shape));
  describe_outliers(job, out);
  if (job->head_bits > 0) qd_json_set_integer(out, "head_bits", job->head_bits);
  if (job->embedding_bits > 0) qd_json_set_integer(out, "embedding_bits", job->embedding_bits);
  qd_json_set(out, "rules", describe_rules(job));
}

qd_json *qd_job_describe(const qd_job *job, const qd_model *model, const qd_tokens *tokens, const qd_digest *config,
                         const qd_digest *tokenizer) {
  qd_json *out = qd_json_object();
  describe_method(job, out);
  describe_experts(job, model, out);
  qd_json_set_text(out, "arithmetic", qd_arithmetic_name(qd_compute_arithmetic(job->compute, model->dtype)));
  qd_json_set_integer(out, "shard_bytes", job->shard_bytes);
  qd_json *original = qd_json_object();
  qd_json_set_text(original, "architecture", model->arch->name);
  qd_json_set_text(original, "dtype", qd_dtype_name(model->dtype));
  qd_json_set_integer(original, "blocks", model->n_blocks);
  qd_json_set_text(original, "config_digest", config->hex);
  qd_json_set_text(original, "tokenizer_digest", tokenizer->hex);
  qd_json_set(out, "model", original);
  if (tokens != NULL) qd_json_set(out, "dataset", describe_tokens(job, tokens));
  return out;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------- */

typedef struct difference {
  char path[96]; /* "dataset.digest" */
  const qd_json *was, *now;
} difference;

static bool differ(difference *d, const char *parent, const char *name, const qd_json *was, const qd_json *now) {
  snprintf(d->path, sizeof d->path, "%s%s%s", parent, *parent ? "." : "", name);
  d->was = was, d->now = now;
  return true;
}

/* Of members that are not named like what is typed: " (--nsamples)"; else "". */
static const char *typed_as(const char *path) {
  static const struct { const char *path, *typed; } known[] = {
      {"symmetric", " (--sym, --asym)"},
      {"gptaq_alpha", " (--gptaq, --gptaq-alpha)"},
      {"kl_positions", " (--report-kl, --kl-positions)"},
      {"head_bits", " (--quant-lm-head)"},
      {"embedding_bits", " (--quant-embeddings)"},
      {"rules", " (--ignore, --override)"},
      {"arithmetic", " (--arithmetic, --compute-dtype)"},
      {"shard_bytes", " (--shard-size)"},
      {"dataset.kind", " (--dataset KIND:)"},
      {"dataset.sequences", " (--nsamples)"},
      {"dataset.sequence_tokens", " (--seqlen)"},
      {"dataset.seed", " (--seed)"},
      {"dataset.add_bos", " (--add-bos)"},
      {"dataset.pack", " (--no-pack)"},
      {"model.config_digest", " (config.json of --model)"},
      {"model.tokenizer_digest", " (tokenizer.json of --model)"},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(path, known[i].path) == 0) return known[i].typed;
  if (strncmp(path, "dataset.", 8) == 0) return " (--dataset)";
  return strncmp(path, "model.", 6) == 0 ? " (--model)" : "";
}

/* The first member that differs; objects are entered. */
static bool first_difference(const qd_json *a, const qd_json *b, const char *parent, difference *d) {
  const char *name;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(a, i, &name, &value); i++) {
    const qd_json *other = qd_json_get(b, name);
    if (other != NULL && qd_json_equal(value, other)) continue;
    if (other == NULL || !qd_json_is_object(value) || !qd_json_is_object(other)) return differ(d, parent, name, value, other);
    if (first_difference(value, other, name, d)) return true; /* objects are one level deep */
  }
  for (size_t i = 0; qd_json_member(b, i, &name, &value); i++)
    if (qd_json_get(a, name) == NULL) return differ(d, parent, name, NULL, value);
  return false;
}

qd_status qd_job_compare(const qd_json *stored, const qd_json *wanted, const char *output) {
  difference d;
  if (!first_difference(stored, wanted, "", &d)) return QD_OK;
  char *was_text = NULL, *now_text = NULL;
  qd_status status = QD_OK;
  if (d.was != NULL) status = qd_json_print(d.was, 0, &was_text);
  if (status == QD_OK && d.now != NULL) status = qd_json_print(d.now, 0, &now_text);
  if (status == QD_OK)
    status =
        qd_fail(QD_EEXIST, __FILE__, __LINE__, "%s holds another job: %s%s was %s there, now it is %s; choose another --output",
                output, d.path, typed_as(d.path), was_text ? was_text : "not given", now_text ? now_text : "not given");
  qd_heap_free(was_text);
  qd_heap_free(now_text);
  return status;
}
