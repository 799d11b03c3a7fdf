/* What people get wrong, and what disks and files do to them: one clear sentence and an exit code; never a crash, never a wait, never a store that looks
 * finished. */
#define _XOPEN_SOURCE 700
#include <criterion/criterion.h>

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/folder.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

enum { FAILED = 1, USAGE = 2, DAMAGED = 3, VOCABULARY = 101, TOKENS = 33 };

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";
static const char prose[] = QDIST_SOURCE_DIR "/docs/formats.md";

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(bad_input, .init = open_folder, .fini = close_folder);

#define AT(name) qd_temporary_path(&folder, name)

static int count(const char *text, const char *word) {
  int n = 0;
  for (; (text = strstr(text, word)) != NULL; text++) n++;
  return n;
}

/* The exit code, and the last sentence on standard error: it holds all words (separated by '|') and is told once, whatever the number of ranks. */
static void expect_refusal(qd_run *run, int code, const char *words) {
  char list[512], *rest = list;
  const char *message = qd_program_message(run);
  cr_expect_not(run->timed_out);
  cr_expect_eq(run->exit_code, code, "exit code %d instead of %d: %s", run->exit_code, code, run->err.text);
  snprintf(list, sizeof list, "%s", words);
  for (char *word; (word = strtok_r(rest, "|", &rest)) != NULL;)
    cr_expect(strstr(message, word) != NULL, "\"%s\" is not told: \"%s\" of %s", word, message, run->err.text);
  cr_expect(*message == '\0' || count(run->err.text, message) == 1, "told more than once: %s", run->err.text);
  cr_expect_null(strstr(run->err.text, "QD_"), "a code instead of a sentence: %s", run->err.text);
  qd_run_close(run);
}

#define REFUSED(n_ranks, code, words, ...)             \
  do {                                                 \
    qd_run run_ = qd_program(n_ranks, __VA_ARGS__);    \
    expect_refusal(&run_, code, words);                \
  } while (0)

/* ---- the command line ------------------------------------------------------------------------------------------------- */

Test(bad_input, misspelt_commands_and_options) {
  REFUSED(0, USAGE, "quantise|quantize", "quantise");
  REFUSED(0, USAGE, "xyzzy|--help", "xyzzy");
  REFUSED(0, USAGE, "--modle|--model", "quantize --modle DIR");
  REFUSED(0, USAGE, "--group-sice|--group-size", "quantize --group_sice=3");
  REFUSED(0, USAGE, "--jsn|--json", "evaluate --jsn");
  REFUSED(0, USAGE, "--xyzzy|--help", "verify --xyzzy");
  REFUSED(2, USAGE, "--modle|--model", "quantize --modle DIR");
}

Test(bad_input, nothing_at_all_prints_the_help) {
  qd_run run = qd_program(0, "%s", "");
  cr_expect_eq(run.exit_code, USAGE);
  cr_expect_not_null(strstr(run.err.text, "quantize"));
  cr_expect_str_empty(run.out.text);
  qd_run_close(&run);
}

