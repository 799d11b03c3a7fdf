/* Memory of whole jobs: what was planned is what is used, and no more blocks make it more. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/json.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

enum { MAX_RANKS = 4 };

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(memory, .init = open_folder, .fini = close_folder);

/* AddressSanitizer keeps what was given back, and shadows the address space. */
static void skip_with_shadows(void) {
#if defined(__SANITIZE_ADDRESS__)
  cr_skip_test("SKIPPED: AddressSanitizer's memory is in the way");
#endif
}

typedef struct peaks {
  long long used[MAX_RANKS], planned[MAX_RANKS];
} peaks;

static peaks read_peaks(const char *output, int ranks) {
  char path[2048], line[4096];
  peaks p = {0};
  int found = 0;
  snprintf(path, sizeof path, "%s/qdist.log", output);
  FILE *file = fopen(path, "r");
  cr_assert_not_null(file);
  while (fgets(line, sizeof line, file) != NULL) {
    const char *at = strstr(line, "rank ");
    int rank;
    long long used, planned;
    if (at == NULL || sscanf(at, "rank %d: peak host memory %lld bytes, planned %lld", &rank, &used, &planned) != 3) continue;
    cr_assert(rank >= 0 && rank < ranks);
    p.used[rank] = used, p.planned[rank] = planned, found++;
  }
  fclose(file);
  cr_assert_eq(found, ranks, "%d of %d ranks told their peak", found, ranks);
  return p;
}

static const char *make_model(const char *name, qd_made_llama widths) {
  const char *path = qd_temporary_make_folder(&folder, name);
  qd_make_llama(path, &widths);
  return path;
}

static peaks quantize(int ranks, const char *model, const char *text, const char *options) {
  static int n;
  char name[32];
  snprintf(name, sizeof name, "out%d", n++);
  const char *output = qd_temporary_path(&folder, name);
  qd_run run = qd_program(ranks, "quantize -m %s -d %s -o %s %s", model, text, output, options);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  return read_peaks(output, ranks > 0 ? ranks : 1);
}

static const char *make_text(int tokens, int vocabulary) {
  const char *path = qd_temporary_path(&folder, "text.i32");
  qd_make_ids(path, tokens, vocabulary, 1);
  return path;
}

/* A block's image is 2 MB and its codes half a megabyte: of 56 blocks more, either would show. */
Test(memory, does_not_grow_with_the_number_of_blocks) {
  skip_with_shadows();
  qd_made_llama few = {
      .dtype = QD_BF16, .blocks = 8, .hidden = 256, .ffn = 1024, .heads = 4, .kv_heads = 4, .vocabulary = 300, .positions = 64};
  qd_made_llama many = few;
  many.blocks = 64;
  const char *text = make_text(2 * 32, 300), *options = "--nsamples 2 --seqlen 32 --no-mse";
  const char *first = make_model("few", few), *second = make_model("many", many);
  for (int ranks = 0; ranks <= 2; ranks += 2) {
    peaks a = quantize(ranks, first, text, options), b = quantize(ranks, second, text, options);
    for (int r = 0; r < (ranks > 0 ? ranks : 1); r++)
      cr_expect_leq(b.used[r], a.used[r] + (6 << 20), "%d ranks, rank %d: %lld bytes for 8 blocks, %lld for 64", ranks, r,
                    a.used[r], b.used[r]);
  }
}

/* Arenas of a hundred megabytes and more: the program's own part does not hide them. */
static void expect_planned_from(double least, int ranks, const char *model, const char *text, const char *options) {
  peaks p = quantize(ranks, model, text, options);
  for (int r = 0; r < (ranks > 0 ? ranks : 1); r++) {
    double ratio = (double)p.used[r] / (double)p.planned[r];
    cr_expect_leq(ratio, 1.1, "%d ranks, rank %d: %lld bytes used, %lld planned", ranks, r, p.used[r], p.planned[r]);
    cr_expect_geq(ratio, least, "%d ranks, rank %d: %lld bytes used, %lld planned", ranks, r, p.used[r], p.planned[r]);
  }
}

static void expect_planned(int ranks, const char *model, const char *text, const char *options) {
  expect_planned_from(0.6, ranks, model, text, options);
}

Test(memory, is_what_was_planned) {
  skip_with_shadows();
  qd_made_llama widths = {.dtype = QD_BF16,
                          .blocks = 1,
                          .hidden = 768,
                          .ffn = 2048,
                          .heads = 8,
                          .kv_heads = 4,
                          .vocabulary = 2000,
                          .positions = 256};
  const char *model = make_model("model", widths), *text = make_text(4 * 128, 2000);
  expect_planned(0, model, text, "--nsamples 4 --seqlen 128 --no-mse");
  expect_planned(0, model, text,
                 "--nsamples 4 --seqlen 128 --no-mse --no-true-sequential --compute-dtype fp32 --act-order dynamic");
  expect_planned(2, model, text, "--nsamples 4 --seqlen 128 --no-mse");
  expect_planned(4, model, text, "--nsamples 4 --seqlen 128 --no-mse");
  expect_planned(2, model, text, "--nsamples 4 --seqlen 128 --no-mse --gptaq --report-kl");
}

