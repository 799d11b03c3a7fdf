/* A job that is interrupted, anywhere and in any way, goes on when it is typed again, and ends with the same store.  What must
 * not go on is refused. */
#define _POSIX_C_SOURCE 200809L
#include <criterion/criterion.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/device.h"
#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

enum { EXIT_STOPPED = 75, VOCABULARY = 101, TOKENS = 37, ROWS = 4 };

typedef struct bench {
  qd_temporary_folder folder;
  const char *job;
  int blocks, n_copies;
  char model[1024], text[1024], whole[1024], out[1024];
} bench;

static void succeed(int n_ranks, const bench *b, const char *out, const char *machine) {
  qd_run run =
      qd_program(n_ranks, "quantize -m %s -d %s --seqlen %d -o %s %s %s", b->model, b->text, TOKENS, out, b->job, machine);
  cr_assert_eq(run.exit_code, 0, "%d ranks %s: %s", n_ranks, machine, run.err.text);
  qd_run_close(&run);
}

/* A made model, and the store that an uninterrupted job makes of it. */
static void bench_open_with(bench *b, qd_made_llama widths, const char *job) {
  *b = (bench){.job = job, .blocks = widths.blocks};
  qd_temporary_folder_open(&b->folder);
  snprintf(b->model, sizeof b->model, "%s", qd_temporary_make_folder(&b->folder, "model"));
  snprintf(b->text, sizeof b->text, "%s", qd_temporary_path(&b->folder, "text.i32"));
  snprintf(b->whole, sizeof b->whole, "%s", qd_temporary_path(&b->folder, "whole"));
  snprintf(b->out, sizeof b->out, "%s", qd_temporary_path(&b->folder, "out"));
  qd_make_llama(b->model, &widths);
  qd_make_ids(b->text, ROWS * TOKENS, VOCABULARY, 1);
  succeed(0, b, b->whole, "");
}

static const char usual_job[] = "--bits 3 -g 64";
static const qd_made_llama usual = {
    .dtype = QD_BF16, .hidden = 96, .ffn = 176, .heads = 4, .kv_heads = 2, .vocabulary = VOCABULARY, .positions = 64};

static void bench_open(bench *b, int blocks) {
  qd_made_llama widths = usual;
  widths.blocks = blocks;
  bench_open_with(b, widths, usual_job);
}

static void bench_close(bench *b) { qd_temporary_folder_close(&b->folder); }

static qd_run start(int n_ranks, const bench *b, const char *machine) {
  return qd_program_start(n_ranks, "quantize -m %s -d %s --seqlen %d -o %s %s %s", b->model, b->text, TOKENS, b->out, b->job,
                          machine);
}

static qd_run command(int n_ranks, const bench *b, const char *more) {
  qd_run run = start(n_ranks, b, more);
  qd_run_finish(&run);
  return run;
}

/* Another number of ranks and other instructions at each step. */
static int ranks_of_step(int step) { return (int[]){1, 3, 2, 0, 4}[step % 5]; }
static const char *machine_of_step(int step) {
  if (qd_isa_best() < QD_ISA_AVX2) return "";
  return (const char *[]){"--isa avx2", "", "--threads 2"}[step % 3];
}

static void expect_whole(const bench *b, const char *story) {
  const char *what = qd_folder_difference(b->whole, b->out, false);
  cr_assert_null(what, "%s: %s", story, what);
}

static void go_on(const bench *b, int step, const char *story) {
  qd_run run = command(ranks_of_step(step), b, machine_of_step(step));
  cr_assert_eq(run.exit_code, 0, "%s: %s", story, run.err.text);
  qd_run_close(&run);
  expect_whole(b, story);
}

Test(resume, a_finished_folder_holds_what_formats_md_lists) {
  bench b;
  bench_open(&b, 2);
  cr_expect_str_eq(qd_folder_names(b.whole), "block-00000.h5 block-00001.h5 config.json manifest.json model.h5 ");
  bench_close(&b);
}

/* ---- kill -9 --------------------------------------------------------------------------------------------------------- */

