/* What a person gets wrong at the command line, and what goes wrong around a job. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"

#include <signal.h>

TestSuite(bad_input, .init = setup, .fini = teardown, .timeout = 900);

/* ---- command lines ------------------------------------------------------------------------------------------------------- */

Test(bad_input, misspelt_names_are_told_with_the_nearest) {
  EXPECT_ROW("a command misspelt", "quantise");
  EXPECT_ROW("an option misspelt", QUANTIZE, "--bitz", "4");
  EXPECT(2, "no option --group-sise", "did you mean --group-size?", QUANTIZE, "--group_sise=4");
  EXPECT_RANKS(2, 2, "no option --maks-windows", "did you mean --max-windows?", EVALUATE, "--maks-windows", "4");
}

Test(bad_input, options_that_are_missing_or_contradict) {
  EXPECT_ROW("no calibration text", "quantize", "--model", model, "--output", out);
  EXPECT_ROW("no model", "quantize", "--dataset", ids, "--output", out);
  EXPECT_ROW("no output", "quantize", "--dataset", ids, "--model", model);
  EXPECT_ROW("an arithmetic that contradicts the type of computing", QUANTIZE, "--arithmetic", "f32", "--compute-dtype",
             "bf16");
  EXPECT(2, "--gptaq belongs to --method gptq", "rtn", QUANTIZE, "--method", "rtn", "--gptaq");
  EXPECT(2, "--gptaq-alpha means nothing without", "--gptaq", QUANTIZE, "--gptaq-alpha", "0.5");
  EXPECT(2, "--kl-positions means nothing without", "--report-kl", QUANTIZE, "--kl-positions", "5");
  EXPECT(2, "--report-kl compares on the calibration text", "--dataset", "quantize", "--model", model, "--method", "rtn",
         "--report-kl", "--output", out);
  EXPECT(2, "--arithmetic bf16-amx contradicts", "--compute-dtype fp32", QUANTIZE, "--compute-dtype", "fp32", "--arithmetic",
         "bf16-amx");
  EXPECT(2, "--arithmetic bf16-amx contradicts", "--compute-dtype fp32", EVALUATE, "--compute-dtype", "fp32", "--arithmetic",
         "bf16-amx");
  EXPECT(2, "--arithmetic takes one of f32, bf16-pairs, bf16-amx", "got \"amx\"", "plan", "--model", model, "--arithmetic",
         "amx");
  EXPECT_ROW("an option and its opposite", QUANTIZE, "--sym", "--asym");
  EXPECT(2, "--mse and --no-mse contradict", "", QUANTIZE, "--no-mse", "--bits", "3", "--mse");
  EXPECT(2, "--true-sequential and --no-true-sequential contradict", "", QUANTIZE, "--no-true-sequential", "--true-sequential");
  EXPECT(2, "--resume and --no-resume contradict", "", QUANTIZE, "--resume", "--no-resume");
  EXPECT(2, "--act-order, --permutation-order, --desc-act and --static-groups contradict", "", QUANTIZE, "--desc-act",
         "--static-groups");
  EXPECT(0, "wrote", out, QUANTIZE, "--sym", "--sym", "--act-order", "static", "--static-groups");
  EXPECT_ROW("an option that means nothing to the method", QUANTIZE, "--method", "rtn", "--desc-act");
  EXPECT(2, "the folder of a store is needed", "", "verify");
  EXPECT(2, "one store only", "second", "verify", "first", "second");
  EXPECT(2, "one store only", "second", "inspect", "-m", "first", "-m", "second");
  EXPECT_ROW("a word that is no option", QUANTIZE, "stray");
}

