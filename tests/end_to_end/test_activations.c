/* Activations on disk and activations kept for a resume: the same store as without, and nothing left behind. */
#define _GNU_SOURCE
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "storage/json.h"
#include "tests/support/bad_input_table.h"
#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

enum { VOCABULARY = 101, TOKENS = 37, ROWS = 21, BLOCKS = 3 };

static qd_temporary_folder folder;
static char model[1024], text[1024], whole[1024], out[1024], disk[1024];

/* A made model, and the store of a job in memory with the options given. */
static void make_whole(const char *options) {
  qd_run run = qd_program(0, "quantize -m %s -d %s --seqlen %d -g 64 -o %s %s", model, text, TOKENS, whole, options);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  qd_made_llama widths = {.dtype = QD_BF16,
                          .blocks = BLOCKS,
                          .hidden = 96,
                          .ffn = 176,
                          .heads = 4,
                          .kv_heads = 2,
                          .vocabulary = VOCABULARY,
                          .positions = 64};
  snprintf(model, sizeof model, "%s", qd_temporary_make_folder(&folder, "model"));
  snprintf(disk, sizeof disk, "%s", qd_temporary_make_folder(&folder, "disk"));
  snprintf(text, sizeof text, "%s", qd_temporary_path(&folder, "text.i32"));
  snprintf(whole, sizeof whole, "%s", qd_temporary_path(&folder, "whole"));
  snprintf(out, sizeof out, "%s", qd_temporary_path(&folder, "out"));
  qd_make_llama(model, &widths);
  qd_make_ids(text, ROWS * TOKENS, VOCABULARY, 1);
}

static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(activations, .init = open_folder, .fini = close_folder);

static qd_run start(int n_ranks, const char *options) {
  return qd_program_start(n_ranks, "quantize -m %s -d %s --seqlen %d -g 64 -o %s %s", model, text, TOKENS, out, options);
}

static qd_run command(int n_ranks, const char *options) {
  qd_run run = start(n_ranks, options);
  qd_run_finish(&run);
  return run;
}

static const char *with_disk(const char *more) {
  static char options[8192];
  snprintf(options, sizeof options, "--activations disk:%s %s", disk, more);
  return options;
}

static void expect_whole(const char *story) {
  const char *what = qd_folder_difference(whole, out, false);
  cr_assert_null(what, "%s: %s", story, what);
  cr_expect_str_eq(qd_folder_names(disk), "", "%s left something on the disk", story);
}

static void expect_success(int n_ranks, const char *options) {
  qd_run run = command(n_ranks, options);
  cr_assert_eq(run.exit_code, 0, "%d ranks %s: %s", n_ranks, options, run.err.text);
  qd_run_close(&run);
  expect_whole(options);
}

/* ---- on disk ------------------------------------------------------------------------------------------------------------- */

static void expect_same_store(const char *options) {
  static const int ranks[] = {0, 1, 3};
  make_whole(options);
  for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
    expect_success(ranks[i], with_disk(options));
    qd_temporary_remove(out);
  }
}

Test(activations, on_disk_give_the_same_store) { expect_same_store("--true-sequential"); }
Test(activations, on_disk_give_the_same_store_with_all_statistics_first) { expect_same_store("--no-true-sequential"); }
Test(activations, on_disk_give_the_same_store_in_fp32) { expect_same_store("--compute-dtype fp32"); }
Test(activations, on_disk_give_the_same_store_with_both_streams) { expect_same_store("--gptaq"); }

/* More ranks than sequences: some have none to put there. */
Test(activations, on_disk_with_ranks_that_have_none) {
  make_whole("--nsamples 2");
  expect_success(4, with_disk("--nsamples 2"));
}

Test(activations, on_disk_leave_nothing_when_the_job_is_killed) {
  make_whole("");
  for (int line = 6; line < 20; line += 5) {
    qd_run run = start(2, with_disk(""));
    if (qd_run_until_lines(&run, line)) qd_run_kill(&run);
    else qd_run_finish(&run);
    qd_run_close(&run);
    cr_expect_str_eq(qd_folder_names(disk), "");
  }
  expect_success(3, with_disk(""));
}

/* What docs/operations.md says of this kind of bad input. */
static void expect_row(qd_run *run, const char *kind) {
  const qd_table_row *row = qd_bad_input_row(kind);
  cr_expect_eq(run->exit_code, row->exit_code, "%s: %s", kind, run->err.text);
  cr_expect(qd_sentence_is_told(row->sentence, run->err.text), "\"%s\" is not in: %s", row->sentence, run->err.text);
  qd_run_close(run);
}