/* A line a linear and some about the job: whether the run still wrote lines at its n-th. */
static bool kill_at_line(bench *b, int n, int step) {
  qd_run run = start(ranks_of_step(step), b, machine_of_step(step + 1));
  bool there = qd_run_until_lines(&run, n);
  if (there) qd_run_kill(&run);
  else qd_run_finish(&run);
  qd_run_close(&run);
  return there;
}

static void kill_at_lines(int first) {
  bench b;
  char story[64];
  bench_open(&b, 3);
  int n = first;
  for (bool there = true; there; n += 2) {
    there = kill_at_line(&b, n, n);
    snprintf(story, sizeof story, "killed at line %d", n);
    go_on(&b, n + 1, story);
    qd_temporary_remove(b.out);
  }
  cr_assert_geq(n, 3 * 8, "the job wrote fewer lines than it has linears");
  bench_close(&b);
}

Test(resume, killed_at_odd_lines) { kill_at_lines(1); }
Test(resume, killed_at_even_lines) { kill_at_lines(2); }

/* Behind the last block comes the head, which is written over the one that was there first. */
static void kill_around_the_head(const char *job) {
  bench b;
  char story[64];
  qd_made_llama widths = usual;
  widths.blocks = 1;
  bench_open_with(&b, widths, job);
  int n = 1;
  for (bool there = true; there; n++) {
    there = kill_at_line(&b, n, n);
    snprintf(story, sizeof story, "%s, killed at line %d", job, n);
    go_on(&b, n + 1, story);
    qd_temporary_remove(b.out);
  }
  cr_assert_geq(n, 9, "the job wrote fewer lines than it has linears");
  bench_close(&b);
}

Test(resume, killed_around_the_head) {
  kill_around_the_head("--bits 3 -g 64 --quant-lm-head=4 --quant-embeddings");
  kill_around_the_head("--bits 3 -g 64 --quant-lm-head --keep-activations");
}

Test(resume, killed_among_experts) {
  bench b;
  char story[64];
  qd_made_llama widths = usual;
  widths.blocks = 4, widths.experts = 5, widths.top_k = 2, widths.expert_ffn = 40, widths.shared_ffn = 56;
  bench_open_with(&b, widths, usual_job);
  int n = 3, kills = 0;
  for (bool there = true; there; n += 7, kills += there) {
    there = kill_at_line(&b, n, n);
    snprintf(story, sizeof story, "killed at line %d", n);
    go_on(&b, n + 1, story);
    qd_temporary_remove(b.out);
  }
  cr_assert_geq(kills, 4);
  bench_close(&b);
}

static uint64_t random_state;
static int random_below(int n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (int)((random_state >> 33) % (uint64_t)n);
}

/* Several kills on the way of one store; QDIST_TEST_SEED chooses others. */
Test(resume, killed_twenty_times_at_random) {
  bench b;
  char story[256];
  const char *seed = getenv("QDIST_TEST_SEED");
  random_state = seed != NULL ? strtoull(seed, NULL, 10) : 1;
  bench_open(&b, 4);
  for (int store = 0; store < 4; store++) {
    size_t n = (size_t)snprintf(story, sizeof story, "killed at lines");
    for (int i = 0; i < 5; i++) {
      int line = 1 + random_below(24), step = random_below(15);
      n += (size_t)snprintf(story + n, sizeof story - n, " %d (%d ranks)", line, ranks_of_step(step));
      if (!kill_at_line(&b, line, step)) break;
    }
    cr_log_info("%s\n", story);
    go_on(&b, store, story);
    qd_temporary_remove(b.out);
  }
  bench_close(&b);
}

/* One rank of three: the others must not wait for ever, and must not leave a store that looks finished. */
Test(resume, killed_in_one_rank_only) {
  bench b;
  bench_open(&b, 4);
  for (int rank = 0; rank < 3; rank++) {
    char story[64];
    qd_run run = start(3, &b, "");
    cr_assert(qd_run_until_lines(&run, 4 + 3 * rank), "%s", run.err.text);
    qd_run_kill_rank(&run, rank);
    cr_assert_not(run.timed_out);
    cr_assert_neq(run.exit_code, 0, "rank %d was killed, and the job ended well: %s", rank, run.err.text);
    qd_run_close(&run);
    snprintf(story, sizeof story, "process %d of 3 was killed", rank);
    go_on(&b, rank, story);
    qd_temporary_remove(b.out);
  }
  bench_close(&b);
}

