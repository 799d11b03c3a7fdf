#define _POSIX_C_SOURCE 200809L
#include "pipeline/same_model.h"

#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/run.h"
#include "tests/support/temporary_folder.h"
#include "workers/team.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static qd_temporary_folder folder;
static const qd_made_llama widths = {.dtype = QD_BF16,
                                     .blocks = 1,
                                     .hidden = 32,
                                     .ffn = 40,
                                     .heads = 2,
                                     .kv_heads = 2,
                                     .vocabulary = 101,
                                     .positions = 64,
                                     .shards = 2};

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  qd_make_llama(qd_temporary_make_folder(&folder, "a"), &widths);
  qd_folder_copy(qd_temporary_path(&folder, "a"), qd_temporary_path(&folder, "b"));
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(same_model, .init = open_folder, .fini = close_folder);

/* Three ranks, of which the last looks at b. */
static void expect(const char *kind, const char *outcome, const char *sentence) {
  const char *a = qd_temporary_path(&folder, "a");
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_same_model", kind, a, a, qd_temporary_path(&folder, "b"), NULL};
  qd_run run = qd_run_ranks(3, argv, NULL, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect(strstr(run.out.text, outcome) != NULL && strstr(run.out.text, sentence) != NULL, "\"%s %s\" is not in: %s", outcome,
            sentence, run.out.text);
  if (*sentence)
    cr_expect(
        strstr(run.out.text, "rank 2: ranks disagree about the model's files: ") != NULL && strstr(run.out.text, "/b") != NULL,
        "%s", run.out.text);
  qd_run_close(&run);
}

/* One bit, so many bytes behind the beginning, or behind a weight file's header. */
static void flip(const char *name, bool behind_header, long offset) {
  unsigned char byte;
  uint64_t header = 0;
  int fd = open(qd_temporary_path(&folder, name), O_RDWR);
  cr_assert_geq(fd, 0);
  if (behind_header) cr_assert_eq(pread(fd, &header, sizeof header, 0), (ssize_t)sizeof header);
  off_t at = (off_t)header + (behind_header ? (off_t)sizeof header : 0) + offset;
  cr_assert_eq(pread(fd, &byte, 1, at), 1);
  byte ^= 1;
  cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
  close(fd);
}

Test(same_model, a_copy_is_the_same) { expect("model", "<QD_OK ", ""); }

Test(same_model, other_values_are_found) {
  flip("b/model-00002-of-00002.safetensors", true, 0);
  expect("model", "<QD_EBADINPUT", "b/model-00002-of-00002.safetensors on host ");
}

Test(same_model, another_configuration_is_found) {
  qd_temporary_write_text(&folder, "b/config.json", "{\"model_type\": \"llama\"}");
  expect("model", "<QD_EBADINPUT", "b/config.json on host ");
}

static void make_b(qd_made_llama other) {
  qd_temporary_remove(qd_temporary_path(&folder, "b"));
  qd_make_llama(qd_temporary_make_folder(&folder, "b"), &other);
  qd_run copy = qd_run_command((const char *const[]){"cp", qd_temporary_path(&folder, "a/config.json"),
                                                     qd_temporary_path(&folder, "b/config.json"), NULL},
                               NULL, 60.0);
  qd_run_close(&copy);
}

Test(same_model, other_tensors_are_found) {
  qd_made_llama other = widths;
  other.dtype = QD_F16; /* of the same size */
  make_b(other);
  expect("model", "<QD_EBADINPUT", "is not what rank 0 sees (other ");
}

Test(same_model, other_files_are_found) {
  qd_made_llama other = widths;
  other.shards = 1;
  make_b(other);
  expect("model", "<QD_EBADINPUT", " has model.safetensors where rank 0 has model-00001-of-00002.safetensors");
}

Test(same_model, stores_are_told_apart_by_their_manifest) {
  qd_temporary_write_text(&folder, "a/manifest.json", "{\"digest\": 1}");
  qd_temporary_write_text(&folder, "b/manifest.json", "{\"digest\": 1}");
  expect("store", "<QD_OK ", "");
  qd_temporary_write_text(&folder, "b/manifest.json", "{\"digest\": 2}");
  expect("store", "<QD_EBADINPUT", "b/manifest.json on host ");
}

Test(same_model, one_rank_agrees_with_itself) {
  qd_comm *comm;
  cr_assert_eq(qd_team_open(&comm), QD_OK);
  cr_expect_eq(qd_same_store("/no/such/place", comm), QD_OK, "nothing is looked at");
  qd_team_close(comm, false, 0);
}
