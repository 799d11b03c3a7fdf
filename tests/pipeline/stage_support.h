/* For tests of single verbs of the loop: a run with one rank whose activations are made up. */
#ifndef QDIST_TESTS_PIPELINE_STAGE_SUPPORT_H
#define QDIST_TESTS_PIPELINE_STAGE_SUPPORT_H

#include "pipeline/stages.h"
#include "tests/pipeline/logits_support.h"

/* hidden 10, ffn 30: mid of a sequence has room for 30 columns, of which the first stages use 10. */
enum { SEQUENCES = 3, SEQUENCE_TOKENS = 17, HIDDEN = 10, FFN = 30 };

typedef struct stand {
  qd_job    job;
  qd_device device;
  qd_run    run;
} stand;

static inline double noise(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 11) * 0x1p-52 - 1;
}

static inline void open_stand(stand *s, const char *device, qd_dtype act) {
  *s = (stand){.job = {.method = &qd_method_gptq,
                       .damp = 0.01,
                       .block = QD_GPTQ_BLOCK,
                       .hessian_bound = 0x1p62,
                       .act_order = QD_ORDER_STATIC,
                       .scheme = {.bits = 4, .group_size = 8, .scale_dtype = QD_F16}},
               .device = open_device((place){device, NULL, 1})};
  s->run = (qd_run){.job = &s->job, .comm = open_team(), .device = &s->device, .act = act, .mine = {0, SEQUENCES}};
  s->run.model = (qd_model){.arch = qd_arch_find("llama"),
                            .n_blocks = 2,
                            .hidden = HIDDEN,
                            .ffn = FFN,
                            .heads = 1,
                            .kv_heads = 1,
                            .head_dim = HIDDEN};
  s->run.tokens.rows = SEQUENCES, s->run.tokens.sequence_tokens = SEQUENCE_TOKENS;
  MUST(qd_arena_open(&s->run.stats_arena, "statistics", (size_t)64 << 20));
  MUST(qd_arena_open(&s->run.acts_arena, "activations", (size_t)1 << 20));
  qd_acts_shape shape = {.dtype = act, .sequences = SEQUENCES, .tokens = SEQUENCE_TOKENS, .hidden = HIDDEN, .widest = FFN};
  MUST(qd_acts_open(&s->run.acts.quantized, &shape, &s->run.acts_arena));
}

static inline void close_stand(stand *s) {
  qd_arena_close(&s->run.stats_arena);
  qd_arena_close(&s->run.acts_arena);
  qd_team_close(s->run.comm, false, 0);
  qd_device_close(&s->device);
}

/* mid of sequence i: in memory a window holds them all. */
static inline void *mid_of(stand *s, int64_t columns, int64_t i) {
  qd_acts_window window;
  qd_acts_begin(&s->run.acts.quantized, (qd_acts_use){.mid_in = columns});
  MUST(qd_acts_next(&s->run.acts.quantized, &window));
  cr_assert_eq(window.n, SEQUENCES);
  return qd_tensor_at(window.mid, i).data;
}

/* x(t, c) of sequence i, as the stage sees it. */
static inline double input_at(stand *s, int64_t columns, int64_t i, int64_t t, int64_t c) {
  const void *mid = mid_of(s, columns, i);
  int64_t at = t * columns + c;
  return s->run.act == QD_F32 ? (double)((const float *)mid)[at]
                              : (double)qd_bf16_to_f32(((const uint16_t *)mid)[at]);
}

static inline void set_input(stand *s, int64_t columns, int64_t i, int64_t t, int64_t c, double value) {
  void *mid = mid_of(s, columns, i);
  int64_t at = t * columns + c;
  if (s->run.act == QD_F32) ((float *)mid)[at] = (float)value;
  else ((uint16_t *)mid)[at] = qd_bf16_from_f32((float)value);
}

static inline void fill_inputs(stand *s, int64_t columns, uint64_t seed) {
  for (int64_t i = 0; i < SEQUENCES; i++)
    for (int64_t t = 0; t < SEQUENCE_TOKENS; t++)
      for (int64_t c = 0; c < columns; c++) set_input(s, columns, i, t, c, noise(&seed) * (double)(1 + c % 4));
}

#endif