Test(bad_input, int8_is_of_quantized_weights) {
  static const char made[] = "a store to be made in int8", none[] = "int8 for a model that is not quantized";
  EXPECT_ROW("int8 and a type of computing that it is not", EVALUATE, "--arithmetic", "int8", "--compute-dtype", "bf16");
  EXPECT_ROW("int8 and a type of computing that it is not", "generate", "--model", out, "--prompt", "a", "--compute-dtype",
             "bf16", "--arithmetic", "int8");
  EXPECT_ROW(made, QUANTIZE, "--arithmetic", "int8");
  EXPECT_ROW_RANKS(2, made, QUANTIZE, "--arithmetic", "int8", "--compute-dtype", "fp32");
  EXPECT_ROW(made, "plan", "--model", model, "--arithmetic", "int8");
  EXPECT_ROW(made, QUANTIZE, "--config", qd_temporary_write_text(&folder, "job.yaml", "arithmetic: int8\n"));
  EXPECT_ROW(none, "evaluate", "--model", model, "--dataset", ids, "--seqlen", "16", "--arithmetic", "int8");
  EXPECT_ROW_RANKS(3, none, "evaluate", "--model", model, "--dataset", ids, "--seqlen", "16", "--arithmetic", "int8");
  EXPECT_ROW(none, "generate", "--model", model, "--prompt", "a", "--arithmetic", "int8");
  make_store();
  EXPECT(0, "", "", EVALUATE, "--arithmetic", "int8", "--compute-dtype", "fp32", "--reference", model);
}

static const char *configuration(const char *text) { return qd_temporary_write_text(&folder, "job.yaml", text); }

Test(bad_input, configurations) {
  EXPECT_ROW("a configuration that is not there", QUANTIZE, "--config", "absent.yaml");
  const char *path = configuration("bits: 4\ngruop-size: 128\n");
  EXPECT_ROW("a configuration with an option that there is not", QUANTIZE, "--config", path);
  EXPECT_ROW_RANKS(2, "a configuration with an option that there is not", QUANTIZE, "--config", path);
  EXPECT_ROW("two configurations", QUANTIZE, "--config", path, "--config", path);
  configuration("bits: [4\n");
  EXPECT_ROW("a configuration that is no YAML", QUANTIZE, "--config", path);
  configuration("bits: 4\nbits: 3\n");
  EXPECT_ROW("a configuration with a name twice", QUANTIZE, "--config", path);
  configuration("bits: 4\nwbits: 3\n");
  EXPECT_ROW("a configuration with two names of one option", QUANTIZE, "--config", path);
  char *many;
  cr_assert_eq(qd_heap_new(2 * 5000 + 20, 1, &many), QD_OK);
  strcpy(many, "ignore: [");
  for (int i = 0; i < 5000; i++) memcpy(many + 9 + 2 * i, "a,", 2);
  strcpy(many + 9 + 2 * 5000, "a]\n");
  configuration(many);
  EXPECT_ROW("a configuration with more values than any job has", QUANTIZE, "--config", path);
  qd_heap_free(many);
  configuration("bits: 9\n");
  EXPECT_ROW("a configuration with a value that does not fit", QUANTIZE, "--config", path);
  configuration("sym: 4\n");
  EXPECT_ROW("a configuration with a flag that is neither true nor false", QUANTIZE, "--config", path);
}

