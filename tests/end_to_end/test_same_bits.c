/* The same job gives the same store, byte for byte, however many ranks and threads and whatever instructions it runs with. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device.h"
#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

static const char *const isa_names[] = {"avx2", "avx512", "avx512_bf16", "amx"};

static int usable_isas(void) {
  switch (qd_isa_best()) {
    case QD_ISA_PORTABLE: return 0;
    case QD_ISA_AVX2: return 1;
    case QD_ISA_AVX512:
    case QD_ISA_AVX512_VNNI: return 2; /* whose bytes no store is made of */
    case QD_ISA_AVX512_BF16: return 3;
    case QD_ISA_AMX: return 4;
  }
  return 0;
}

typedef struct bench { /* a model, its text, and the stores made of them */
  qd_temporary_folder folder;
  char input[2048];      /* "-m MODEL -d TEXT", or the text alone left out */
  int n_stores;
} bench;

static void open_bundled(bench *b) {
  *b = (bench){0};
  qd_temporary_folder_open(&b->folder);
  snprintf(b->input, sizeof b->input, "-m %s -d %s --nsamples 5 --seqlen 64", QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny",
           QDIST_SOURCE_DIR "/LICENSE");
}

/* Widths that no group, no tile and no rank count divides. */
static void open_made(bench *b, qd_dtype dtype, int blocks) {
  *b = (bench){0};
  qd_temporary_folder_open(&b->folder);
  qd_made_llama widths = {.dtype = dtype,
                          .blocks = blocks,
                          .hidden = 96,
                          .ffn = 176,
                          .heads = 4,
                          .kv_heads = 2,
                          .vocabulary = 101,
                          .positions = 64};
  const char *model = qd_temporary_make_folder(&b->folder, "model"), *text = qd_temporary_path(&b->folder, "text.i32");
  qd_make_llama(model, &widths);
  qd_make_ids(text, 5 * 37, 101, 1);
  snprintf(b->input, sizeof b->input, "-m %s -d %s --nsamples 5 --seqlen 37", model, text);
}

/* Four blocks, dense and sparse in turn; each token takes 3 of 7 experts, and one that all take.  Experts see few tokens or
 * none. */
static void open_experts(bench *b, qd_dtype dtype) {
  *b = (bench){0};
  qd_temporary_folder_open(&b->folder);
  qd_made_llama widths = {.dtype = dtype,
                          .blocks = 4,
                          .hidden = 48,
                          .ffn = 80,
                          .heads = 4,
                          .kv_heads = 2,
                          .vocabulary = 101,
                          .positions = 64,
                          .experts = 7,
                          .top_k = 3,
                          .expert_ffn = 40,
                          .shared_ffn = 56};
  const char *model = qd_temporary_make_folder(&b->folder, "model"), *text = qd_temporary_path(&b->folder, "text.i32");
  qd_make_llama(model, &widths);
  qd_make_ids(text, 5 * 37, 101, 1);
  snprintf(b->input, sizeof b->input, "-m %s -d %s --nsamples 5 --seqlen 37", model, text);
}

static void close_bench(bench *b) { qd_temporary_folder_close(&b->folder); }

/* Quantize with these options and compare with the bench's first store of the same `name`. */
static void expect_same(bench *b, const char *name, int n_ranks, const char *job, const char *machine) {
  char first[64], next[64];
  snprintf(first, sizeof first, "%s.0", name);
  snprintf(next, sizeof next, "%s.%d", name, b->n_stores++);
  bool is_first = strcmp(first, next) == 0;
  qd_run run = qd_program(n_ranks, "quantize %s -o %s %s %s", b->input, qd_temporary_path(&b->folder, next), job, machine);
  cr_assert_eq(run.exit_code, 0, "%d ranks, %s %s: %s", n_ranks, job, machine, run.err.text);
  qd_run_close(&run);
  if (is_first) return;
  const char *what = qd_folder_difference(qd_temporary_path(&b->folder, first), qd_temporary_path(&b->folder, next), false);
  cr_assert_null(what, "%d ranks, %s %s: %s", n_ranks, job, machine, what);
}

/* ---- ranks, threads, instructions ------------------------------------------------------------------------------------ */