/* Eight experts of a million weights in the second block: each rank has its own alone.  Of two images that rank 0 may hold, one
 * is the small dense block's here. */
Test(memory, of_experts_is_what_was_planned) {
  skip_with_shadows();
  qd_made_llama widths = {.dtype = QD_BF16,
                          .blocks = 2,
                          .hidden = 512,
                          .ffn = 512,
                          .heads = 4,
                          .kv_heads = 4,
                          .vocabulary = 500,
                          .positions = 128,
                          .experts = 8,
                          .top_k = 3,
                          .expert_ffn = 768,
                          .shared_ffn = 512};
  const char *model = make_model("model", widths), *text = make_text(5 * 128, 500);
  expect_planned_from(0.45, 0, model, text,
                      "--nsamples 5 --seqlen 128 --no-mse --no-true-sequential --compute-dtype fp32 --act-order dynamic");
  expect_planned_from(0.45, 3, model, text, "--nsamples 5 --seqlen 128 --no-mse --moe-min-tokens 300");
}

/* ---- refusing ------------------------------------------------------------------------------------------------------------ */

static const char bundled[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny", text_file[] = QDIST_SOURCE_DIR "/docs/formats.md";

static void expect_refused(qd_run run, const char *output, const char *bound) {
  struct stat facts;
  cr_expect_eq(run.exit_code, 1, "%s", run.err.text);
  cr_expect_not_null(strstr(run.err.text, bound), "%s", run.err.text);
  cr_expect_not_null(strstr(run.err.text, "too little"), "%s", run.err.text);
  cr_expect_neq(stat(output, &facts), 0, "something was written");
  qd_run_close(&run);
}

Test(memory, a_job_that_does_not_fit_is_refused_before_any_work) {
  const char *output = qd_temporary_path(&folder, "out");
  static const char job[] = "quantize -m %s -d %s --nsamples 2 -o %s --max-host-mem 20M";
  expect_refused(qd_program(0, job, bundled, text_file, output), output, "--max-host-mem");
  expect_refused(qd_program(3, job, bundled, text_file, output), output, "the 3 ranks of a node");
}

Test(memory, jobs_run_within_a_limit_of_the_address_space) {
  skip_with_shadows();
  const char *output = qd_temporary_path(&folder, "out");
  qd_run run = qd_program_through("prlimit --as=1500000000", "quantize -m %s -d %s --nsamples 2 --seqlen 64 -o %s", bundled,
                                  text_file, output);
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  run = qd_program_through("prlimit --as=1500000000", "evaluate -m %s -d %s --max-windows 1", output, text_file);
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

/* ---- more than fits ------------------------------------------------------------------------------------------------------ */

static double number_of(const qd_run *run, const char *name) {
  qd_json *document;
  cr_assert_eq(run->exit_code, 0, "%s", run->err.text);
  cr_assert_eq(qd_json_parse(run->out.text, run->out.n, "evaluation", &document), QD_OK, "%s", run->out.text);
  const qd_json *value = qd_json_get(document, name);
  cr_assert_not_null(value);
  double number = qd_json_number(value);
  qd_json_free(document);
  return number;
}

/* The program itself and its threads' stacks take some 360 MB of address space, the job as much as a model of any length. */
Test(memory, a_model_larger_than_memory_is_quantized_and_evaluated) {
  skip_with_shadows();
  static const char limit[] = "prlimit --as=480000000";
  static const qd_made_llama widths = {
      .dtype = QD_F32, .blocks = 80, .hidden = 512, .ffn = 512, .heads = 4, .kv_heads = 4, .vocabulary = 300, .positions = 64};
  const char *model = make_model("large", widths), *text = make_text(2 * 32, 300), *output = qd_temporary_path(&folder, "out");
  struct stat facts;
  char weights[2048];
  snprintf(weights, sizeof weights, "%s/model.safetensors", model);
  cr_assert(stat(weights, &facts) == 0 && facts.st_size > 580000000);
  qd_run run = qd_program_through(limit, "quantize -m %s -d %s --nsamples 1 --seqlen 32 --no-mse -o %s", model, text, output);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  const char *const evaluated[] = {model, output};
  for (int i = 0; i < 2; i++) {
    run = qd_program_through(limit, "evaluate -m %s -d %s --seqlen 32 --json", evaluated[i], text);
    double planned = number_of(&run, "planned_host_bytes"), peak = number_of(&run, "peak_host_bytes");
    cr_expect(peak <= 1.1 * planned && planned < 100e6, "%g bytes used, %g planned", peak, planned);
    qd_run_close(&run);
  }
}

Test(memory, an_evaluation_that_does_not_fit_is_refused_by_the_bound) {
  skip_with_shadows();
  static const char job[] = "evaluate -m %s -d %s --max-windows 3 --seqlen 64";
  qd_run run = qd_program_through("prlimit --as=300000000", job, bundled, text_file);
  cr_expect_eq(run.exit_code, 1);
  cr_expect_not_null(strstr(qd_program_message(&run), "RLIMIT_AS"), "%s", run.err.text);
  qd_run_close(&run);
  run = qd_program(2, "evaluate -m %s -d %s --max-windows 3 --seqlen 64 --max-host-mem 30M", bundled, text_file);
  cr_expect_eq(run.exit_code, 1);
  cr_expect_not_null(strstr(qd_program_message(&run), "the 2 ranks of a node, but --max-host-mem"), "%s", run.err.text);
  cr_expect_not_null(strstr(qd_program_message(&run), "too little"), "%s", run.err.text);
  qd_run_close(&run);
}

/* All windows at once hold 50 MB of hidden states; each half of them gives its own sums. */
Test(memory, an_evaluation_takes_fewer_windows_at_a_time_where_memory_is_short) {
  static const qd_made_llama widths = {
      .dtype = QD_F32, .blocks = 2, .hidden = 512, .ffn = 256, .heads = 4, .kv_heads = 4, .vocabulary = 300, .positions = 64};
  const char *model = make_model("model", widths), *text = make_text(800 * 32, 300);
  qd_run run = qd_program(0, "evaluate -m %s -d %s --seqlen 32 --json", model, text);
  double planned = number_of(&run, "planned_host_bytes"), nll = number_of(&run, "mean_nll");
  cr_expect_not_null(strstr(run.err.text, "800 windows at a time"), "%s", run.err.text);
  qd_run_close(&run);
  run =
      qd_program(0, "evaluate -m %s -d %s --seqlen 32 --json --max-host-mem %lld", model, text, (long long)planned - (8 << 20));
  cr_expect_not_null(strstr(run.err.text, "400 windows at a time"), "%s", run.err.text);
  cr_expect_eq(number_of(&run, "mean_nll"), nll);
  cr_expect_leq(number_of(&run, "peak_host_bytes"), planned - (8 << 20));
  qd_run_close(&run);
}

/* ---- the plan for machines ----------------------------------------------------------------------------------------------- */

static bool fits(const qd_json *plan) {
  bool value = false;
  cr_assert_eq(qd_json_take_bool(plan, "plan", "fits", false, &value), QD_OK);
  cr_assert_not_null(qd_json_get(plan, "fits"));
  return value;
}

static qd_json *plan_json(const char *options, int exit_code) {
  qd_json *document;
  qd_run run = qd_program(0, "plan -m %s --json %s", bundled, options);
  cr_assert_eq(run.exit_code, exit_code, "%s", run.err.text);
  cr_assert_eq(qd_json_parse(run.out.text, run.out.n, "plan", &document), QD_OK, "%s", run.out.text);
  qd_run_close(&run);
  return document;
}

Test(memory, a_plan_tells_every_rank_without_text_and_without_output) {
  qd_json *plan = plan_json("--method gptq --ranks 16", 0);
  const qd_json *ranks = qd_json_get(plan, "ranks");
  cr_assert_eq(qd_json_length(ranks), 16);
  for (size_t r = 0; r < 16; r++) {
    cr_expect_gt(qd_json_integer(qd_json_get(qd_json_at(ranks, r), "host_bytes")), 10 << 20);
    cr_expect_eq(qd_json_integer(qd_json_get(qd_json_at(ranks, r), "device_bytes")), 0);
  }
  cr_expect_gt(qd_json_integer(qd_json_get(plan, "disk_bytes")), 1 << 20);
  cr_expect_gt(qd_json_integer(qd_json_get(plan, "traffic_bytes")), 1 << 20);
  cr_expect_gt(qd_json_number(qd_json_get(plan, "seconds")), 0);
  cr_expect(fits(plan));
  qd_json_free(plan);
}

Test(memory, a_plan_that_does_not_fit_says_so) {
  qd_json *plan = plan_json("--ranks 2 --max-host-mem 60M", 1);
  cr_expect_not(fits(plan));
  cr_expect_not_null(strstr(qd_json_text(qd_json_get(plan, "why")), "--max-host-mem"));
  qd_json_free(plan);
}
