/* qdist evaluate and qdist compare as a person runs them: figures that do not depend on ranks, and one table. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/json.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";
static const char text[] = QDIST_SOURCE_DIR "/docs/style.md"; /* about 2,000 tokens */
static qd_temporary_folder folder;

static const char piqa[] =
    "{\"query\": \"Question: Where is it?\\n\", \"choices\": [\"in the archive\", \"nowhere\"], \"gold\": 0}\n"
    "{\"query\": \"Question: Is it free?\\n\", \"choices\": [\"no\", \"yes, it is\"], \"gold\": 1}\n"
    "{\"query\": \"Question: Who reads this?\\n\", \"choices\": [\"a\", \"b\"], \"gold\": 1}\n";
static const char lambada[] = "{\"context\": \"The packages are\", \"continuation\": \"installed\"}\n"
                              "{\"context\": \"A maintainer should\", \"continuation\": \"be\"}\n";

static void begin(void) {
  qd_temporary_folder_open(&folder);
  qd_temporary_write_text(&folder, "piqa.jsonl", piqa);
  qd_temporary_write_text(&folder, "lambada.jsonl", lambada);
}

static void end(void) { qd_temporary_folder_close(&folder); }

TestSuite(evaluate, .init = begin, .fini = end, .timeout = 900);

static void must_succeed(const qd_run *run) {
  cr_assert_not(run->timed_out);
  cr_assert_eq(run->exit_code, 0, "%d: %s", run->exit_code, run->err.text);
}

static qd_json *parse(qd_run *run) {
  qd_json *out;
  must_succeed(run);
  MUST(qd_json_parse(run->out.text, run->out.n, "stdout", &out));
  qd_run_close(run);
  return out;
}

static void make_store(const char *name, int bits) {
  qd_run run = qd_program(0, "quantize -m %s --method rtn --bits %d --group-size 32 -o %s/%s", demo, bits, folder.path, name);
  must_succeed(&run);
  qd_run_close(&run);
}

/* ---- ranks --------------------------------------------------------------------------------------------------------------- */

/* All members but what is of the machine. */
static void expect_equal(const qd_json *a, const qd_json *b, int ranks) {
  static const char *const machine[] = {"seconds", "planned_host_bytes", "peak_host_bytes", NULL};
  const char *key;
  const qd_json *value;
  cr_expect_eq(qd_json_length(a), qd_json_length(b));
  for (size_t i = 0; qd_json_member(a, i, &key, &value); i++) {
    bool skipped = false;
    for (const char *const *name = machine; *name != NULL; name++) skipped = skipped || strcmp(key, *name) == 0;
    cr_expect(skipped || qd_json_equal(value, qd_json_get(b, key)), "%d ranks: %s", ranks, key);
  }
}

static void expect_same_lines(const char *a, const char *b) {
  char *one, *other;
  size_t n, m;
  MUST(qd_file_read(qd_temporary_path(&folder, a), 1 << 24, &one, &n));
  MUST(qd_file_read(qd_temporary_path(&folder, b), 1 << 24, &other, &m));
  cr_expect(n == m && memcmp(one, other, n) == 0, "%s and %s differ", a, b);
  cr_expect_gt(n, 0);
  qd_heap_free(one);
  qd_heap_free(other);
}

Test(evaluate, gives_the_same_at_any_number_of_ranks) {
  static const int ranks[] = {0, 2, 3, 8};
  qd_json *first = NULL;
  make_store("four", 4);
  for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
    qd_run run = qd_program(ranks[i],
                            "evaluate -m %s/four --reference %s -d %s --seqlen 96 --max-windows 5 --tasks piqa,lambada "
                            "--tasks-path %s --num-fewshot 1 --tasks-output %s/lines%d --json",
                            folder.path, demo, text, folder.path, folder.path, ranks[i]);
    qd_json *out = parse(&run);
    char name[32];
    snprintf(name, sizeof name, "lines%d", ranks[i]);
    expect_same_lines("lines0", name);
    if (first != NULL) expect_equal(first, out, ranks[i]);
    if (first == NULL) first = out;
    else qd_json_free(out);
  }
  cr_expect_eq(qd_json_length(qd_json_get(first, "tasks")), 2);
  cr_expect_gt(qd_json_number(qd_json_get(first, "kl_99.9")), qd_json_number(qd_json_get(first, "kl_mean")));
  qd_json_free(first);
}