static void expect_refusal(const char *options, const char *kind) {
  qd_run run = command(0, options);
  expect_row(&run, kind);
}

Test(activations, a_folder_that_is_not_there_is_refused_before_any_work) {
  char options[4096];
  snprintf(options, sizeof options, "--activations disk:%s/absent", disk);
  expect_refusal(options, "no folder for the activations");
  snprintf(options, sizeof options, "--activations disk:%s", text);
  expect_refusal(options, "a file for the activations' folder");
  cr_expect_str_eq(qd_folder_names(folder.path), "disk model text.i32 ", "nothing was begun");
}

/* A limit of the size of files stands for a disk that fills after the plan had looked at it. */
Test(activations, a_disk_that_fills_costs_nothing_that_is_done) {
  make_whole("");
  qd_run run =
      qd_program_through("prlimit --fsize=200000", "quantize -m %s -d %s --seqlen %d -g 64 -o %s --activations disk:%s", model,
                         text, TOKENS, out, disk);
  expect_row(&run, "a disk without room for the activations");
  expect_success(2, with_disk(""));
}

enum { MANY = 400 };

/* The same in the middle of the work: a write behind it fails. */
Test(activations, a_disk_that_fills_in_the_middle_ends_the_job_with_one_sentence) {
  char options[4096];
  struct rlimit limit = {400000, 400000};
  qd_make_ids(text, MANY * TOKENS, VOCABULARY, 1);
  snprintf(options, sizeof options, "--nsamples %d", MANY);
  make_whole(options);
  qd_run run = start(0, with_disk(options));
  cr_assert(qd_run_until(&run, "block    0  q_proj"));
  cr_assert_eq(prlimit(run.pid, RLIMIT_FSIZE, &limit, NULL), 0);
  qd_run_finish(&run);
  expect_row(&run, "a disk that fills under the activations");
  snprintf(options, sizeof options, "--nsamples %d", MANY);
  expect_success(2, with_disk(options));
}

/* ---- kept for a resume --------------------------------------------------------------------------------------------------- */

#define STOPPING "--keep-activations --stop-after 0.000001s"
enum { EXIT_STOPPED = 75 };

/* One block; what the run says. */
static void expect_stop(int n_ranks, const char *options, const char *sentence) {
  qd_run run = command(n_ranks, options);
  cr_assert_eq(run.exit_code, EXIT_STOPPED, "%s", run.err.text);
  cr_expect(strstr(run.err.text, sentence) != NULL, "\"%s\" is not in: %s", sentence, run.err.text);
  qd_run_close(&run);
}

static void expect_end(int n_ranks, const char *options, const char *sentence) {
  qd_run run = command(n_ranks, options);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect(strstr(run.err.text, sentence) != NULL, "\"%s\" is not in: %s", sentence, run.err.text);
  qd_run_close(&run);
  expect_whole(options);
  cr_expect_null(strstr(qd_folder_names(out), "partial"), "what was kept goes with the journal");
}

/* At another number of ranks each time; the last one does not keep anything, but reads what is there. */
Test(activations, kept_are_read_back_at_any_number_of_ranks) {
  make_whole("");
  expect_stop(3, STOPPING, "1 of 3 blocks on disk");
  expect_stop(2, STOPPING, "the activations kept after block 1 are read back");
  expect_end(0, "", "the activations kept after block 2 are read back");
}

Test(activations, kept_are_read_back_to_the_disk_with_all_statistics_first) {
  make_whole("--no-true-sequential");
  expect_stop(2, with_disk("--no-true-sequential " STOPPING), "1 of 3 blocks on disk");
  expect_end(3, with_disk("--no-true-sequential --keep-activations"), "the activations kept after block 1 are read back");
}

/* Where the original model's activations stand beside the quantized one's, both are kept. */
Test(activations, kept_of_both_streams) {
  make_whole("--gptaq");
  expect_stop(3, "--gptaq " STOPPING, "1 of 3 blocks on disk");
  expect_stop(2, with_disk("--gptaq " STOPPING), "the activations kept after block 1 are read back");
  expect_end(0, "--gptaq", "the activations kept after block 2 are read back");
}

