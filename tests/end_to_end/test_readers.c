/* Whoever reads the model, the store is the same, fresh and after a resume; and ranks whose files differ are told so. */
#define _POSIX_C_SOURCE 200809L
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/bad_input_table.h"
#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

enum { VOCABULARY = 101, TOKENS = 37, ROWS = 4, BLOCKS = 3, EXIT_STOPPED = 75 };

static qd_temporary_folder folder;
static char model[1024], text[1024], whole[1024], out[1024];

static const qd_made_llama widths = {.dtype = QD_BF16,
                                     .blocks = BLOCKS,
                                     .hidden = 96,
                                     .ffn = 176,
                                     .heads = 4,
                                     .kv_heads = 2,
                                     .vocabulary = VOCABULARY,
                                     .positions = 64};

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  snprintf(model, sizeof model, "%s", qd_temporary_make_folder(&folder, "model"));
  snprintf(text, sizeof text, "%s", qd_temporary_path(&folder, "text.i32"));
  snprintf(whole, sizeof whole, "%s", qd_temporary_path(&folder, "whole"));
  snprintf(out, sizeof out, "%s", qd_temporary_path(&folder, "out"));
  qd_make_llama(model, &widths);
  qd_make_ids(text, ROWS * TOKENS, VOCABULARY, 1);
}

static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(readers, .init = open_folder, .fini = close_folder);

static qd_run quantize(int n_ranks, const char *output, const char *options) {
  return qd_program(n_ranks, "quantize -m %s -d %s --seqlen %d -g 64 -o %s %s", model, text, TOKENS, output, options);
}

static void expect_success(int n_ranks, const char *output, const char *options) {
  qd_run run = quantize(n_ranks, output, options);
  cr_assert_eq(run.exit_code, 0, "%d ranks %s: %s", n_ranks, options, run.err.text);
  qd_run_close(&run);
}

static void expect_whole(const char *story) {
  const char *what = qd_folder_difference(whole, out, false);
  cr_assert_null(what, "%s: %s", story, what);
  qd_temporary_remove(out);
}

static const char *const modes[] = {"--readers coordinator", "--readers node", "--readers all"};
enum { MODES = sizeof modes / sizeof *modes };

static void pretend_nodes(const char *ranks_each) { cr_assert_eq(setenv("QDIST_RANKS_PER_NODE", ranks_each, 1), 0); }

Test(readers, give_the_same_store) {
  static const int ranks[] = {1, 3};
  expect_success(0, whole, "");
  pretend_nodes("2");
  for (int m = 0; m < MODES; m++)
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
      expect_success(ranks[i], out, modes[m]);
      expect_whole(modes[m]);
    }
}

/* Stored blocks are streamed too, with their originals beside them; the stored parts are not cut.  One reader began, another
 * one goes on. */
Test(readers, go_on_with_what_others_began) {
  char options[256];
  expect_success(0, whole, "--gptaq");
  pretend_nodes("1");
  for (int m = 0; m < MODES; m++) {
    qd_run run = quantize(0, out, "--gptaq --stop-after 0.000001s");
    cr_assert_eq(run.exit_code, EXIT_STOPPED, "%s", run.err.text);
    qd_run_close(&run);
    snprintf(options, sizeof options, "--gptaq %s", modes[m]);
    expect_success(3, out, options);
    expect_whole(modes[m]);
  }
}

