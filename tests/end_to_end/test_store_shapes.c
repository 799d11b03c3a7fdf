/* Every width of a code with every size of a group, on a model where the last group of a row is short: each store verifies and
 * evaluates, embedding and head quantized with the rest; and what docs/formats.md says of its parts gives the original's
 * weights, each within half a step of the grid of its own group. */
#include "storage/store.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include "kernels/base/heap.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* 176 = 128 + 48 = 2 * 64 + 48 = 5 * 32 + 16; 352 = 2 * 128 + 96 = 5 * 64 + 32. */
enum { HIDDEN = 176, FFN = 352, VOCABULARY = 127, POSITIONS = 64, SEQUENCES = 4, TOKENS = 48, MIN_BITS = 2, MAX_BITS = 8 };

static qd_temporary_folder folder;
static char model[QD_TEMPORARY_PATH_BYTES], text[QD_TEMPORARY_PATH_BYTES];

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static void open_model(void) {
  qd_temporary_folder_open(&folder);
  snprintf(model, sizeof model, "%s", qd_temporary_make_folder(&folder, "model"));
  snprintf(text, sizeof text, "%s", qd_temporary_path(&folder, "text.i32"));
  qd_made_llama widths = {.dtype = QD_BF16, .blocks = 2, .hidden = HIDDEN, .ffn = FFN, .heads = 11, .kv_heads = 11,
                          .vocabulary = VOCABULARY, .positions = POSITIONS};
  qd_make_llama(model, &widths);
  qd_make_ids(text, SEQUENCES * TOKENS, VOCABULARY, 3);
}

static void close_model(void) { qd_temporary_folder_close(&folder); }
TestSuite(store_shapes, .init = open_model, .fini = close_model);

/* ---- the program --------------------------------------------------------------------------------------------------------- */

