#include "pipeline/record.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { ROWS = 5, COLUMNS = 11 };

static qd_arena arena;
static void open_arena(void) { MUST(qd_arena_open(&arena, "test", 1 << 20)); }
static void close_arena(void) { qd_arena_close(&arena); }
TestSuite(record, .init = open_arena, .fini = close_arena);

/* A quantized weight whose parts hold numbers of their own. */
static qd_weight quantized_weight(qd_scheme scheme, bool has_order) {
  qd_weight w = {.slot = {.role = QD_K_PROJ,
                          .expert = -1,
                          .name = "model.layers.1.self_attn.k_proj.weight",
                          .rank = 2,
                          .dim = {ROWS, COLUMNS}},
                 .dtype = QD_BF16,
                 .quantized = true};
  int64_t groups = qd_scheme_groups(scheme, COLUMNS);
  MUST(qd_qtensor_new(&arena, scheme, ROWS, COLUMNS, has_order, &w.q));
  qd_digest_of("original", 8, &w.source);
  memset(w.q.codes.data, 0, qd_tensor_bytes(w.q.codes));
  for (int64_t r = 0; r < ROWS; r++) ((uint8_t *)w.q.codes.data)[r * w.q.codes.dim[1]] = (uint8_t)(r + 1);
  for (int64_t i = 0; i < ROWS * groups; i++) {
    float scale = (float)(i + 1) / 32;
    if (scheme.scale_dtype == QD_F16) ((uint16_t *)w.q.scales.data)[i] = qd_f16_from_f32(scale);
    else ((float *)w.q.scales.data)[i] = scale;
    if (!scheme.symmetric) ((uint8_t *)w.q.zeros.data)[i] = (uint8_t)(i % 4);
  }
  for (int32_t c = 0; has_order && c < COLUMNS; c++) ((int32_t *)w.q.order.data)[c] = (c * 4) % COLUMNS;
  MUST(qd_qtensor_check(&w.q));
  return w;
}

static const qd_linear_result result = {.loss = 0.5, .relative_error = 0.25, .damping = 0.1, .tokens = 77, .fallback = true};

/* By way of the journal's JSON, as a store does; the caller frees the entry. */
static qd_entry through_json(qd_record *record, const qd_tensor *tensors) {
  qd_entry_file file = {.name = "block-00001.h5", .bytes = 10};
  qd_digest_of("file", 4, &file.digest);
  for (int i = 0; i < record->n_parts; i++) {
    snprintf(record->part[i].dataset, sizeof record->part[i].dataset, "x/%s", record->part[i].name);
    qd_digest_of(tensors[i].data, qd_tensor_bytes(tensors[i]), &record->part[i].digest);
  }
  qd_entry entry = {.block = 1, .n_files = 1, .file = &file, .n_records = 1, .record = record}, back;
  qd_json *json;
  MUST(qd_entry_to_json(&entry, &json));
  MUST(qd_entry_from_json(json, "test", &back));
  qd_json_free(json);
  return back;
}

static void expect_same_parts(const qd_qtensor *a, const qd_qtensor *b) {
  qd_part x[QD_MAX_PARTS], y[QD_MAX_PARTS];
  int n = qd_qtensor_parts(a, x);
  cr_assert_eq(n, qd_qtensor_parts(b, y));
  for (int i = 0; i < n; i++) {
    cr_expect_str_eq(x[i].name, y[i].name);
    cr_assert_eq(qd_tensor_bytes(x[i].tensor), qd_tensor_bytes(y[i].tensor));
    cr_expect_eq(memcmp(x[i].tensor.data, y[i].tensor.data, qd_tensor_bytes(x[i].tensor)), 0, "%s", x[i].name);
  }
}

static void check_round_trip(qd_scheme scheme, bool has_order) {
  qd_weight weight = quantized_weight(scheme, has_order);
  qd_record made;
  qd_tensor tensors[QD_MAX_PARTS];
  weight.result = result;
  qd_record_of_weight(&weight, &made, tensors);
  cr_assert_eq(made.n_parts, 2 + !scheme.symmetric + has_order);
  qd_entry entry = through_json(&made, tensors);
  const qd_record *back = &entry.record[0];
  cr_expect_str_eq(back->name, weight.slot.name);
  cr_expect_str_eq(back->role, "k_proj");
  cr_expect(qd_record_is_quantized(back));
  cr_expect_eq(back->dtype, QD_BF16);
  cr_expect(qd_digest_equal(&back->source, &weight.source));
  cr_expect_eq(qd_record_check(back, "OUT"), QD_OK, "%s", qd_error_text());
  qd_qtensor q = {0};
  for (int p = 0; p < back->n_parts; p++) MUST(qd_record_bind_part(back, p, tensors[p].data, &q));
  cr_expect_eq(qd_qtensor_check(&q), QD_OK, "%s", qd_error_text());
  cr_expect_eq(q.scheme.bits, scheme.bits);
  cr_expect_eq(q.scheme.group_size, scheme.group_size);
  cr_expect_eq(q.scheme.symmetric, scheme.symmetric);
  cr_expect_eq(q.scheme.mse, scheme.mse);
  cr_expect_eq(q.scheme.scale_dtype, scheme.scale_dtype);
  expect_same_parts(&q, &weight.q);
  qd_entry_release(&entry);
  qd_json_free(made.facts);
}

