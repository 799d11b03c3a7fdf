#include "pipeline/plan.h"

#include <sys/resource.h>

#include "tests/pipeline/job_support.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(plan, .init = open_folder, .fini = close_folder);

enum { HIDDEN = 64, FFN = 300, HEADS = 4, KV_HEADS = 2, HEAD = 16, VOCABULARY = 500, TOKENS = 10, SEQUENCES = 5 };

static qd_model small_model(int64_t blocks) {
  return (qd_model){.arch = qd_arch_find("llama"),
                    .n_blocks = blocks,
                    .hidden = HIDDEN,
                    .ffn = FFN,
                    .heads = HEADS,
                    .kv_heads = KV_HEADS,
                    .head_dim = HEAD,
                    .vocabulary = VOCABULARY,
                    .max_positions = 64,
                    .dtype = QD_BF16};
}

typedef struct stand {
  qd_job    job;
  qd_model  model;
  qd_device device;
  qd_plan   plan;
} stand;

static void open_stand(stand *s, int64_t blocks) {
  *s = (stand){.job = small_job("model", NULL), .model = small_model(blocks)};
  gptq_job(&s->job, "text", QD_ORDER_STATIC);
  MUST(qd_device_open(&s->device, (qd_device_options){.name = "cpu", .threads = 1, .scratch_bytes = QD_SCRATCH_LATER}));
}

static const qd_plan *plan_of(stand *s, int ranks, int64_t sequences, qd_dtype act) {
  qd_plan_release(&s->plan);
  qd_plan_request request = {.job = &s->job,
                             .model = &s->model,
                             .device = &s->device,
                             .act = act,
                             .sequences = sequences,
                             .tokens = TOKENS,
                             .ranks = ranks,
                             .acts_on_disk = s->job.acts_place == QD_ACTS_DISK,
                             .launched = true};
  MUST(qd_plan_make(&request, &s->plan));
  return &s->plan;
}

static void close_stand(stand *s) {
  qd_plan_release(&s->plan);
  qd_device_close(&s->device);
}

static size_t part(const stand *s, int rank, qd_plan_part which) { return s->plan.rank[rank].part[which]; }

static size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* ---- parts by hand ------------------------------------------------------------------------------------------------------ */

Test(plan, activations_hold_residuals_and_the_widest_input) {
  stand s;
  open_stand(&s, 2);
  plan_of(&s, 2, SEQUENCES, QD_BF16); /* three and two sequences */
  cr_expect_eq(part(&s, 0, QD_PLAN_ACTIVATIONS), up(3 * TOKENS * HIDDEN * 2) + up(3 * TOKENS * FFN * 2));
  cr_expect_eq(part(&s, 1, QD_PLAN_ACTIVATIONS), up(2 * TOKENS * HIDDEN * 2) + up(2 * TOKENS * FFN * 2));
  s.job.true_sequential = false; /* keeps what the block began with */
  plan_of(&s, 1, SEQUENCES, QD_F32);
  cr_expect_eq(part(&s, 0, QD_PLAN_ACTIVATIONS), 2 * up(5 * TOKENS * HIDDEN * 4) + up(5 * TOKENS * FFN * 4));
  close_stand(&s);
}

Test(plan, the_decoder_holds_the_widest_stage) {
  stand s;
  open_stand(&s, 2);
  plan_of(&s, 1, SEQUENCES, QD_F32);
  cr_expect_eq(part(&s, 0, QD_PLAN_DECODER), 2 * up(TOKENS * HEAD / 2 * 4) + up(HEAD / 2 * 8) + 2 * up(TOKENS * FFN * 4));
  s.model.ffn = 20; /* now the attention: q, k, v */
  plan_of(&s, 1, SEQUENCES, QD_F32);
  cr_expect_eq(part(&s, 0, QD_PLAN_DECODER), 2 * up(TOKENS * HEAD / 2 * 4) + up(HEAD / 2 * 8) + up(TOKENS * HIDDEN * 4) +
                                                 2 * up(TOKENS * KV_HEADS * HEAD * 4));
  close_stand(&s);
}