Test(resume, killed_while_finishing) {
  bench b;
  bench_open(&b, 2);
  for (int i = 0; i < 6; i++) {
    qd_run run = start(i % 3, &b, "");
    cr_assert(qd_run_until(&run, "2 of 2 blocks on disk"), "%s", run.err.text);
    qd_run_kill(&run);
    qd_run_close(&run);
    go_on(&b, i, "killed after the last block");
    qd_temporary_remove(b.out);
  }
  bench_close(&b);
}

/* What a kill between the manifest and the end leaves. */
Test(resume, only_clearing_up_is_left) {
  bench b;
  bench_open(&b, 2);
  qd_folder_copy(b.whole, b.out);
  qd_temporary_make_folder(&b.folder, "out/partial");
  qd_temporary_write_text(&b.folder, "out/partial/manifest.json.7-1.tmp", "{");
  qd_temporary_write_text(&b.folder, "out/block-00001.1.h5", "left over");
  qd_temporary_write_text(&b.folder, "out/job.lock", "host gone pid 1 job -\n");
  go_on(&b, 0, "a manifest beside partial/");
  bench_close(&b);
}

/* ---- stopped ---------------------------------------------------------------------------------------------------------- */

/* The signal may come when the last block is under way already: then the job ends as always, and is tried again. */
static void stop_by_signal(int n_ranks, int number, bool everyone) {
  bench b;
  int code = 0;
  bench_open(&b, 8);
  for (int i = 0; i < 20 && code == 0; i++) {
    qd_temporary_remove(b.out);
    qd_run run = start(n_ranks, &b, "");
    pid_t pids[8] = {0};
    cr_assert(qd_run_until(&run, "calibration:"), "%s", run.err.text);
    if (everyone) qd_run_signal_ranks(&run, number);
    else if (qd_run_rank_pids(&run, pids, 8) == n_ranks) kill(pids[n_ranks - 1], number);
    qd_run_finish(&run);
    code = run.exit_code;
    cr_assert(code == 0 || strstr(run.err.text, "a signal came): the same command goes on") != NULL, "exit code %d: %s", code,
              run.err.text);
    qd_run_close(&run);
  }
  cr_assert_eq(code, EXIT_STOPPED);
  cr_assert_not_null(strstr(qd_folder_names(b.out), "partial"));
  cr_assert_null(strstr(qd_folder_names(b.out), "job.lock"), "a stopped job keeps its lock");
  go_on(&b, 1, "stopped by a signal");
  bench_close(&b);
}

Test(resume, stopped_by_sigusr1) { stop_by_signal(0, SIGUSR1, true); }
Test(resume, stopped_by_sigusr1_to_all_ranks) { stop_by_signal(3, SIGUSR1, true); }
Test(resume, stopped_by_sigusr1_to_one_rank) { stop_by_signal(3, SIGUSR1, false); }
Test(resume, stopped_by_sigterm_to_all_ranks) { stop_by_signal(2, SIGTERM, true); }

Test(resume, stopped_by_time_after_each_block) {
  bench b;
  bench_open(&b, 4);
  for (int block = 0; block < 4; block++) {
    qd_run run = command(ranks_of_step(block), &b, "--stop-after 0.000001s");
    cr_assert_eq(run.exit_code, block < 3 ? EXIT_STOPPED : 0, "block %d: exit code %d: %s", block, run.exit_code, run.err.text);
    qd_run_close(&run);
  }
  expect_whole(&b, "stopped after each block");
  bench_close(&b);
}

