#define _POSIX_C_SOURCE 200809L
#include "pipeline/identity.h"

#include "tests/pipeline/job_support.h"
#include "tests/support/safetensors_maker.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A store of a model in two files, as a killed job or a finished one leaves it, and a run that looks at both again. */
static qd_temporary_folder folder;
static char model[QD_TEMPORARY_PATH_BYTES], output[QD_TEMPORARY_PATH_BYTES];
static qd_job job;
static qd_run run;

static const char *const files[] = {"model.safetensors", "config.json"};

static void copy_model(const char *name) {
  char from[2 * PATH_BYTES], to[PATH_BYTES], *data;
  size_t n;
  for (int i = 0; i < 2; i++) {
    snprintf(from, sizeof from, "%s/%s", golden_path(name), files[i]);
    snprintf(to, sizeof to, "%s/%s", model, files[i]);
    MUST(qd_file_read(from, 1 << 24, &data, &n));
    FILE *file = fopen(to, "wb");
    cr_assert(file != NULL && fwrite(data, 1, n, file) == n && fclose(file) == 0);
    qd_heap_free(data);
  }
}

static void open_fixture(void) {
  qd_temporary_folder_open(&folder);
  snprintf(model, sizeof model, "%s", qd_temporary_make_folder(&folder, "model"));
  snprintf(output, sizeof output, "%s", qd_temporary_path(&folder, "out"));
  copy_model("llama_bf16");
  job = small_job(model, output);
  MUST(run_job(&job));
  run = (qd_run){.job = &job, .comm = open_team()};
  MUST(qd_source_open(model, &run.source));
  MUST(qd_store_open(output, true, &run.stored));
}

static void close_fixture(void) {
  qd_store_close(&run.stored);
  qd_source_close(run.source);
  qd_team_close(run.comm, false, 0);
  qd_temporary_folder_close(&folder);
}

TestSuite(identity, .init = open_fixture, .fini = close_fixture);

static void reopen_source(void) {
  qd_source_close(run.source);
  MUST(qd_source_open(model, &run.source));
}

static const char *log_path(void) {
  static char path[QD_TEMPORARY_PATH_BYTES + 16];
  snprintf(path, sizeof path, "%s/" QD_LOG_NAME, output);
  return path;
}

static void note(void) {
  MUST(qd_log_open(log_path()));
  qd_identity_note(&run);
  qd_log_close();
}

/* Change one byte of a tensor and leave no trace in size and times, as far as one can. */
static void change_tensor(const char *name) {
  char path[PATH_BYTES];
  const qd_source_tensor *tensor = qd_source_find(run.source, name);
  unsigned char byte;
  cr_assert_not_null(tensor);
  snprintf(path, sizeof path, "%s/model.safetensors", model);
  int fd = open(path, O_RDWR);
  cr_assert(fd >= 0 && pread(fd, &byte, 1, (off_t)tensor->offset) == 1);
  byte ^= 1;
  cr_assert(pwrite(fd, &byte, 1, (off_t)tensor->offset) == 1 && close(fd) == 0);
}