/* Evaluation streams originals and stores; what follows "arithmetic" tells of the machine. */
Test(readers, give_the_same_perplexity) {
  char wanted[4096] = "";
  expect_success(0, whole, "");
  pretend_nodes("2");
  for (int store = 0; store < 2; store++)
    for (int m = 0; m < MODES; m += store ? 1 : 2) {
      qd_run run = qd_program(3, "evaluate -m %s -d %s --seqlen %d --json %s", store ? whole : model, text, TOKENS, modes[m]);
      cr_assert_eq(run.exit_code, 0, "%s: %s", modes[m], run.err.text);
      char *end = strstr(run.out.text, "\"arithmetic\"");
      cr_assert_not_null(end);
      *end = '\0';
      if (m == 0) snprintf(wanted, sizeof wanted, "%s", run.out.text);
      else cr_expect_str_eq(run.out.text, wanted, "%s", modes[m]);
      qd_run_close(&run);
    }
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

static long long planned(const char *mode, const char *key) {
  qd_run run = qd_program(0, "plan -m %s -d %s --seqlen %d --json --ranks 6 --ranks-per-node 2 %s", model, text, TOKENS, mode);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  const char *at = strstr(run.out.text, key);
  cr_assert_not_null(at, "%s", run.out.text);
  long long value = strtoll(at + strlen(key) + 2, NULL, 10);
  qd_run_close(&run);
  return value;
}

Test(readers, are_planned_for) {
  long long read = planned(modes[0], "\"read_bytes\""), sent = planned(modes[0], "\"traffic_bytes\"");
  cr_expect_gt(read, 0);
  cr_expect_eq(planned(modes[1], "\"read_bytes\""), 3 * read, "each of three nodes");
  cr_expect_eq(planned(modes[2], "\"read_bytes\""), read);
  cr_expect_eq(sent - planned(modes[1], "\"traffic_bytes\""), 2 * read, "three ranks receive nothing instead of one");
  cr_expect_eq(planned(modes[2], "\"traffic_bytes\""), sent);
}

/* ---- ranks that disagree --------------------------------------------------------------------------------------------------
 */

/* node0/m and node1/m, as two nodes' disks, each rank in its own. */
static void make_nodes(void) {
  qd_temporary_make_folder(&folder, "node0"), qd_temporary_make_folder(&folder, "node1");
  qd_folder_copy(model, qd_temporary_path(&folder, "node0/m"));
  qd_folder_copy(model, qd_temporary_path(&folder, "node1/m"));
}

static qd_run quantize_on_nodes(const char *readers) {
  static const char script[] = "cd \"$0/node${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" && exec \"$@\"";
  const char *const argv[] = {"sh", "-c", script, folder.path, QDIST_BINARY_DIR "/qdist", "quantize", "-m", "m", "-d", text,
                              "--seqlen", "37", "-g", "64", "-o", out, "--readers", readers, NULL};
  return qd_run_ranks(2, argv, NULL, 60.0);
}

static void expect_refusal(const char *readers, const char *sentence) {
  qd_run run = quantize_on_nodes(readers);
  cr_expect_eq(run.exit_code, 1, "%s", run.err.text);
  cr_expect(strstr(run.err.text, sentence) != NULL, "\"%s\" is not in: %s", sentence, run.err.text);
  cr_expect(strstr(run.err.text, "rank 1: ") != NULL && strstr(run.err.text, "host ") != NULL, "%s", run.err.text);
  qd_run_close(&run);
  qd_temporary_remove(out);
}

/* One bit of the second node's model, `offset` bytes behind the header: the first tensor begins there. */
static void flip(long offset) {
  unsigned char byte;
  uint64_t header;
  int fd = open(qd_temporary_path(&folder, "node1/m/model.safetensors"), O_RDWR);
  cr_assert_geq(fd, 0);
  cr_assert_eq(pread(fd, &header, sizeof header, 0), (ssize_t)sizeof header);
  off_t at = (off_t)(sizeof header + header) + offset;
  cr_assert_eq(pread(fd, &byte, 1, at), 1);
  byte ^= 1;
  cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
  close(fd);
}

Test(readers, copies_on_the_nodes_are_the_same_model) {
  make_nodes();
  expect_success(0, whole, "");
  for (int m = 0; m < MODES; m++) {
    qd_run run = quantize_on_nodes(modes[m] + strlen("--readers "));
    cr_assert_eq(run.exit_code, 0, "%s: %s", modes[m], run.err.text);
    qd_run_close(&run);
    expect_whole(modes[m]);
  }
}

Test(readers, ranks_that_disagree_about_the_models_files_are_refused) {
  static const char *const readers[] = {"coordinator", "node", "all"};
  make_nodes();
  flip(0);
  for (int i = 0; i < 3; i++) expect_refusal(readers[i], "m/model.safetensors on host ");
}

/* A value that no sample looks at: the digests of what each node has read tell it. */
Test(readers, nodes_that_read_other_values_are_refused) {
  make_nodes();
  pretend_nodes("1");
  flip(5000);
  const qd_table_row *row = qd_bad_input_row("nodes whose copies differ in some values");
  qd_run run = quantize_on_nodes("node");
  cr_expect_eq(run.exit_code, row->exit_code, "%s", run.err.text);
  cr_expect(qd_sentence_is_told(row->sentence, run.err.text), "\"%s\" is not in: %s", row->sentence, run.err.text);
  qd_run_close(&run);
}
