#include "pipeline/record.h"

#include "pipeline/outliers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool qd_record_is_quantized(const qd_record *record) {
  return strcmp(record->scheme, "uniform") == 0 || strcmp(record->scheme, "spqr") == 0;
}

static bool read_grid(const qd_json *facts, const char *what, qd_scheme *out) {
  int64_t bits;
  const char *scale = NULL;
  bool fine = qd_json_is_object(facts) &&
              qd_json_need_integer(facts, what, "bits", QD_MIN_BITS, QD_MAX_BITS, &bits) == QD_OK &&
              qd_json_need_integer(facts, what, "group_size", QD_PER_CHANNEL, INT32_MAX, &out->group_size) == QD_OK &&
              qd_json_take_bool(facts, what, "symmetric", false, &out->symmetric) == QD_OK &&
              qd_json_take_bool(facts, what, "mse", false, &out->mse) == QD_OK &&
              qd_json_need_text(facts, what, "scale_dtype", &scale) == QD_OK && qd_dtype_find(scale, &out->scale_dtype);
  if (fine) out->bits = (int)bits;
  return fine;
}

static bool read_statistics(const qd_json *facts, const char *what, qd_scheme *out) {
  int64_t scale_bits, zero_bits;
  bool fine = qd_json_need_integer(facts, what, "scale_bits", 0, QD_MAX_BITS, &scale_bits) == QD_OK &&
              qd_json_need_integer(facts, what, "zero_bits", 0, QD_MAX_BITS, &zero_bits) == QD_OK &&
              qd_json_need_integer(facts, what, "stat_group", 1, INT32_MAX, &out->stat_group) == QD_OK &&
              qd_json_take_bool(facts, what, "round_zero", false, &out->round_zero) == QD_OK;
  if (fine) out->scale_bits = (int)scale_bits, out->zero_bits = (int)zero_bits, out->spqr = true;
  return fine;
}

qd_status qd_record_scheme(const qd_record *record, const char *what, qd_scheme *out) {
  *out = (qd_scheme){0};
  bool fine = read_grid(record->facts, what, out);
  if (fine && strcmp(record->scheme, "spqr") == 0) fine = read_statistics(record->facts, what, out);
  QD_CHECK(fine && qd_scheme_check(*out) == QD_OK, QD_ECORRUPT, "%s: the scheme of %s is damaged in the manifest", what,
           record->name);
  return QD_OK;
}

static const qd_stored_part *find_part(const qd_record *record, const char *name) {
  for (int i = 0; i < record->n_parts; i++)
    if (strcmp(record->part[i].name, name) == 0) return &record->part[i];
  return NULL;
}

int64_t qd_record_outliers(const qd_record *record) {
  const qd_stored_part *values = find_part(record, "outlier_values");
  return values != NULL ? values->dim[0] : 0;
}

static bool part_is(const qd_stored_part *part, qd_tensor expected) {
  if (part == NULL || part->dtype != expected.dtype || part->rank != expected.rank) return false;
  for (int d = 0; d < expected.rank; d++)
    if (part->dim[d] != expected.dim[d]) return false;
  return true;
}

/* The shapes that a scheme asks for, with the order and as many outliers as there are. */
static bool quantized_parts_fit(const qd_record *record, qd_scheme scheme) {
  qd_part parts[QD_MAX_PARTS];
  int64_t outliers = qd_record_outliers(record);
  if (record->rank != 2 || outliers > record->dim[0] * record->dim[1] || outliers > INT32_MAX) return false;
  qd_qtensor q = qd_qtensor_shape(scheme, record->dim[0], record->dim[1], find_part(record, "order") != NULL);
  qd_outliers_shape(&q, outliers);
  int n = qd_qtensor_parts(&q, parts);
  for (int i = 0; i < n; i++)
    if (!part_is(find_part(record, parts[i].name), parts[i].tensor)) return false;
  return record->n_parts == n;
}

qd_status qd_record_check(const qd_record *record, const char *what) {
  if (strcmp(record->scheme, "none") == 0) {
    const qd_stored_part *values = find_part(record, "values");
    qd_tensor expected = record->rank == 2 ? qd_tensor_2d(NULL, record->dtype, record->dim[0], record->dim[1])
                                           : qd_tensor_1d(NULL, record->dtype, record->dim[0]);
    bool fits = record->n_parts == 1 && part_is(values, expected);
    QD_CHECK(fits, QD_ECORRUPT, "%s: the values of %s have another shape or dtype than the manifest says", what, record->name);
    return QD_OK;
  }
  QD_CHECK(qd_record_is_quantized(record), QD_EUNSUPPORTED,
           "%s: %s is stored by the scheme \"%s\", which this version does not know", what, record->name, record->scheme);
  qd_scheme scheme;
  QD_TRY(qd_record_scheme(record, what, &scheme));
  QD_CHECK(quantized_parts_fit(record, scheme), QD_ECORRUPT, "%s: the parts of %s do not fit its scheme", what, record->name);
  return QD_OK;
}

qd_status qd_record_bind_part(const qd_record *record, int part, void *data, qd_qtensor *q) {
  const qd_stored_part *stored = &record->part[part];
  QD_TRY(qd_record_scheme(record, "store", &q->scheme));
  q->rows = record->dim[0], q->columns = record->dim[1];
  const int64_t *dim = stored->dim;
  *qd_qtensor_part(q, stored->name) = stored->rank == 3   ? qd_tensor_3d(data, stored->dtype, dim[0], dim[1], dim[2])
                                      : stored->rank == 2 ? qd_tensor_2d(data, stored->dtype, dim[0], dim[1])
                                                          : qd_tensor_1d(data, stored->dtype, dim[0]);
  return QD_OK;
}

