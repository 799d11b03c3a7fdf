/* SpQR (arXiv:2306.03078): GPTQ's loop on small groups whose scales and zero points are quantized themselves, with a few
 * weights kept as they are.  Columns are stored in the order in which they are processed: groups lie in it.  Dead columns are
 * zeroed first. */
#include "pipeline/method.h"

#include "kernels/scratch.h"

#include <string.h>

static void zero_dead_columns(const qd_method_input *input) {
  const uint8_t *dead = input->dead.data;
  for (int64_t r = 0; r < input->w.dim[0]; r++) {
    float *row = (float *)input->w.data + r * input->w.stride[0];
    for (int64_t c = 0; c < input->w.dim[1]; c++)
      if (dead[c]) row[c] = 0;
  }
}

typedef struct room {
  qd_dtype dtype;
  int64_t  rows, columns;
  qd_tensor *to;
} room;

enum { N_ROOMS = 9 };

/* What the loop gives, whole codes and numbers, before it is packed. */
static void list_rooms(const qd_method_input *input, qd_spqr_args *args, room rooms[N_ROOMS]) {
  int64_t rows = input->w.dim[0], columns = input->w.dim[1], groups = qd_scheme_groups(input->scheme, columns);
  const room all[N_ROOMS] = {{QD_F32, rows, columns, &args->w},         {QD_U8, rows, columns, &args->code},
                             {QD_U8, rows, columns, &args->outlier},    {QD_F16, rows, columns, &args->value},
                             {QD_U8, rows, groups, &args->scale_code},  {QD_U8, rows, groups, &args->zero_code},
                             {QD_F32, rows, groups, &args->scale},      {QD_F32, rows, groups, &args->zero},
                             {QD_F64, 1, rows, &args->loss}};
  memcpy(rooms, all, sizeof all);
}

static void store_real(qd_tensor from, qd_tensor to) {
  const float *value = from.data;
  size_t n = (size_t)qd_tensor_elements(from);
  if (to.dtype == QD_F32) memcpy(to.data, value, n * sizeof *value);
  else
    for (size_t i = 0; i < n; i++) ((uint16_t *)to.data)[i] = qd_f16_from_f32(value[i]); /* exact: rounded already */
}

/* Each statistic as codes, or as it is. */
static qd_status store_statistics(qd_device *device, const qd_spqr_args *args, qd_qtensor *q) {
  qd_scheme scheme = args->scheme;
  if (q->scale_codes.rank != 0) QD_TRY(qd_pack(device, args->scale_code, scheme.scale_bits, q->scale_codes));
  else store_real(args->scale, q->scales);
  if (q->zero_codes.rank != 0) QD_TRY(qd_pack(device, args->zero_code, scheme.zero_bits, q->zero_codes));
  else if (q->zeros.rank != 0) store_real(args->zero, q->zeros);
  return QD_OK;
}

/* Outliers of these rows behind those of the rows before, whose number is the first row pointer. */
static qd_status store_outliers(const qd_spqr_args *args, qd_qtensor *q) {
  int32_t *pointer = q->outlier_rows.data;
  int64_t most = q->outlier_values.dim[0], n = pointer[0];
  for (int64_t r = 0; r < q->rows; r++) {
    const uint8_t *mark = (const uint8_t *)args->outlier.data + r * args->outlier.stride[0];
    const uint16_t *value = (const uint16_t *)args->value.data + r * args->value.stride[0];
    for (int64_t c = 0; c < q->columns; c++) {
      if (!mark[c]) continue;
      QD_CHECK(n < most, QD_ENUMERIC,
               "row %" PRId64 ": a quarter of the weights are outliers already, and there is no room for more: a larger "
               "--outlier-threshold is wanted", r);
      if (q->outlier_columns.dtype == QD_U16) ((uint16_t *)q->outlier_columns.data)[n] = (uint16_t)c;
      else ((int32_t *)q->outlier_columns.data)[n] = (int32_t)c;
      ((uint16_t *)q->outlier_values.data)[n++] = value[c];
    }
    pointer[r + 1] = (int32_t)n;
  }
  return QD_OK;
}

static qd_status quantize(const qd_method_input *input, qd_qtensor *q) {
  qd_device *device = input->device;
  qd_spqr_args args = {.u = input->u, .scheme = input->scheme, .tau = input->tau, .simplified = input->simplified,
                       .block = input->block, .second = q->second};
  room rooms[N_ROOMS];
  list_rooms(input, &args, rooms);
  for (int i = 0; i < N_ROOMS; i++)
    QD_TRY(qd_tensor_new_2d(&device->scratch, rooms[i].dtype, rooms[i].rows, rooms[i].columns, rooms[i].to));
  args.loss = qd_tensor_1d(args.loss.data, QD_F64, q->rows);
  zero_dead_columns(input);
  QD_TRY(qd_gather_columns(device, input->w, input->order, args.w));
  QD_TRY(qd_spqr(device, &args));
  QD_TRY(qd_pack(device, args.code, input->scheme.bits, q->codes));
  QD_TRY(store_statistics(device, &args, q));
  return store_outliers(&args, q);
}

static size_t scratch_bytes(const qd_method_input *input) {
  qd_spqr_args args = {.w = input->w, .scheme = input->scheme, .block = input->block};
  room rooms[N_ROOMS];
  size_t bytes = qd_scratch_spqr(input->device, &args);
  list_rooms(input, &args, rooms);
  for (int i = 0; i < N_ROOMS; i++)
    bytes += qd_arena_cost((size_t)rooms[i].rows * (size_t)rooms[i].columns, qd_dtype_bytes(rooms[i].dtype));
  return bytes;
}

const qd_method qd_method_spqr = {
    .name = "spqr",
    .summary = "SpQR: small groups with quantized statistics, a few weights kept; with calibration text",
    .needs_factor = true,
    .has_outliers = true,
    .default_act_order = QD_ORDER_DYNAMIC,
    .quantize = quantize,
    .scratch_bytes = scratch_bytes,
};