Test(bad_input, absurd_values) {
  static const char *const cases[][2] = {
      {"--bits 9", "--bits|2 to 8|\"9\""},          {"--bits 1", "--bits|2 to 8|\"1\""},
      {"--bits four", "--bits|\"four\""},           {"--bits 4x", "--bits|\"4x\""},
      {"--bits 99999999999999999999", "--bits"},    {"--group-size 0", "--group-size|-1"},
      {"--group-size -2", "--group-size|\"-2\""},   {"--damp nan", "--damp|\"nan\""},
      {"--damp -1", "--damp|\"-1\""},               {"--nsamples 0", "--nsamples|\"0\""},
      {"--seqlen 1", "--seqlen|\"1\""},             {"--seed -1", "--seed|\"-1\""},
      {"--shard-size 0", "--shard-size|\"0\""},     {"--shard-size many", "--shard-size|\"many\""},
      {"--stop-after soon", "--stop-after|\"soon\""}, {"--threads 0", "--threads|\"0\""},
      {"--isa sse", "--isa|avx2|\"sse\""},          {"--device gpu", "--device|cpu|\"gpu\""},
      {"--method gptp", "--method|gptq|\"gptp\""},  {"--act-order up", "--act-order|static|\"up\""},
      {"--compat none", "--compat|reference"},      {"--override x=3", "--override|\"x=3\""},
      {"--override x=9:64", "--override|\"9\""},    {"--override x=3:0", "--override|group"},
      {"--ignore (", "--ignore|\"(\""},             {"--block-size 0", "--block-size|\"0\""},
      {"--compute-dtype f64", "--compute-dtype|\"f64\""}, {"extra", "\"extra\""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    REFUSED(0, USAGE, cases[i][1], "quantize -m %s -d %s -o %s %s", demo, prose, AT("out"), cases[i][0]);
  cr_expect_str_empty(qd_folder_names(folder.path), "a refused job left something behind");
}

Test(bad_input, options_that_are_missing_or_contradict_each_other) {
  REFUSED(0, USAGE, "gptq|--dataset", "quantize -m %s -o %s", demo, AT("out"));
  REFUSED(0, USAGE, "--model", "quantize -o %s -d %s", AT("out"), prose);
  REFUSED(0, USAGE, "--output", "quantize -m %s -d %s", demo, prose);
  REFUSED(0, USAGE, "--arithmetic f32|--compute-dtype bf16", "quantize -m %s -d %s -o %s --arithmetic f32 --compute-dtype bf16", demo, prose, AT("out"));
  REFUSED(0, USAGE, "--arithmetic bf16-pairs|--compute-dtype fp32", "evaluate -m %s -d %s --compute-dtype fp32 --arithmetic bf16-pairs", demo, prose);
  REFUSED(0, USAGE, "--dataset", "evaluate -m %s", demo);
  REFUSED(0, USAGE, "--model", "evaluate -d %s", prose);
  REFUSED(0, USAGE, "folder", "verify");
  REFUSED(0, USAGE, "second", "inspect one two");
  REFUSED(0, USAGE, "--bits", "quantize -m %s -o %s --method rtn --bits", demo, AT("out"));
}

/* ---- folders ------------------------------------------------------------------------------------------------------------ */

Test(bad_input, folders_that_are_not_there) {
  for (int n_ranks = 0; n_ranks <= 2; n_ranks += 2) {
    REFUSED(n_ranks, FAILED, "/nowhere", "quantize -m %s -d %s -o %s", AT("nowhere"), prose, AT("out"));
    REFUSED(n_ranks, FAILED, "/nowhere.txt", "quantize -m %s -d %s -o %s", demo, AT("nowhere.txt"), AT("out"));
  }
  REFUSED(0, FAILED, "/nowhere", "evaluate -m %s -d %s", AT("nowhere"), prose);
  REFUSED(0, FAILED, "/nowhere", "verify %s", AT("nowhere"));
  REFUSED(0, FAILED, "/nowhere", "inspect %s", AT("nowhere"));
  cr_expect_str_empty(qd_folder_names(folder.path));
}

Test(bad_input, the_output_is_a_file) {
  const char *out = qd_temporary_write_text(&folder, "out", "mine");
  REFUSED(0, FAILED, "/out|file|folder", "quantize -m %s -o %s --method rtn", demo, out);
  REFUSED(2, FAILED, "/out|file|folder", "quantize -m %s -o %s --method rtn", demo, out);
}

/* Root may do everything: the program then runs as nobody. */
static qd_run as_nobody(const char *model, const char *out) {
  static const char as[] = "setpriv --reuid=65534 --regid=65534 --clear-groups";
  chmod(folder.path, 0755);
  if (geteuid() != 0) return qd_program(0, "quantize -m %s -o %s --method rtn", model, out);
  qd_run run = qd_program_through(as, "--version");
  bool can = run.exit_code == 0;
  qd_run_close(&run);
  if (!can) cr_skip_test("root cannot run the program as another user here (setpriv)");
  return qd_program_through(as, "quantize -m %s -o %s --method rtn", model, out);
}

static const qd_made_llama small = {.dtype = QD_F32, .blocks = 2, .hidden = 32, .ffn = 48, .heads = 2, .kv_heads = 1, .vocabulary = VOCABULARY, .positions = 64};

static const char *make_small(const char *name, int shards) {
  qd_made_llama widths = small;
  widths.shards = shards;
  const char *model = qd_temporary_make_folder(&folder, name);
  qd_make_llama(model, &widths);
  return model;
}

Test(bad_input, no_right_to_write) {
  const char *closed = qd_temporary_make_folder(&folder, "closed"), *model = make_small("model", 1);
  chmod(closed, 0555);
  qd_run run = as_nobody(model, AT("closed/out"));
  expect_refusal(&run, FAILED, "/closed/out|Permission denied");
}

Test(bad_input, no_right_to_write_into_an_old_output) {
  const char *out = qd_temporary_make_folder(&folder, "out"), *model = make_small("model", 1);
  chmod(out, 0555);
  qd_run run = as_nobody(model, out);
  expect_refusal(&run, FAILED, "/out|Permission denied");
}

Test(bad_input, no_right_to_read) {
  const char *model = make_small("model", 1), *out = qd_temporary_make_folder(&folder, "out");
  chmod(out, 0777);
  chmod(AT("model/model.safetensors"), 0000);
  qd_run run = as_nobody(model, out);
  expect_refusal(&run, FAILED, "model.safetensors|Permission denied");
}

/* ---- weights ------------------------------------------------------------------------------------------------------------- */

/* Every command line that reads a model refuses it. */
static void model_refused(const char *model, const char *words) {
  qd_make_ids(AT("text.i32"), 4 * TOKENS, VOCABULARY, 1);
  REFUSED(0, FAILED, words, "quantize -m %s -o %s --method rtn", model, AT("out.rtn"));
  REFUSED(2, FAILED, words, "quantize -m %s -d %s --seqlen %d -o %s", model, AT("text.i32"), TOKENS, AT("out.gptq"));
  REFUSED(0, FAILED, words, "evaluate -m %s -d %s --seqlen %d", model, AT("text.i32"), TOKENS);
}

Test(bad_input, a_missing_shard) {
  const char *model = make_small("model", 3);
  cr_assert_eq(unlink(AT("model/model-00002-of-00003.safetensors")), 0);
  model_refused(model, "model-00002-of-00003.safetensors");
}

Test(bad_input, truncated_weights) {
  const char *model = make_small("model", 1);
  struct stat facts;
  cr_assert_eq(stat(AT("model/model.safetensors"), &facts), 0);
  cr_assert_eq(truncate(AT("model/model.safetensors"), facts.st_size - 1), 0);
  model_refused(model, "model.safetensors");
  cr_assert_eq(truncate(AT("model/model.safetensors"), 1000), 0);
  model_refused(model, "model.safetensors");
  cr_assert_eq(truncate(AT("model/model.safetensors"), 0), 0);
  model_refused(model, "model.safetensors");
}

Test(bad_input, hostile_headers) {
  static const char *const headers[] = {
      "{", "[]", "nonsense", "{\"t\": 3}", "{\"t\": {\"dtype\": \"F32\"}}",
      "{\"t\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 4], \"data_offsets\": [0, 16]}}",
      "{\"t\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [16, 0]}}",
      "{\"t\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 17]}}",
      "{\"t\": {\"dtype\": \"F32\", \"shape\": [-4], \"data_offsets\": [0, 16]}}",
      "{\"t\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 16]}, \"u\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [8, 24]}}"};
  const char *model = make_small("model", 1);
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    static const char data[24];
    qd_make_raw_safetensors(AT("model/model.safetensors"), headers[i], strlen(headers[i]), data, sizeof data);
    REFUSED(0, FAILED, "model.safetensors", "quantize -m %s -o %s --method rtn", model, AT("out"));
  }
  qd_temporary_write(&folder, "model/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
  model_refused(model, "model.safetensors");
}

Test(bad_input, only_pytorch_weights) {
  const char *model = make_small("model", 1);
  cr_assert_eq(rename(AT("model/model.safetensors"), AT("model/pytorch_model.bin")), 0);
  model_refused(model, "pytorch_model.bin|convert");
}

/* The file has a header of known length and its tensors in the order of the forward: embedding, norm, q_proj ... */
static void poke(const char *path, int64_t element, float value) {
  uint64_t header;
  int fd = open(path, O_RDWR);
  cr_assert_eq(pread(fd, &header, sizeof header, 0), (ssize_t)sizeof header);
  cr_assert_eq(pwrite(fd, &value, sizeof value, (off_t)(8 + header + 4 * (uint64_t)element)), (ssize_t)sizeof value);
  close(fd);
}

Test(bad_input, numbers_that_are_none) {
  static const int64_t first_of_q = VOCABULARY * 32 + 32;
  const char *model = make_small("model", 1), *weights = AT("model/model.safetensors");
  poke(weights, first_of_q + 5, __builtin_nanf(""));
  model_refused(model, "element 5 |model.layers.0.self_attn.q_proj.weight|NaN");
  poke(weights, first_of_q + 5, 0.0f);
  poke(weights, 7, -__builtin_inff());
  model_refused(model, "element 7 |model.embed_tokens.weight|infinite");
  cr_expect_null(strstr(qd_folder_names(AT("out.rtn")), "manifest.json"));
  cr_expect_null(strstr(qd_folder_names(AT("out.gptq")), "manifest.json"));
}

/* Finite weights whose products pass what fp32 holds. */
Test(bad_input, activations_that_overflow) {
  const char *model = make_small("model", 1);
  qd_make_ids(AT("text.i32"), 4 * TOKENS, VOCABULARY, 1);
  for (int64_t i = 0; i < 32; i++) poke(AT("model/model.safetensors"), VOCABULARY * 32 + i, 3e38f);
  REFUSED(0, FAILED, "block 0|qkv_input|not finite", "quantize -m %s -d %s --seqlen %d -o %s", model, AT("text.i32"), TOKENS, AT("out"));
  REFUSED(2, FAILED, "/model|not a number", "evaluate -m %s -d %s --seqlen %d", model, AT("text.i32"), TOKENS);
}

/* ---- configuration and tokenizer ------------------------------------------------------------------------------------------- */

/* The bundled model with one file replaced: links to the others. */
static const char *demo_with(const char *file, const char *text) {
  static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"};
  char target[1024], name[64];
  const char *model = qd_temporary_make_folder(&folder, "model");
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(name, sizeof name, "model/%s", files[i]);
    snprintf(target, sizeof target, "%s/%s", demo, files[i]);
    if (strcmp(files[i], file) != 0) cr_assert_eq(symlink(target, AT(name)), 0);
  }
  snprintf(name, sizeof name, "model/%s", file);
  if (text != NULL) qd_temporary_write_text(&folder, name, text);
  return model;
}

static void demo_refused(const char *file, const char *text, const char *words) {
  const char *model = demo_with(file, text);
  REFUSED(0, FAILED, words, "quantize -m %s -d %s --seqlen 64 -o %s", model, prose, AT("out"));
  REFUSED(2, FAILED, words, "evaluate -m %s -d %s --seqlen 64", model, prose);
  cr_expect_str_eq(qd_folder_names(folder.path), "model ");
}

#define CONFIG(type, vocabulary, more)                                                                                                       \
  "{\"model_type\": \"" type "\", \"hidden_size\": 256, \"intermediate_size\": 768, \"num_attention_heads\": 8, \"num_hidden_layers\": 6,"      \
  " \"num_key_value_heads\": 4, \"head_dim\": 32, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\","          \
  " \"tie_word_embeddings\": true, \"vocab_size\": " vocabulary more "}"

Test(bad_input, an_unknown_architecture) { demo_refused("config.json", CONFIG("gpt2", "2048", ""), "gpt2|llama"); }
Test(bad_input, no_configuration) { demo_refused("config.json", NULL, "config.json"); }
Test(bad_input, a_configuration_that_is_no_json) { demo_refused("config.json", "model_type: llama", "config.json"); }
Test(bad_input, widths_that_are_not_those_of_the_weights) {
  demo_refused("config.json", CONFIG("llama", "2049", ""), "model.embed_tokens.weight|2049|2048");
}
Test(bad_input, an_unknown_rope_type) {
  demo_refused("config.json", CONFIG("llama", "2048", ", \"rope_scaling\": {\"rope_type\": \"spiral\", \"factor\": 2.0}"), "spiral");
}
Test(bad_input, a_quantized_original) {
  demo_refused("config.json", CONFIG("llama", "2048", ", \"quantization_config\": {\"quant_method\": \"gptq\"}"), "quantization_config");
}
Test(bad_input, no_tokenizer) { demo_refused("tokenizer.json", NULL, "tokenizer.json"); }
Test(bad_input, a_tokenizer_that_is_no_json) { demo_refused("tokenizer.json", "{\"model\":", "tokenizer.json"); }
Test(bad_input, an_unsupported_kind_of_tokenizer) {
  demo_refused("tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0.0]]}}", "tokenizer.json|Unigram");
}
Test(bad_input, an_unsupported_part_of_a_tokenizer) {
  demo_refused("tokenizer.json",
               "{\"normalizer\": {\"type\": \"Precompiled\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
               "tokenizer.json|Precompiled");
}

Test(bad_input, a_tokenizer_with_more_entries_than_the_model) {
  char target[1024];
  const char *model = make_small("model", 1);
  snprintf(target, sizeof target, "%s/tokenizer.json", demo);
  cr_assert_eq(symlink(target, AT("model/tokenizer.json")), 0);
  REFUSED(0, FAILED, "2048|101", "quantize -m %s -d %s --seqlen %d -o %s", model, prose, TOKENS, AT("out"));
  REFUSED(2, FAILED, "2048|101", "evaluate -m %s -d %s --seqlen %d", model, prose, TOKENS);
}

/* ---- text -------------------------------------------------------------------------------------------------------------------- */

static void text_refused(const char *name, const void *text, size_t n, const char *words) {
  const char *path = qd_temporary_write(&folder, name, text, n);
  REFUSED(0, FAILED, words, "quantize -m %s -d %s --seqlen 64 -o %s", demo, path, AT("out"));
  REFUSED(2, FAILED, words, "evaluate -m %s -d %s --seqlen 64", demo, path);
}

Test(bad_input, texts) {
  static const int32_t ids[64] = {1, 2, 2048, 3};
  text_refused("empty.txt", "", 0, "empty.txt|empty");
  text_refused("short.txt", "too short", 9, "short.txt|tokens|64");
  text_refused("latin1.txt", "caf\xe9", 4, "latin1.txt|UTF-8|0xE9|3");
  text_refused("fields.jsonl", "{\"txt\": \"x\"}\n", 13, "fields.jsonl|text");
  text_refused("large.i32", ids, sizeof ids, "large.i32|2048");
  text_refused("odd.i32", ids, 63, "odd.i32");
  REFUSED(0, FAILED, "513|512", "quantize -m %s -d %s --seqlen 513 -o %s", demo, prose, AT("out"));
  REFUSED(2, FAILED, "513|512", "evaluate -m %s -d %s --seqlen 513", demo, prose);
}

/* ---- stores -------------------------------------------------------------------------------------------------------------------- */

static const char *make_store(const char *more, int code) {
  const char *model = make_small("model", 1);
  qd_make_ids(AT("text.i32"), 4 * TOKENS, VOCABULARY, 1);
  qd_run run = qd_program(0, "quantize -m %s -d %s --seqlen %d -o %s --bits 3 %s", model, AT("text.i32"), TOKENS, AT("store"), more);
  cr_assert_eq(run.exit_code, code, "%s", run.err.text);
  qd_run_close(&run);
  return AT("store");
}

static void flip_byte_in_the_middle(const char *path) {
  struct stat facts;
  unsigned char byte;
  cr_assert_eq(stat(path, &facts), 0);
  int fd = open(path, O_RDWR);
  cr_assert_eq(pread(fd, &byte, 1, facts.st_size / 2), 1);
  byte ^= 16;
  cr_assert_eq(pwrite(fd, &byte, 1, facts.st_size / 2), 1);
  close(fd);
}

/* verify names the file on standard output; evaluation must not compute with it. */
static void expect_damage(const char *store, const char *file) {
  qd_run run = qd_program(0, "verify %s", store);
  cr_expect_eq(run.exit_code, DAMAGED, "%s %s", run.out.text, run.err.text);
  cr_expect(strstr(run.out.text, file) != NULL || strstr(run.err.text, file) != NULL, "%s is not named: %s %s", file, run.out.text, run.err.text);
  qd_run_close(&run);
  for (int n_ranks = 0; n_ranks <= 2; n_ranks += 2)
    REFUSED(n_ranks, DAMAGED, file, "evaluate -m %s -d %s --seqlen %d", store, AT("text.i32"), TOKENS);
}

Test(bad_input, a_sound_store_verifies) {
  const char *store = make_store("", 0);
  qd_run run = qd_program(0, "verify %s", store);
  cr_expect_eq(run.exit_code, 0, "%s", run.out.text);
  qd_run_close(&run);
}

Test(bad_input, a_changed_byte_in_each_file_of_a_store) {
  static const char *const files[] = {"block-00000.h5", "block-00001.h5", "model.h5", "manifest.json"};
  const char *store = make_store("", 0);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[64];
    snprintf(path, sizeof path, "store/%s", files[i]);
    flip_byte_in_the_middle(AT(path));
    expect_damage(store, files[i]);
    flip_byte_in_the_middle(AT(path));
  }
}