/* ---- making -------------------------------------------------------------------------------------------------------------- */

static void add_part(qd_record *record, const char *name, qd_tensor tensor, qd_tensor tensors[QD_MAX_PARTS]) {
  qd_stored_part *part = &record->part[record->n_parts];
  *part = (qd_stored_part){.dtype = tensor.dtype, .rank = tensor.rank};
  snprintf(part->name, sizeof part->name, "%s", name);
  for (int i = 0; i < tensor.rank; i++) part->dim[i] = tensor.dim[i];
  tensors[record->n_parts++] = tensor;
}

static double stored_bytes(const qd_qtensor *q) {
  qd_part parts[QD_MAX_PARTS];
  double bytes = 0;
  for (int i = qd_qtensor_parts(q, parts) - 1; i >= 0; i--) bytes += (double)qd_tensor_bytes(parts[i].tensor);
  return bytes;
}

/* Bits a weight by the formula of SpQR, which leaves row pointers and order out. */
static void set_outliers(qd_json *facts, const qd_qtensor *q, const qd_linear_result *result) {
  double weights = (double)q->rows * (double)q->columns, share = weights > 0 ? (double)result->outliers / weights : 0;
  qd_json_set_integer(facts, "scale_bits", q->scheme.scale_bits);
  qd_json_set_integer(facts, "zero_bits", q->scheme.zero_bits);
  qd_json_set_integer(facts, "stat_group", q->scheme.stat_group);
  qd_json_set_bool(facts, "round_zero", q->scheme.round_zero);
  qd_json_set_integer(facts, "outliers", result->outliers);
  if (isinf(result->threshold)) qd_json_set_text(facts, "outlier_threshold", "none");
  else qd_json_set_number(facts, "outlier_threshold", result->threshold);
  qd_json_set_number(facts, "bits_per_weight", qd_scheme_formula_bits(q->scheme, share));
  qd_json_set_number(facts, "bits_stored", weights > 0 ? 8 * stored_bytes(q) / weights : 0);
}

static qd_json *facts_of(const qd_weight *weight) {
  if (weight->facts != NULL) return qd_json_copy(weight->facts);
  const qd_qtensor *q = &weight->q;
  const qd_linear_result *result = &weight->result;
  qd_json *facts = qd_json_object();
  qd_json_set_integer(facts, "bits", q->scheme.bits);
  qd_json_set_integer(facts, "group_size", q->scheme.group_size);
  qd_json_set_bool(facts, "symmetric", q->scheme.symmetric);
  qd_json_set_bool(facts, "mse", q->scheme.mse);
  qd_json_set_text(facts, "scale_dtype", qd_dtype_name(q->scheme.scale_dtype));
  if (q->scheme.spqr) set_outliers(facts, q, result);
  else
    qd_json_set_number(facts, "bits_per_weight",
                       qd_scheme_bits_per_weight(q->scheme, q->rows, q->columns, qd_qtensor_has_order(q)));
  qd_json_set_number(facts, "loss", result->loss);
  qd_json_set_number(facts, "relative_error", result->relative_error);
  qd_json_set_number(facts, "damping", result->damping);
  qd_json_set_integer(facts, "tokens", result->tokens);
  qd_json_set_bool(facts, "fallback_rtn", result->fallback);
  if (weight->slot.expert >= 0) qd_json_set_bool(facts, "shared_hessian", result->shared);
  return facts;
}

void qd_record_of_weight(const qd_weight *weight, qd_record *record, qd_tensor tensors[QD_MAX_PARTS]) {
  *record =
      (qd_record){.expert = weight->slot.expert, .dtype = weight->dtype, .rank = weight->slot.rank, .source = weight->source};
  snprintf(record->name, sizeof record->name, "%s", weight->slot.name);
  snprintf(record->role, sizeof record->role, "%s", qd_role_name(weight->slot.role));
  const char *grid = weight->q.scheme.spqr ? "spqr" : "uniform";
  snprintf(record->scheme, sizeof record->scheme, "%s", weight->quantized ? grid : "none");
  for (int i = 0; i < weight->slot.rank; i++) record->dim[i] = weight->slot.dim[i];
  if (!weight->quantized) {
    add_part(record, "values", weight->original, tensors);
    record->facts = qd_json_object();
    if (weight->kept != NULL) qd_json_set_text(record->facts, "kept", weight->kept);
    return;
  }
  qd_part parts[QD_MAX_PARTS];
  int n = qd_qtensor_parts(&weight->q, parts);
  for (int i = 0; i < n; i++) add_part(record, parts[i].name, parts[i].tensor, tensors);
  record->facts = facts_of(weight);
}

void qd_record_of_input(const qd_input_result *input, int64_t block, qd_record *record, qd_tensor tensors[QD_MAX_PARTS]) {
  *record = (qd_record){.expert = input->expert, .dtype = QD_F64, .rank = 1, .dim = {input->diagonal.dim[0]}};
  if (block == QD_REST) snprintf(record->name, sizeof record->name, "model.%s", input->name);
  else if (input->expert < 0)
    snprintf(record->name, sizeof record->name, "model.layers.%" PRId64 ".%s", block, input->name);
  else
    snprintf(record->name, sizeof record->name, "model.layers.%" PRId64 ".experts.%d.%s", block, input->expert, input->name);
  snprintf(record->role, sizeof record->role, "%s", input->name);
  snprintf(record->scheme, sizeof record->scheme, "statistics");
  add_part(record, "diagonal", input->diagonal, tensors);
  record->facts = qd_json_object();
  qd_json_set_integer(record->facts, "tokens", input->tokens);
}
