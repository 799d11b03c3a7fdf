/* Names of models on the command line, and `qdist models`. */
#define _XOPEN_SOURCE 700
#include "storage/json.h"
#include "tests/end_to_end/bad_input_support.h"
#include "tests/support/gguf_maker.h"

/* places/{alike,broken,store}, and hub/ with a snapshot of links to the sound model. */
static void make_places(void) {
  static const char *const folders[] = {"places",
                                        "places/broken",
                                        "hub",
                                        "hub/models--org--sound",
                                        "hub/models--org--sound/refs",
                                        "hub/models--org--sound/snapshots",
                                        "hub/models--org--sound/snapshots/abc"};
  setup();
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) qd_temporary_make_folder(&folder, folders[i]);
  cr_assert_eq(symlink("../model", qd_temporary_path(&folder, "places/alike")), 0);
  qd_temporary_write_text(&folder, "places/broken/config.json", "{\"model_type\": \"opt\"}");
  qd_temporary_write_text(&folder, "hub/models--org--sound/refs/main", "abc");
  cr_assert_eq(
      symlink("../../../../model/config.json", qd_temporary_path(&folder, "hub/models--org--sound/snapshots/abc/config.json")),
      0);
  cr_assert_eq(symlink("../../../../model/model.safetensors",
                       qd_temporary_path(&folder, "hub/models--org--sound/snapshots/abc/model.safetensors")),
               0);
  cr_assert_eq(setenv("HF_HUB_CACHE", qd_temporary_path(&folder, "hub"), 1), 0);
  cr_assert_eq(setenv("QDIST_MODELS", qd_temporary_path(&folder, "places"), 1), 0);
}

TestSuite(models, .init = make_places, .fini = teardown, .timeout = 900);

#define JOB(name) "quantize", "--model", name, "--method", "rtn", "-g", "4", "--output", out

Test(models, are_found_by_name) {
  static const char *const found[] = {"alike", "ALIKE", "org/sound", "sound"};
  for (int i = 0; i < 4; i++) {
    EXPECT_RANKS(1 + i % 2, 0, "wrote", out, JOB(found[i]));
    qd_temporary_remove(out);
  }
  cr_assert_eq(unsetenv("HF_HUB_CACHE"), 0);
  cr_assert_eq(setenv("HF_HOME", folder.path, 1), 0); /* its hub/ */
  EXPECT(0, "wrote", out, JOB("sound"));
  EXPECT(0, "perplexity", "", "evaluate", "--model", out, "--reference", "sound", "--dataset", ids, "--seqlen", "16");
  EXPECT(0, "sound is ", "models--org--sound", "plan", "--model", "sound", "--method", "rtn", "--nsamples", "2",
         "--seqlen", "16");
}

/* The path is no part of the job. */
Test(models, may_be_named_otherwise_at_a_resume) {
  EXPECT(75, "stopped with 1 of 2 blocks on disk", out, JOB("alike"), "--stop-after", "0.000001");
  EXPECT(0, "going on with", "wrote", JOB(model));
}

static const qd_json *entry_of(const qd_json *list, const char *name) {
  for (size_t i = 0; i < qd_json_length(list); i++)
    if (strcmp(qd_json_text(qd_json_get(qd_json_at(list, i), "name")), name) == 0) return qd_json_at(list, i);
  cr_assert_fail("%s is not listed", name);
  return NULL;
}

static void expect_entry(const qd_json *entry, const char *format, const char *architecture, const char *why) {
  const char *told = qd_json_text(qd_json_get(entry, "why"));
  cr_expect_str_eq(qd_json_text(qd_json_get(entry, "format")), format);
  cr_expect_str_eq(qd_json_text(qd_json_get(entry, "architecture")), architecture);
  if (why == NULL) cr_expect_null(told, "%s", told);
  else cr_expect(told != NULL && strstr(told, why) != NULL, "%s", told ? told : "quantizable");
}