Test(record, a_quantized_linear_comes_back) {
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits += 3)
    for (int kind = 0; kind < 8; kind++) {
      qd_scheme scheme = {.bits = bits, .group_size = kind & 1 ? 4 : QD_PER_CHANNEL, .symmetric = kind & 2, .mse = kind & 1,
                          .scale_dtype = kind & 4 ? QD_F16 : QD_F32};
      check_round_trip(scheme, kind & 1);
    }
}

Test(record, facts_say_how_well_it_went) {
  qd_weight weight = quantized_weight((qd_scheme){.bits = 3, .group_size = 4, .scale_dtype = QD_F16}, true);
  qd_record record;
  qd_tensor tensors[QD_MAX_PARTS];
  weight.result = result;
  qd_record_of_weight(&weight, &record, tensors);
  cr_expect_eq(qd_json_number(qd_json_get(record.facts, "loss")), 0.5);
  cr_expect_eq(qd_json_number(qd_json_get(record.facts, "relative_error")), 0.25);
  cr_expect_eq(qd_json_number(qd_json_get(record.facts, "damping")), 0.1);
  cr_expect_eq(qd_json_integer(qd_json_get(record.facts, "tokens")), 77);
  /* 3 bits a code; 3 groups of 16 + 3 bits on 11 columns; 32 bits of order on 5 rows */
  cr_expect_eq(qd_json_number(qd_json_get(record.facts, "bits_per_weight")), 3 + 3 * 19.0 / 11 + 32.0 / 5);
  bool fallback;
  MUST(qd_json_take_bool(record.facts, "test", "fallback_rtn", false, &fallback));
  cr_expect(fallback);
  qd_json_free(record.facts);
}

static qd_weight plain_weight(int rank) {
  static uint16_t values[6 * 4];
  qd_weight w = {.slot = {.role = rank == 2 ? QD_EMBEDDING : QD_INPUT_NORM,
                          .expert = -1,
                          .name = "x",
                          .rank = rank,
                          .dim = {6, rank == 2 ? 4 : 0}},
                 .dtype = QD_F16};
  w.original = rank == 2 ? qd_tensor_2d(values, QD_F16, 6, 4) : qd_tensor_1d(values, QD_F16, 6);
  qd_digest_of(values, sizeof values, &w.source);
  return w;
}

Test(record, a_plain_tensor_comes_back) {
  for (int rank = 1; rank <= 2; rank++) {
    qd_weight weight = plain_weight(rank);
    qd_record made;
    qd_tensor tensors[QD_MAX_PARTS];
    weight.result = result;
  qd_record_of_weight(&weight, &made, tensors);
    cr_assert_eq(made.n_parts, 1);
    cr_expect_eq(tensors[0].data, weight.original.data);
    qd_entry entry = through_json(&made, tensors);
    cr_expect_str_eq(entry.record[0].role, rank == 2 ? "embedding" : "input_norm");
    cr_expect(!qd_record_is_quantized(&entry.record[0]));
    cr_expect_eq(qd_record_check(&entry.record[0], "OUT"), QD_OK, "%s", qd_error_text());
    cr_expect_eq(entry.record[0].dtype, QD_F16);
    qd_entry_release(&entry);
    qd_json_free(made.facts);
  }
}

Test(record, a_linear_input_has_its_diagonal) {
  double values[3] = {1, 2, 3};
  qd_input_result input = {.name = "o_input", .diagonal = qd_tensor_1d(values, QD_F64, 3), .tokens = 99};
  qd_record made;
  qd_tensor tensors[QD_MAX_PARTS];
  qd_record_of_input(&input, 12, &made, tensors);
  cr_expect_str_eq(made.role, "o_input");
  cr_expect_str_eq(made.scheme, "statistics");
  cr_expect(strstr(made.name, "model.layers.12.") == made.name && strstr(made.name, "o_input") != NULL, "%s", made.name);
  cr_expect_eq(made.n_parts, 1);
  cr_expect_str_eq(made.part[0].name, "diagonal");
  cr_expect_eq(tensors[0].data, values);
  cr_expect_eq(qd_json_integer(qd_json_get(made.facts, "tokens")), 99);
  qd_entry entry = through_json(&made, tensors);
  cr_expect(!qd_record_is_quantized(&entry.record[0]));
  qd_entry_release(&entry);
  qd_json_free(made.facts);
}