Test(bad_input, a_shortened_and_a_missing_file_of_a_store) {
  const char *store = make_store("", 0);
  cr_assert_eq(truncate(AT("store/block-00001.h5"), 512), 0);
  expect_damage(store, "block-00001.h5");
  cr_assert_eq(unlink(AT("store/block-00001.h5")), 0);
  expect_damage(store, "block-00001.h5");
}

Test(bad_input, a_file_too_many_in_a_store) {
  const char *store = make_store("", 0);
  qd_temporary_write_text(&folder, "store/block-00002.h5", "stranger");
  qd_run run = qd_program(0, "verify %s", store);
  cr_expect_eq(run.exit_code, DAMAGED);
  cr_expect_not_null(strstr(run.out.text, "block-00002.h5"));
  qd_run_close(&run);
}

Test(bad_input, an_unfinished_store) {
  const char *store = make_store("--stop-after 0.000001s", 75);
  REFUSED(0, FAILED, "/store|not finished|run its job again", "evaluate -m %s -d %s --seqlen %d", store, AT("text.i32"), TOKENS);
  REFUSED(2, FAILED, "/store|not finished|run its job again", "evaluate -m %s -d %s --seqlen %d", store, AT("text.i32"), TOKENS);
  REFUSED(0, FAILED, "/store|not finished|run its job again", "verify %s", store);
  REFUSED(0, FAILED, "/store|not finished|run its job again", "inspect %s", store);
}

