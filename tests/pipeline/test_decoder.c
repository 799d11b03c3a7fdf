/* The forward's numbers are tested in test_archs.c and evaluate/test_subject.c; here, its cut into stages. */
#include "pipeline/decoder.h"

#include "tests/pipeline/logits_support.h"

Test(decoder, stages_hold_every_linear_once_in_order) {
  static const char *const inputs[] = {"qkv_input",
                                       "o_input",
                                       "gate_up_input",
                                       "down_input",
                                       "expert_gate_up_input",
                                       "expert_down_input",
                                       "shared_gate_up_input",
                                       "shared_down_input",
                                       "head_input"};
  int seen[QD_N_ROLES] = {0};
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
    cr_expect_str_eq(qd_stage_input_name(stage), inputs[stage]);
    for (qd_role role = qd_stage_first(stage); role <= qd_stage_last(stage); role++) seen[role]++;
    cr_expect_eq(qd_stage_is_routed(stage), qd_role_is_of_expert(qd_stage_first(stage)));
  }
  for (int role = 0; role < QD_N_ROLES; role++)
    cr_expect_eq(seen[role], role < QD_N_LINEARS || role == QD_HEAD, "%s", qd_role_name((qd_role)role));
}

/* Of a model whose odd blocks have experts. */
Test(decoder, a_block_has_the_stages_of_its_linears) {
  static const qd_stage dense[] = {QD_STAGE_QKV, QD_STAGE_O, QD_STAGE_GATE_UP, QD_STAGE_DOWN},
                        sparse[] = {QD_STAGE_QKV, QD_STAGE_O, QD_STAGE_EXPERT_GATE_UP, QD_STAGE_EXPERT_DOWN,
                                    QD_STAGE_SHARED_GATE_UP, QD_STAGE_SHARED_DOWN};
  qd_model m = {.arch = qd_arch_find("qwen2_moe"), .n_blocks = 4, .hidden = 10, .ffn = 40, .heads = 3, .kv_heads = 1,
                .head_dim = 8, .experts = 5, .top_k = 2, .expert_ffn = 6, .shared_ffn = 14, .sparse_step = 2};
  for (int64_t block = 0; block < 4; block++)
    for (int shared = 1; shared >= 0; shared--) {
      const qd_stage *wanted = block % 2 ? sparse : dense;
      int n = 0, all = block % 2 && shared ? 6 : 4;
      m.shared_ffn = shared ? 14 : 0;
      QD_FOR_STAGES(stage, &m, block) {
        cr_assert_lt(n, all);
        cr_expect_eq(stage, wanted[n++]);
        cr_expect_eq(qd_decoder_touches_residual(&m, block, stage), stage == QD_STAGE_O || n == all);
      }
      cr_expect_eq(n, all);
    }
  QD_FOR_STAGES(stage, &m, QD_REST) cr_expect_eq(stage, QD_STAGE_HEAD);
  m.shared_ffn = 14;
  cr_expect_eq(qd_decoder_mid_widest(&m), 40);
  m.ffn = 20;
  cr_expect_eq(qd_decoder_mid_widest(&m), 14 + 10 + 1);
  cr_expect_eq(qd_decoder_mid_columns(&m, QD_STAGE_EXPERT_DOWN), 6);
  cr_expect_eq(qd_decoder_mid_held(&m, 1, QD_STAGE_EXPERT_GATE_UP), 10);
  cr_expect_eq(qd_decoder_mid_held(&m, 1, QD_STAGE_SHARED_DOWN), 25);
  cr_expect_eq(qd_decoder_mid_held(&m, 0, QD_STAGE_DOWN), 20);
  cr_expect_eq(qd_decoder_mid_held(&m, 0, QD_N_STAGES), 0);
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