Test(models, are_listed_with_what_they_are) {
  static const unsigned char zeros[256];
  char store[700];
  snprintf(store, sizeof store, "%s/places/store", folder.path);
  EXPECT(0, "wrote", store, "quantize", "--model", "alike", "--method", "rtn", "-g", "4", "--output", store);
  qd_gguf_maker maker = {0};
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_tensor(&maker, "token_embd.weight", 0, 2, (int64_t[]){64, 1}, zeros, 256);
  qd_make_gguf(&maker, qd_temporary_path(&folder, "places/part.gguf"));
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_tensor(&maker, "token_embd.weight", 8, 2, (int64_t[]){64, 1}, zeros, 68);
  qd_make_gguf_tensor(&maker, "output_norm.weight", 0, 1, (int64_t[]){8}, zeros, 32);
  qd_make_gguf(&maker, qd_temporary_path(&folder, "places/blocks.gguf"));
  qd_run run = run_words(0, (const char *const[]){"models", "--json", NULL});
  qd_json *json;
  expect_code(&run, 0, "models");
  cr_assert_eq(qd_json_parse(run.out.text, run.out.n, "output", &json), QD_OK, "%s", qd_error_text());
  const qd_json *list = qd_json_get(json, "models"), *alike = entry_of(list, "alike");
  cr_expect_eq(qd_json_length(list), 6);
  expect_entry(alike, "safetensors", "llama", NULL);
  cr_expect_eq(qd_json_integer(qd_json_get(alike, "parameters")), 2 * (4 * 64 + 3 * 96 + 16) + 2 * 32 * 8 + 8);
  cr_expect_str_eq(qd_json_text(qd_json_get(alike, "dtype")), "F32");
  cr_expect_gt(qd_json_integer(qd_json_get(alike, "bytes")), 4 * qd_json_integer(qd_json_get(alike, "parameters")));
  expect_entry(entry_of(list, "org/sound"), "safetensors", "llama", NULL);
  expect_entry(entry_of(list, "broken"), "", "", "holds no weights");
  expect_entry(entry_of(list, "store"), "store", "", "quantized already");
  cr_expect_str_eq(qd_json_text(qd_json_get(entry_of(list, "blocks.gguf"), "stored_dtype")), "Q8_0");
  expect_entry(entry_of(list, "part.gguf"), "GGUF", "llama", "model.norm.weight is missing");
  qd_json_free(json);
  qd_run_close(&run);
  run = run_words(0, (const char *const[]){"models", NULL});
  expect_code(&run, 0, "models");
  cr_expect_not_null(strstr(run.out.text, "org/sound"), "%s", run.out.text);
  cr_expect_not_null(strstr(run.out.text, "no: it is quantized already"), "%s", run.out.text);
  qd_run_close(&run);
}

/* A name that is found in a folder commands no terminal, and takes one line. */
Test(models, are_listed_on_a_line_each) {
  cr_assert_eq(symlink("../model", qd_temporary_path(&folder, "places/red\x1b[31m\nline")), 0);
  qd_run run = run_words(0, (const char *const[]){"models", NULL});
  cr_expect_eq(run.exit_code, 0);
  cr_expect_null(strchr(run.out.text, 0x1b));
  cr_expect_not_null(strstr(run.out.text, "\nred?[31m?line "), "%s", run.out.text);
  qd_run_close(&run);
}

/* For any command that prints a table. */
Test(models, a_list_that_cannot_be_written_is_told) {
  qd_run run = qd_run_command((const char *const[]){"sh", "-c", "exec \"$0\" models >/dev/full", PROGRAM, NULL}, environment,
                              limit_seconds);
  expect_end(&run, 1, "standard output cannot be written", "qdist models");
}

Test(models, says_where_there_are_none) {
  cr_assert_eq(unsetenv("QDIST_MODELS"), 0);
  cr_assert_eq(setenv("HF_HUB_CACHE", qd_temporary_path(&folder, "absent"), 1), 0);
  qd_run run = run_words(0, (const char *const[]){"models", NULL});
  expect_code(&run, 0, "models");
  cr_expect_not_null(strstr(run.out.text, "no models; looked in"), "%s", run.out.text);
  cr_expect_not_null(strstr(run.out.text, "absent (the Hugging Face cache: no such folder)"), "%s", run.out.text);
  qd_run_close(&run);
  EXPECT(2, "\"x\" is no option", "", "models", "x");
}
