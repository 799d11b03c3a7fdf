/* Texts and tokenizers that give no tokens, or not those of the model. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"

TestSuite(bad_texts, .init = setup, .fini = teardown, .timeout = 900);

/* ---- texts --------------------------------------------------------------------------------------------------------------- */

#define OF_TEXT(path) "quantize", "--model", model, "--dataset", path, "--seqlen", "16", "--output", out

static void expect_text(const char *kind, const char *text, size_t n) {
  const char *path = qd_temporary_write(&folder, "text.txt", text, n);
  EXPECT_ROW(kind, OF_TEXT(path));
}

static void two_letters(void) { write_tokenizer("null", "BPE", "\"a\": 0, \"b\": 1", ""); }

Test(bad_texts, texts) {
  expect_text("a model without a tokenizer", "ab", 2);
  two_letters();
  expect_text("an empty text", "", 0);
  expect_text("a text that is too short", "ab", 2);
  expect_text("a text that is not UTF-8", "ab\xff", 3);
  expect_text("a character that the tokenizer does not know", "abc", 3);
  expect_text("a NUL in the text", "a\0b", 3);
  EXPECT_ROW("a text that is not there", OF_TEXT("absent.txt"));
  EXPECT_ROW("a kind of text that there is not", OF_TEXT("wikitext-2:absent.txt"));
  char path[QD_TEMPORARY_PATH_BYTES + 8];
  snprintf(path, sizeof path, "c4:%s", qd_temporary_write_text(&folder, "text.txt", "abab"));
  EXPECT_ROW("plain text where lines of JSON are wanted", OF_TEXT(path));
  EXPECT_ROW("a folder in place of the text", OF_TEXT(model));
}

Test(bad_texts, documents_of_json_lines) {
  two_letters();
  const char *path = qd_temporary_write_text(&folder, "lines.jsonl", "{\"text\": \"ab\"}\n{\"body\": \"ab\"}\n");
  EXPECT_ROW("a line of JSON without the field", OF_TEXT(path));
  path = qd_temporary_write_text(&folder, "lines.jsonl", "{\"text\": \"ab\"}\n{\"text\": 3}\n");
  EXPECT_ROW("a field that is no text", OF_TEXT(path));
  path = qd_temporary_write_text(&folder, "lines.jsonl", "{\"text\": \"ab\"}\n{\"text\": \n");
  EXPECT_ROW("a line that is no JSON", OF_TEXT(path));
}

Test(bad_texts, messages) {
  two_letters();
  const char *path =
      qd_temporary_write_text(&folder, "chat.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}\n");
  EXPECT_ROW("messages without a chat template", OF_TEXT(path));
  qd_temporary_write_text(&folder, "model/chat_template.jinja", "{{ messages|frob }}");
  EXPECT_ROW("a chat template that asks for what is not known", OF_TEXT(path));
  EXPECT_ROW_RANKS(2, "a chat template that asks for what is not known", OF_TEXT(path));
  qd_temporary_write_text(&folder, "model/chat_template.jinja", "{{ raise_exception('no') }}");
  EXPECT_ROW("a chat template that refuses the messages", OF_TEXT(path));
  qd_temporary_write_text(&folder, "model/chat_template.jinja",
                          "{% set ns = namespace(t='a') %}{% for i in range(24) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"
                          "{{ ns.t.find(ns.t[:8000000] ~ 'b') }}");
  EXPECT_ROW("a chat template that takes for ever", OF_TEXT(path));
}

Test(bad_texts, mixtures) {
  char light[700], negative[700];
  snprintf(light, sizeof light, "%s:0.001", ids);
  snprintf(negative, sizeof negative, "%s:-1", ids);
  EXPECT_ROW("a text of a mixture whose weight gives it nothing", QUANTIZE, "--nsamples", "4", "--dataset", light);
  EXPECT_ROW("a text of a mixture with too few rows", QUANTIZE, "--nsamples", "10", "--dataset", ids);
  EXPECT_ROW_RANKS(2, "a text of a mixture with too few rows", QUANTIZE, "--nsamples", "10", "--dataset", ids);
  char tiny[700];
  snprintf(tiny, sizeof tiny, "%s:5e-324", ids);
  EXPECT_ROW("weights that are next to nothing", QUANTIZE_TEXT(tiny), "--dataset", tiny, "--nsamples", "4");
  EXPECT_ROW("a weight that is none", QUANTIZE, "--dataset", negative);
  EXPECT_ROW("several texts to evaluate", EVALUATE, "--dataset", ids);
}

Test(bad_texts, token_ids) {
  write_ids("ids.i32", VOCABULARY);
  EXPECT_ROW("a token id beyond the vocabulary", QUANTIZE);
  EXPECT_ROW_RANKS(2, "a token id beyond the vocabulary", QUANTIZE);
  write_ids("ids.i32", -1);
  EXPECT_ROW("a negative token id", QUANTIZE);
  write_ids("ids.i32", 7);
  EXPECT_ROW("token ids that are no whole rows", QUANTIZE, "--seqlen", "15");
  EXPECT_ROW("sequences longer than the model's positions", QUANTIZE, "--seqlen", "65");
  EXPECT_ROW_RANKS(2, "sequences longer than the model's positions", QUANTIZE, "--seqlen", "65");
  EXPECT(1, "--seqlen 1 leaves nothing to predict", "gptq", "evaluate", "--model", model, "--dataset", ids, "--seqlen", "1");
  EXPECT_ROW("windows without a token to predict", "evaluate", "--model", model, "--dataset", ids, "--seqlen", "2",
             "--ppl-style", "llama.cpp");
}

/* ---- tokenizers ---------------------------------------------------------------------------------------------------------- */

static const char letters[] = "abababababababababababababababababab";

static void expect_tokenizer(const char *kind, const char *pre_tokenizer, const char *type, const char *vocabulary,
                             const char *merges) {
  write_tokenizer(pre_tokenizer, type, vocabulary, merges);
  expect_text(kind, letters, sizeof letters - 1);
}

Test(bad_texts, tokenizers) {
  static const char two[] = "\"a\": 0, \"b\": 1", three[] = "\"a\": 0, \"b\": 1, \"ab\": 2";
  expect_tokenizer("an unknown part of a tokenizer", "{\"type\": \"Mystery\"}", "BPE", two, "");
  expect_tokenizer("another kind of tokenizer than BPE", "null", "Unigram", two, "");
  expect_tokenizer("a merge that gives no token", "null", "BPE", two, "\"a b\"");
  expect_tokenizer("a merge of three parts", "null", "BPE", three, "[\"a\", \"b\", \"c\"]");
  expect_tokenizer("a merge in neither spelling", "null", "BPE", three, "\"ab\"");
  char vocabulary[1024] = "\"a\": 0, \"b\": 1";
  for (int i = 2; i <= VOCABULARY; i++) sprintf(vocabulary + strlen(vocabulary), ", \"t%d\": %d", i, i);
  expect_tokenizer("a tokenizer larger than the vocabulary", "null", "BPE", vocabulary, "");
  qd_temporary_write_text(&folder, "model/tokenizer.json", "{\"model\": ");
  expect_text("a tokenizer.json that is cut off", letters, sizeof letters - 1);
}