Test(plan, a_second_stream_takes_room_for_itself_its_blocks_and_the_head) {
  stand s;
  open_stand(&s, 2);
  plan_of(&s, 4, SEQUENCES, QD_BF16);
  size_t stream = part(&s, 0, QD_PLAN_STREAM);
  cr_expect_eq(part(&s, 0, QD_PLAN_REPORT), 0);
  s.job.gptaq = true, s.job.gptaq_alpha = 0.25, s.job.kl_positions = 64;
  plan_of(&s, 4, SEQUENCES, QD_BF16);
  cr_expect_eq(part(&s, 0, QD_PLAN_ACTIVATIONS), 2 * (up(2 * TOKENS * HIDDEN * 2) + up(2 * TOKENS * FFN * 2)));
  cr_expect_gt(part(&s, 0, QD_PLAN_STREAM), stream);
  cr_expect_eq(part(&s, 0, QD_PLAN_REPORT),
               up(SEQUENCES * 24) + up(VOCABULARY * HIDDEN * 2) + up(HIDDEN * 4) +
                   2 * (up(TOKENS * HIDDEN * 2) + up(TOKENS * VOCABULARY * 4)) + up(TOKENS * 8) + up(TOKENS * 4) +
                   up(TOKENS * HIDDEN * 4) + up(3 * HIDDEN * 8));
  s.job.gptaq_alpha = 0, s.job.kl_positions = 0; /* plain GPTQ */
  plan_of(&s, 4, SEQUENCES, QD_BF16);
  cr_expect_eq(part(&s, 0, QD_PLAN_STREAM), stream);
  close_stand(&s);
}

Test(plan, the_block_holds_what_is_computed_with) {
  stand s;
  open_stand(&s, 2);
  s.job.scheme.symmetric = true;
  s.model.dtype = QD_F32; /* nothing to convert */
  plan_of(&s, 2, 3, QD_F32);                          /* two sequences and one */
  size_t rows[] = {64, 32, 32, 64, 300, 300, 64}, columns[] = {64, 64, 64, 64, 64, 64, 300}, codes = 0, expanded = 0;
  for (int i = 0; i < 7; i++) {
    codes += up(rows[i] * columns[i] / 2) + up(rows[i] * ((columns[i] + 15) / 16) * 2) + 2 * up(rows[i] * 8);
    expanded += up(rows[i] * columns[i] * 4);
  }
  codes += 3 * up(HIDDEN * 8) + up(FFN * 8); /* diagonals of the inputs */
  size_t rest = 2 * up(VOCABULARY * HIDDEN * 4) + up(HIDDEN * 4);
  cr_expect_eq(part(&s, 1, QD_PLAN_BLOCK), codes); /* one sequence multiplies by the codes themselves */
  cr_expect_eq(part(&s, 0, QD_PLAN_BLOCK), codes + expanded > rest ? codes + expanded : rest);
  close_stand(&s);
}

/* Two windows of eight sequences, however many there are; only the diagonals, a number a sequence and column, are more. */
Test(plan, on_disk_memory_does_not_grow_with_the_number_of_sequences) {
  stand s;
  open_stand(&s, 2);
  s.job.method = &qd_method_rtn; /* the exact sum is what statistics take most for */
  s.job.acts_place = QD_ACTS_DISK, s.job.acts_folder = folder.path;
  size_t one = (size_t)TOKENS * (HIDDEN + FFN) * 2;
  plan_of(&s, 1, 64, QD_BF16);
  size_t host = s.plan.rank[0].host_bytes, statistics = part(&s, 0, QD_PLAN_STATISTICS);
  cr_expect_eq(part(&s, 0, QD_PLAN_ACTIVATIONS), 2 * 8 * one);
  cr_expect_eq(s.plan.scratch_disk_bytes, (int64_t)(64 * one));
  plan_of(&s, 1, 1064, QD_BF16);
  cr_expect_eq(part(&s, 0, QD_PLAN_ACTIVATIONS), 2 * 8 * one);
  cr_expect_leq(part(&s, 0, QD_PLAN_STATISTICS) - statistics, (size_t)1000 * FFN * sizeof(double));
  cr_expect_leq(s.plan.rank[0].host_bytes - host, (size_t)1000 * FFN * sizeof(double) + (1 << 20));
  cr_expect_eq(s.plan.scratch_disk_bytes, (int64_t)(1064 * one));
  plan_of(&s, 3, 64, QD_BF16);
  cr_expect_eq(s.plan.scratch_disk_bytes, (int64_t)(64 * one), "of all ranks together");
  close_stand(&s);
}

