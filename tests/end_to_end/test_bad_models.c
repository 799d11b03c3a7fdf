/* Models that are none, or not the one that their configuration promises. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"
#include "tests/support/gguf_maker.h"

TestSuite(bad_models, .init = setup, .fini = teardown, .timeout = 900);

/* ---- folders ------------------------------------------------------------------------------------------------------------- */

#define OF_FOLDER(path) "quantize", "--model", path, "--dataset", ids, "--output", out

Test(bad_models, folders_that_are_no_model) {
  EXPECT_ROW("no such folder", OF_FOLDER(qd_temporary_path(&folder, "absent")));
  EXPECT_ROW("a file in place of the model's folder", OF_FOLDER(ids));
  const char *empty = qd_temporary_make_folder(&folder, "empty");
  EXPECT_ROW("a folder without config.json", OF_FOLDER(empty));
  qd_temporary_write_text(&folder, "empty/config.json", sound);
  EXPECT_ROW("a folder without weights", OF_FOLDER(empty));
  qd_temporary_write_text(&folder, "empty/model.onnx", "x");
  EXPECT_ROW("weights in another format", OF_FOLDER(empty));
  qd_temporary_write_text(&folder, "empty/pytorch_model.bin", "x");
  EXPECT_ROW("pytorch_model.bin without safetensors", OF_FOLDER(empty));
}

/* The line that converts is one that a shell runs as it stands, whatever the folder's name. */
Test(bad_models, the_line_that_converts_can_be_copied) {
  const char *odd = qd_temporary_make_folder(&folder, "it's $HOME");
  qd_temporary_write_text(&folder, "it's $HOME/config.json", sound);
  qd_temporary_write_text(&folder, "it's $HOME/pytorch_model.bin", "x");
  qd_run run = run_words(0, (const char *const[]){OF_FOLDER(odd), NULL}), shell;
  cr_assert_eq(run.exit_code, 1);
  const char *line = strstr(run.err.text, "python -c");
  cr_assert_not_null(line, "%s", run.err.text);
  char script[4096]; /* python, told apart from the one that may be there, only shows what it would be given */
  snprintf(script, sizeof script, "python() { printf '%%s\\n' \"$2\" \"$3\"; }; %.*s", (int)strcspn(line, "\n"), line);
  shell = qd_run_command((const char *const[]){"sh", "-c", script, NULL}, NULL, limit_seconds);
  cr_expect_eq(shell.exit_code, 0, "%s: %s", script, shell.err.text);
  cr_expect_not_null(strstr(shell.out.text, ".save_pretrained(p, safe_serialization=True)"), "%s", shell.out.text);
  char last[700];
  snprintf(last, sizeof last, "\n%s\n", odd);
  cr_expect_not_null(strstr(shell.out.text, last), "%s", shell.out.text);
  qd_run_close(&shell);
  qd_run_close(&run);
}

/* ---- config.json --------------------------------------------------------------------------------------------------------- */

typedef struct config_case {
  const char *kind, *text, *change;
} config_case;

static void expect_configs(const config_case *cases, size_t n) {
  for (size_t i = 0; i < n; i++) {
    change_config(cases[i].text, cases[i].change);
    EXPECT_ROW(cases[i].kind, QUANTIZE);
  }
}

