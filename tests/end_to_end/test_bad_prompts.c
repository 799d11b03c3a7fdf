/* Prompts and settings that give no text. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"

TestSuite(bad_prompts, .init = setup, .fini = teardown, .timeout = 900);

#define GENERATE "generate", "--model", model, "--prompt"

Test(bad_prompts, options) {
  EXPECT_ROW("no prompt", "generate", "--model", model);
  EXPECT_ROW("a prompt and a file of another", GENERATE, "ab", "--prompt-file", "ab.txt");
  EXPECT_ROW("a choice among tokens that is none", GENERATE, "ab", "--top-k", "5");
  EXPECT(2, "--model MODEL is needed", "", "generate", "--prompt", "ab");
  EXPECT(2, "--temperature takes a number", "got \"-1\"", GENERATE, "ab", "--temperature", "-1");
  EXPECT(2, "--top-p takes a number", "got \"1.5\"", GENERATE, "ab", "--temperature", "1", "--top-p", "1.5");
  EXPECT(2, "--min-p takes a number", "got \"nan\"", GENERATE, "ab", "--temperature", "1", "--min-p", "nan");
  EXPECT(2, "--max-new-tokens takes", "got \"0\"", GENERATE, "ab", "--max-new-tokens", "0");
  EXPECT(2, "--stop is empty", "", GENERATE, "ab", "--stop", "");
  EXPECT_RANKS(2, 2, "no option --temprature", "did you mean --temperature?", GENERATE, "ab", "--temprature", "1");
}

Test(bad_prompts, prompts) {
  EXPECT_ROW("a prompt for a model without a tokenizer", GENERATE, "ab");
  write_tokenizer("null", "BPE", "\"a\": 0, \"b\": 1", "");
  EXPECT_ROW("an empty prompt", GENERATE, "");
  EXPECT_ROW("a prompt that the tokenizer does not know", GENERATE, "abc");
  EXPECT_ROW("a prompt that is not there", "generate", "--model", model, "--prompt-file", "absent.txt");
  EXPECT_ROW("more new tokens than positions", GENERATE, "ab", "--max-new-tokens", "64");
  EXPECT_ROW_RANKS(2, "more new tokens than positions", GENERATE, "ab", "--max-new-tokens", "64");
  EXPECT_ROW("a prompt longer than the model's positions", GENERATE,
             "abababababababababababababababababababababababababababababababababababababababab");
  EXPECT_RANKS(3, 1, "--max-host-mem", "fewer --max-new-tokens", GENERATE, "ab", "--max-host-mem", "1M");
  EXPECT(0, "ended by length", "63 new ones", GENERATE, "ab", "--max-new-tokens", "63");
}