Test(plan, activations_on_disk_are_weighed_against_it) {
  stand s;
  open_stand(&s, 2);
  s.job.acts_place = QD_ACTS_DISK, s.job.acts_folder = folder.path;
  plan_of(&s, 1, 64, QD_BF16);
  MUST(qd_plan_check_scratch(&s.plan, (qd_plan_place){.ranks_on_node = 1}));
  plan_of(&s, 1, (int64_t)1 << 34, QD_BF16);
  cr_expect_eq(qd_plan_check_scratch(&s.plan, (qd_plan_place){.ranks_on_node = 1}), QD_EIO);
  cr_expect(strstr(qd_error_text(), "--activations disk:") != NULL && strstr(qd_error_text(), "too little") != NULL, "%s",
            qd_error_text());
  s.job.output = qd_temporary_path(&folder, "out");
  cr_expect_eq(qd_plan_check_scratch(&s.plan, (qd_plan_place){.ranks_on_node = 1}), QD_EIO);
  cr_expect(strstr(qd_error_text(), "on the same file system, the store") != NULL, "%s", qd_error_text());
  s.job.acts_place = QD_ACTS_MEMORY;
  plan_of(&s, 1, (int64_t)1 << 34, QD_BF16);
  MUST(qd_plan_check_scratch(&s.plan, (qd_plan_place){.ranks_on_node = 1}));
  close_stand(&s);
}

/* 16 Mi weights, in whole blocks for every thread. */
Test(plan, rows_are_quantized_in_pieces_of_whole_tiles) {
  static const struct { int64_t columns; int threads; int64_t rows; } pieces[] = {
      {28672, 1, 512}, {28672, 2, 512}, {28672, 3, 768}, {8192, 1, 2048}, {8192, 3, 1536}, {300, 1, 55808}, {1 << 25, 2, 512}};
  for (int i = 0; i < 7; i++)
    cr_expect_eq(qd_plan_piece_rows(&(qd_device){.threads = pieces[i].threads}, (qd_scheme){0}, pieces[i].columns),
                 pieces[i].rows, "%d", i);
}

Test(plan, scratch_does_not_grow_with_the_rows_of_a_share) {
  stand s;
  open_stand(&s, 1);
  s.job.method = &qd_method_rtn;
  s.model.hidden = 1024, s.model.ffn = 1 << 15;
  plan_of(&s, 1, 0, QD_BF16);
  size_t scratch = part(&s, 0, QD_PLAN_SCRATCH);
  s.model.ffn = 1 << 16;
  plan_of(&s, 1, 0, QD_BF16);
  cr_expect_leq(part(&s, 0, QD_PLAN_SCRATCH), scratch + ((size_t)1 << 20));
  cr_expect_lt(scratch, (size_t)160 << 20);
  close_stand(&s);
}

/* ---- what depends on what ------------------------------------------------------------------------------------------------ */

Test(plan, memory_does_not_grow_with_the_number_of_blocks) {
  stand few, many;
  open_stand(&few, 8), open_stand(&many, 80);
  plan_of(&few, 3, SEQUENCES, QD_BF16), plan_of(&many, 3, SEQUENCES, QD_BF16);
  cr_expect_eq(few.plan.n_kinds, 2);
  cr_expect_eq(many.plan.n_kinds, 2);
  for (int r = 0; r < 3; r++)
    for (qd_plan_part p = QD_PLAN_LIBRARIES; p < QD_N_PLAN_PARTS; p++)
      if (p != QD_PLAN_STREAM) cr_expect_eq(part(&few, r, p), part(&many, r, p), "rank %d, %s", r, qd_plan_part_name(p));
  cr_expect_gt(many.plan.disk_bytes, 5 * few.plan.disk_bytes);
  close_stand(&few), close_stand(&many);
}