Test(bad_input, another_job_in_the_output) {
  const char *store = make_store("", 0);
  REFUSED(0, FAILED, "/store|bits was 3|4", "quantize -m %s -d %s --seqlen %d -o %s --bits 4", AT("model"), AT("text.i32"), TOKENS, store);
  REFUSED(2, FAILED, "/store|bits was 3|4", "quantize -m %s -d %s --seqlen %d -o %s --bits 4", AT("model"), AT("text.i32"), TOKENS, store);
}

Test(bad_input, a_damaged_journal) {
  const char *store = make_store("--stop-after 0.000001s", 75);
  flip_byte_in_the_middle(AT("store/partial/job.json"));
  REFUSED(0, DAMAGED, "job.json", "quantize -m %s -d %s --seqlen %d -o %s --bits 3", AT("model"), AT("text.i32"), TOKENS, store);
}

/* ---- machines -------------------------------------------------------------------------------------------------------------------- */

/* In a mount namespace of its own, so that nothing of it outlives the script.  The disk grows, and the same command goes on. */
static const char full_disk[] =
    "disk=$1; shift\n"
    "mount -t tmpfs -o size=24k tmpfs $disk || exit 99\n"
    "\"$@\"; echo first $?; ls $disk/out\n"
    "mount -o remount,size=16m $disk || exit 99\n"
    "\"$@\" || exit $?; cp -aT $disk/out $disk.saved\n";

