/* Files and folders of another kind than is wanted, in places where something would be lost or waited for; and ranks that were
 * not started alike. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"

#include "storage/digest.h"

TestSuite(bad_places, .init = setup, .fini = teardown, .timeout = 900);

static const char *fifo_at(const char *name) {
  const char *path = qd_temporary_path(&folder, name);
  cr_assert_eq(mkfifo(path, 0600), 0);
  return path;
}

/* Nobody ever writes to it: who opens it to read waits for ever. */
Test(bad_places, fifos) {
  EXPECT_ROW("an output that is a FIFO", QUANTIZE, "--output", fifo_at("fifo"));
  EXPECT(1, "is a file", "fifo/store", QUANTIZE, "--output", qd_temporary_path(&folder, "fifo/store"));
  EXPECT(1, "is a file", "fifo/store", "plan", "--model", model, "--dataset", ids, "--seqlen", "16", "--output",
         qd_temporary_path(&folder, "fifo/store"));
  qd_temporary_make_folder(&folder, "out");
  fifo_at("out/qdist.log");
  EXPECT_ROW("a FIFO in place of the log", QUANTIZE);
}

static void expect_untouched(const char *kind, const char *path) {
  char before[33], after[33];
  qd_digest digest;
  cr_assert_eq(qd_digest_file(path, &digest), QD_OK);
  memcpy(before, digest.hex, sizeof before);
  EXPECT_ROW(kind, QUANTIZE, "--status-file", path);
  cr_assert_eq(qd_digest_file(path, &digest), QD_OK);
  memcpy(after, digest.hex, sizeof after);
  cr_expect_str_eq(after, before, "%s was written over", path);
}

Test(bad_places, status_files_over_something_else) {
  char weights[700], lock[700], status[700];
  snprintf(weights, sizeof weights, "%s/model.safetensors", model);
  snprintf(lock, sizeof lock, "%s/job.lock", out);
  snprintf(status, sizeof status, "%s/status.json", out);
  expect_untouched("a status file in the model's folder", weights);
  expect_untouched("a status file over something else", ids);
  EXPECT_ROW("a status file by a name of the store", QUANTIZE, "--status-file", lock);
  const char *link = qd_temporary_path(&folder, "link");
  cr_assert_eq(symlink(ids, link), 0);
  EXPECT_ROW("a status file that is a link or a device", QUANTIZE, "--status-file", link);
  EXPECT(75, "stopped", out, QUANTIZE, "--status-file", status, "--stop-after", "0.000001");
  EXPECT(0, "wrote", out, QUANTIZE, "--status-file", status); /* over its own */
}

/* Each rank its own last option: $1 of rank 0, $2 of rank 1. */
static qd_run run_unlike(const char *of_rank_0, const char *of_rank_1) {
  static const char unlike[] = "a=$0; b=$1; shift; if test ${OMPI_COMM_WORLD_RANK:-$PMI_RANK} = 0; then exec \"$@\" $a; fi; "
                               "exec \"$@\" $b";
  const char *argv[] = {"sh", "-c", unlike, of_rank_0, of_rank_1, PROGRAM, QUANTIZE, NULL};
  return qd_run_ranks(2, argv, environment, limit_seconds);
}

Test(bad_places, ranks_with_other_options) {
  static const char *const cases[] = {"--damp=0.5", "--gptaq", "--readers=all", "--keep-activations", "--sym"};
  qd_run run = run_unlike("--damp=0.01", cases[0]);
  expect_row(&run, "ranks with other options");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run = run_unlike("", cases[i]);
    expect_end(&run, 1, "on rank 0 nothing", cases[i]);
  }
  cr_expect_neq(access(out, F_OK), 0, "refused before any work");
  run = run_unlike("--threads=2 --isa=avx2", "--threads 1 -m M"); /* what a rank may have for itself; M is not there */
  expect_end(&run, 1, "there is no model \"M\"", "");
}

/* Told once, although every rank knows. */
Test(bad_places, activations_that_overflow) {
  static float huge[HIDDEN];
  for (int i = 0; i < HIDDEN; i++) huge[i] = 3e38f;
  find_tensor("model.layers.0.post_attention_layernorm.weight")->data = huge;
  make_model();
  EXPECT_ROW_RANKS(2, "activations that overflow", QUANTIZE);
}