static void expect_success(qd_run run) {
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

/* Mean Kullback-Leibler divergence of the store's predictions from the original's, in fp32. */
static double divergence(const char *store) {
  static const char format[] = "evaluate -m %s --reference %s -d %s --seqlen %d --compute-dtype fp32 --json";
  qd_run run = qd_program(0, format, store, model, text, TOKENS);
  qd_json *facts;
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  MUST(qd_json_parse(run.out.text, run.out.n, "standard output", &facts));
  cr_assert(qd_json_is_number(qd_json_get(facts, "kl_mean")), "%s", run.out.text);
  double out = qd_json_number(qd_json_get(facts, "kl_mean"));
  qd_json_free(facts);
  qd_run_close(&run);
  return out;
}

/* ---- a store by its description ------------------------------------------------------------------------------------------ */

typedef struct linear {
  const char *name;
  int64_t rows, columns, group, groups;
  int bits;
  unsigned char *codes, *zeros;
  uint16_t *scales;
} linear;

typedef struct place {
  const qd_store *store;
  const qd_entry *entry;
  const qd_record *record;
} place;

static void *read_part(place at, const char *name, qd_dtype dtype, int64_t columns) {
  for (int i = 0; i < at.record->n_parts; i++) {
    const qd_stored_part *part = &at.record->part[i];
    if (strcmp(part->name, name) != 0) continue;
    bool is_right = part->dtype == dtype && part->rank == 2 && part->dim[0] == at.record->dim[0] && part->dim[1] == columns;
    cr_assert(is_right, "%s/%s has another type or shape", at.record->name, name);
    unsigned char *out;
    MUST(qd_heap_new((size_t)(part->dim[0] * part->dim[1]), qd_dtype_bytes(dtype), &out));
    MUST(qd_store_read_part(at.store, at.entry, part, out));
    return out;
  }
  cr_assert_fail("%s has no %s", at.record->name, name);
  return NULL;
}

static unsigned code_at(const linear *l, int64_t row, int64_t column) {
  const unsigned char *bytes = l->codes + row * ((l->columns * l->bits + 7) / 8);
  unsigned code = 0;
  for (int i = 0; i < l->bits; i++) {
    int64_t bit = column * l->bits + i;
    code |= (unsigned)(bytes[bit / 8] >> bit % 8 & 1) << i;
  }
  return code;
}

static double original(const linear *l, int64_t row, int64_t column) {
  return qd_bf16_to_f32(qd_bf16_from_f32(qd_made_value(l->name, row * l->columns + column)));
}

/* Rounding without a search: from the least to the greatest weight of the group, 0 included, in 2^bits - 1 steps.  F16 holds 11
 * bits of a step, so the last of them lie a little aside. */
static void check_group(const linear *l, int64_t row, int64_t g) {
  int64_t first = g * l->group, end = first + l->group < l->columns ? first + l->group : l->columns;
  double scale = qd_f16_to_f32(l->scales[row * l->groups + g]), zero = l->zeros[row * l->groups + g];
  double low = 0, high = 0, worst = 0;
  int levels = (1 << l->bits) - 1;
  for (int64_t c = first; c < end; c++) {
    double w = original(l, row, c);
    low = fmin(low, w), high = fmax(high, w);
    worst = fmax(worst, fabs(w - scale * (code_at(l, row, c) - zero)));
  }
  double step = (high - low) / levels;
  cr_assert_leq(fabs(scale - step), step / 1024, "%s, row %d, group %d: scale %.9g, expected %.9g", l->name, (int)row, (int)g,
                scale, step);
  cr_assert_leq(worst, scale * (0.5 + levels / 1024.0 + 1e-3), "%s, row %d, group %d: off by %.3f steps", l->name, (int)row,
                (int)g, worst / scale);
}

static void check_linear(place at, int bits, int group) {
  linear l = {.name = at.record->name, .rows = at.record->dim[0], .columns = at.record->dim[1], .bits = bits};
  l.group = group > 0 ? group : l.columns;
  l.groups = (l.columns + l.group - 1) / l.group;
  l.codes = read_part(at, "codes", QD_U8, (l.columns * bits + 7) / 8);
  l.zeros = read_part(at, "zeros", QD_U8, l.groups);
  l.scales = read_part(at, "scales", QD_F16, l.groups);
  for (int64_t row = 0; row < l.rows; row++)
    for (int64_t g = 0; g < l.groups; g++) check_group(&l, row, g);
  qd_heap_free(l.codes);
  qd_heap_free(l.zeros);
  qd_heap_free(l.scales);
}

static void check_rounded(const char *path, int bits, int group) {
  qd_store store;
  int n = 0;
  MUST(qd_store_open(path, false, &store));
  for (int64_t b = -1; b < store.n_blocks; b++) {
    const qd_entry *entry = b < 0 ? &store.rest : &store.block[b];
    for (int i = 0; i < entry->n_records; i++) {
      if (strcmp(entry->record[i].scheme, "uniform") != 0) continue;
      check_linear((place){&store, entry, &entry->record[i]}, bits, group);
      cr_expect_gt(qd_json_number(qd_json_get(entry->record[i].facts, "relative_error")), 0, "%s", entry->record[i].name);
      n++;
    }
  }
  cr_expect_eq(n, 2 * 7 + 2);
  qd_store_close(&store);
}

/* ---- the tests ----------------------------------------------------------------------------------------------------------- */

static void check_weights(int bits, int group) {
  char name[32];
  snprintf(name, sizeof name, "rtn-%d", bits);
  const char *store = qd_temporary_path(&folder, name);
  static const char format[] = "quantize -m %s -o %s --method rtn -b %d -g %d --quant-lm-head --quant-embeddings";
  expect_success(qd_program(0, format, model, store, bits, group));
  check_rounded(store, bits, group);
}

static double gptq_divergence(int bits, int group) {
  char name[32];
  snprintf(name, sizeof name, "gptq-%d", bits);
  const char *store = qd_temporary_path(&folder, name);
  static const char format[] = "quantize -m %s -o %s -b %d -g %d -d %s --nsamples %d --seqlen %d --compute-dtype fp32 "
                               "--quant-embeddings --quant-lm-head";
  expect_success(qd_program(2, format, model, store, bits, group, text, SEQUENCES, TOKENS));
  expect_success(qd_program(0, "verify %s", store));
  return divergence(store);
}

/* A bit more halves the step, and quarters the divergence. */
static void check_group_size(int group) {
  double before = 1;
  for (int bits = MIN_BITS; bits <= MAX_BITS; bits++) {
    check_weights(bits, group);
    double got = gptq_divergence(bits, group);
    printf("groups of %d, %d bits: divergence %.3g\n", group, bits, got);
    fflush(stdout);
    cr_expect(got < 0.5 * before, "groups of %d: %d bits diverge by %.3g, a bit less by %.3g", group, bits, got, before);
    before = got;
  }
}

Test(store_shapes, whole_rows) { check_group_size(-1); }
Test(store_shapes, groups_of_128) { check_group_size(128); }
Test(store_shapes, groups_of_64) { check_group_size(64); }
Test(store_shapes, groups_of_32) { check_group_size(32); }