Test(plan, more_ranks_share_sequences_and_rows_and_send_more) {
  stand s;
  open_stand(&s, 4);
  s.model.hidden = 256, s.model.ffn = 1200; /* rows enough to be cut */
  s.job.method = &qd_method_rtn;
  plan_of(&s, 1, 0, QD_BF16);
  size_t scratch = part(&s, 0, QD_PLAN_SCRATCH);
  plan_of(&s, 3, 0, QD_BF16);
  cr_expect_lt(part(&s, 0, QD_PLAN_SCRATCH), scratch);
  s.job.method = &qd_method_gptq;
  int64_t disk = plan_of(&s, 1, SEQUENCES, QD_BF16)->disk_bytes;
  cr_expect_eq(s.plan.traffic_bytes, 0);
  plan_of(&s, 2, SEQUENCES, QD_BF16);
  int64_t traffic = s.plan.traffic_bytes;
  cr_expect_eq(s.plan.disk_bytes, disk);
  plan_of(&s, 7, SEQUENCES, QD_BF16);
  cr_expect_eq(s.plan.traffic_bytes, 6 * traffic);
  cr_expect_eq(s.plan.rank[4].sequences, 1);
  cr_expect_eq(s.plan.rank[5].sequences, 0);
  cr_expect_eq(part(&s, 6, QD_PLAN_ACTIVATIONS), 0);
  close_stand(&s);
}

Test(plan, rules_make_kinds_of_blocks) {
  stand s;
  open_stand(&s, 6);
  int64_t all = plan_of(&s, 1, SEQUENCES, QD_BF16)->disk_bytes;
  s.job.n_rules = 1;
  s.job.rule[0] = (qd_rule){.expression = "layers\\.[05]\\..*down_proj"};
  MUST(qd_pattern_open(s.job.rule[0].expression, "--ignore", &s.job.rule[0].pattern));
  plan_of(&s, 1, SEQUENCES, QD_BF16);
  cr_expect_eq(s.plan.n_kinds, 3);
  cr_expect_eq(s.plan.kind[0].blocks, 2);
  cr_expect_eq(s.plan.kind[1].blocks, 4);
  cr_expect_gt(s.plan.disk_bytes, all); /* what is kept takes more */
  qd_pattern_close(s.job.rule[0].pattern);
  close_stand(&s);
}

/* The hidden width of 64 is divided by 16, 300 is not. */
Test(plan, odd_shapes_are_planned_as_they_are_done) {
  stand s;
  open_stand(&s, 3);
  static const qd_fate fates[] = {QD_FATE_RAGGED, QD_FATE_WHOLE_ROWS, QD_FATE_SKIPPED};
  int64_t bytes[3];
  for (qd_odd_shape shape = QD_ODD_RAGGED; shape <= QD_ODD_SKIP; shape++) {
    s.job.odd_shape = shape;
    bytes[shape] = plan_of(&s, 1, SEQUENCES, QD_BF16)->disk_bytes;
    cr_assert_eq(s.plan.n_kinds, 2);
    for (int i = 0; i < s.plan.kind[0].n; i++) {
      const qd_plan_tensor *t = &s.plan.kind[0].tensor[i];
      if (!qd_role_is_linear(t->slot.role)) continue;
      bool odd = t->slot.role == QD_DOWN_PROJ;
      cr_expect_eq(t->fate, odd ? fates[shape] : QD_FATE_PLAIN);
      cr_expect_eq(t->quantized, !odd || shape != QD_ODD_SKIP);
    }
  }
  /* down_proj: 19 groups of a row become one, each with an fp16 scale and a zero point; kept, it takes 16 bits for 4. */
  cr_expect_eq(bytes[QD_ODD_RAGGED] - bytes[QD_ODD_PER_CHANNEL], 3 * HIDDEN * 18 * 3);
  cr_expect_gt(bytes[QD_ODD_SKIP], bytes[QD_ODD_PER_CHANNEL]);
  close_stand(&s);
}

