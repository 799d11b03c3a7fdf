/* For tests of whole models: all logits of a sequence through the streamed decoder, and golden values. */
#ifndef QDIST_TESTS_PIPELINE_LOGITS_SUPPORT_H
#define QDIST_TESTS_PIPELINE_LOGITS_SUPPORT_H

#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/evaluate/subject.h"
#include "workers/team.h"

enum { PATH_BYTES = 4096 };

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

/* Where a model is run. */
typedef struct place {
  const char *device, *isa;
  int threads;
} place;

/* ref, then the cpu device with each instruction set of this machine. */
static inline int places(place out[8]) {
  int n = 0;
  out[n++] = (place){"ref", NULL, 1};
  qd_isa best = qd_isa_best();
  if (best == QD_ISA_PORTABLE) out[n++] = (place){"cpu", NULL, 1};
  for (qd_isa isa = QD_ISA_AVX2; isa <= best; isa++) out[n++] = (place){"cpu", qd_isa_name(isa), 1};
  return n;
}

static inline qd_device open_device(place where) {
  qd_device device;
  qd_device_options options = {
      .name = where.device, .isa = where.isa, .threads = where.threads, .scratch_bytes = (size_t)4 << 30};
  MUST(qd_device_open(&device, options));
  return device;
}

static inline qd_comm *open_team(void) {
  qd_comm *comm;
  qd_log_level_set(QD_LOG_QUIET);
  MUST(qd_team_open(&comm));
  cr_assert_eq(comm->size, 1);
  return comm;
}

static inline void *must_new(size_t n, size_t size) {
  void *memory;
  MUST(qd_heap_new(n, size, &memory));
  return memory;
}

/* Logits of some windows. */
typedef struct logits {
  int64_t windows, tokens, vocabulary;
  float  *value; /* (windows, tokens, vocabulary) */
} logits;

static inline void all_logits(qd_subject *subject, qd_block *rest, logits *out) {
  qd_tensor table = qd_tensor_3d(out->value, QD_F32, out->windows, out->tokens, out->vocabulary);
  for (int64_t w = 0; w < out->windows; w++)
    MUST(qd_subject_logits(subject, rest, qd_tensor_at(subject->h, w), qd_tensor_at(table, w)));
}

/* ids (windows, tokens) through the model or the store at `path`. */
static inline logits run_model(const char *path, qd_compute compute, place where, int32_t *ids, int64_t windows,
                               int64_t tokens) {
  qd_comm *comm = open_team();
  qd_device device = open_device(where);
  qd_subject subject;
  qd_block rest;
  MUST(qd_subject_open(&subject, path, compute, comm, &device));
  MUST(qd_subject_reserve(&subject, windows, tokens));
  MUST(qd_subject_forward(&subject, qd_tensor_2d(ids, QD_I32, windows, tokens), &rest));
  logits out = {.windows = windows, .tokens = tokens, .vocabulary = subject.model.vocabulary};
  out.value = must_new((size_t)(windows * tokens * out.vocabulary), sizeof *out.value);
  all_logits(&subject, &rest, &out);
  qd_subject_forward_done(&subject);
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return out;
}

static inline size_t logits_bytes(const logits *l) { return (size_t)(l->windows * l->tokens * l->vocabulary) * sizeof(float); }

/* The largest difference; NaN if there is a NaN. */
static inline double largest_difference(const float *a, const float *b, size_t n) {
  double largest = 0;
  for (size_t i = 0; i < n; i++) {
    double difference = fabs((double)a[i] - (double)b[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

static inline void read_numbers(const qd_json *array, float *to) {
  for (size_t i = 0; i < qd_json_length(array); i++) to[i] = (float)qd_json_number(qd_json_at(array, i));
}

static inline int32_t *read_ids(const qd_json *array, int64_t *n) {
  *n = (int64_t)qd_json_length(array);
  int32_t *ids = must_new((size_t)*n, sizeof *ids);
  for (int64_t i = 0; i < *n; i++) ids[i] = (int32_t)qd_json_integer(qd_json_at(array, (size_t)i));
  return ids;
}

/* tests/golden/archs/NAME/logits.json. */
typedef struct golden {
  char     path[PATH_BYTES / 2]; /* of the model */
  int32_t *ids;
  logits   expected;
} golden;

static inline golden golden_open(const char *name) {
  golden g;
  char path[PATH_BYTES];
  qd_json *document;
  snprintf(g.path, sizeof g.path, "%s/tests/golden/archs/%s", QDIST_SOURCE_DIR, name);
  snprintf(path, sizeof path, "%s/logits.json", g.path);
  MUST(qd_json_read(path, (size_t)64 << 20, &document));
  const qd_json *rows = qd_json_get(document, "logits");
  g.ids = read_ids(qd_json_get(document, "ids"), &g.expected.tokens);
  cr_assert_eq(qd_json_length(rows), (size_t)g.expected.tokens);
  g.expected.windows = 1;
  g.expected.vocabulary = (int64_t)qd_json_length(qd_json_at(rows, 0));
  g.expected.value = must_new(logits_bytes(&g.expected), 1);
  for (int64_t t = 0; t < g.expected.tokens; t++) {
    cr_assert_eq(qd_json_length(qd_json_at(rows, (size_t)t)), (size_t)g.expected.vocabulary);
    read_numbers(qd_json_at(rows, (size_t)t), g.expected.value + t * g.expected.vocabulary);
  }
  qd_json_free(document);
  return g;
}

static inline void golden_close(golden *g) {
  qd_heap_free(g->ids);
  qd_heap_free(g->expected.value);
}

#endif