static void expect_recomputing(const char *damage, const char *sentence) {
  expect_stop(2, STOPPING, "1 of 3 blocks on disk");
  expect_stop(2, STOPPING, "2 of 3 blocks on disk");
  qd_run run = qd_run_command((const char *const[]){"sh", "-c", damage, out, NULL}, NULL, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  expect_end(2, "", sentence);
  qd_temporary_remove(out);
}

/* Of the second rank's file alone; a block's file that is gone, with which the store falls behind what was kept. */
Test(activations, kept_but_damaged_or_ahead_are_computed_again) {
  make_whole("");
  expect_recomputing("printf x | dd of=$0/partial/activations-00002-00011.raw bs=1 seek=50 conv=notrunc 2>/dev/null",
                     "is damaged: sequence 11");
  expect_recomputing("rm $0/block-00001.h5", "they have passed 2 blocks, of which only 1 are there");
  expect_recomputing("printf x >>$0/partial/activations.json", "the kept activations are not used");
}

/* Killed anywhere: what is kept is good, or not there. */
Test(activations, kept_survive_kills) {
  make_whole("");
  for (int line = 8; line < 30; line += 4) {
    qd_run run = start(line % 3 + 1, "--keep-activations");
    if (qd_run_until_lines(&run, line)) qd_run_kill(&run);
    else qd_run_finish(&run);
    cr_expect_null(strstr(run.err.text, "are not used"), "%s", run.err.text);
    qd_run_close(&run);
  }
  qd_run run = command(2, "--keep-activations");
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect_null(strstr(run.err.text, "are not used"), "%s", run.err.text);
  qd_run_close(&run);
  expect_whole("killed on the way");
}

/* ---- chosen by the plan -------------------------------------------------------------------------------------------------- */

static int64_t planned(const char *options, const char *key) {
  qd_json *plan;
  int64_t value = -1;
  qd_run run = qd_program(0, "plan -m %s -d %s --seqlen %d -g 64 --json %s", model, text, TOKENS, options);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_assert_eq(qd_json_parse(run.out.text, run.out.n, "plan", &plan), QD_OK);
  const qd_json *rank = qd_json_at(qd_json_get(plan, "ranks"), 0), *number = qd_json_get(plan, key);
  value = qd_json_integer(number != NULL ? number : qd_json_get(rank, key));
  qd_json_free(plan);
  qd_run_close(&run);
  return value;
}

Test(activations, auto_takes_the_disk_only_when_memory_is_too_small) {
  char options[4096];
  qd_make_ids(text, MANY * TOKENS, VOCABULARY, 1);
  snprintf(options, sizeof options, "--nsamples %d", MANY);
  make_whole(options);
  int64_t in_memory = planned(options, "host_bytes"), acts = (int64_t)MANY * TOKENS * (96 + 176) * 2;
  cr_expect_eq(planned(options, "scratch_disk_bytes"), 0);
  cr_expect_eq(planned(with_disk(options), "scratch_disk_bytes"), acts);
  int64_t output = planned(options, "disk_bytes"), h = (int64_t)MANY * TOKENS * 96 * 2;
  cr_expect_eq(planned(with_disk(options), "disk_bytes"), output,
               "what is for the output and what is for the scratch stay apart");
  snprintf(options, sizeof options, "--nsamples %d --keep-activations", MANY);
  cr_expect_eq(planned(options, "disk_bytes") - output, 2 * h);
  cr_expect_eq(planned(options, "kept_bytes"), 2 * h);
  snprintf(options, sizeof options, "--nsamples %d --keep-activations --gptaq", MANY);
  cr_expect_eq(planned(options, "kept_bytes"), 4 * h);
  long long limit = in_memory - acts / 2;
  snprintf(options, sizeof options, "--nsamples %d --max-host-mem %lld", MANY, limit);
  qd_run refused = command(0, options);
  cr_expect_eq(refused.exit_code, 1, "%s", refused.err.text);
  cr_expect(strstr(qd_program_message(&refused), "with --activations disk:DIR") != NULL, "%s", refused.err.text);
  qd_run_close(&refused);
  for (int fits = 0; fits < 2; fits++) {
    snprintf(options, sizeof options, "--nsamples %d --max-host-mem %lld --activations auto:%s", MANY, limit + fits * acts,
             disk);
    qd_run run = command(0, options);
    cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
    cr_expect_eq(strstr(run.err.text, "activations: on disk") == NULL, fits, "%s", run.err.text);
    qd_run_close(&run);
    expect_whole(options);
    qd_temporary_remove(out);
  }
}

Test(activations, nonsense_is_refused) {
  static const char *const wrong[] = {"disk", "disk:", "auto:", "memory:/x"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char options[256];
    snprintf(options, sizeof options, "--activations %s", wrong[i]);
    qd_run run = command(0, options);
    cr_expect_eq(run.exit_code, 2, "%s", run.err.text);
    cr_expect(strstr(run.err.text, "--activations takes memory, disk:DIR or auto:DIR") != NULL, "%s", run.err.text);
    qd_run_close(&run);
  }
  expect_refusal("--activations tape:/x", "activations that are put nowhere");
}