/* The original stream is run again through the original weights, the other through the stored ones. */
Test(resume, both_streams_come_back) {
  static const char both[] = "--gptaq --report-kl --act-order dynamic";
  bench b;
  char machine[128];
  bench_open(&b, 4);
  snprintf(b.whole, sizeof b.whole, "%s", qd_temporary_path(&b.folder, "both"));
  succeed(2, &b, b.whole, both);
  for (int block = 0; block < 4; block++) {
    snprintf(machine, sizeof machine, "%s %s --stop-after 0.000001s", both, machine_of_step(block));
    qd_run run = command(ranks_of_step(block), &b, machine);
    cr_assert_eq(run.exit_code, block < 3 ? EXIT_STOPPED : 0, "block %d: exit code %d: %s", block, run.exit_code, run.err.text);
    qd_run_close(&run);
  }
  expect_whole(&b, "two streams, stopped after each block");
  bench_close(&b);
}

/* An unfinished store of the first block. */
static void stop_after_one_block(bench *b, int blocks) {
  bench_open(b, blocks);
  qd_run run = command(0, b, "--stop-after 0.000001s");
  cr_assert_eq(run.exit_code, EXIT_STOPPED, "%s", run.err.text);
  qd_run_close(&run);
}

/* ---- damaged in between -------------------------------------------------------------------------------------------------- */

static void flip_byte(const char *path, off_t offset) {
  unsigned char byte;
  int fd = open(path, O_RDWR);
  cr_assert_geq(fd, 0);
  cr_assert_eq(pread(fd, &byte, 1, offset), 1);
  byte ^= 1;
  cr_assert_eq(pwrite(fd, &byte, 1, offset), 1);
  close(fd);
}

/* One bit in the middle of the file, which keeps its length; the resume names it once and does it again. */
static void damage(const bench *b, const char *name, int step, const char *more) {
  char path[1200], story[128], machine[128];
  struct stat facts;
  snprintf(path, sizeof path, "%s/%s", b->out, name);
  cr_assert_eq(stat(path, &facts), 0);
  flip_byte(path, facts.st_size / 2);
  snprintf(machine, sizeof machine, "%s %s", machine_of_step(step), more);
  qd_run run = command(ranks_of_step(step), b, machine);
  cr_assert_eq(run.exit_code, 0, "%s: %s", name, run.err.text);
  const char *warning = strstr(run.err.text, "done again: ");
  cr_assert(warning != NULL && strstr(warning, name) != NULL, "%s: %s", name, run.err.text);
  cr_expect_null(strstr(warning + 1, "done again: "), "%s is told twice: %s", name, run.err.text);
  qd_run_close(&run);
  snprintf(story, sizeof story, "%s was damaged", name);
  expect_whole(b, story);
}

static void damage_each(const char *more) {
  static const char *const names[] = {"block-00001.h5", "block-00000.h5", "model.h5"};
  bench b;
  char machine[128];
  bench_open(&b, 3);
  snprintf(b.whole, sizeof b.whole, "%s", qd_temporary_path(&b.folder, "whole-too"));
  succeed(2, &b, b.whole, more);
  const char *unfinished = qd_temporary_path(&b.folder, "unfinished");
  snprintf(machine, sizeof machine, "--stop-after 0.000001s %s", more);
  for (int i = 0; i < 2; i++) {
    qd_run run = command(0, &b, machine);
    cr_assert_eq(run.exit_code, EXIT_STOPPED, "%s", run.err.text);
    qd_run_close(&run);
  }
  qd_folder_copy(b.out, unfinished);
  for (int i = 0; i < 3; i++) {
    qd_temporary_remove(b.out);
    qd_folder_copy(unfinished, b.out);
    damage(&b, names[i], i, more);
  }
  bench_close(&b);
}

Test(resume, a_finished_file_that_is_damaged_is_done_again) { damage_each(""); }
Test(resume, a_damaged_file_before_kept_activations_is_done_again) { damage_each("--keep-activations"); }
Test(resume, a_damaged_file_of_a_quantized_embedding_is_done_again) { damage_each("--quant-lm-head=8 --quant-embeddings=4"); }

/* With the manifest written nothing can be done again. */
Test(resume, a_damaged_file_beside_a_manifest_is_told) {
  bench b;
  bench_open(&b, 2);
  qd_folder_copy(b.whole, b.out);
  qd_temporary_make_folder(&b.folder, "out/partial");
  flip_byte(qd_temporary_path(&b.folder, "out/block-00001.h5"), 2000);
  qd_run run = command(2, &b, "");
  cr_assert_eq(run.exit_code, 3, "%s", run.err.text);
  cr_assert_not_null(strstr(run.err.text, "block-00001.h5 is damaged"), "%s", run.err.text);
  qd_run_close(&run);
  bench_close(&b);
}

