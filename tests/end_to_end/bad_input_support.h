/* A small sound model that tests spoil, and what a person gets to see: the exit code, and one sentence that says what and
 * which.  EXPECT_ROW takes both from the table of docs/operations.md. */
#ifndef QDIST_TESTS_END_TO_END_BAD_INPUT_SUPPORT_H
#define QDIST_TESTS_END_TO_END_BAD_INPUT_SUPPORT_H

#include "storage/bytes.h"
#include "tests/support/bad_input_table.h"
#include "tests/support/run.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/heap.h"

#define PROGRAM QDIST_BINARY_DIR "/qdist"

enum { BLOCKS = 2, HIDDEN = 8, FFN = 12, VOCABULARY = 32, TOKENS = 16, ROWS = 4, BLOCK_TENSORS = 9,
      TENSORS = BLOCKS * BLOCK_TENSORS + 3, MAX_WORDS = 48 };

static const double limit_seconds = 120.0;
static qd_temporary_folder folder;
static char model[600], ids[600], out[600];

/* ---- a model ------------------------------------------------------------------------------------------------------------- */

static const char sound[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8,\n"
    " \"intermediate_size\": 12, \"num_attention_heads\": 2,\n"
    " \"vocab_size\": 32, \"max_position_embeddings\": 64, \"hidden_act\": \"silu\"}\n";

static char names[TENSORS][64];
static qd_made_tensor tensors[TENSORS];

static inline void add(int *n, int block, const char *name, int64_t rows, int64_t columns) {
  if (block < 0) snprintf(names[*n], sizeof names[0], "%s.weight", name);
  else snprintf(names[*n], sizeof names[0], "model.layers.%d.%s.weight", block, name);
  tensors[*n] = (qd_made_tensor){.name = names[*n], .dtype = QD_F32, .rank = columns > 0 ? 2 : 1, .dim = {rows, columns},
                                 .shard = *n % 2};
  ++*n;
}

static inline void list_tensors(void) {
  int n = 0;
  add(&n, -1, "model.embed_tokens", VOCABULARY, HIDDEN);
  for (int b = 0; b < BLOCKS; b++) {
    add(&n, b, "input_layernorm", HIDDEN, 0);
    for (const char *const *name = (const char *const[]){"q_proj", "k_proj", "v_proj", "o_proj", NULL}; *name != NULL; name++) {
      char full[32];
      snprintf(full, sizeof full, "self_attn.%s", *name);
      add(&n, b, full, HIDDEN, HIDDEN);
    }
    add(&n, b, "post_attention_layernorm", HIDDEN, 0);
    add(&n, b, "mlp.gate_proj", FFN, HIDDEN);
    add(&n, b, "mlp.up_proj", FFN, HIDDEN);
    add(&n, b, "mlp.down_proj", HIDDEN, FFN);
  }
  add(&n, -1, "model.norm", HIDDEN, 0);
  add(&n, -1, "lm_head", VOCABULARY, HIDDEN);
  cr_assert_eq(n, TENSORS);
}

static inline qd_made_tensor *find_tensor(const char *name) {
  for (int t = 0; t < TENSORS; t++)
    if (strcmp(names[t], name) == 0) return &tensors[t];
  cr_assert_fail("there is no tensor %s", name);
  return NULL;
}

static inline void make_model(void) { qd_make_model(model, sound, tensors, TENSORS, 1); }

static inline void write_ids(const char *name, int32_t last) {
  int32_t id[ROWS * TOKENS];
  for (int i = 0; i < ROWS * TOKENS; i++) id[i] = (i * i + 3 * i) % VOCABULARY;
  id[ROWS * TOKENS - 1] = last;
  qd_temporary_write(&folder, name, id, sizeof id);
}

static inline void setup(void) {
  qd_temporary_folder_open(&folder);
  cr_assert_eq(chmod(folder.path, 0755), 0);
  snprintf(model, sizeof model, "%s/model", folder.path);
  snprintf(ids, sizeof ids, "%s/ids.i32", folder.path);
  snprintf(out, sizeof out, "%s/out", folder.path);
  qd_temporary_make_folder(&folder, "model");
  list_tensors();
  make_model();
  write_ids("ids.i32", 7);
}

static inline void teardown(void) { qd_temporary_folder_close(&folder); }

/* The sound configuration with `change` in place of `text`. */
static inline void change_config(const char *text, const char *change) {
  char config[1024];
  const char *at = strstr(sound, text);
  cr_assert_not_null(at);
  snprintf(config, sizeof config, "%.*s%s%s", (int)(at - sound), sound, change, at + strlen(text));
  qd_temporary_write_text(&folder, "model/config.json", config);
}

/* One byte of a file, in place. */
static inline void flip(const char *path, long offset) {
  FILE *file = fopen(path, "r+b");
  cr_assert_not_null(file, "%s", path);
  cr_assert_eq(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
  int byte = fgetc(file);
  cr_assert_eq(fseek(file, -1, SEEK_CUR), 0);
  fputc(byte ^ 1, file);
  cr_assert_eq(fclose(file), 0);
}

/* ---- a tokenizer --------------------------------------------------------------------------------------------------------- */

static const char tokenizer_format[] =
    "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"post_processor\": null, \"decoder\": null,\n"
    " \"pre_tokenizer\": %s,\n"
    " \"model\": {\"type\": \"%s\", \"vocab\": {%s}, \"merges\": [%s]}}\n";

static inline void write_tokenizer(const char *pre_tokenizer, const char *type, const char *vocabulary, const char *merges) {
  char text[2048];
  int n = snprintf(text, sizeof text, tokenizer_format, pre_tokenizer, type, vocabulary, merges);
  cr_assert_lt(n, (int)sizeof text);
  qd_temporary_write_text(&folder, "model/tokenizer.json", text);
}

/* ---- running ------------------------------------------------------------------------------------------------------------- */

/* Neither the threads, the instruction set nor the launcher of whoever runs the tests. */
static const char *const environment[] = {
    "OMP_NUM_THREADS=1", "QDIST_ISA", "QDIST_TRACE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
    "PMI_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "ASAN_OPTIONS=detect_leaks=0", NULL};

static inline bool announces(const char *line) {
  const char *threads = strstr(line, " x "), *end = strchr(line, '\n');
  return threads != NULL && (end == NULL || threads < end) && strstr(threads, " thread") != NULL;
}

/* How many lines tell an error: those that begin as one and do not announce the job. */
static inline int sentences(const char *text) {
  int n = 0;
  for (const char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n'), line += line != NULL)
    n += strncmp(line, "qdist", 5) == 0 && strstr(line, ": ") != NULL && !announces(line);
  return n;
}

static inline void expect_code(const qd_run *run, int code, const char *what) {
  const char *text = run->err.text;
  cr_expect_not(run->timed_out);
  cr_expect_eq(run->exit_code, code, "exit code %d, expected %d (%s): %s", run->exit_code, code, what, text);
  cr_expect_eq(sentences(text), code == 0 || code == 75 ? sentences(text) : 1, "not one sentence: %s", text);
  cr_expect_null(strstr(text, "Sanitizer"), "%s", text);
}

static inline void expect_end(qd_run *run, int code, const char *what, const char *which) {
  const char *text = run->err.text;
  expect_code(run, code, what);
  cr_expect_not_null(strstr(text, what), "\"%s\" is not in: %s", what, text);
  cr_expect_not_null(strstr(text, which), "\"%s\" is not in: %s", which, text);
  qd_run_close(run);
}

/* As the table says, whose test is this one. */
static inline void expect_row(qd_run *run, const char *kind) {
  const qd_table_row *row = qd_bad_input_row(kind);
  expect_code(run, row->exit_code, kind);
  cr_expect(qd_sentence_is_told(row->sentence, run->err.text), "%s: \"%s\" is not told: %s", kind, row->sentence,
            run->err.text);
  cr_expect_str_eq(row->suite, criterion_current_test->category, "%s", kind);
  cr_expect_str_eq(row->test, criterion_current_test->name, "%s", kind);
  qd_run_close(run);
}

static inline qd_run run_words(int ranks, const char *const *words) {
  const char *argv[MAX_WORDS] = {PROGRAM};
  int n = 1;
  for (; *words != NULL && n + 1 < MAX_WORDS; words++) argv[n++] = *words;
  return ranks > 0 ? qd_run_ranks(ranks, argv, environment, limit_seconds) : qd_run_command(argv, environment, limit_seconds);
}

static inline void expect(int ranks, int code, const char *what, const char *which, const char *const *words) {
  qd_run run = run_words(ranks, words);
  expect_end(&run, code, what, which);
}

static inline void expect_row_of(int ranks, const char *kind, const char *const *words) {
  qd_run run = run_words(ranks, words);
  expect_row(&run, kind);
}

#define EXPECT(code, what, which, ...) expect(0, code, what, which, (const char *const[]){__VA_ARGS__, NULL})
#define EXPECT_RANKS(ranks, code, what, which, ...) expect(ranks, code, what, which, (const char *const[]){__VA_ARGS__, NULL})
#define EXPECT_ROW(kind, ...) expect_row_of(0, kind, (const char *const[]){__VA_ARGS__, NULL})
#define EXPECT_ROW_RANKS(ranks, kind, ...) expect_row_of(ranks, kind, (const char *const[]){__VA_ARGS__, NULL})
#define QUANTIZE_TEXT(text) "quantize", "--model", model, "--dataset", text, "--seqlen", "16", "--output", out
#define QUANTIZE QUANTIZE_TEXT(ids)
#define EVALUATE "evaluate", "--model", out, "--dataset", ids, "--seqlen", "16"

static inline void make_store(void) { EXPECT(0, "wrote", out, QUANTIZE); }

#endif