Test(bad_input, absurd_values) {
  static const char *const cases[][3] = {
      {"--bits", "", "got \"\""},
      {"--group-size", "0", "--group-size"},
      {"--nsamples", "-1", "--nsamples takes"},
      {"--seqlen", "0", "--seqlen takes"},
      {"--seed", "99999999999999999999", "--seed takes"},
      {"--damp", "nan", "--damp takes a number"},
      {"--gptaq-alpha", "1.5", "--gptaq-alpha takes a number"},
      {"--kl-positions", "0", "--kl-positions takes"},
      {"--threads", "0", "--threads takes"},
      {"--isa", "sse9", "--isa takes avx2"},
      {"--device", "gpu", "--device takes one of cpu, ref"},
      {"--act-order", "up", "--act-order takes one of"},
      {"--odd-shape", "pad", "--odd-shape takes one of ragged, per-channel, skip"},
      {"--scale-dtype", "bf16", "--scale-dtype takes one of f16, f32"},
      {"--override", "q_proj=4", "--override takes REGEX=BITS:GROUP"},
      {"--model", "", "--model is empty"},
      {"--output", "", "--output is empty"},
      {"--dataset", "", "--dataset is empty"},
      {"--status-file", "", "--status-file is empty"}};
  EXPECT_ROW("a number out of range", QUANTIZE, "--bits", "9");
  EXPECT_ROW("a number with something behind it", QUANTIZE, "--group-size", "12x");
  EXPECT_ROW("a size that is none", QUANTIZE, "--shard-size", "4Q");
  EXPECT_ROW("a time that is none", QUANTIZE, "--stop-after", "soon");
  EXPECT_ROW("a choice that there is not", QUANTIZE, "--method", "awq");
  EXPECT_ROW("a pattern that is no regular expression", QUANTIZE, "--ignore", "[");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    EXPECT(2, cases[i][2], cases[i][0], QUANTIZE, cases[i][0], cases[i][1]);
  cr_expect_neq(access(out, F_OK), 0, "a wrong use leaves nothing behind");
}

