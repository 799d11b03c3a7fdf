#include "pipeline/record.h"

#include <stdio.h>
#include <string.h>

bool qd_record_is_quantized(const qd_record *record) { return strcmp(record->scheme, "uniform") == 0; }

qd_status qd_record_scheme(const qd_record *record, const char *what, qd_scheme *out) {
  int64_t bits;
  const char *scale = NULL;
  *out = (qd_scheme){0};
  bool fine = qd_json_is_object(record->facts) &&
              qd_json_need_integer(record->facts, what, "bits", QD_MIN_BITS, QD_MAX_BITS, &bits) == QD_OK &&
              qd_json_need_integer(record->facts, what, "group_size", QD_PER_CHANNEL, INT32_MAX, &out->group_size) == QD_OK &&
              qd_json_take_bool(record->facts, what, "symmetric", false, &out->symmetric) == QD_OK &&
              qd_json_take_bool(record->facts, what, "mse", false, &out->mse) == QD_OK &&
              qd_json_need_text(record->facts, what, "scale_dtype", &scale) == QD_OK && qd_dtype_find(scale, &out->scale_dtype);
  QD_CHECK(fine, QD_ECORRUPT, "%s: the scheme of %s is damaged in the manifest", what, record->name);
  out->bits = (int)bits;
  QD_CHECK(qd_scheme_check(*out) == QD_OK, QD_ECORRUPT, "%s: the scheme of %s is damaged in the manifest", what, record->name);
  return QD_OK;
}

static const qd_stored_part *find_part(const qd_record *record, const char *name) {
  for (int i = 0; i < record->n_parts; i++)
    if (strcmp(record->part[i].name, name) == 0) return &record->part[i];
  return NULL;
}

static bool part_is(const qd_stored_part *part, qd_dtype dtype, int64_t rows, int64_t columns) {
  if (part == NULL || part->dtype != dtype) return false;
  if (columns < 0) return part->rank == 1 && part->dim[0] == rows;
  return part->rank == 2 && part->dim[0] == rows && part->dim[1] == columns;
}

static bool quantized_parts_fit(const qd_record *record, qd_scheme scheme) {
  int64_t rows = record->dim[0], columns = record->dim[1], groups = qd_scheme_groups(scheme, columns);
  const qd_stored_part *order = find_part(record, "order");
  return record->rank == 2 && part_is(find_part(record, "codes"), QD_U8, rows, qd_packed_row_bytes(columns, scheme.bits)) &&
         part_is(find_part(record, "scales"), scheme.scale_dtype, rows, groups) &&
         (scheme.symmetric ? find_part(record, "zeros") == NULL : part_is(find_part(record, "zeros"), QD_U8, rows, groups)) &&
         (order == NULL || part_is(order, QD_I32, columns, -1)) &&
         record->n_parts == 2 + (scheme.symmetric ? 0 : 1) + (order ? 1 : 0);
}

qd_status qd_record_check(const qd_record *record, const char *what) {
  if (strcmp(record->scheme, "none") == 0) {
    const qd_stored_part *values = find_part(record, "values");
    bool fits = record->n_parts == 1 && part_is(values, record->dtype, record->dim[0], record->rank == 2 ? record->dim[1] : -1);
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
  qd_tensor view = stored->rank == 2 ? qd_tensor_2d(data, stored->dtype, stored->dim[0], stored->dim[1])
                                     : qd_tensor_1d(data, stored->dtype, stored->dim[0]);
  if (strcmp(stored->name, "codes") == 0) q->codes = view;
  else if (strcmp(stored->name, "scales") == 0) q->scales = view;
  else if (strcmp(stored->name, "zeros") == 0) q->zeros = view;
  else q->order = view;
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
  snprintf(record->scheme, sizeof record->scheme, "%s", weight->quantized ? "uniform" : "none");
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