/* Of rounded activations, against the same store in its own arithmetic. */
Test(evaluate, int8_gives_the_same_at_any_number_of_ranks_and_threads) {
  static const int places[][2] = {{0, 1}, {1, 2}, {2, 1}, {3, 2}};
  qd_json *first = NULL;
  make_store("codes", 4);
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    qd_run run = qd_program(places[i][0],
                            "evaluate -m %s/codes --reference %s/codes --arithmetic int8 --threads %d -d %s --seqlen 96 "
                            "--max-windows 4 --tasks piqa --tasks-path %s --json",
                            folder.path, folder.path, places[i][1], text, folder.path);
    qd_json *out = parse(&run);
    double planned = qd_json_number(qd_json_get(out, "planned_host_bytes"));
    cr_expect_leq(qd_json_number(qd_json_get(out, "peak_host_bytes")), 1.1 * planned);
    if (first != NULL) expect_equal(first, out, places[i][0]);
    if (first == NULL) first = out;
    else qd_json_free(out);
  }
  double kl = qd_json_number(qd_json_get(first, "kl_mean"));
  cr_expect(kl > 1e-7 && kl < 1e-2, "KL %g", kl);
  cr_expect_str_eq(qd_json_text(qd_json_get(first, "arithmetic")), "int8");
  cr_expect_str_eq(qd_json_text(qd_json_get(first, "reference_arithmetic")), "bf16-pairs");
  qd_json_free(first);
}

/* compare's reference is no store, and so is in its own arithmetic; both are named. */
Test(evaluate, the_arithmetic_is_told) {
  make_store("codes", 4);
  const char *const command[] = {"evaluate -m", "compare"};
  for (int i = 0; i < 2; i++) {
    qd_run run = qd_program(0,
                            "%s %s/codes --reference %s --arithmetic int8 --compute-dtype fp32 -d %s --seqlen 32 "
                            "--max-windows 2",
                            command[i], folder.path, demo, text);
    must_succeed(&run);
    cr_expect_not_null(strstr(run.out.text, i == 0 ? "arithmetic int8," : "Arithmetic int8, the reference's f32."), "%s",
                       run.out.text);
    cr_expect(i == 1 || strstr(run.out.text, "(arithmetic f32): KL") != NULL, "%s", run.out.text);
    qd_run_close(&run);
  }
  qd_run run = qd_program(0, "evaluate -m %s/codes --tasks piqa --tasks-path %s --arithmetic int8", folder.path, folder.path);
  must_succeed(&run);
  cr_expect_not_null(strstr(run.out.text, "(arithmetic int8, "), "%s", run.out.text);
  qd_run_close(&run);
}

/* Where blocks have experts, all ranks' sequences meet in them. */
Test(evaluate, tasks_of_a_model_with_experts_at_any_number_of_ranks) {
  const char *data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with models");
  for (int ranks = 1; ranks <= 4; ranks += 3) {
    qd_run run = qd_program(ranks,
                            "evaluate -m %s/data/models/qdist-tiny-moe --tasks %s/piqa.jsonl,%s/lambada.jsonl --tasks-output "
                            "%s/moe%d --max-host-mem 4G",
                            data, folder.path, folder.path, folder.path, ranks);
    must_succeed(&run);
    qd_run_close(&run);
  }
  expect_same_lines("moe1", "moe4");
}

static int count(const char *in, const char *what) {
  int n = 0;
  for (const char *at = strstr(in, what); at != NULL; at = strstr(at + 1, what)) n++;
  return n;
}

static qd_run run_long(const char *lines, int64_t host_bytes) {
  char limit[64] = "";
  if (host_bytes > 0) snprintf(limit, sizeof limit, "--max-host-mem %" PRId64, host_bytes);
  qd_run run = qd_program(0, "evaluate -m %s --tasks lambada:%s/long.jsonl --tasks-output %s/%s --json %s", demo, folder.path,
                          folder.path, lines, limit);
  must_succeed(&run);
  return run;
}

/* 20 contexts of up to 500 tokens, 5 MiB of hidden states: with less memory the model is read more than once. */
Test(evaluate, takes_as_many_passes_as_memory_wants) {
  static char all[1 << 17];
  char *to = all;
  for (int i = 0; i < 20; i++) {
    to += sprintf(to, "{\"context\": \"");
    for (int word = 0; word < 400 + 3 * i; word++) to += sprintf(to, "%s", word % 7 ? "it " : "the ");
    to += sprintf(to, "\", \"continuation\": \"file\"}\n");
  }
  cr_assert_lt(to - all, (int)sizeof all);
  qd_temporary_write_text(&folder, "long.jsonl", all);
  qd_run once = run_long("once", 0);
  cr_expect_eq(count(once.err.text, "\nsequences "), 1, "%s", once.err.text);
  qd_json *out = parse(&once);
  int64_t planned = qd_json_integer(qd_json_get(out, "planned_host_bytes"));
  qd_json_free(out);
  qd_run often = run_long("often", planned - (3 << 20));
  cr_expect_gt(count(often.err.text, "\nsequences "), 1, "%s", often.err.text);
  expect_same_lines("once", "often");
  qd_run_close(&often);
}

/* ---- compare ------------------------------------------------------------------------------------------------------------- */