Test(bad_input, options_of_spqr) {
  static const char *const cases[][3] = {{"--outlier-threshold", "-1", "--outlier-threshold takes a number"},
                                         {"--scale-bits", "9", "--scale-bits takes"},
                                         {"--zero-bits", "x", "--zero-bits takes"},
                                         {"--zero-bits", "1", "--zero-bits takes 0 (not quantized) or 2 to 8 bits, got"},
                                         {"--stat-group", "0", "--stat-group takes"},
                                         {"--preset", "spqr-5bit", "--preset takes one of spqr-4bit, spqr-3bit, reference"},
                                         {"--permutation-order", "up", "--permutation-order takes one of"},
                                         {"--act-order", "static", "--permutation-order"},
                                         {"--avg-bits", "13", "2.0782 to 12.6250 can"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    EXPECT(2, cases[i][2], cases[i][0], QUANTIZE, "--method", "spqr", cases[i][0], cases[i][1]);
  EXPECT(2, "3.99, which is taken where none is given,", "4.0782 to 8.6250 can", QUANTIZE, "--method", "spqr", "-b", "4");
  EXPECT(2, "from 0 to 1e+06, or auto", "\"x\"", QUANTIZE, "--damp", "x");
  EXPECT(2, "from 0 to 1e+09, or none", "\"x\"", QUANTIZE, "--method", "spqr", "--outlier-threshold", "x");
  EXPECT_ROW("an average of bits that nothing reaches", QUANTIZE, "--method", "spqr", "--avg-bits", "2");
  EXPECT(2, "contradict each other", "--avg-bits", QUANTIZE, "--method", "spqr", "--avg-bits", "4", "--outlier-threshold", "1");
  EXPECT(2, "with this --bits and --group-size", "3.6250", QUANTIZE, "--method", "spqr", "-b", "3", "-g", "16", "--avg-bits",
         "3.5");
  EXPECT(2, "--simplified-outliers belongs to --method spqr", "gptq", QUANTIZE, "--simplified-outliers");
  EXPECT(2, "--damp auto means nothing to", "Hessian", QUANTIZE, "--method", "rtn", "--damp", "auto");
  cr_expect_neq(access(out, F_OK), 0, "a wrong use leaves nothing behind");
}

Test(bad_input, patterns_that_do_not_fit_the_model) {
  EXPECT_ROW("an --ignore that finds nothing", QUANTIZE, "--ignore", "donw_proj");
  EXPECT_RANKS(2, 1, "--ignore \"donw_proj\" finds no tensor", model, QUANTIZE, "--ignore", "donw_proj");
  EXPECT_ROW("an --override that finds no linear", QUANTIZE, "--override", "lm_head=8:-1");
  EXPECT_ROW("nothing left to quantize", QUANTIZE, "--ignore", "proj");
  EXPECT_ROW("a head that is to be quantized and kept", QUANTIZE, "--quant-lm-head", "--ignore", "lm_head");
  EXPECT(1, "--odd-shape skip keeps it", "lm_head.weight", QUANTIZE, "--quant-lm-head=4", "-g", "50", "--odd-shape", "skip");
  EXPECT(2, "--quant-embeddings takes", "got \"9\"", QUANTIZE, "--quant-embeddings", "9");
  cr_expect_neq(access(out, F_OK), 0, "refused before any work");
  EXPECT(0, "wrote", out, QUANTIZE, "--ignore", "lm_head", "--ignore", "down_proj");
}

Test(bad_input, more_memory_than_there_is) {
  EXPECT_ROW("more memory than there is", QUANTIZE, "--max-host-mem", "1M");
  EXPECT(1, "--max-host-mem", "too little", "plan", "--model", model, "--max-host-mem", "1M");
}

/* ---- outputs ------------------------------------------------------------------------------------------------------------- */

/* As quantize would refuse them, and before any text is read. */
static void expect_foreseen(const char *what, const char *which, const char *option, const char *value) {
  EXPECT(1, what, which, "plan", "--model", model, "--dataset", ids, "--seqlen", "16", "--output", out, option, value);
  EXPECT(1, what, which, QUANTIZE_TEXT("/absent.i32"), option, value);
}

static void expect_planned(const char *what) {
  const char *argv[] = {PROGRAM, "plan", "--model", model, "--dataset", ids, "--seqlen", "16", "--output", out, NULL};
  qd_run run = qd_run_command(argv, environment, limit_seconds);
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect_not_null(strstr(run.out.text, what), "\"%s\" is not in: %s", what, run.out.text);
  qd_run_close(&run);
}

Test(bad_input, refused_outputs_are_foreseen) {
  EXPECT(75, "stopped with 1 of 2 blocks on disk", "the same command goes on", QUANTIZE, "--stop-after", "0.000001");
  expect_foreseen("holds another job: bits was 4 there", out, "--bits", "3");
  expect_foreseen("lies in the model's folder", model, "--output", qd_temporary_path(&folder, "model/store"));
  EXPECT(1, "dataset.sequences (--nsamples) was 4 there", out, "plan", "--model", model, "--dataset", ids, "--seqlen", "16",
         "--output", out, "--nsamples", "3");
  expect_planned("out is unfinished: 1 of 2 blocks are there, the job goes on with it\nit fits");
  make_store();
  expect_planned("out is finished\nthere is nothing to do");
}

Test(bad_input, outputs_that_are_taken) {
  make_store();
  EXPECT_ROW("the output of another job", QUANTIZE, "--bits", "3");
  EXPECT(1, "holds another job: arithmetic (--arithmetic, --compute-dtype) was \"f32\" there, now it is \"bf16-amx\"", out,
         QUANTIZE, "--arithmetic", "bf16-amx");
  EXPECT_ROW("an output that is there, with --no-resume", QUANTIZE, "--no-resume");
  EXPECT_ROW("an output that is a file", QUANTIZE, "--output", ids);
  EXPECT_ROW("an output in the model's folder", QUANTIZE, "--output", model);
  EXPECT(1, "lies in the model's folder", model, QUANTIZE, "--output", qd_temporary_path(&folder, "absent/../model/store"));
  EXPECT_ROW("a folder of something else as the output", QUANTIZE, "--output", folder.path);
  const char *link = qd_temporary_path(&folder, "link");
  cr_assert_eq(symlink("nowhere", link), 0);
  EXPECT_ROW("an output that is a link to nothing", QUANTIZE, "--output", link);
  EXPECT_ROW("a status file in no folder", QUANTIZE, "--output", qd_temporary_path(&folder, "other"), "--status-file",
             qd_temporary_path(&folder, "absent2/status.json"));
  qd_temporary_make_folder(&folder, "real");
  cr_assert_eq(symlink("real", qd_temporary_path(&folder, "alias")), 0);
  EXPECT(0, "wrote", "alias", QUANTIZE, "--output", qd_temporary_path(&folder, "alias"));
}

Test(bad_input, names_may_be_odd) {
  const char *odd = qd_temporary_path(&folder, "\xc3\xb6" "dd 'name' $(x)\t\xff/store");
  EXPECT(0, "wrote", "", QUANTIZE, "--output", odd);
  EXPECT(0, "", "", "verify", odd);
  EXPECT(0, "", "", "evaluate", "--model", odd, "--dataset", ids, "--seqlen", "16");
}

#define AS_NOBODY "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"

Test(bad_input, no_permission) {
  const char *closed = qd_temporary_make_folder(&folder, "closed"), *within = qd_temporary_path(&folder, "closed/store");
  cr_assert_eq(chmod(closed, 0555), 0);
  if (geteuid() != 0) {
    EXPECT_ROW("no permission to write", QUANTIZE, "--output", within);
    return;
  }
  const char *argv[] = {AS_NOBODY, PROGRAM, QUANTIZE, "--output", within, NULL};
  qd_run probe = qd_run_command((const char *const[]){AS_NOBODY, PROGRAM, "--version", NULL}, environment, limit_seconds);
  int code = probe.exit_code;
  qd_run_close(&probe);
  if (code != 0) cr_skip("setpriv is not there, or nobody may not start %s", PROGRAM);
  qd_run run = qd_run_command(argv, environment, limit_seconds);
  expect_row(&run, "no permission to write");
}

/* A file system of its own, small at first: the job fails; grown, the same command finishes. */
Test(bad_input, a_full_disk) {
  static const char script[] = "dir=$1; shift; mount -t tmpfs -o size=24k none $dir || exit 77; \"$@\"; code=$?;"
                               "mount -o remount,size=8m $dir && \"$@\" && $0 verify $dir/store || exit 78; exit $code";
  const char *disk = qd_temporary_make_folder(&folder, "disk"), *store = qd_temporary_path(&folder, "disk/store");
  const char *argv[] = {"unshare", "--mount", "sh", "-c", script, PROGRAM, disk, PROGRAM, QUANTIZE, "--output", store, NULL};
  qd_run run = qd_run_command(argv, environment, limit_seconds);
  int code = run.exit_code;
  if (code == 77 || code == 127 || strstr(run.err.text, "unshare") != NULL) {
    qd_run_close(&run);
    cr_skip("no small file system can be mounted here");
  }
  expect_row(&run, "a disk too small");
}

/* Open MPI's own files want more than the limit where it holds for all of it: it is set for one rank only. */
static const char limited[] = "[ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" != \"$0\" ] || ulimit -f 4; exec \"$@\"";

static void expect_failed_write(const char *rank, const char *kind) {
  const char *argv[] = {"sh", "-c", limited, rank, PROGRAM, QUANTIZE, NULL};
  qd_run run = qd_run_ranks(2, argv, environment, limit_seconds);
  expect_row(&run, kind);
  EXPECT_RANKS(2, 0, "wrote", out, QUANTIZE);
  EXPECT(0, "", "", "verify", out);
  qd_temporary_remove(out);
}

/* All ranks end, with the one sentence of the rank that could not write, and the same command goes on. */
Test(bad_input, a_write_that_fails_on_one_rank) {
  expect_failed_write("0", "a write that fails");
  expect_failed_write("1", "a write that fails on another rank than 0");
}

/* node0/m and node1/m, as two nodes' disks: the same path leads each rank to its own. */
Test(bad_input, ranks_that_see_different_files) {
  static const char apart[] = "cd \"$0/node${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" && exec \"$@\"";
  const char *argv[] = {"sh", "-c", apart, folder.path, PROGRAM, QUANTIZE, "--model", "m", NULL};
  for (int node = 0; node < 2; node++) {
    char name[16];
    snprintf(name, sizeof name, "node%d", node);
    qd_temporary_make_folder(&folder, name);
    snprintf(model, sizeof model, "%s/m", qd_temporary_path(&folder, name));
    cr_assert_eq(mkdir(model, 0755), 0);
    make_model();
  }
  qd_run run = qd_run_ranks(2, argv, environment, limit_seconds);
  expect_end(&run, 0, "wrote", out);
  qd_temporary_remove(out);
  flip(qd_temporary_path(&folder, "node1/m/model.safetensors"), -2);
  run = qd_run_ranks(2, argv, environment, limit_seconds);
  expect_row(&run, "ranks that see other files of the model");
  cr_expect_neq(access(out, F_OK), 0, "refused before any work");
}

/* ---- going on ------------------------------------------------------------------------------------------------------------ */

Test(bad_input, what_changed_before_a_resume) {
  char weights[700];
  snprintf(weights, sizeof weights, "%s/model.safetensors", model);
  /* of block 1's down_proj, before the final norm and the head */
  long last = -(long)sizeof(float) * (VOCABULARY * HIDDEN + HIDDEN) - 1;
  EXPECT_ROW("stopped by --stop-after", QUANTIZE, "--stop-after", "0.000001");
  EXPECT_ROW("other options at a resume", QUANTIZE, "--damp", "0.02");
  write_ids("ids.i32", 8);
  EXPECT_ROW("another text at a resume", QUANTIZE);
  write_ids("ids.i32", 7);
  change_config("\"silu\"", "\"silu\", \"rope_theta\": 20000");
  EXPECT_ROW("another configuration at a resume", QUANTIZE);
  qd_temporary_write_text(&folder, "model/config.json", sound);
  flip(weights, last);
  EXPECT_ROW("other weights at a resume, not quantized yet", QUANTIZE);
  flip(weights, last);
  flip(weights, -2);
  EXPECT_ROW("other weights at a resume", QUANTIZE);
  flip(weights, -2);
  EXPECT(0, "wrote", out, QUANTIZE);
}

/* ---- stores -------------------------------------------------------------------------------------------------------------- */

static void expect_damage(const char *name, long offset, const char *kind) {
  const char *path = qd_temporary_path(&folder, name);
  flip(path, offset);
  qd_run run = qd_run_command((const char *const[]){PROGRAM, "verify", out, NULL}, environment, limit_seconds);
  cr_expect_not_null(strstr(run.out.text, path), "%s is not in: %s", path, run.out.text);
  if (kind != NULL) expect_row(&run, kind);
  else expect_end(&run, 3, "is damaged: ", out);
  flip(path, offset);
}

Test(bad_input, a_damaged_store) {
  make_store();
  expect_damage("out/manifest.json", 40, NULL);
  expect_damage("out/config.json", 20, NULL);
  expect_damage("out/block-00001.h5", 24, "a store with a flipped bit, to verify"); /* the file's bytes, none of a dataset */
  EXPECT(0, "", "", "verify", out);
  flip(qd_temporary_path(&folder, "out/config.json"), -3);
  EXPECT_ROW("a store with a changed configuration", EVALUATE);
  flip(qd_temporary_path(&folder, "out/config.json"), -3);
  flip(qd_temporary_path(&folder, "out/manifest.json"), 40);
  EXPECT_ROW("a store with a damaged manifest", EVALUATE);
  EXPECT(3, "manifest.json is damaged", out, "inspect", out);
  flip(qd_temporary_path(&folder, "out/manifest.json"), 40);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "out/block-00001.h5"), 2000), 0);
  EXPECT_ROW("a store with a file cut off", EVALUATE);
  EXPECT_RANKS(2, 3, "block-00001.h5 has 2000 bytes, expected", "", EVALUATE);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "out/block-00001.h5")), 0);
  EXPECT_ROW("a store without one of its files", EVALUATE);
  EXPECT(3, "is damaged", out, "verify", out);
}

