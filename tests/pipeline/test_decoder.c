/* The forward's numbers are tested in test_archs.c and evaluate/test_subject.c; here, its cut into stages. */
#include "pipeline/decoder.h"

#include "tests/pipeline/logits_support.h"

Test(decoder, stages_hold_every_linear_once_in_order) {
  static const char *const inputs[] = {"qkv_input", "o_input", "gate_up_input", "down_input"};
  qd_role next = QD_Q_PROJ;
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
    cr_expect_str_eq(qd_stage_input_name(stage), inputs[stage]);
    cr_expect_eq(qd_stage_first(stage), next);
    cr_expect_geq(qd_stage_last(stage), next);
    next = qd_stage_last(stage) + 1;
  }
  cr_expect_eq(next, QD_N_LINEARS);
}

Test(decoder, knows_the_columns_between_stages) {
  qd_model m = {.arch = qd_arch_find("llama"), .hidden = 10, .ffn = 30, .heads = 3, .kv_heads = 1, .head_dim = 8};
  cr_expect_eq(qd_decoder_mid_columns(&m, QD_STAGE_QKV), 10);
  cr_expect_eq(qd_decoder_mid_columns(&m, QD_STAGE_O), 24);
  cr_expect_eq(qd_decoder_mid_columns(&m, QD_STAGE_GATE_UP), 10);
  cr_expect_eq(qd_decoder_mid_columns(&m, QD_STAGE_DOWN), 30);
  cr_expect_eq(qd_decoder_mid_widest(&m), 30);
  m.ffn = 7;
  cr_expect_eq(qd_decoder_mid_widest(&m), 24);
  m.heads = 1;
  cr_expect_eq(qd_decoder_mid_widest(&m), 10);
}

/* A position's numbers are the same with whatever comes after it. */
Test(decoder, the_future_does_not_show) {
  golden g = golden_open("qwen3");
  for (int bf16 = 0; bf16 < 2; bf16++) {
    qd_compute compute = bf16 ? QD_COMPUTE_BF16 : QD_COMPUTE_FP32;
    logits all = run_model(g.path, compute, (place){"cpu", NULL, 1}, g.ids, 1, g.expected.tokens);
    for (int64_t tokens = 1; tokens < g.expected.tokens; tokens += 5) {
      logits some = run_model(g.path, compute, (place){"cpu", NULL, 1}, g.ids, 1, tokens);
      cr_expect_eq(memcmp(some.value, all.value, logits_bytes(&some)), 0, "%" PRId64 " tokens", tokens);
      qd_heap_free(some.value);
    }
    qd_heap_free(all.value);
  }
  golden_close(&g);
}

Test(decoder, an_id_outside_the_vocabulary_is_refused) {
  golden g = golden_open("llama");
  qd_comm *comm = open_team();
  qd_device device = open_device((place){"cpu", NULL, 1});
  qd_subject subject;
  qd_block rest;
  MUST(qd_subject_open(&subject, g.path, QD_COMPUTE_FP32, comm, &device));
  MUST(qd_subject_reserve(&subject, 1, g.expected.tokens));
  const int32_t wrong[] = {72, -1, INT32_MAX, INT32_MIN};
  for (int i = 0; i < 4; i++) {
    g.ids[3] = wrong[i];
    cr_expect_eq(qd_subject_forward(&subject, qd_tensor_2d(g.ids, QD_I32, 1, g.expected.tokens), &rest), QD_EBADINPUT);
    qd_subject_forward_done(&subject);
  }
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  golden_close(&g);
}