/* ---- typed again ------------------------------------------------------------------------------------------------------- */

Test(resume, a_finished_job_is_left_alone) {
  bench b;
  bench_open(&b, 2);
  const char *copy = qd_temporary_path(&b.folder, "copy");
  qd_folder_copy(b.whole, copy);
  strcpy(b.out, b.whole);
  for (int n_ranks = 0; n_ranks <= 3; n_ranks += 3) {
    qd_run run = command(n_ranks, &b, "");
    cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
    cr_assert_not_null(strstr(run.err.text, "nothing to do"), "%s", run.err.text);
    qd_run_close(&run);
    const char *what = qd_folder_difference(copy, b.whole, true);
    cr_assert_null(what, "%s", what);
  }
  bench_close(&b);
}

/* Refused with exit code 1 and one sentence that holds both words; the folder is as it was. */
static void refuse(bench *b, int n_ranks, const char *more, const char *word, const char *other_word) {
  char name[32];
  struct stat facts;
  bool there = stat(b->out, &facts) == 0;
  snprintf(name, sizeof name, "before.%d", b->n_copies++);
  const char *before = qd_temporary_path(&b->folder, name);
  if (there) qd_folder_copy(b->out, before);
  qd_run run = command(n_ranks, b, more);
  const char *message = qd_program_message(&run);
  cr_expect_eq(run.exit_code, 1, "exit code %d: %s", run.exit_code, run.err.text);
  cr_expect(strstr(message, word) != NULL && strstr(message, other_word) != NULL, "\"%s\" or \"%s\" is not told: %s", word,
            other_word, message);
  qd_run_close(&run);
  if (!there) return;
  const char *what = qd_folder_difference(before, b->out, true);
  cr_expect_null(what, "refused, and yet %s", what);
}

Test(resume, no_resume_refuses_what_is_there) {
  bench b;
  stop_after_one_block(&b, 2);
  refuse(&b, 0, "--no-resume", b.out, "--no-resume");
  go_on(&b, 1, "refused by --no-resume");
  refuse(&b, 2, "--no-resume", b.out, "--no-resume");
  bench_close(&b);
}

Test(resume, another_job_is_refused) {
  bench b;
  stop_after_one_block(&b, 2);
  refuse(&b, 0, "--bits 4", b.out, "bits");
  bench_close(&b);
}

Test(resume, another_job_is_refused_when_finished) {
  bench b;
  bench_open(&b, 1);
  strcpy(b.out, b.whole);
  refuse(&b, 2, "--act-order none", b.out, "act_order");
  bench_close(&b);
}

Test(resume, a_foreign_folder_is_refused) {
  bench b;
  bench_open(&b, 1);
  qd_temporary_make_folder(&b.folder, "out");
  qd_temporary_write_text(&b.folder, "out/thesis.tex", "\\begin{document}");
  refuse(&b, 0, "", b.out, "thesis.tex");
  refuse(&b, 2, "", b.out, "thesis.tex");
  bench_close(&b);
}

Test(resume, the_models_folder_is_refused) {
  bench b;
  bench_open(&b, 1);
  strcpy(b.out, b.model);
  refuse(&b, 0, "", b.model, "--output");
  strcpy(b.out, qd_temporary_path(&b.folder, "model/new/store"));
  refuse(&b, 0, "", b.model, "--output");
  cr_expect_str_eq(qd_folder_names(b.model), "config.json model.safetensors ");
  bench_close(&b);
}

Test(resume, a_live_job_keeps_others_out) {
  bench b;
  bench_open(&b, 8);
  qd_run first = start(0, &b, "");
  cr_assert(qd_run_until(&first, "block    0  q_proj"), "%s", first.err.text);
  cr_assert_eq(kill(first.pid, SIGSTOP), 0);
  refuse(&b, 0, "", b.out, "another job works in this folder");
  refuse(&b, 2, "", b.out, "another job works in this folder");
  cr_assert_eq(kill(first.pid, SIGCONT), 0);
  qd_run_finish(&first);
  cr_assert_eq(first.exit_code, 0, "%s", first.err.text);
  qd_run_close(&first);
  expect_whole(&b, "another job tried");
  bench_close(&b);
}

