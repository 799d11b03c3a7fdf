/* Tasks that cannot be read or run, and evaluations that ask for nothing. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"

TestSuite(bad_tasks, .init = setup, .fini = teardown, .timeout = 900);

#define OF_TASK(item) "evaluate", "--model", model, "--tasks", item, "--tasks-path", folder.path

static void two_letters(void) {
  write_tokenizer("null", "BPE", "\"a\": 0, \"b\": 1, \" \": 2", "");
}

static void expect_piqa(const char *kind, const char *text) {
  qd_temporary_write_text(&folder, "piqa.jsonl", text);
  EXPECT_ROW(kind, OF_TASK("piqa"));
}

Test(bad_tasks, files_of_tasks) {
  expect_piqa("tasks for a model without a tokenizer", "{\"query\": \"a\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n");
  two_letters();
  EXPECT_ROW("a task that is not known", OF_TASK("gsm8k"));
  EXPECT_ROW_RANKS(2, "a task that is not known", OF_TASK("gsm8k"));
  EXPECT_ROW("a task whose file is not there", OF_TASK("boolq"));
  EXPECT_ROW("a task and no folder of tasks", "evaluate", "--model", model, "--tasks", "boolq");
  qd_temporary_write_text(&folder, "mmlu.jsonl", "{}\n");
  EXPECT_ROW("MMLU without its examples", OF_TASK("mmlu"));
  expect_piqa("a task's line without a field", "{\"choices\": [\"a\", \"b\"], \"gold\": 0}\n");
  expect_piqa("a right choice that is none", "{\"query\": \"a\", \"choices\": [\"a\", \"b\"], \"gold\": 2}\n");
  expect_piqa("a task's line that is no JSON", "{\"query\": \n");
  EXPECT_ROW("tasks whose output cannot be written", OF_TASK("piqa"), "--tasks-output", "/absent/lines.jsonl");
}

Test(bad_tasks, documents_that_cannot_be_run) {
  two_letters();
  qd_temporary_write_text(&folder, "lambada.jsonl", "{\"context\": \"\", \"continuation\": \"a\"}\n");
  EXPECT_ROW("a context without a token", OF_TASK("lambada"));
  qd_temporary_write_text(&folder, "lambada.jsonl", "{\"context\": \"a\", \"continuation\": \"b\"}\n");
  EXPECT(0, "task lambada: 1 documents", "sequences 1/1", OF_TASK("lambada"));
  EXPECT_ROW("fewer documents than shots", OF_TASK("lambada"), "--num-fewshot", "1");
}

Test(bad_tasks, evaluations_of_nothing) {
  EXPECT_ROW("an evaluation of nothing", "evaluate", "--model", model);
  EXPECT_ROW("shots without a task", "evaluate", "--model", model, "--dataset", ids, "--num-fewshot", "1");
  EXPECT_ROW("windows without a text", "evaluate", "--model", model, "--tasks", "piqa", "--seqlen", "16");
  EXPECT_ROW("a reference without a text", "evaluate", "--model", model, "--reference", model, "--tasks", "piqa");
  EXPECT_ROW("a comparison of nothing", "compare", "--dataset", ids);
  two_letters();
  const char *text = qd_temporary_write_text(&folder, "text.txt", "abababababababababab\n");
  EXPECT_ROW("a text too short for llama.cpp's windows", "evaluate", "--model", model, "--dataset", text, "--ppl-style",
             "llama.cpp", "--seqlen", "16");
}

/* A reference that has as many tokens, and cannot be compared, or only by numbers that mean nothing. */
Test(bad_tasks, references_that_do_not_fit) {
  char other[700], config[1024];
  snprintf(other, sizeof other, "%s", qd_temporary_make_folder(&folder, "other"));
  const char *positions = strstr(sound, "\"max_position_embeddings\": 64");
  cr_assert_not_null(positions);
  snprintf(config, sizeof config, "%.*s\"max_position_embeddings\": 8, \"hidden_act\": \"silu\"}", (int)(positions - sound),
           sound);
  qd_make_model(other, config, tensors, TENSORS, 1);
  EXPECT_ROW("windows longer than the reference's positions", "evaluate", "--model", model, "--reference", other, "--dataset",
             ids, "--seqlen", "16");
  two_letters();
  const char *text = qd_temporary_write_text(&folder, "text.txt", "ababababababababababababababababab");
  qd_make_model(other, sound, tensors, TENSORS, 1);
  qd_temporary_write_text(&folder, "other/tokenizer.json",
                          "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"post_processor\": null, "
                          "\"decoder\": null, \"pre_tokenizer\": null, \"model\": {\"type\": \"BPE\", \"vocab\": "
                          "{\"b\": 0, \"a\": 1, \" \": 2}, \"merges\": []}}");
  EXPECT(0, "warning: the tokenizer of the reference", other, "evaluate", "--model", model, "--reference", other, "--dataset",
         text, "--seqlen", "16");
  qd_run run = run_words(0, (const char *const[]){"evaluate", "--model", model, "--reference", model, "--dataset", text,
                                                  "--seqlen", "16", NULL});
  cr_expect(run.exit_code == 0 && strstr(run.err.text, "warning") == NULL, "%s", run.err.text);
  qd_run_close(&run);
}