Test(bad_models, configurations) {
  static const config_case cases[] = {
      {"a config.json that is no JSON", "{", "{{"},
      {"an unknown architecture", "\"llama\"", "\"gpt2\""},
      {"control characters in a name", "\"llama\"", "\"a\\nb\\u001b[2J\""},
      {"an unknown rope type", "\"silu\"", "\"silu\", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2}"},
      {"rope settings that contradict each other", "\"silu\"",
       "\"silu\", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2}, \"rope_parameters\": {\"rope_type\": "
       "\"default\"}"},
      {"an unknown activation", "\"silu\"", "\"gelu\""},
      {"an activation that is no text", "\"silu\"", "[]"},
      {"a model that is quantized already", "\"silu\"", "\"silu\", \"quantization_config\": {}"},
      {"null for a width", "\"hidden_size\": 8", "\"hidden_size\": null"},
      {"a key that is missing", "\"vocab_size\": 32, ", ""},
      {"a key twice", "\"vocab_size\": 32, ", "\"vocab_size\": 32, \"vocab_size\": 33, "},
      {"a negative number of blocks", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": -1"},
      {"an absurd width", "\"intermediate_size\": 12", "\"intermediate_size\": 1000000000000"},
      {"text for a number", "\"vocab_size\": 32", "\"vocab_size\": \"32\""},
      {"heads that do not divide the width", "\"num_attention_heads\": 2", "\"num_attention_heads\": 3"},
      {"heads that are no multiple of the key heads", "\"num_attention_heads\": 2",
       "\"num_attention_heads\": 2, \"num_key_value_heads\": 3"},
      {"an odd width of a head", "\"num_attention_heads\": 2", "\"num_attention_heads\": 2, \"head_dim\": 3"}};
  expect_configs(cases, sizeof cases / sizeof cases[0]);
  qd_temporary_write_text(&folder, "model/config.json", "");
  EXPECT_ROW("an empty config.json", QUANTIZE);
  qd_temporary_write_text(&folder, "model/config.json", "[]");
  EXPECT_ROW("a config.json that is no object", QUANTIZE);
}