/* ---- what the job was made of -------------------------------------------------------------------------------------------- */

/* Where the first block's q_proj begins: the file starts with the header's length, and the tensors are in the order of the
 * forward. */
static off_t offset_of_q_proj(const char *path) {
  uint64_t header;
  int fd = open(path, O_RDONLY);
  cr_assert_eq(pread(fd, &header, sizeof header, 0), (ssize_t)sizeof header);
  close(fd);
  return (off_t)(8 + header + 2 * (VOCABULARY * 96 + 96));
}

Test(resume, changed_weights_are_refused_by_name) {
  bench b;
  stop_after_one_block(&b, 2);
  const char *weights = qd_temporary_path(&b.folder, "model/model.safetensors");
  flip_byte(weights, offset_of_q_proj(weights) + 6);
  refuse(&b, 0, "", "model.layers.0.self_attn.q_proj.weight", "changed");
  refuse(&b, 2, "", "model.layers.0.self_attn.q_proj.weight", "changed");
  flip_byte(weights, offset_of_q_proj(weights) + 6);
  go_on(&b, 2, "changed back");
  bench_close(&b);
}

/* The last of block 1's down_proj, before the final norm and the head: nothing of it is in the store yet. */
Test(resume, changed_weights_that_were_not_read_yet_are_refused) {
  bench b;
  stop_after_one_block(&b, 2);
  const char *weights = qd_temporary_path(&b.folder, "model/model.safetensors");
  struct stat facts;
  cr_assert_eq(stat(weights, &facts), 0);
  off_t last = facts.st_size - 2 * (VOCABULARY * 96 + 96) - 1;
  flip_byte(weights, last);
  refuse(&b, 0, "", "not quantized yet", "changed");
  refuse(&b, 2, "", "not quantized yet", "changed");
  flip_byte(weights, last);
  go_on(&b, 2, "changed back");
  bench_close(&b);
}

Test(resume, changed_weights_are_refused_when_finished) {
  bench b;
  bench_open(&b, 1);
  strcpy(b.out, b.whole);
  const char *weights = qd_temporary_path(&b.folder, "model/model.safetensors");
  flip_byte(weights, offset_of_q_proj(weights) - 2 * 96 - 1);
  refuse(&b, 0, "", "model.embed_tokens.weight", "changed");
  bench_close(&b);
}

Test(resume, touched_weights_go_on) {
  bench b;
  stop_after_one_block(&b, 2);
  const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
  cr_assert_eq(utimensat(AT_FDCWD, qd_temporary_path(&b.folder, "model/model.safetensors"), times, 0), 0);
  go_on(&b, 1, "touched");
  bench_close(&b);
}

Test(resume, a_log_that_is_gone_does_not_matter) {
  bench b;
  stop_after_one_block(&b, 2);
  cr_assert_eq(unlink(qd_temporary_path(&b.folder, "out/qdist.log")), 0);
  go_on(&b, 0, "without its log");
  bench_close(&b);
}

Test(resume, changed_text_is_refused) {
  bench b;
  stop_after_one_block(&b, 2);
  flip_byte(b.text, 4);
  refuse(&b, 0, "", b.out, "dataset");
  flip_byte(b.text, 4);
  cr_assert_eq(rename(b.text, qd_temporary_path(&b.folder, "elsewhere.i32")), 0);
  strcpy(b.text, qd_temporary_path(&b.folder, "elsewhere.i32"));
  go_on(&b, 2, "the same text under another name");
  bench_close(&b);
}

Test(resume, a_changed_configuration_is_refused) {
  bench b;
  stop_after_one_block(&b, 2);
  const char *config = qd_temporary_path(&b.folder, "model/config.json");
  FILE *file = fopen(config, "ab");
  cr_assert(file != NULL && fputs("\n", file) >= 0 && fclose(file) == 0);
  refuse(&b, 2, "", b.out, "config");
  bench_close(&b);
}