/* ---- damage ------------------------------------------------------------------------------------------------------------- */

static void expect_refusal(const qd_record *record, qd_status expected, const char *what) {
  cr_expect_eq(qd_record_check(record, "OUT"), expected, "%s", what);
  cr_expect(strstr(qd_error_text(), "OUT") != NULL && strstr(qd_error_text(), record->name) != NULL, "%s: %s", what,
            qd_error_text());
}

/* One change to a good record, which must then be refused. */
#define DAMAGED(change)                                        \
  do {                                                         \
    qd_record r = good;                                        \
    r.facts = qd_json_copy(good.facts);                        \
    change;                                                    \
    expect_refusal(&r, QD_ECORRUPT, #change);                  \
    qd_json_free(r.facts);                                     \
  } while (0)

Test(record, a_quantized_record_that_does_not_fit_is_refused) {
  qd_weight weight = quantized_weight((qd_scheme){.bits = 3, .group_size = 4, .scale_dtype = QD_F16}, true);
  qd_record good;
  qd_tensor tensors[QD_MAX_PARTS];
  weight.result = result;
  qd_record_of_weight(&weight, &good, tensors);
  MUST(qd_record_check(&good, "OUT"));
  DAMAGED(qd_json_set_integer(r.facts, "bits", 1));
  DAMAGED(qd_json_set_integer(r.facts, "bits", 9));
  DAMAGED(qd_json_set_text(r.facts, "bits", "3"));
  DAMAGED(qd_json_set_text(r.facts, "bits", NULL));
  DAMAGED(qd_json_set_integer(r.facts, "group_size", 0));
  DAMAGED(qd_json_set_integer(r.facts, "group_size", -2));
  DAMAGED(qd_json_set_integer(r.facts, "group_size", 3));
  DAMAGED(qd_json_set_bool(r.facts, "symmetric", true));
  DAMAGED(qd_json_set_text(r.facts, "symmetric", "yes"));
  DAMAGED(qd_json_set_text(r.facts, "scale_dtype", "F32"));
  DAMAGED(qd_json_set_text(r.facts, "scale_dtype", "I64"));
  DAMAGED(qd_json_set_text(r.facts, "scale_dtype", "half"));
  DAMAGED(qd_json_set_text(r.facts, "scale_dtype", NULL));
  DAMAGED(r.dim[0]++);
  DAMAGED(r.dim[1] += 8);
  DAMAGED(r.rank = 1);
  DAMAGED(r.n_parts = 2); /* no zero points */
  DAMAGED(r.part[r.n_parts++] = r.part[0]);
  for (int p = 0; p < good.n_parts; p++) {
    DAMAGED(r.part[p].dtype = r.part[p].dtype == QD_U8 ? QD_I32 : QD_U8);
    DAMAGED(r.part[p].dim[0]++);
    DAMAGED(r.part[p].rank = 3 - r.part[p].rank);
    DAMAGED(strcpy(r.part[p].name, "other"));
    if (good.part[p].rank == 2) DAMAGED(r.part[p].dim[1]--);
  }
  qd_record unknown = good;
  strcpy(unknown.scheme, "lattice");
  expect_refusal(&unknown, QD_EUNSUPPORTED, "scheme");
  cr_expect(strstr(qd_error_text(), "lattice") != NULL);
  qd_json_free(good.facts);
}

Test(record, a_plain_record_that_does_not_fit_is_refused) {
  for (int rank = 1; rank <= 2; rank++) {
    qd_weight weight = plain_weight(rank);
    qd_record good;
    qd_tensor tensors[QD_MAX_PARTS];
    weight.result = result;
  qd_record_of_weight(&weight, &good, tensors);
    MUST(qd_record_check(&good, "OUT"));
    DAMAGED(r.dim[0]++);
    DAMAGED(r.dtype = QD_BF16);
    DAMAGED(r.rank = 3 - rank);
    DAMAGED(r.n_parts = 0);
    DAMAGED(r.part[r.n_parts++] = r.part[0]);
    DAMAGED(strcpy(r.part[0].name, "value"));
    DAMAGED(r.part[0].dim[0]--);
    DAMAGED(r.part[0].dtype = QD_F32);
    qd_json_free(good.facts);
  }
}