static void compare_ranks(int threads) {
  static const int ranks[] = {0, 1, 2, 3, 4, 8, 16};
  char machine[32];
  bench b;
  open_bundled(&b);
  expect_same(&b, "store", 0, "", "");
  for (size_t i = threads == 1; i < sizeof ranks / sizeof *ranks; i++) {
    snprintf(machine, sizeof machine, "--threads %d", threads);
    expect_same(&b, "store", ranks[i], "", machine);
  }
  close_bench(&b);
}

Test(same_bits, ranks) { compare_ranks(1); }
Test(same_bits, ranks_with_two_threads_each) { compare_ranks(2); }

/* The bundled model's head is its embedding, the made one's is not. */
static void compare_heads(bench *b, const char *job) {
  static const int ranks[] = {0, 1, 2, 3, 8};
  for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
    expect_same(b, "store", ranks[i], job, i % 2 ? "--threads 2 --readers all" : "");
  close_bench(b);
}

Test(same_bits, a_quantized_head_that_was_tied) {
  bench b;
  open_bundled(&b);
  compare_heads(&b, "--quant-lm-head 4 --act-order dynamic");
}

Test(same_bits, a_quantized_head_and_embedding) {
  bench b;
  open_made(&b, QD_F16, 2);
  compare_heads(&b, "-g 64 --quant-embeddings=8 --quant-lm-head --gptaq --report-kl");
}

static void compare_isas(bench *b, const char *job) {
  char machine[64];
  expect_same(b, "store", 0, job, "");
  expect_same(b, "store", 0, job, "");
  for (int i = 0; i < usable_isas(); i++) {
    snprintf(machine, sizeof machine, "--isa %s --threads %d", isa_names[i], 1 + i % 2);
    expect_same(b, "store", 2 + i % 2, job, machine);
  }
  close_bench(b);
}

Test(same_bits, instruction_sets_in_bf16) {
  bench b;
  open_bundled(&b);
  compare_isas(&b, "");
}

Test(same_bits, instruction_sets_in_bf16_amx) {
  bench b;
  open_bundled(&b);
  compare_isas(&b, "--arithmetic bf16-amx");
}

Test(same_bits, instruction_sets_in_fp32) {
  bench b;
  open_bundled(&b);
  compare_isas(&b, "--compute-dtype fp32");
}

Test(same_bits, instruction_sets_on_other_types) {
  static const qd_dtype dtypes[] = {QD_F32, QD_F16, QD_BF16};
  for (int i = 0; i < 3; i++) {
    bench b;
    open_made(&b, dtypes[i], 2);
    compare_isas(&b, "--bits 3 -g 64");
  }
}

Test(same_bits, the_plain_loops_of_the_specification) {
  static const qd_dtype dtypes[] = {QD_F32, QD_F16, QD_BF16};
  for (int i = 0; i < 3; i++) {
    bench b;
    open_made(&b, dtypes[i], 1);
    expect_same(&b, "store", 0, "", "");
    expect_same(&b, "store", 2, "", "--device ref");
    b.n_stores = 0;
    expect_same(&b, "amx", 0, "--arithmetic bf16-amx", "");
    expect_same(&b, "amx", 2, "--arithmetic bf16-amx", "--device ref");
    close_bench(&b);
  }
}

/* ---- options that take other branches -------------------------------------------------------------------------------- */

static const char *const jobs[] = {
    "--act-order dynamic",
    "--act-order group-aware -g 32 --bits 2",
    "--act-order none --no-mse",
    "--sym --bits 3",
    "-g -1 --bits 8",
    "-g 32 --sym --no-true-sequential",
    "-g 64 --compute-dtype bf16",
    "--compute-dtype fp32 --act-order dynamic -g 100",
    "--method rtn -g 64",
    "--method rtn --mse --sym --bits 3 -g 100",
    "--no-true-sequential --bits 5",
    "--hessian-bound 1048576",
    "--shard-size 6K",
    "--override down_proj=8:32 --override layers\\.1\\..*q_proj=2:-1 --ignore layers\\.0\\..*o_proj --ignore up_proj",
    "--block-size 40 --damp 0.05",
    "--compat reference",
    "--gptaq --report-kl --kl-positions 9",
    "--method spqr",
    "--method spqr --permutation-order spearman --stat-group 5 --outlier-threshold 0.4 --zero-bits 0 --shard-size 6K",
    "--method spqr --preset spqr-3bit --simplified-outliers --round-zero --no-true-sequential",
    "--method spqr --compat reference -g -1 --scale-bits 0 --permutation-order identity --device ref",
    "--gptaq --gptaq-alpha 1 --act-order dynamic -g 32 --no-true-sequential --report-kl --compute-dtype bf16",
};
enum { N_JOBS = sizeof jobs / sizeof *jobs };