static double number(const qd_json *object, const char *key) {
  const qd_json *value = qd_json_get(object, key);
  cr_assert(value != NULL && qd_json_is_number(value), "%s", key);
  return qd_json_number(value);
}

Test(evaluate, compare_puts_the_same_figures_in_one_table) {
  static const char *const keys[] = {"perplexity", "kl_mean", "kl_99.9", "top1_agreement", NULL};
  make_store("four", 4);
  make_store("three", 3);
  qd_run run = qd_program(2,
                          "compare %s/four %s/three --reference %s -d %s --seqlen 96 --max-windows 4 --tasks piqa "
                          "--tasks-path %s --json",
                          folder.path, folder.path, demo, text, folder.path);
  qd_json *table = parse(&run);
  const qd_json *models = qd_json_get(table, "models");
  cr_assert_eq(qd_json_length(models), 3);
  const qd_json *original = qd_json_at(models, 0), *four = qd_json_at(models, 1), *three = qd_json_at(models, 2);
  cr_expect_str_eq(qd_json_text(qd_json_get(original, "method")), "original");
  cr_expect_str_eq(qd_json_text(qd_json_get(three, "method")), "rtn 3");
  cr_expect_null(qd_json_get(original, "kl_mean"));
  cr_expect_eq(number(original, "bits_per_weight_whole_model"), 16);
  cr_expect_gt(number(four, "bits_per_weight"), number(three, "bits_per_weight"));
  cr_expect_gt(number(four, "file_bytes"), number(three, "file_bytes"));
  cr_expect_gt(number(three, "kl_mean"), number(four, "kl_mean"));
  run = qd_program(0,
                   "evaluate -m %s/three --reference %s -d %s --seqlen 96 --max-windows 4 --tasks piqa --tasks-path %s "
                   "--json",
                   folder.path, demo, text, folder.path);
  qd_json *alone = parse(&run);
  for (const char *const *key = keys; *key != NULL; key++) cr_expect_eq(number(three, *key), number(alone, *key), "%s", *key);
  cr_expect(qd_json_equal(qd_json_get(three, "tasks"), qd_json_get(alone, "tasks")));
  qd_json_free(alone);
  qd_json_free(table);
}

Test(evaluate, compare_prints_a_line_a_model) {
  make_store("four", 4);
  make_store("four-bits-and-a-name-of-some-length", 4);
  qd_run run = qd_program(0, "compare %s/four %s --tasks %s/lambada.jsonl --limit 1", folder.path, demo, folder.path);
  must_succeed(&run);
  cr_expect_not_null(strstr(run.out.text, "lambada  seconds\nfour                     rtn 4 "), "%s", run.out.text);
  cr_expect_not_null(strstr(run.out.text, "\nqdist-tiny               original           -  16.000"), "%s", run.out.text);
  cr_expect_null(strstr(run.out.text, "perplexity"), "%s", run.out.text);
  qd_run_close(&run);
  run = qd_program(0, "compare %s/four %s/four-bits-and-a-name-of-some-length --tasks %s/lambada.jsonl --limit 1", folder.path,
                   folder.path, folder.path);
  must_succeed(&run);
  cr_expect_not_null(strstr(run.out.text, "\nfour-bits-and-a-name-of-some-length rtn 4 "), "%s", run.out.text);
  cr_expect_not_null(strstr(run.out.text, "\nfour                                rtn 4 "), "%s", run.out.text);
  qd_run_close(&run);
}

/* ---- what is said -------------------------------------------------------------------------------------------------------- */

Test(evaluate, tells_the_convention_and_its_counts) {
  qd_run run = qd_program(0, "evaluate -m %s -d %s --seqlen 96 --ppl-style llama.cpp --max-windows 2", demo, text);
  must_succeed(&run);
  cr_expect_not_null(strstr(run.out.text, "(llama.cpp style, 2 windows of 96 from "), "%s", run.out.text);
  cr_expect_not_null(strstr(run.out.text, ", 94 predictions,"), "%s", run.out.text);
  qd_run_close(&run);
  run = qd_program(0, "evaluate -m %s -d wikitext2:%s --seqlen 96 --max-windows 1", demo, text);
  must_succeed(&run);
  cr_expect_not_null(strstr(run.err.text, "are none of WikiText-2's splits"), "%s", run.err.text);
  qd_run_close(&run);
  run = qd_program(0, "evaluate -m %s --tasks piqa,lambada --tasks-path %s", demo, folder.path);
  must_succeed(&run);
  cr_expect_not_null(strstr(run.out.text, "piqa           0-shot       3 documents  acc "), "%s", run.out.text);
  cr_expect_not_null(strstr(run.out.text, "lambada        0-shot       2 documents  acc "), "%s", run.out.text);
  qd_run_close(&run);
}