Test(bad_input, what_is_no_finished_store) {
  EXPECT(75, "stopped with 1 of 2 blocks on disk", "the same command goes on", QUANTIZE, "--stop-after", "0.000001");
  EXPECT_ROW("a store that is not finished", EVALUATE);
  EXPECT_ROW("a store that is not finished, to verify", "verify", out);
  EXPECT(1, "not finished", out, "inspect", out);
  flip(qd_temporary_path(&folder, "out/model.h5"), 24);
  EXPECT_ROW("a store that is not finished, with a flipped bit, to verify", "verify", out);
  make_store();
  EXPECT(0, "", "", "verify", out);
  EXPECT(0, "", "", "verify", "-j", "--model", out);
  EXPECT_ROW("a folder that is no store", "verify", model);
  EXPECT(1, "there is no folder", "absent", "verify", qd_temporary_path(&folder, "absent"));
}

/* What is copied beside the blocks must be what they were made with.  The job is stopped while the file changes. */
Test(bad_input, a_configuration_that_changes_under_a_running_job) {
  static int32_t many[16384 * TOKENS];
  const char *long_ids = qd_temporary_write(&folder, "many.i32", many, sizeof many);
  const char *argv[] = {PROGRAM, QUANTIZE_TEXT(long_ids), "--nsamples", "16384", NULL};
  qd_run run = qd_run_start(argv, environment, limit_seconds);
  cr_assert(qd_run_until(&run, "block    0  q_proj"), "%s", run.err.text);
  cr_assert_eq(kill(run.pid, SIGSTOP), 0);
  change_config("\"silu\"", "\"silu\", \"rope_theta\": 20000");
  cr_assert_eq(kill(run.pid, SIGCONT), 0);
  qd_run_finish(&run);
  expect_row(&run, "a configuration that changes while the job runs");
  cr_expect_neq(access(qd_temporary_path(&folder, "out/manifest.json"), F_OK), 0);
  qd_temporary_write_text(&folder, "model/config.json", sound);
  EXPECT(0, "wrote", out, QUANTIZE_TEXT(long_ids), "--nsamples", "16384");
  EXPECT(0, "", "", "verify", out);
}