static void compare_jobs(qd_dtype dtype, int first) {
  bench b;
  open_made(&b, dtype, 2);
  for (int i = first; i < N_JOBS; i += 2) {
    char name[32];
    snprintf(name, sizeof name, "job%d", i);
    b.n_stores = 0;
    expect_same(&b, name, 0, jobs[i], "");
    expect_same(&b, name, 3, jobs[i], "--threads 2");
    expect_same(&b, name, i % 4 < 2 ? 2 : 7, jobs[i], "");
  }
  close_bench(&b);
}

Test(same_bits, every_kind_of_job_on_f32_even) { compare_jobs(QD_F32, 0); }
Test(same_bits, every_kind_of_job_on_f16_odd) { compare_jobs(QD_F16, 1); }

Test(same_bits, rounding_without_text) {
  static const qd_dtype dtypes[] = {QD_F32, QD_F16, QD_BF16};
  for (int i = 0; i < 3; i++) {
    bench b;
    open_made(&b, dtypes[i], 2);
    snprintf(b.input, sizeof b.input, "-m %s", qd_temporary_path(&b.folder, "model"));
    expect_same(&b, "store", 0, "--method rtn --bits 3 -g 64", "");
    expect_same(&b, "store", 1, "--method rtn --bits 3 -g 64", "--threads 2");
    expect_same(&b, "store", 5, "--method rtn --bits 3 -g 64", "");
    close_bench(&b);
  }
}

Test(same_bits, a_block_in_several_files) {
  bench b;
  open_made(&b, QD_F32, 2);
  expect_same(&b, "store", 0, "--shard-size 6K", "");
  expect_same(&b, "store", 3, "--shard-size 6K", "");
  const char *names = qd_folder_names(qd_temporary_path(&b.folder, "store.1"));
  cr_assert(strstr(names, "block-00001.2.h5") != NULL && strstr(names, "model.1.h5") != NULL, "the blocks were not cut: %s",
            names);
  close_bench(&b);
}

/* The comparison can fail: what is part of the job changes the store. */
Test(same_bits, another_job_gives_another_store) {
  static const char *const others[] = {"--bits 3", "--seed 1", "--hessian-bound 1048576", "--damp 0.02",
                                       "--arithmetic bf16-amx"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    bench b;
    open_bundled(&b);
    expect_same(&b, "store", 0, "", "");
    qd_run run = qd_program(0, "quantize %s -o %s %s", b.input, qd_temporary_path(&b.folder, "other"), others[i]);
    cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
    qd_run_close(&run);
    cr_expect_not_null(
        qd_folder_difference(qd_temporary_path(&b.folder, "store.0"), qd_temporary_path(&b.folder, "other"), false),
        "%s changes nothing", others[i]);
    close_bench(&b);
  }
}

/* ---- experts --------------------------------------------------------------------------------------------------------- */

Test(same_bits, experts_on_any_number_of_ranks) {
  static const int ranks[] = {0, 1, 2, 3, 8, 16};
  bench b;
  open_experts(&b, QD_BF16);
  for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
    expect_same(&b, "store", ranks[i], "--bits 3 -g 16 --moe-min-tokens 90", i % 2 ? "--threads 2" : "");
  close_bench(&b);
}

Test(same_bits, experts_in_every_kind_of_job) {
  static const char *const kinds[] = {"--moe-min-tokens 90 --moe-fallback rtn --act-order dynamic -g 16 --shard-size 6K",
                                      "--no-true-sequential -g 32 --moe-min-tokens 0",
                                      "--method rtn --ignore experts\\.[2-4]\\. --override experts\\.5=8:16",
                                      "--act-order group-aware -g 16 --override up_proj=3:8 --device ref",
                                      "--method spqr --moe-min-tokens 90"};
  static const qd_dtype dtypes[] = {QD_F32, QD_F16, QD_BF16, QD_F32, QD_BF16};
  for (int i = 0; i < 5; i++) {
    bench b;
    open_experts(&b, dtypes[i]);
    expect_same(&b, "store", 0, kinds[i], "");
    expect_same(&b, "store", 3, kinds[i], usable_isas() > 0 && i < 3 ? "--isa avx2" : "");
    expect_same(&b, "store", 5, kinds[i], i < 3 ? "--threads 2" : "--device cpu");
    close_bench(&b);
  }
}

