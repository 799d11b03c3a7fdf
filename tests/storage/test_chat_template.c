#include "storage/chat_template.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;

static void begin(void) { qd_temporary_folder_open(&folder); }
static void end(void) { qd_temporary_folder_close(&folder); }

TestSuite(chat_template, .init = begin, .fini = end);

static qd_digest expect_text(const char *document, const char *expected) {
  qd_chat_template chat;
  qd_json *json;
  char *text;
  size_t n;
  cr_assert_eq(qd_chat_template_open(folder.path, &chat), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_json_parse(document, strlen(document), "document", &json), QD_OK);
  cr_assert_eq(qd_chat_template_render(&chat, json, &text, &n), QD_OK, "%s", qd_error_text());
  cr_expect_str_eq(text, expected);
  qd_digest digest = chat.digest;
  qd_heap_free(text);
  qd_json_free(json);
  qd_chat_template_close(&chat);
  return digest;
}

static void expect_refusal(qd_status status, const char *says) {
  qd_chat_template chat;
  cr_expect_eq(qd_chat_template_open(folder.path, &chat), status, "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), says), "%s: %s", says, qd_error_text());
}

static const char hello[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";

/* A file of its own goes before chat_template.json, and that before tokenizer_config.json. */
Test(chat_template, is_found_where_transformers_finds_it) {
  expect_refusal(QD_ENOTFOUND, "has no chat template");
  qd_temporary_write_text(&folder, "tokenizer_config.json", "{\"bos_token\": {\"content\": \"<s>\"}}");
  expect_refusal(QD_ENOTFOUND, "has no chat template");
  qd_temporary_write_text(
      &folder, "tokenizer_config.json",
      "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"chat_template\": "
      "[{\"name\": \"tools\", \"template\": \"no\"}, "
      "{\"name\": \"default\", \"template\": \"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}\"}]}");
  qd_digest first = expect_text(hello, "<s>hello</s>");
  qd_temporary_write_text(&folder, "chat_template.json", "{\"chat_template\": \"json {{ messages[0].role }}\"}");
  qd_digest second = expect_text(hello, "json user");
  qd_temporary_write_text(&folder, "chat_template.jinja", "file {{ messages|length }}\n");
  expect_text(hello, "file 1");
  cr_expect_not(qd_digest_equal(&first, &second));
}

Test(chat_template, what_is_not_there_is_none_and_special_tokens_count) {
  qd_temporary_write_text(&folder, "chat_template.jinja",
                          "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ pad_token is defined }}");
  qd_digest without = expect_text(hello, "TrueTrueFalseFalse");
  qd_temporary_write_text(&folder, "tokenizer_config.json", "{\"pad_token\": \"<p>\"}");
  qd_digest with = expect_text(hello, "TrueTrueFalseTrue");
  cr_expect_not(qd_digest_equal(&without, &with));
  expect_text("{\"messages\": [], \"tools\": [1]}", "FalseTrueFalseTrue");
}

Test(chat_template, damage_is_told_by_file) {
  qd_temporary_write_text(&folder, "tokenizer_config.json", "{\"chat_template\": 7}");
  expect_refusal(QD_EBADINPUT, "tokenizer_config.json: \"chat_template\" is neither");
  qd_temporary_write_text(&folder, "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"\"}]}");
  expect_refusal(QD_EBADINPUT, "named \"default\"");
  qd_temporary_write_text(&folder, "tokenizer_config.json", "{\"chat_template\": ");
  expect_refusal(QD_EBADINPUT, "tokenizer_config.json");
  qd_temporary_write_text(&folder, "tokenizer_config.json", "{}");
  qd_temporary_write_text(&folder, "chat_template.jinja", "\n{% import 'os' %}");
  expect_refusal(QD_EUNSUPPORTED, "chat_template.jinja, line 2: the tag \"import\" is not supported");
}