/* ---- jobs in arenas of exactly these sizes ------------------------------------------------------------------------------- */

/* A path that outlives those of many outputs. */
static const char *ids_path(void) {
  static char path[QD_TEMPORARY_PATH_BYTES];
  snprintf(path, sizeof path, "%s", write_ids(&folder, "ids.i32", JOB_SEQUENCES * JOB_TOKENS));
  return path;
}

static void expect_runs(qd_job job, place where) {
  static int n;
  char name[32];
  snprintf(name, sizeof name, "out%d", n++);
  job.output = qd_temporary_path(&folder, name);
  qd_comm *comm = open_team();
  qd_device device = open_device(where);
  cr_expect_eq(qd_run_quantize(&job, comm, &device), QD_OK, "%s, %d threads: %s", where.device, where.threads, qd_error_text());
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
}

static void expect_runs_everywhere(qd_job job) {
  expect_runs(job, (place){"cpu", NULL, 1});
  expect_runs(job, (place){"cpu", NULL, 3});
  expect_runs(job, (place){"ref", NULL, 1});
}

Test(plan, its_sizes_are_enough_for_every_order_and_arithmetic) {
  static const char *const models[] = {"llama_biases", "qwen3", "llama_f16", "qwen2_window"};
  const char *ids = ids_path();
  for (int m = 0; m < 4; m++)
    for (int order = QD_ORDER_NONE; order <= QD_ORDER_GROUP; order++) {
      qd_job job = small_job(golden_path(models[m]), NULL);
      char model[PATH_BYTES];
      snprintf(model, sizeof model, "%s", golden_path(models[m]));
      job.model = model;
      gptq_job(&job, ids, (qd_act_order)order);
      job.compute = order % 2 == 0 ? QD_COMPUTE_FP32 : order == QD_ORDER_GROUP ? QD_COMPUTE_BF16_AMX : QD_COMPUTE_BF16;
      job.true_sequential = m % 2 == 0;
      job.nsamples = m == 3 ? 1 : JOB_SEQUENCES;
      job.scheme.symmetric = m == 1;
      expect_runs_everywhere(job);
    }
}

Test(plan, its_sizes_are_enough_for_two_streams) {
  static const char *const models[] = {"llama_biases", "qwen3", "llama_f16", "llama_bf16"};
  const char *ids = ids_path();
  for (int m = 0; m < 4; m++) {
    char model[PATH_BYTES];
    snprintf(model, sizeof model, "%s", golden_path(models[m]));
    qd_job job = small_job(model, NULL);
    gptq_job(&job, ids, m == 0 ? QD_ORDER_DYNAMIC : QD_ORDER_GROUP);
    job.compute = m % 2 ? QD_COMPUTE_BF16 : QD_COMPUTE_FP32;
    job.true_sequential = m < 2;
    job.nsamples = m == 3 ? 1 : JOB_SEQUENCES;
    job.gptaq = m != 1, job.gptaq_alpha = 0.25, job.kl_positions = m == 0 ? 0 : 5;
    expect_runs_everywhere(job);
  }
}

Test(plan, its_sizes_are_enough_without_text_and_in_small_files) {
  char model[PATH_BYTES];
  snprintf(model, sizeof model, "%s", golden_path("llama_bf16"));
  qd_job job = small_job(model, NULL);
  expect_runs_everywhere(job);
  job.shard_bytes = 4096, job.scheme.bits = 8, job.scheme.group_size = 1, job.scheme.scale_dtype = QD_F32;
  expect_runs_everywhere(job);
  gptq_job(&job, ids_path(), QD_ORDER_DYNAMIC);
  expect_runs_everywhere(job);
}

/* No golden width is a multiple of 20: every linear is odd. */
Test(plan, its_sizes_are_enough_for_odd_shapes) {
  char model[PATH_BYTES];
  snprintf(model, sizeof model, "%s", golden_path("llama"));
  qd_job job = small_job(model, NULL);
  gptq_job(&job, ids_path(), QD_ORDER_DYNAMIC);
  job.scheme.group_size = 20;
  for (qd_odd_shape shape = QD_ODD_RAGGED; shape <= QD_ODD_SKIP; shape++) {
    job.odd_shape = shape;
    if (shape == QD_ODD_SKIP) {
      job.n_rules = 1;
      job.rule[0] = (qd_rule){.expression = "q_proj", .bits = 3, .group_size = 8};
      MUST(qd_pattern_open(job.rule[0].expression, "--override", &job.rule[0].pattern));
    }
    expect_runs_everywhere(job);
  }
  qd_pattern_close(job.rule[0].pattern);
}