/* An expert takes more tokens than one window holds, in several units. */
Test(same_bits, experts_of_many_tokens) {
  enum { SEQUENCES = 40, TOKENS = 512 };
  bench b = {0};
  qd_temporary_folder_open(&b.folder);
  qd_made_llama widths = {.dtype = QD_BF16,
                          .blocks = 2,
                          .hidden = 16,
                          .ffn = 16,
                          .heads = 1,
                          .kv_heads = 1,
                          .vocabulary = 101,
                          .positions = TOKENS,
                          .experts = 2,
                          .top_k = 2,
                          .expert_ffn = 16,
                          .shared_ffn = 16};
  const char *model = qd_temporary_make_folder(&b.folder, "model"), *text = qd_temporary_path(&b.folder, "text.i32");
  qd_make_llama(model, &widths);
  qd_make_ids(text, SEQUENCES * TOKENS, 101, 1);
  snprintf(b.input, sizeof b.input, "-m %s -d %s --nsamples %d --seqlen %d", model, text, SEQUENCES, TOKENS);
  expect_same(&b, "store", 0, "-g 16", "");
  expect_same(&b, "store", 3, "-g 16", "");
  close_bench(&b);
}

Test(same_bits, perplexity_of_experts) {
  bench b;
  open_experts(&b, QD_BF16);
  static const char format[] = "evaluate -m %s -d %s --seqlen 37 --json";
  const char *model = qd_temporary_path(&b.folder, "model"), *text = qd_temporary_path(&b.folder, "text.i32");
  expect_same(&b, "store", 0, "-g 16", "");
  for (int stored = 0; stored < 2; stored++) {
    char first[4096] = "";
    for (int n_ranks = 0; n_ranks < 5; n_ranks += 2) {
      qd_run run = qd_program(n_ranks, format, stored ? qd_temporary_path(&b.folder, "store.0") : model, text);
      cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
      *strstr(run.out.text, "\"planned_host_bytes\"") = '\0'; /* what follows tells of the machine */
      if (n_ranks == 0) snprintf(first, sizeof first, "%s", run.out.text);
      else cr_expect_str_eq(run.out.text, first);
      qd_run_close(&run);
    }
  }
  close_bench(&b);
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------ */

/* The JSON that evaluate prints, up to the one member that may differ; in a static text. */
static const char *evaluate(int n_ranks, const char *model, const char *machine) {
  static char text[4096];
  qd_run run = qd_program(n_ranks, "evaluate -m %s -d %s --seqlen 64 --max-windows 11 --json %s", model,
                          QDIST_SOURCE_DIR "/docs/formats.md", machine);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  char *machine_told = strstr(run.out.text, "\"planned_host_bytes\""); /* what follows tells of the machine */
  cr_assert(machine_told != NULL && strstr(run.out.text, "\"perplexity\"") != NULL, "%s", run.out.text);
  *machine_told = '\0';
  snprintf(text, sizeof text, "%s", run.out.text);
  qd_run_close(&run);
  return text;
}

static void compare_evaluations(const char *model) {
  char first[4096], machine[64];
  snprintf(first, sizeof first, "%s", evaluate(0, model, ""));
  for (int n_ranks = 1; n_ranks <= 3; n_ranks++) cr_expect_str_eq(evaluate(n_ranks, model, "--threads 2"), first);
  for (int i = 0; i < usable_isas(); i++) {
    snprintf(machine, sizeof machine, "--isa %s", isa_names[i]);
    cr_expect_str_eq(evaluate(0, model, machine), first);
  }
}

Test(same_bits, perplexity_of_the_original) { compare_evaluations(QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny"); }

static void compare_evaluations_of_store(const char *job, const char *arithmetic) {
  bench b;
  open_bundled(&b);
  expect_same(&b, "store", 0, job, "");
  const char *store = qd_temporary_path(&b.folder, "store.0");
  compare_evaluations(store);
  cr_expect_not_null(strstr(evaluate(0, store, ""), arithmetic), "%s", evaluate(0, store, ""));
  close_bench(&b);
}

Test(same_bits, perplexity_of_a_store) { compare_evaluations_of_store("", "\"bf16-pairs\""); }
Test(same_bits, perplexity_of_a_store_in_bf16_amx) { compare_evaluations_of_store("--arithmetic bf16-amx", "\"bf16-amx\""); }
