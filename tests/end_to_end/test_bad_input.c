/* What a person gets wrong, and what goes wrong around a job: the exit code, and one sentence that says what and which. */
#define _XOPEN_SOURCE 700
#include "storage/bytes.h"
#include "tests/support/run.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
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

static void add(int *n, int block, const char *name, int64_t rows, int64_t columns) {
  if (block < 0) snprintf(names[*n], sizeof names[0], "%s.weight", name);
  else snprintf(names[*n], sizeof names[0], "model.layers.%d.%s.weight", block, name);
  tensors[*n] = (qd_made_tensor){.name = names[*n], .dtype = QD_F32, .rank = columns > 0 ? 2 : 1, .dim = {rows, columns},
                                 .shard = *n % 2};
  ++*n;
}

static void list_tensors(void) {
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

static void write_ids(const char *name, int32_t last) {
  int32_t id[ROWS * TOKENS];
  for (int i = 0; i < ROWS * TOKENS; i++) id[i] = (i * i + 3 * i) % VOCABULARY;
  id[ROWS * TOKENS - 1] = last;
  qd_temporary_write(&folder, name, id, sizeof id);
}

static void setup(void) {
  qd_temporary_folder_open(&folder);
  cr_assert_eq(chmod(folder.path, 0755), 0);
  snprintf(model, sizeof model, "%s/model", folder.path);
  snprintf(ids, sizeof ids, "%s/ids.i32", folder.path);
  snprintf(out, sizeof out, "%s/out", folder.path);
  qd_temporary_make_folder(&folder, "model");
  list_tensors();
  qd_make_model(model, sound, tensors, TENSORS, 1);
  write_ids("ids.i32", 7);
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(bad_input, .init = setup, .fini = teardown, .timeout = 900);

/* The sound configuration with `change` in place of `text`. */
static void change_config(const char *text, const char *change) {
  char config[1024];
  const char *at = strstr(sound, text);
  cr_assert_not_null(at);
  snprintf(config, sizeof config, "%.*s%s%s", (int)(at - sound), sound, change, at + strlen(text));
  qd_temporary_write_text(&folder, "model/config.json", config);
}

/* One byte of a file, in place. */
static void flip(const char *path, long offset) {
  FILE *file = fopen(path, "r+b");
  cr_assert_not_null(file, "%s", path);
  cr_assert_eq(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
  int byte = fgetc(file);
  cr_assert_eq(fseek(file, -1, SEEK_CUR), 0);
  fputc(byte ^ 1, file);
  cr_assert_eq(fclose(file), 0);
}

/* ---- running ------------------------------------------------------------------------------------------------------------- */

/* Neither the threads, the instruction set nor the launcher of whoever runs the tests. */
static const char *const environment[] = {
    "OMP_NUM_THREADS=1", "QDIST_ISA", "QDIST_TRACE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
    "PMI_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "ASAN_OPTIONS=detect_leaks=0", NULL};

static bool announces(const char *line) {
  const char *threads = strstr(line, " threads, "), *end = strchr(line, '\n');
  return threads != NULL && (end == NULL || threads < end);
}

/* How many lines tell an error: those that begin as one and do not announce the job. */
static int sentences(const char *text) {
  int n = 0;
  for (const char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n'), line += line != NULL)
    n += strncmp(line, "qdist", 5) == 0 && strstr(line, ": ") != NULL && !announces(line);
  return n;
}

static void expect_end(qd_run *run, int code, const char *what, const char *which) {
  const char *text = run->err.text;
  cr_expect_not(run->timed_out);
  cr_expect_eq(run->exit_code, code, "exit code %d, expected %d (%s): %s", run->exit_code, code, what, text);
  cr_expect_not_null(strstr(text, what), "\"%s\" is not in: %s", what, text);
  cr_expect_not_null(strstr(text, which), "\"%s\" is not in: %s", which, text);
  cr_expect_eq(sentences(text), code == 0 || code == 75 ? sentences(text) : 1, "not one sentence: %s", text);
  cr_expect_null(strstr(text, "Sanitizer"), "%s", text);
  qd_run_close(run);
}

static void expect(int ranks, int code, const char *what, const char *which, const char *const *words) {
  const char *argv[MAX_WORDS] = {PROGRAM};
  int n = 1;
  for (; *words != NULL && n + 1 < MAX_WORDS; words++) argv[n++] = *words;
  qd_run run = ranks > 0 ? qd_run_ranks(ranks, argv, environment, limit_seconds)
                         : qd_run_command(argv, environment, limit_seconds);
  expect_end(&run, code, what, which);
}

#define EXPECT(code, what, which, ...) expect(0, code, what, which, (const char *const[]){__VA_ARGS__, NULL})
#define EXPECT_RANKS(ranks, code, what, which, ...) expect(ranks, code, what, which, (const char *const[]){__VA_ARGS__, NULL})
#define QUANTIZE "quantize", "--model", model, "--dataset", ids, "--seqlen", "16", "--output", out
#define EVALUATE "evaluate", "--model", out, "--dataset", ids, "--seqlen", "16"

static void make_store(void) { EXPECT(0, "wrote", out, QUANTIZE); }

/* ---- command lines ------------------------------------------------------------------------------------------------------- */

Test(bad_input, misspelt_names_are_told_with_the_nearest) {
  EXPECT(2, "no command \"quantise\"", "did you mean quantize?", "quantise");
  EXPECT(2, "no option --bitz", "did you mean --bits?", QUANTIZE, "--bitz", "4");
  EXPECT(2, "no option --group-sise", "did you mean --group-size?", QUANTIZE, "--group_sise=4");
  EXPECT_RANKS(2, 2, "no option --maks-windows", "did you mean --max-windows?", EVALUATE, "--maks-windows", "4");
}

Test(bad_input, options_that_are_missing_or_contradict) {
  EXPECT(2, "--method gptq needs calibration text", "--dataset", "quantize", "--model", model, "--output", out);
  EXPECT(2, "--model DIR is needed", "", "quantize", "--dataset", ids, "--output", out);
  EXPECT(2, "--output OUT is needed", "", "quantize", "--dataset", ids, "--model", model);
  EXPECT(2, "--arithmetic f32 contradicts", "--compute-dtype bf16", QUANTIZE, "--arithmetic", "f32", "--compute-dtype", "bf16");
  EXPECT(2, "--gptaq belongs to --method gptq", "rtn", QUANTIZE, "--method", "rtn", "--gptaq");
  EXPECT(2, "--gptaq-alpha means nothing without", "--gptaq", QUANTIZE, "--gptaq-alpha", "0.5");
  EXPECT(2, "--kl-positions means nothing without", "--report-kl", QUANTIZE, "--kl-positions", "5");
  EXPECT(2, "--report-kl compares on the calibration text", "--dataset", "quantize", "--model", model, "--method", "rtn", "--report-kl",
         "--output", out);
  EXPECT(2, "--arithmetic bf16-amx contradicts", "--compute-dtype fp32", QUANTIZE, "--compute-dtype", "fp32", "--arithmetic", "bf16-amx");
  EXPECT(2, "--arithmetic bf16-amx contradicts", "--compute-dtype fp32", EVALUATE, "--compute-dtype", "fp32", "--arithmetic", "bf16-amx");
  EXPECT(2, "--arithmetic takes one of f32, bf16-pairs, bf16-amx", "got \"amx\"", "plan", "--model", model, "--arithmetic", "amx");
  EXPECT(2, "the folder of a store is needed", "", "verify");
  EXPECT(2, "one store only", "second", "verify", "first", "second");
  EXPECT(2, "\"stray\" is no option", "", QUANTIZE, "stray");
}

Test(bad_input, absurd_values) {
  static const char *const cases[][3] = {
      {"--bits", "9", "--bits takes a whole number from 2 to 8, got \"9\""},
      {"--bits", "", "got \"\""},
      {"--group-size", "0", "--group-size"},
      {"--group-size", "12x", "got \"12x\""},
      {"--nsamples", "-1", "--nsamples takes"},
      {"--seqlen", "1", "--seqlen takes"},
      {"--seed", "99999999999999999999", "--seed takes"},
      {"--damp", "nan", "--damp takes a number"},
      {"--gptaq-alpha", "1.5", "--gptaq-alpha takes a number"},
      {"--kl-positions", "0", "--kl-positions takes"},
      {"--shard-size", "4Q", "--shard-size takes a size"},
      {"--stop-after", "soon", "--stop-after takes a time"},
      {"--threads", "0", "--threads takes"},
      {"--isa", "sse9", "--isa takes avx2"},
      {"--device", "gpu", "--device takes one of cpu, ref"},
      {"--act-order", "up", "--act-order takes one of"},
      {"--method", "awq", "--method takes one of"},
      {"--override", "q_proj=4", "--override takes REGEX=BITS:GROUP"},
      {"--ignore", "[", "no regular expression"},
      {"--model", "", "--model is empty"},
      {"--output", "", "--output is empty"},
      {"--dataset", "", "--dataset is empty"},
      {"--status-file", "", "--status-file is empty"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    EXPECT(2, cases[i][2], cases[i][0], QUANTIZE, cases[i][0], cases[i][1]);
  cr_expect_neq(access(out, F_OK), 0, "a wrong use leaves nothing behind");
}

/* ---- models -------------------------------------------------------------------------------------------------------------- */

Test(bad_input, folders_that_are_no_model) {
  EXPECT(1, "there is no folder", "absent", "quantize", "--model", qd_temporary_path(&folder, "absent"), "--dataset", ids,
         "--output", out);
  EXPECT(1, "is a file", "ids.i32", "quantize", "--model", ids, "--dataset", ids, "--output", out);
  const char *empty = qd_temporary_make_folder(&folder, "empty");
  EXPECT(1, "has no config.json", empty, "quantize", "--model", empty, "--dataset", ids, "--output", out);
  qd_temporary_write_text(&folder, "empty/config.json", sound);
  EXPECT(1, "holds no weights", empty, "quantize", "--model", empty, "--dataset", ids, "--output", out);
  qd_temporary_write_text(&folder, "empty/pytorch_model.bin", "x");
  EXPECT(1, "PyTorch weights (pytorch_model.bin)", "save_pretrained", "quantize", "--model", empty, "--dataset", ids,
         "--output", out);
}

Test(bad_input, configurations) {
  static const char *const cases[][4] = {
      {"\"llama\"", "\"gpt2\"", "model_type \"gpt2\" is not supported", "llama"},
      {"\"llama\"", "\"a\\nb\\u001b[2J\"", "model_type \"a?b?[2J\" is not supported", "config.json"},
      {"\"silu\"", "\"silu\", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2}",
      "rope_type \"yarn\" is not supported", "linear"},
      {"\"silu\"", "\"gelu\"", "hidden_act \"gelu\" is not supported", "silu"},
      {"\"silu\"", "[]", "hidden_act is no text", "config.json"},
      {"\"silu\"", "\"silu\", \"quantization_config\": {}", "quantized already", "config.json"},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2.self_attn.q_proj.weight is missing", "3 blocks"},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "model.layers.1.", "1 blocks"},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": -1", "\"num_hidden_layers\" must be a whole number", "it is -1"},
      {"\"hidden_size\": 8", "\"hidden_size\": 4", "[32, 8]", "config.json says [32, 4]"},
      {"{", "{{", "config.json, line 1", "column"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    change_config(cases[i][0], cases[i][1]);
    EXPECT(1, cases[i][2], cases[i][3], QUANTIZE);
  }
  qd_temporary_write_text(&folder, "model/config.json", "");
  EXPECT(1, "config.json", "empty", QUANTIZE);
}

Test(bad_input, shards) {
  qd_make_model(model, sound, tensors, TENSORS, 2);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/model.safetensors")), 0);
  EXPECT(0, "wrote", out, QUANTIZE);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/model-00002-of-00002.safetensors")), 0);
  EXPECT(1, "model-00002-of-00002.safetensors", "1 of 2 shards are missing", QUANTIZE);
  EXPECT_RANKS(2, 1, "model-00002-of-00002.safetensors", "1 of 2 shards are missing", QUANTIZE);
  qd_temporary_write_text(&folder, "model/model.safetensors.index.json", "{\"weight_map\": {\"a\": \"../../etc/passwd\"}}");
  EXPECT(1, "../../etc/passwd", "not a plain file name", QUANTIZE);
}

static void expect_header(const char *what, const char *header) {
  qd_make_raw_safetensors(qd_temporary_path(&folder, "model/model.safetensors"), header, strlen(header), "12345678", 8);
  EXPECT(1, what, "model.safetensors", QUANTIZE);
}

Test(bad_input, headers) {
  const char *path = qd_temporary_path(&folder, "model/model.safetensors");
  cr_assert_eq(truncate(path, 3000), 0);
  EXPECT(1, "cut off", path, QUANTIZE);
  cr_assert_eq(truncate(path, 100), 0);
  EXPECT(1, "does not fit into the file of 100", path, QUANTIZE);
  cr_assert_eq(truncate(path, 0), 0);
  EXPECT(1, "has 0 bytes", path, QUANTIZE);
  qd_temporary_write_text(&folder, "model/model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT(1, "git lfs pull", path, QUANTIZE);
  qd_temporary_write(&folder, "model/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  EXPECT(1, "a header of 18446744073709551615 bytes", path, QUANTIZE);
  expect_header("is not a JSON object", "[]");
  expect_header("nested deeper", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
  expect_header("not whole numbers", "{\"t\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [-8, 0]}}");
  expect_header("there are 8", "{\"t\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 12]}}");
  expect_header("larger than any machine's memory",
                "{\"t\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 8], \"data_offsets\": [0, 8]}}");
  expect_header("of type F8_E4M3", "{\"t\": {\"dtype\": \"F8_E4M3\", \"shape\": [8], \"data_offsets\": [0, 8]}}");
}

Test(bad_input, weights_that_are_no_numbers) {
  static const char *const which[] = {"model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"};
  for (int i = 0; i < 3; i++) {
    static float values[VOCABULARY * HIDDEN];
    values[37] = i == 1 ? NAN : -INFINITY;
    list_tensors();
    for (int t = 0; t < TENSORS; t++)
      if (strcmp(names[t], which[i]) == 0) tensors[t].data = values;
    qd_make_model(model, sound, tensors, TENSORS, 1);
    EXPECT(1, "element 37 of ", which[i], QUANTIZE);
    cr_assert_eq(unlink(qd_temporary_path(&folder, "out/partial/job.json")), 0);
    qd_run clean = qd_run_command((const char *const[]){"rm", "-r", out, NULL}, NULL, limit_seconds);
    cr_assert_eq(clean.exit_code, 0);
    qd_run_close(&clean);
  }
}

/* ---- texts --------------------------------------------------------------------------------------------------------------- */

static const char tokenizer[] =
    "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"post_processor\": null, \"decoder\": null,\n"
    " \"pre_tokenizer\": %s,\n"
    " \"model\": {\"type\": \"%s\", \"vocab\": {%s}, \"merges\": []}}\n";

static void write_tokenizer(const char *pre_tokenizer, const char *type, const char *vocabulary) {
  char text[2048];
  cr_assert_lt(snprintf(text, sizeof text, tokenizer, pre_tokenizer, type, vocabulary), (int)sizeof text);
  qd_temporary_write_text(&folder, "model/tokenizer.json", text);
}

/* The sound job with another text; its last characters are `end`. */
static void expect_text(const char *what, const char *which, const char *text, size_t n) {
  const char *path = qd_temporary_write(&folder, "text.txt", text, n);
  EXPECT(1, what, which, "quantize", "--model", model, "--dataset", path, "--seqlen", "16", "--output", out);
}

Test(bad_input, texts) {
  expect_text("has no tokenizer.json", "text.txt", "ab", 2);
  write_tokenizer("null", "BPE", "\"a\": 0, \"b\": 1");
  expect_text("text.txt is empty", "", "", 0);
  expect_text("too few for rows of 16", "text.txt", "ab", 2);
  expect_text("not UTF-8: byte 0xFF at offset 2", "text.txt", "ab\xff", 3);
  expect_text("no token for the character U+0063", "text.txt", "abc", 3);
  expect_text("NUL", "text.txt", "a\0b", 3);
  EXPECT(1, "No such file", "absent.txt", QUANTIZE, "--dataset", "absent.txt");
  EXPECT(1, "is a folder", model, QUANTIZE, "--dataset", model);
  qd_temporary_write_text(&folder, "lines.jsonl", "{\"text\": \"ab\"}\n{\"text\": 3}\n");
  EXPECT(1, "lines.jsonl, line 2", "\"text\"", QUANTIZE, "--dataset", qd_temporary_path(&folder, "lines.jsonl"));
}

Test(bad_input, tokenizers) {
  static const char text[] = "abababababababababababababababababab";
  write_tokenizer("{\"type\": \"Mystery\"}", "BPE", "\"a\": 0, \"b\": 1");
  expect_text("the pre-tokenizer Mystery is not supported", "tokenizer.json", text, sizeof text - 1);
  write_tokenizer("null", "Unigram", "\"a\": 0, \"b\": 1");
  expect_text("the model type Unigram is not supported", "tokenizer.json", text, sizeof text - 1);
  char vocabulary[1024] = "\"a\": 0, \"b\": 1";
  for (int i = 2; i <= VOCABULARY; i++) sprintf(vocabulary + strlen(vocabulary), ", \"t%d\": %d", i, i);
  write_tokenizer("null", "BPE", vocabulary);
  expect_text("the tokenizer has 33 entries", "only 32", text, sizeof text - 1);
}

Test(bad_input, token_ids) {
  write_ids("ids.i32", VOCABULARY);
  EXPECT(1, "row 3, position 15: the id 32 is outside the model's vocabulary of 32", ids, QUANTIZE);
  EXPECT_RANKS(2, 1, "row 3, position 15: the id 32 is outside the model's vocabulary of 32", ids, QUANTIZE);
  write_ids("ids.i32", -1);
  EXPECT(1, "the id -1 is negative", ids, QUANTIZE);
  write_ids("ids.i32", 7);
  EXPECT(1, "no whole number of rows of 15 tokens", ids, QUANTIZE, "--seqlen", "15");
  EXPECT(1, "--seqlen 65 is more than the model's 64 positions", "", QUANTIZE, "--seqlen", "65");
  EXPECT_RANKS(2, 1, "--seqlen 65 is more than the model's 64 positions", "", QUANTIZE, "--seqlen", "65");
  EXPECT(1, "--seqlen 2 leaves nothing to predict", "llama.cpp", "evaluate", "--model", model, "--dataset", ids, "--seqlen",
         "2", "--ppl-style", "llama.cpp");
}

/* ---- outputs ------------------------------------------------------------------------------------------------------------- */

Test(bad_input, outputs_that_are_taken) {
  make_store();
  EXPECT(1, "holds another job: bits was 4 there, now it is 3", out, QUANTIZE, "--bits", "3");
  EXPECT(1, "holds another job: arithmetic was \"f32\" there, now it is \"bf16-amx\"", out, QUANTIZE, "--arithmetic", "bf16-amx");
  EXPECT(1, "--no-resume", out, QUANTIZE, "--no-resume");
  EXPECT(1, "is a file", ids, QUANTIZE, "--output", ids);
  EXPECT(1, "lies in the model's folder", model, QUANTIZE, "--output", model);
  EXPECT(1, "lies in the model's folder", model, QUANTIZE, "--output", qd_temporary_path(&folder, "absent/../model/store"));
  EXPECT(1, "is no output of qdist", folder.path, QUANTIZE, "--output", folder.path);
  const char *link = qd_temporary_path(&folder, "link");
  cr_assert_eq(symlink("nowhere", link), 0);
  EXPECT(1, "is a link to nothing", link, QUANTIZE, "--output", link);
  EXPECT(1, "cannot make", "absent2/status.json", QUANTIZE, "--output", qd_temporary_path(&folder, "other"), "--status-file",
         qd_temporary_path(&folder, "absent2/status.json"));
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
    EXPECT(1, "Permission denied", within, QUANTIZE, "--output", within);
    return;
  }
  const char *argv[] = {AS_NOBODY, PROGRAM, QUANTIZE, "--output", within, NULL};
  qd_run probe = qd_run_command((const char *const[]){AS_NOBODY, PROGRAM, "--version", NULL}, environment, limit_seconds);
  int code = probe.exit_code;
  qd_run_close(&probe);
  if (code != 0) cr_skip("setpriv is not there, or nobody may not start %s", PROGRAM);
  qd_run run = qd_run_command(argv, environment, limit_seconds);
  expect_end(&run, 1, "Permission denied", within);
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
  expect_end(&run, 1, "the free space of its file system leaves 24.00 KiB", store);
}

/* ---- stores -------------------------------------------------------------------------------------------------------------- */

static void expect_damage(const char *name, long offset) {
  const char *path = qd_temporary_path(&folder, name);
  flip(path, offset);
  qd_run run = qd_run_command((const char *const[]){PROGRAM, "verify", out, NULL}, environment, limit_seconds);
  cr_expect_not_null(strstr(run.out.text, path), "%s is not in: %s", path, run.out.text);
  expect_end(&run, 3, "is damaged: ", out);
  flip(path, offset);
}

Test(bad_input, a_damaged_store) {
  make_store();
  expect_damage("out/manifest.json", 40);
  expect_damage("out/config.json", 20);
  expect_damage("out/block-00001.h5", 24); /* the file's bytes, none of a dataset */
  EXPECT(0, "", "", "verify", out);
  flip(qd_temporary_path(&folder, "out/config.json"), -3);
  EXPECT(3, "out/config.json is damaged", out, EVALUATE);
  flip(qd_temporary_path(&folder, "out/config.json"), -3);
  flip(qd_temporary_path(&folder, "out/manifest.json"), 40);
  EXPECT(3, "manifest.json is damaged", out, EVALUATE);
  EXPECT(3, "manifest.json is damaged", out, "inspect", out);
  flip(qd_temporary_path(&folder, "out/manifest.json"), 40);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "out/block-00001.h5"), 2000), 0);
  EXPECT(3, "block-00001.h5 has 2000 bytes, expected", "", EVALUATE);
  EXPECT_RANKS(2, 3, "block-00001.h5 has 2000 bytes, expected", "", EVALUATE);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "out/block-00001.h5")), 0);
  EXPECT(3, "block-00001.h5 is missing", "", EVALUATE);
  EXPECT(3, "is damaged", out, "verify", out);
}

Test(bad_input, what_is_no_finished_store) {
  EXPECT(75, "stopped after block 1 of 2", "the same command goes on", QUANTIZE, "--stop-after", "0.000001");
  EXPECT(1, "not finished", out, EVALUATE);
  EXPECT(1, "not finished", out, "verify", out);
  EXPECT(1, "not finished", out, "inspect", out);
  make_store();
  EXPECT(0, "", "", "verify", out);
  EXPECT(1, "there is no store in", model, "verify", model);
  EXPECT(1, "there is no folder", "absent", "verify", qd_temporary_path(&folder, "absent"));
}

/* What is copied beside the blocks must be what they were made with.  The job is stopped while the file changes. */
Test(bad_input, a_configuration_that_changes_under_a_running_job) {
  static int32_t many[16384 * TOKENS];
  const char *long_ids = qd_temporary_write(&folder, "many.i32", many, sizeof many);
  const char *argv[] = {PROGRAM, QUANTIZE, "--dataset", long_ids, "--nsamples", "16384", NULL};
  qd_run run = qd_run_start(argv, environment, limit_seconds);
  cr_assert(qd_run_until(&run, "block    0  q_proj"), "%s", run.err.text);
  cr_assert_eq(kill(run.pid, SIGSTOP), 0);
  change_config("\"silu\"", "\"silu\", \"rope_theta\": 20000");
  cr_assert_eq(kill(run.pid, SIGCONT), 0);
  qd_run_finish(&run);
  expect_end(&run, 1, "changed while the job ran", "config_digest");
  cr_expect_neq(access(qd_temporary_path(&folder, "out/manifest.json"), F_OK), 0);
  qd_temporary_write_text(&folder, "model/config.json", sound);
  EXPECT(0, "wrote", out, QUANTIZE, "--dataset", long_ids, "--nsamples", "16384");
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
  const char *argv[] = {PROGRAM, QUANTIZE, "--dataset", long_ids, "--nsamples", "2048", NULL};
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
  EXPECT(0, "wrote", out, QUANTIZE, "--dataset", long_ids, "--nsamples", "2048");
  EXPECT(0, "", "", "verify", out);
}