/* ---- a rank dies --------------------------------------------------------------------------------------------------------- */

/* The last of mpirun's ranks, 0 if there is none. */
static pid_t last_child(pid_t parent) {
  char number[16];
  snprintf(number, sizeof number, "%ld", (long)parent);
  qd_run run = qd_run_command((const char *const[]){"pgrep", "-P", number, "qdist", NULL}, NULL, 60);
  pid_t child = 0;
  for (const char *line = run.out.text; *line != '\0'; line = strchr(line, '\n') + 1) child = (pid_t)strtol(line, NULL, 10);
  qd_run_close(&run);
  return child;
}

/* It is stopped first, so that the others wait for it and the job cannot end before it is killed. */
Test(bad_input, a_dead_rank_ends_the_job_and_the_store_goes_on) {
  static int32_t many[2048 * TOKENS];
  const char *long_ids = qd_temporary_write(&folder, "many.i32", many, sizeof many);
  const char *argv[] = {PROGRAM, QUANTIZE_TEXT(long_ids), "--nsamples", "2048", NULL};
  qd_run run = qd_run_start_ranks(3, argv, environment, limit_seconds);
  cr_assert(qd_run_until(&run, "calibration: 2048 sequences"), "%s", run.err.text);
  pid_t rank = last_child(run.pid);
  cr_assert_gt(rank, 0);
  cr_assert_eq(kill(rank, SIGSTOP), 0);
  cr_assert_eq(kill(rank, SIGKILL), 0);
  qd_run_finish(&run);
  cr_expect_not(run.timed_out);
  cr_expect_neq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  EXPECT(0, "wrote", out, QUANTIZE_TEXT(long_ids), "--nsamples", "2048");
  EXPECT(0, "", "", "verify", out);
}