/* Times that no clock gives: whatever reads them sees another file. */
static void touch(long seconds) {
  char path[PATH_BYTES];
  struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
  snprintf(path, sizeof path, "%s/model.safetensors", model);
  cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void spoil_record(void) { run.stored.block[1].record[0].source.hex[0] ^= 1; }

static void expect_changed(const char *tensor) {
  cr_expect_eq(qd_identity_check(&run), QD_EEXIST);
  cr_expect(strstr(qd_error_text(), output) != NULL && strstr(qd_error_text(), tensor) != NULL, "%s", qd_error_text());
}

Test(identity, files_as_noted_are_not_read) {
  spoil_record(); /* reading would find it */
  cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
}

Test(identity, other_times_make_all_be_read) {
  touch(1000);
  reopen_source();
  cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
  spoil_record();
  expect_changed(run.stored.block[1].record[0].name);
}

Test(identity, a_missing_log_makes_all_be_read) {
  cr_assert_eq(unlink(log_path()), 0);
  cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
  spoil_record();
  expect_changed(run.stored.block[1].record[0].name);
}

Test(identity, a_changed_tensor_is_named) {
  static const char *const names[] = {"model.layers.1.mlp.down_proj.weight", "model.layers.0.input_layernorm.weight",
                                      "lm_head.weight"};
  for (int i = 0; i < 3; i++) {
    change_tensor(names[i]);
    touch(2000 + i);
    reopen_source();
    expect_changed(names[i]);
    change_tensor(names[i]); /* and back */
    reopen_source();
    cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
  }
}

/* What is stored is named, of the rest only that it changed: there is no digest of each yet. */
Test(identity, blocks_that_are_not_stored_are_known_again) {
  static const char *const names[] = {"model.layers.1.mlp.down_proj.weight", "lm_head.weight"};
  run.stored.n_blocks = 1, run.stored.has_rest = false;
  for (int i = 0; i < 2; i++) {
    change_tensor(names[i]);
    touch(3000 + i);
    reopen_source();
    expect_changed("not quantized yet");
    change_tensor(names[i]);
    reopen_source();
    cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
  }
  change_tensor("model.layers.0.mlp.down_proj.weight");
  touch(3002);
  reopen_source();
  expect_changed("model.layers.0.mlp.down_proj.weight");
  run.stored.n_blocks = 2, run.stored.has_rest = true; /* to be closed */
}

static qd_digest sample_of(const qd_made_tensor *tensors, int n, int shards) {
  qd_digest digest;
  qd_source *source;
  qd_make_model(model, "{}", tensors, n, shards);
  MUST(qd_source_open(model, &source));
  MUST(qd_identity_sample(source, &digest));
  qd_source_close(source);
  return digest;
}

static bool sees_change(qd_made_tensor *tensor, unsigned char *data, size_t at) {
  qd_digest before = sample_of(tensor, 1, 1);
  data[at] ^= 1;
  qd_digest after = sample_of(tensor, 1, 1);
  return !qd_digest_equal(&before, &after);
}

/* 64 KiB are taken whole; of what is larger four pieces of 16 KiB, the first at the beginning, the last at the end. */
Test(identity, a_sample_sees_ends_and_pieces_between) {
  static unsigned char data[200000];
  qd_made_tensor small = {.name = "t", .dtype = QD_BF16, .rank = 1, .dim = {32768}, .data = data},
                 large = {.name = "t", .dtype = QD_BF16, .rank = 2, .dim = {100, 1000}, .data = data};
  static const size_t in_small[] = {0, 16383, 16384, 40000, 65535}, in_large[] = {0, 16383, 61205, 199999, 183616};
  for (int i = 0; i < 5; i++) {
    cr_expect(sees_change(&small, data, in_small[i]), "byte %zu", in_small[i]);
    cr_expect(sees_change(&large, data, in_large[i]), "byte %zu", in_large[i]);
  }
  cr_expect_not(sees_change(&large, data, 30000), "between the pieces");
}

Test(identity, a_sample_depends_on_tensors_and_not_on_files) {
  qd_made_tensor tensors[] = {{.name = "a", .dtype = QD_BF16, .rank = 2, .dim = {3, 5}},
                              {.name = "b", .dtype = QD_F32, .rank = 1, .dim = {7}, .shard = 1},
                              {.name = "empty", .dtype = QD_F32, .rank = 2, .dim = {0, 4}, .shard = 1}};
  static float values[15];
  tensors[0].data = values;
  qd_digest one = sample_of(tensors, 3, 1), two;
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/model.safetensors")), 0);
  two = sample_of(tensors, 3, 2);
  cr_expect(qd_digest_equal(&one, &two));
  tensors[0].dim[0] = 5, tensors[0].dim[1] = 3;
  two = sample_of(tensors, 3, 1);
  cr_expect_not(qd_digest_equal(&one, &two), "another shape");
  tensors[0].dim[0] = 3, tensors[0].dim[1] = 5, tensors[0].name = "c";
  two = sample_of(tensors, 3, 1);
  cr_expect_not(qd_digest_equal(&one, &two), "another name");
}

/* What was noted last counts, not what was noted once. */
Test(identity, the_last_note_counts) {
  touch(4000);
  reopen_source();
  note();
  spoil_record();
  cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
  FILE *log = fopen(log_path(), "a");
  cr_assert_not_null(log);
  fprintf(log, "2026-01-01T00:00:00Z weights-file size=1 inode=1 mtime=1 ctime=1 name=model.safetensors\n");
  fclose(log);
  expect_changed(run.stored.block[1].record[0].name);
  note();
  cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
}

/* One digit of a time is enough. */
Test(identity, a_note_counts_to_its_last_digit) {
  touch(5000);
  reopen_source();
  note();
  spoil_record();
  cr_expect_eq(qd_identity_check(&run), QD_OK, "%s", qd_error_text());
  touch(5001);
  reopen_source();
  expect_changed(run.stored.block[1].record[0].name);
}

Test(identity, a_note_cut_off_does_not_count) {
  char *text;
  size_t n;
  MUST(qd_file_read(log_path(), 1 << 20, &text, &n));
  char *at = strstr(text, " name=model.safetensors");
  cr_assert_not_null(at);
  cr_assert_eq(truncate(log_path(), at - text + 12), 0);
  qd_heap_free(text);
  spoil_record();
  expect_changed(run.stored.block[1].record[0].name);
}
