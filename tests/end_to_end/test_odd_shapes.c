/* Widths that no group divides: 176 and 352 columns in groups of 128, by each way that --odd-shape offers. */
#define _XOPEN_SOURCE 700
#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { VOCABULARY = 61, TOKENS = 24, ROWS = 3 };

static qd_temporary_folder folder;
static char model[1024], text[1024];

static void make(int hidden, int ffn) {
  qd_made_llama widths = {.dtype = QD_BF16, .blocks = 2, .hidden = hidden, .ffn = ffn, .heads = 4, .kv_heads = 2,
                          .vocabulary = VOCABULARY, .positions = 64};
  qd_make_llama(model, &widths);
}

static void setup(void) {
  qd_temporary_folder_open(&folder);
  snprintf(model, sizeof model, "%s", qd_temporary_make_folder(&folder, "model"));
  snprintf(text, sizeof text, "%s", qd_temporary_path(&folder, "text.i32"));
  qd_make_ids(text, ROWS * TOKENS, VOCABULARY, 1);
}

static void teardown(void) { qd_temporary_folder_close(&folder); }
TestSuite(odd_shapes, .init = setup, .fini = teardown, .timeout = 600);

/* "NAME" in the folder; what it says on stderr, which the caller closes. */
static qd_run quantize(int ranks, const char *name, const char *options) {
  return qd_program(ranks, "quantize -m %s -d %s --seqlen %d -o %s %s", model, text, TOKENS, qd_temporary_path(&folder, name),
                    options);
}

static void expect_same(const char *a, const char *b) {
  const char *difference = qd_folder_difference(qd_temporary_path(&folder, a), qd_temporary_path(&folder, b), false);
  cr_expect_null(difference, "%s", difference);
}

static int count(const char *where, const char *what) {
  int n = 0;
  while ((where = strstr(where, what)) != NULL) n++, where += strlen(what);
  return n;
}

static void expect_printed(const char *what, int times, const char *command, const char *argument, const char *more) {
  qd_run run = qd_program(0, "%s %s %s", command, argument, more);
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect_eq(count(run.out.text, what), times, "%d times \"%s\" in: %s", times, what, run.out.text);
  qd_run_close(&run);
}

/* By one process and by three; sound, and evaluated. */
static void expect_store(const char *name, const char *options, const char *said, int times) {
  char other[64];
  snprintf(other, sizeof other, "%s-of-three", name);
  for (int ranks = 0; ranks <= 3; ranks += 3) {
    qd_run run = quantize(ranks, ranks ? other : name, options);
    cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
    if (said != NULL) cr_expect_eq(count(run.err.text, said), times, "%d times \"%s\" in: %s", times, said, run.err.text);
    qd_run_close(&run);
  }
  expect_same(name, other);
  expect_printed("damaged", 0, "verify", qd_temporary_path(&folder, name), "");
  qd_run run = qd_program(0, "evaluate -m %s -d %s --seqlen %d", qd_temporary_path(&folder, name), text, TOKENS);
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect_null(strstr(run.out.text, "nan"), "%s", run.out.text);
  qd_run_close(&run);
}

static void expect_same_block(const char *a, const char *b) {
  char one[1100], two[1100];
  snprintf(one, sizeof one, "%s/block-00001.h5", qd_temporary_path(&folder, a));
  snprintf(two, sizeof two, "%s/block-00001.h5", qd_temporary_path(&folder, b));
  qd_run run = qd_run_command((const char *const[]){"cmp", one, two, NULL}, NULL, 60);
  cr_expect_eq(run.exit_code, 0, "%s", run.out.text);
  qd_run_close(&run);
}

Test(odd_shapes, ragged_is_the_default) {
  make(176, 352);
  expect_store("default", "", NULL, 0);
  expect_store("ragged", "--odd-shape ragged",
               "2 down_proj of 352 columns: no group divides the width: the last one is shorter", 1);
  expect_same("default", "ragged");
  expect_printed("\"group_size\": 128", 15, "inspect --json", qd_temporary_path(&folder, "default"), ""); /* and the job's */
}

Test(odd_shapes, per_channel_takes_a_group_a_row) {
  make(176, 352);
  expect_store("whole", "--odd-shape per-channel", NULL, 0);
  expect_printed("\"group_size\": -1", 14, "inspect --json", qd_temporary_path(&folder, "whole"), "");
  expect_store("asked", "--group-size -1", NULL, 0);
  expect_same_block("whole", "asked"); /* the same as if it had been asked for, but for what the job says */
}

/* Of 128 and 352 columns only the second is odd: down_proj is kept, in its own type. */
Test(odd_shapes, skip_keeps_the_linear_and_says_so) {
  make(128, 352);
  expect_store("skip", "--odd-shape skip",
               "down_proj  kept: its 352 columns are no multiple of the group of 128 (--odd-shape skip)", 2);
  expect_printed("\"kept\": \"odd-shape\"", 2, "inspect --json", qd_temporary_path(&folder, "skip"), "");
  expect_printed("  kept: no group divides the width (--odd-shape skip)\n", 2, "inspect",
                 qd_temporary_path(&folder, "skip"), "");
  expect_store("ignore", "--ignore down_proj", "down_proj  kept (--ignore)", 2);
  expect_printed("  kept: --ignore\n", 2, "inspect", qd_temporary_path(&folder, "ignore"), "");
  expect_printed("\"kept\": \"ignore\"", 2, "inspect --json", qd_temporary_path(&folder, "ignore"), "");
  expect_same_block("skip", "ignore");
}

Test(odd_shapes, the_plan_shows_them) {
  make(128, 352);
  expect_printed("2 down_proj of 352 columns: no group divides the width: the last one is shorter", 1, "plan -m", model, "");
  expect_printed("2 down_proj of 352 columns: no group divides the width: one group a row", 1,
                 "plan -m", model, "--odd-shape per-channel");
  expect_printed("2 down_proj of 352 columns: kept: no group divides the width", 1, "plan -m", model, "--odd-shape skip");
  expect_printed("\"fate\": \"odd-shape\"", 1, "plan --json -m", model, "--odd-shape skip");
  expect_printed("\"fate\"", 0, "plan --json -m", model, "-g 32");
}

/* Another way is another job. */
Test(odd_shapes, a_resume_takes_the_same_way) {
  make(176, 352);
  qd_run run = quantize(0, "half", "--odd-shape per-channel --stop-after 0.000001");
  cr_expect_eq(run.exit_code, 75, "%s", run.err.text);
  qd_run_close(&run);
  run = quantize(0, "half", "");
  cr_expect_eq(run.exit_code, 1);
  cr_expect_not_null(strstr(run.err.text, "odd_shape was \"per-channel\" there, now it is \"ragged\""), "%s", run.err.text);
  qd_run_close(&run);
  run = quantize(2, "half", "--odd-shape per-channel");
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  expect_store("whole", "--odd-shape per-channel", NULL, 0);
  expect_same("half", "whole");
}

Test(odd_shapes, a_job_that_would_keep_everything_is_refused) {
  make(176, 352);
  qd_run run = quantize(0, "out", "--odd-shape skip");
  cr_expect_eq(run.exit_code, 1);
  cr_expect_not_null(strstr(run.err.text, "is left to quantize"), "%s", run.err.text);
  qd_run_close(&run);
}