/* ---- does it fit? -------------------------------------------------------------------------------------------------------- */

static const qd_plan_place here = {.ranks_on_node = 1, .running = 1};

static void expect_refusal(qd_status got, qd_status wanted, const char *bound) {
  cr_assert_eq(got, wanted);
  cr_expect_not_null(strstr(qd_error_text(), bound), "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), "too little"), "%s", qd_error_text());
}

Test(plan, a_limit_is_shared_by_the_ranks_of_a_node) {
  stand s;
  open_stand(&s, 2);
  plan_of(&s, 4, SEQUENCES, QD_F32);
  size_t two = s.plan.rank[0].host_bytes, most = 0;
  for (int r = 1; r < 4; r++) most = s.plan.rank[r].host_bytes > most ? s.plan.rank[r].host_bytes : most;
  two += most;
  s.job.max_host_bytes = (int64_t)two;
  MUST(qd_plan_check_memory(&s.plan, here));
  MUST(qd_plan_check_memory(&s.plan, (qd_plan_place){.ranks_on_node = 2, .running = 2}));
  expect_refusal(qd_plan_check_memory(&s.plan, (qd_plan_place){.ranks_on_node = 3, .running = 2}), QD_ENOMEM, "--max-host-mem");
  s.job.max_host_bytes = (int64_t)two - 1;
  expect_refusal(qd_plan_check_memory(&s.plan, (qd_plan_place){.ranks_on_node = 2, .running = 2}), QD_ENOMEM,
                 "1 bytes too little");
  close_stand(&s);
}

Test(plan, what_no_machine_has_is_refused_by_the_bound_that_is_least) {
  stand s;
  open_stand(&s, 2);
  plan_of(&s, 1, (int64_t)1 << 40, QD_F32);
  expect_refusal(qd_plan_check_memory(&s.plan, here), QD_ENOMEM, "leaves");
  close_stand(&s);
}

Test(plan, the_address_space_is_a_bound_of_its_own) {
  stand s;
  open_stand(&s, 2);
  plan_of(&s, 1, SEQUENCES, QD_F32);
  rlim_t bytes = (rlim_t)qd_memory_now().address_space + ((rlim_t)16 << 20);
  struct rlimit limit = {bytes, bytes};
  MUST(qd_plan_check_memory(&s.plan, here));
  cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
  expect_refusal(qd_plan_check_memory(&s.plan, here), QD_ENOMEM, "RLIMIT_AS");
  close_stand(&s);
}

Test(plan, the_disk_is_looked_at_where_the_output_will_be) {
  stand s;
  char text[64] = "";
  open_stand(&s, 2);
  plan_of(&s, 1, SEQUENCES, QD_F32);
  s.plan.disk_bytes = (int64_t)1 << 60;
  MUST(qd_plan_check_disk(&s.plan)); /* no --output: nowhere to look */
  s.job.output = qd_temporary_path(&folder, "not/yet");
  expect_refusal(qd_plan_check_disk(&s.plan), QD_EIO, "free space");
  s.plan.disk_bytes = (int64_t)sizeof text;
  MUST(qd_plan_check_disk(&s.plan));
  close_stand(&s);
}

Test(plan, sizes_for_people) {
  static const struct { double bytes; const char *text; } sizes[] = {
      {0, "0 bytes"}, {1023, "1023 bytes"}, {1536, "1.50 KiB"}, {3221225472.0, "3.00 GiB"}, {1e15, "909.49 TiB"}};
  char text[32];
  for (int i = 0; i < 5; i++) {
    qd_size_text(sizes[i].bytes, text, sizeof text);
    cr_expect_str_eq(text, sizes[i].text);
  }
}