Test(bad_models, configurations_that_contradict_the_tensors) {
  static const config_case cases[] = {
      {"more blocks than there are", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"},
      {"fewer blocks than there are", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"},
      {"another width than the tensors'", "\"hidden_size\": 8", "\"hidden_size\": 4"},
      {"another number of heads than the tensors'", "\"num_attention_heads\": 2",
       "\"num_attention_heads\": 2, \"num_key_value_heads\": 1"},
      {"another vocabulary than the embedding's", "\"vocab_size\": 32", "\"vocab_size\": 33"},
      {"a tied head that differs from the embedding", "\"silu\"", "\"silu\", \"tie_word_embeddings\": true"},
      {"a bias that is not there", "\"silu\"", "\"silu\", \"attention_bias\": true"}};
  expect_configs(cases, sizeof cases / sizeof cases[0]);
  qd_make_model(model, sound, tensors, TENSORS - 1, 1);
  EXPECT_ROW("no head, and none is tied", QUANTIZE);
  change_config("\"silu\"", "\"silu\", \"tie_word_embeddings\": true");
  EXPECT(0, "wrote", out, QUANTIZE);
  qd_made_tensor more[TENSORS + 1];
  memcpy(more, tensors, sizeof tensors);
  more[TENSORS] = (qd_made_tensor){.name = "model.layers.0.mlp.router.weight", .dtype = QD_F32, .rank = 2, .dim = {4, HIDDEN}};
  qd_make_model(model, sound, more, TENSORS + 1, 1);
  EXPECT_ROW("a tensor that the model does not use", QUANTIZE);
}

/* ---- files --------------------------------------------------------------------------------------------------------------- */

static void write_index(const char *text) { qd_temporary_write_text(&folder, "model/model.safetensors.index.json", text); }

Test(bad_models, shards) {
  qd_make_model(model, sound, tensors, TENSORS, 2);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/model.safetensors")), 0);
  EXPECT(0, "wrote", out, QUANTIZE);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/model-00002-of-00002.safetensors")), 0);
  EXPECT_ROW("a missing shard", QUANTIZE);
  EXPECT_ROW_RANKS(2, "a missing shard", QUANTIZE);
  write_index("{\"weight_map\": {\"model.norm.weight\": \"nowhere.safetensors\"}}");
  EXPECT_ROW("an index that names a file that is not there", QUANTIZE);
  write_index("{\"weight_map\": {\"model.norm.weights\": \"model-00001-of-00002.safetensors\"}}");
  EXPECT_ROW("an index that promises a tensor that is not there", QUANTIZE);
  write_index("{\"weight_map\": {\"a\": \"../../etc/passwd\"}}");
  EXPECT_ROW("an index that leads out of the folder", QUANTIZE);
  write_index("{\"weights\": 1}");
  EXPECT_ROW("an index without a map", QUANTIZE);
}

static void expect_header(const char *kind, const char *header) {
  qd_make_raw_safetensors(qd_temporary_path(&folder, "model/model.safetensors"), header, strlen(header), "12345678", 8);
  EXPECT_ROW(kind, QUANTIZE);
}

Test(bad_models, headers) {
  const char *path = qd_temporary_path(&folder, "model/model.safetensors");
  cr_assert_eq(truncate(path, 3000), 0);
  EXPECT_ROW("weights that are cut off", QUANTIZE);
  cr_assert_eq(truncate(path, 100), 0);
  EXPECT_ROW("a header that is cut off", QUANTIZE);
  cr_assert_eq(truncate(path, 0), 0);
  EXPECT_ROW("an empty file of weights", QUANTIZE);
  qd_temporary_write_text(&folder, "model/model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_ROW("a Git LFS pointer in place of the weights", QUANTIZE);
  qd_temporary_write(&folder, "model/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  EXPECT_ROW("a header of an absurd length", QUANTIZE);
  expect_header("a header that is no object", "[]");
  expect_header("a header that is nested too deep",
                "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
  expect_header("negative offsets", "{\"t\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [-8, 0]}}");
  expect_header("a tensor that ends behind the file",
                "{\"t\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 12]}}");
  expect_header("offsets that contradict the shape",
                "{\"t\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 8]}}");
  expect_header("tensors that overlap", "{\"t\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}, "
                                        "\"u\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}");
  expect_header("bytes that belong to no tensor",
                "{\"t\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}");
  expect_header("a tensor larger than any memory",
                "{\"t\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 8], \"data_offsets\": [0, 8]}}");
  expect_header("a type of weights that is not read",
                "{\"t\": {\"dtype\": \"F8_E4M3\", \"shape\": [8], \"data_offsets\": [0, 8]}}");
  qd_make_raw_safetensors(path, "{}", 2, NULL, 0);
  EXPECT_ROW("a header without tensors", QUANTIZE);
}

/* ---- GGUF ---------------------------------------------------------------------------------------------------------------- */

static qd_gguf_maker maker;

static const char *gguf_path(void) { return qd_temporary_path(&folder, "model/m.gguf"); }

static void expect_gguf(const char *kind) {
  EXPECT_ROW(kind, "quantize", "--model", gguf_path(), "--dataset", ids, "--output", out);
}

static void expect_made(const char *kind) {
  qd_make_gguf(&maker, gguf_path());
  expect_gguf(kind);
}

static void gguf_tensor(const char *name, uint32_t type) {
  static const char data[256];
  qd_make_gguf_tensor(&maker, name, type, 2, (int64_t[]){type == 0 ? 8 : 256, 8}, data, sizeof data);
}

Test(bad_models, gguf_files) {
  qd_temporary_write_text(&folder, "model/m.gguf", "");
  expect_gguf("an empty GGUF file");
  qd_temporary_write_text(&folder, "model/m.gguf", "PK a file of another kind");
  expect_gguf("a file that is no GGUF file");
  qd_make_gguf_keys(&maker, "llama"), gguf_tensor("token_embd.weight", 0);
  qd_make_gguf(&maker, gguf_path());
  char *bytes;
  size_t n;
  cr_assert_eq(qd_file_read(gguf_path(), 1 << 20, &bytes, &n), QD_OK);
  cr_assert_eq(truncate(gguf_path(), (off_t)n - 100), 0);
  expect_gguf("a GGUF file that is cut off");
  qd_heap_free(bytes);
  qd_make_gguf_text(&maker, "general.name",
                    "a name of many letters, so that the file ends within it when one hundred bytes are left");
  qd_make_gguf(&maker, gguf_path());
  cr_assert_eq(truncate(gguf_path(), 100), 0);
  expect_gguf("a GGUF header that is cut off");
  maker.n_tensors = (uint64_t)1 << 60;
  expect_made("a GGUF file with an absurd number of tensors");
  maker.version = 1;
  expect_made("an old version of GGUF");
  gguf_tensor("token_embd.weight", 0);
  maker.data.n = 128;
  gguf_tensor("output.weight", 0);
  expect_made("GGUF tensors that overlap");
  gguf_tensor("token_embd.weight", 23);
  expect_made("a type of GGUF blocks that is not read");
  qd_make_gguf_u32(&maker, "general.alignment", 48);
  expect_made("a GGUF alignment that is none");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_u32(&maker, "llama.block_count", 3);
  expect_made("a GGUF key twice");
  gguf_tensor("token_embd.weight", 0), gguf_tensor("token_embd.weight", 0);
  expect_made("a GGUF tensor twice");
  qd_make_gguf_raw(&maker, "text", 8, "\0\0\0\0\0\1\0\0", 8);
  expect_made("a GGUF text that is longer than the file");
  qd_make_gguf_raw(&maker, "nested", 9, "\x9\0\0\0\1\0\0\0\0\0\0\0", 12);
  expect_made("a GGUF array of arrays");
}

Test(bad_models, gguf_models) {
  static const char *const tokens[] = {"a"};
  qd_make_gguf_keys(&maker, "gemma3");
  expect_made("a GGUF architecture that is not supported");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_f32(&maker, "llama.logit_scale", 2);
  expect_made("a GGUF key that may change the forward");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_f32(&maker, "llama.rope.freq_base", NAN);
  gguf_tensor("token_embd.weight", 0);
  expect_made("a GGUF number that is none");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "gpt2");
  qd_make_gguf_text(&maker, "tokenizer.ggml.pre", "tekken");
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", tokens, 1);
  gguf_tensor("token_embd.weight", 0);
  expect_made("a GGUF pre-tokenizer that is not supported");
  qd_make_gguf_keys(&maker, "llama");
  gguf_tensor("token_embd.weight", 0), gguf_tensor("blk.0.attn_sinks.weight", 0);
  expect_made("a GGUF tensor that the family does not have");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_tensor(&maker, "token_embd.weight", 0, 2, (int64_t[]){64, 1}, sound, 256);
  expect_made("a GGUF file without a tensor that its header promises");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf(&maker, qd_temporary_path(&folder, "model/p-00001-of-00002.gguf"));
  const char *part = qd_temporary_path(&folder, "model/p-00001-of-00002.gguf");
  EXPECT_ROW("a part of a GGUF model that is missing", OF_FOLDER(part));
  part = qd_temporary_write_text(&folder, "model/p-00002-of-00002.gguf", "");
  EXPECT_ROW("another part of a GGUF model than the first", OF_FOLDER(part));
  cr_assert_eq(unlink(part), 0);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/p-00001-of-00002.gguf")), 0);
  qd_temporary_write_text(&folder, "model/n.gguf", "");
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model/model.safetensors")), 0);
  EXPECT_ROW("several GGUF models in one folder", QUANTIZE);
}

/* The smallest whole model, with random ids but no text. */
Test(bad_models, gguf_without_a_vocabulary) {
  qd_make_gguf_text(&maker, "general.architecture", "llama");
  static const struct { const char *key; uint32_t value; } keys[] = {
      {"block_count", 1}, {"embedding_length", 8}, {"feed_forward_length", 8}, {"attention.head_count", 1},
      {"context_length", 64}};
  static const char *const blocks[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
  char name[64];
  static const float ones[64] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    snprintf(name, sizeof name, "llama.%s", keys[i].key);
    qd_make_gguf_u32(&maker, name, keys[i].value);
  }
  qd_make_gguf_f32(&maker, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  for (size_t i = 0; i < 7; i++) {
    snprintf(name, sizeof name, "blk.0.%s.weight", blocks[i]);
    qd_make_gguf_tensor(&maker, name, 0, 2, (int64_t[]){8, 8}, ones, sizeof ones);
  }
  qd_make_gguf_tensor(&maker, "token_embd.weight", 0, 2, (int64_t[]){8, 8}, ones, sizeof ones);
  for (int i = 0; i < 3; i++) {
    const char *norm = (const char *const[]){"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"}[i];
    qd_make_gguf_tensor(&maker, norm, 0, 1, (int64_t[]){8}, ones, 32);
  }
  qd_make_gguf(&maker, gguf_path());
  EXPECT_ROW("a text for a GGUF file without a vocabulary", "quantize", "--model", gguf_path(), "--dataset",
             QDIST_SOURCE_DIR "/docs/glossary.md", "--seqlen", "16", "--output", out);
  EXPECT(0, "wrote", out, "quantize", "--model", gguf_path(), "--method", "rtn", "-g", "8", "--output", out);
}

/* ---- names --------------------------------------------------------------------------------------------------------------- */

Test(bad_models, names_of_models) {
  const char *places = qd_temporary_make_folder(&folder, "places"), *hub = qd_temporary_make_folder(&folder, "hub");
  static const char *const made[] = {"places/tiny", "places/one", "places/two", "places/one/twin", "places/two/twin"};
  cr_assert_eq(setenv("HF_HUB_CACHE", hub, 1), 0);
  qd_temporary_make_folder(&folder, made[0]);
  qd_temporary_write_text(&folder, "places/tiny/config.json", "{}");
  EXPECT_ROW("a name that no model has", OF_FOLDER("lama-7b"), "--model-path", places);
  EXPECT_ROW("a short name of a model that is not there", OF_FOLDER("opt-125m"), "--model-path", places);
  EXPECT_ROW_RANKS(2, "a short name of a model that is not there", OF_FOLDER("opt-125m"), "--model-path", places);
  for (int i = 1; i < 5; i++) qd_temporary_make_folder(&folder, made[i]);
  for (int i = 3; i < 5; i++) {
    char name[64];
    snprintf(name, sizeof name, "%s/config.json", made[i]);
    qd_temporary_write_text(&folder, name, "{}");
  }
  EXPECT_ROW("a name that two models have", OF_FOLDER("twin"), "--model-path", places);
  qd_temporary_make_folder(&folder, "hub/models--org--begun");
  EXPECT_ROW("a model of the cache that is not downloaded", OF_FOLDER("begun"));
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

static void expect_value(const char *kind, const char *name, float value) {
  static float values[VOCABULARY * HIDDEN];
  values[37] = value;
  list_tensors();
  find_tensor(name)->data = values;
  make_model();
  EXPECT_ROW(kind, QUANTIZE);
  EXPECT_RANKS(2, 1, "element 37 of ", name, QUANTIZE);
  qd_temporary_remove(out);
}

Test(bad_models, weights_that_are_no_numbers) {
  expect_value("a NaN among the weights", "model.layers.1.mlp.up_proj.weight", NAN);
  expect_value("an infinite weight", "model.embed_tokens.weight", -INFINITY);
  expect_value("an infinite weight in the head", "lm_head.weight", INFINITY);
}

/* What no store could hold is refused by name, and nothing of it is written; wider scales can be asked for. */
Test(bad_models, scales_that_fp16_does_not_hold) {
  static float values[FFN * HIDDEN];
  for (int i = 0; i < FFN * HIDDEN; i++) values[i] = (i % 2 ? 1e6f : -1e6f) * (float)(i % 5 + 1);
  find_tensor("model.layers.1.mlp.up_proj.weight")->data = values;
  make_model();
  EXPECT_ROW("weights whose scale is beyond fp16", QUANTIZE);
  EXPECT_RANKS(2, 1, "model.layers.1.mlp.up_proj.weight", "fp16 (at most 65504)", QUANTIZE);
  qd_temporary_remove(out);
  EXPECT(0, "wrote", out, QUANTIZE, "--scale-dtype", "f32");
  EXPECT(0, "", "", "verify", out);
}

Test(bad_models, tensors_without_elements) {
  qd_made_tensor *tensor = find_tensor("model.layers.1.mlp.up_proj.weight");
  tensor->dim[0] = 0;
  make_model();
  EXPECT_ROW("a linear without elements", QUANTIZE);
}