Test(bad_input, a_full_disk) {
  char command[2048];
  const char *whole = make_store("", 0);
  qd_temporary_make_folder(&folder, "disk");
  qd_temporary_write_text(&folder, "full_disk.sh", full_disk);
  snprintf(command, sizeof command, "unshare --mount sh %s %s", AT("full_disk.sh"), AT("disk"));
  qd_run run = qd_program_through(command, "quantize -m %s -d %s --seqlen %d -o %s --bits 3", AT("model"), AT("text.i32"), TOKENS, AT("disk/out"));
  bool possible = run.exit_code != 99 && strstr(run.out.text, "first") != NULL;
  if (!possible) qd_run_close(&run);
  if (!possible) cr_skip_test("a small disk can be mounted only by root, with mount namespaces");
  cr_expect_not_null(strstr(run.out.text, "first 1"), "%s %s", run.out.text, run.err.text);
  cr_expect_null(strstr(run.out.text, "manifest.json"), "%s", run.out.text);
  cr_expect_not_null(strstr(run.err.text, "No space left on device"), "%s", run.err.text);
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  const char *what = qd_folder_difference(whole, AT("disk.saved"), false);
  cr_expect_null(what, "%s", what);
}

Test(bad_input, a_dead_rank_ends_an_evaluation) {
  for (int rank = 0; rank < 3; rank++) {
    pid_t pids[8];
    qd_run run = qd_program_start(3, "evaluate -m %s -d %s --seqlen 64", demo, prose);
    cr_assert(qd_run_until(&run, "windows"), "%s", run.err.text);
    cr_assert_eq(qd_run_rank_pids(&run, pids, 8), 3);
    kill(pids[rank], SIGKILL);
    qd_run_finish(&run);
    cr_expect_not(run.timed_out);
    cr_expect_neq(run.exit_code, 0, "%s", run.err.text);
    qd_run_close(&run);
  }
}
