#include "storage/sources/gguf_tokenizer.h"

#include "kernels/base/heap.h"
#include "storage/source.h"
#include "storage/tokenizer.h"
#include "tests/support/gguf_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 2048, NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5 };

static qd_temporary_folder folder;
static qd_gguf_maker maker;
static char file[600];
static const char *token[MOST_TOKENS];
static int32_t type[MOST_TOKENS];
static float score[MOST_TOKENS];
static size_t n_tokens;

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  snprintf(file, sizeof file, "%s/x.gguf", folder.path);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(gguf_tokenizer, .init = open_folder, .fini = close_folder);

static qd_json *must_read(const char *name) {
  char path[600];
  qd_json *json;
  snprintf(path, sizeof path, "%s/tests/golden/%s", QDIST_SOURCE_DIR, name);
  cr_assert_eq(qd_json_read(path, 1 << 26, &json), QD_OK, "%s", qd_error_text());
  return json;
}

static void put(size_t id, const char *text, int kind) {
  cr_assert_lt(id, MOST_TOKENS);
  token[id] = text, type[id] = kind;
  if (id >= n_tokens) n_tokens = id + 1;
}

static qd_tokenizer *opened(void) {
  qd_tokenizer *t;
  cr_assert_eq(qd_tokenizer_open(file, &t), QD_OK, "%s", qd_error_text());
  return t;
}

static void expect_ids(const qd_tokenizer *t, const qd_json *text, qd_add_bos bos, const qd_json *expected) {
  int32_t *ids;
  size_t n;
  cr_assert_eq(qd_tokenizer_encode(t, qd_json_text(text), qd_json_text_bytes(text), bos, &ids, &n), QD_OK, "%s",
               qd_error_text());
  bool same = n == qd_json_length(expected);
  for (size_t i = 0; same && i < n; i++) same = ids[i] == qd_json_integer(qd_json_at(expected, i));
  cr_expect(same, "\"%s\": %zu ids, expected %zu", qd_json_text(text), n, qd_json_length(expected));
  qd_heap_free(ids);
}

/* ---- byte-level BPE ------------------------------------------------------------------------------------------------------ */

/* A GGUF file of what Hugging Face's file has. */
static void make_from(const qd_json *tokenizer, const char *pre) {
  const qd_json *model = qd_json_get(tokenizer, "model"), *vocab = qd_json_get(model, "vocab"), *id;
  const qd_json *added = qd_json_get(tokenizer, "added_tokens"), *merges = qd_json_get(model, "merges");
  static char merge[MOST_TOKENS][128];
  const char *list[MOST_TOKENS], *text;
  for (size_t i = 0; qd_json_member(vocab, i, &text, &id); i++) put((size_t)qd_json_integer(id), text, NORMAL);
  for (size_t i = 0; i < qd_json_length(added); i++) {
    const qd_json *a = qd_json_at(added, i);
    put((size_t)qd_json_integer(qd_json_get(a, "id")), qd_json_text(qd_json_get(a, "content")),
        qd_json_equal(qd_json_get(a, "special"), qd_json_get(qd_json_at(added, 0), "special")) ? CONTROL : USER);
  }
  for (size_t i = 0; i < qd_json_length(merges); i++) {
    const qd_json *m = qd_json_at(merges, i);
    if (qd_json_is_text(m)) snprintf(merge[i], sizeof merge[i], "%s", qd_json_text(m));
    else snprintf(merge[i], sizeof merge[i], "%s %s", qd_json_text(qd_json_at(m, 0)), qd_json_text(qd_json_at(m, 1)));
    list[i] = merge[i];
  }
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "gpt2");
  qd_make_gguf_text(&maker, "tokenizer.ggml.pre", pre);
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", token, n_tokens);
  qd_make_gguf_ints(&maker, "tokenizer.ggml.token_type", type, n_tokens);
  qd_make_gguf_texts(&maker, "tokenizer.ggml.merges", list, qd_json_length(merges));
}

/* The parts that cut a text are those of the family's own file. */
static void expect_same_parts(const qd_json *tokenizer) {
  char *what;
  qd_json *made;
  cr_assert_eq(qd_side_file_json(file, "tokenizer.json", QD_SIDE_FILE_BYTES, &what, &made), QD_OK, "%s", qd_error_text());
  cr_expect(qd_json_equal(qd_json_get(made, "pre_tokenizer"), qd_json_get(tokenizer, "pre_tokenizer")));
  cr_expect(qd_json_equal(qd_json_get(made, "normalizer"), qd_json_get(tokenizer, "normalizer")));
  cr_expect(qd_json_equal(qd_json_get(qd_json_get(made, "model"), "ignore_merges"),
                          qd_json_get(qd_json_get(tokenizer, "model"), "ignore_merges")));
  qd_heap_free(what);
  qd_json_free(made);
}

static void check_family(const char *name, const char *pre, uint32_t bos) {
  char path[128];
  snprintf(path, sizeof path, "tokenizers/%s/tokenizer.json", name);
  qd_json *tokenizer = must_read(path);
  make_from(tokenizer, pre);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.bos_token_id", bos);
  qd_make_gguf(&maker, file);
  expect_same_parts(tokenizer);
  snprintf(path, sizeof path, "tokenizers/%s/cases.json", name);
  qd_json *cases = must_read(path);
  qd_tokenizer *t = opened();
  cr_expect_eq(qd_tokenizer_size(t), (int64_t)n_tokens);
  cr_expect_eq(qd_tokenizer_bos(t), (int32_t)bos);
  for (size_t i = 0; i < qd_json_length(cases); i++) {
    const qd_json *c = qd_json_at(cases, i);
    expect_ids(t, qd_json_get(c, "text"), QD_BOS_AUTO, qd_json_get(c, "ids"));
    expect_ids(t, qd_json_get(c, "text"), QD_BOS_NO, qd_json_get(c, "plain"));
  }
  qd_tokenizer_close(t);
  qd_json_free(cases);
  qd_json_free(tokenizer);
}

Test(gguf_tokenizer, smollm_cuts_as_the_library) { check_family("smollm", "smollm", 621); }
Test(gguf_tokenizer, llama_3_cuts_as_the_library) { check_family("llama3", "llama-bpe", 622); }
Test(gguf_tokenizer, qwen2_cuts_as_the_library) { check_family("qwen2", "qwen2", 620); }

/* ---- sentencepiece ------------------------------------------------------------------------------------------------------- */

static void make_spm(const qd_json *golden) {
  const qd_json *tokens = qd_json_get(golden, "tokens");
  for (size_t i = 0; i < qd_json_length(tokens); i++) {
    put(i, qd_json_text(qd_json_at(tokens, i)), (int)qd_json_integer(qd_json_at(qd_json_get(golden, "types"), i)));
    score[i] = (float)qd_json_number(qd_json_at(qd_json_get(golden, "scores"), i));
  }
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "llama");
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", token, n_tokens);
  qd_make_gguf_floats(&maker, "tokenizer.ggml.scores", score, n_tokens);
  qd_make_gguf_ints(&maker, "tokenizer.ggml.token_type", type, n_tokens);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.bos_token_id", 1);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.eos_token_id", 2);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.unknown_token_id", 0);
}

/* Merges from scores in transformers' order, and the library's ids with them. */
Test(gguf_tokenizer, sentencepiece_merges_by_scores) {
  qd_json *golden = must_read("gguf/spm.json"), *made;
  char *what;
  make_spm(golden);
  qd_make_gguf(&maker, file);
  cr_assert_eq(qd_side_file_json(file, "tokenizer.json", QD_SIDE_FILE_BYTES, &what, &made), QD_OK, "%s", qd_error_text());
  cr_expect(qd_json_equal(qd_json_get(qd_json_get(made, "model"), "merges"), qd_json_get(golden, "merges")));
  qd_tokenizer *t = opened();
  cr_expect(qd_tokenizer_adds_bos(t));
  const qd_json *cases = qd_json_get(golden, "cases");
  cr_assert_gt(qd_json_length(cases), 80);
  for (size_t i = 0; i < qd_json_length(cases); i++) {
    const qd_json *c = qd_json_at(cases, i), *ids = qd_json_get(c, "ids");
    int32_t id[4096];
    char *text;
    expect_ids(t, qd_json_get(c, "text"), QD_BOS_AUTO, ids);
    for (size_t k = 0; k < qd_json_length(ids); k++) id[k] = (int32_t)qd_json_integer(qd_json_at(ids, k));
    cr_assert_eq(qd_tokenizer_decode(t, id, qd_json_length(ids), &text), QD_OK);
    cr_expect_str_eq(text, qd_json_text(qd_json_get(c, "decoded")));
    qd_heap_free(text);
  }
  qd_tokenizer_close(t);
  qd_heap_free(what);
  qd_json_free(made);
  qd_json_free(golden);
}

static void expect_short(const char *text, qd_add_bos bos, const char *expected) {
  qd_tokenizer *t = opened();
  int32_t *ids;
  size_t n;
  char got[256] = "";
  cr_assert_eq(qd_tokenizer_encode(t, text, strlen(text), bos, &ids, &n), QD_OK, "%s", qd_error_text());
  for (size_t i = 0; i < n; i++) snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids[i]);
  cr_expect_str_eq(got, expected);
  qd_heap_free(ids);
  qd_tokenizer_close(t);
}

/* "[PAD5]" fills up the embedding and is no token; the file says whether a blank goes in front, and what goes around a text. */
static void make_short(int blank, int bos, int eos) {
  static const char *const texts[] = {"<s>", "</s>", "\xe2\x96\x81", "a", "\xe2\x96\x81" "a", "[PAD5]"};
  for (size_t i = 0; i < 6; i++) put(i, texts[i], i < 2 ? CONTROL : i == 5 ? UNUSED : NORMAL), score[i] = -(float)i;
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "llama");
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", token, n_tokens);
  qd_make_gguf_floats(&maker, "tokenizer.ggml.scores", score, n_tokens);
  qd_make_gguf_ints(&maker, "tokenizer.ggml.token_type", type, n_tokens);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.bos_token_id", 0);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.eos_token_id", 1);
  qd_make_gguf_bool(&maker, "tokenizer.ggml.add_space_prefix", blank);
  qd_make_gguf_bool(&maker, "tokenizer.ggml.add_bos_token", bos);
  qd_make_gguf_bool(&maker, "tokenizer.ggml.add_eos_token", eos);
  qd_make_gguf(&maker, file);
}

Test(gguf_tokenizer, flags_are_followed) {
  make_short(1, 1, 1);
  expect_short("a a", QD_BOS_AUTO, "0 4 4 1");
  make_short(0, 0, 0);
  expect_short("a a", QD_BOS_AUTO, "3 4");
  expect_short("a", QD_BOS_YES, "0 3");
  make_short(1, 0, 1);
  expect_short("a", QD_BOS_AUTO, "4 1");
}

/* ---- tokenizer_config.json ----------------------------------------------------------------------------------------------- */

Test(gguf_tokenizer, the_chat_template_is_kept) {
  char *what;
  qd_json *made;
  qd_make_gguf_text(&maker, "tokenizer.chat_template", "{{ messages }}\n\"x\"");
  make_short(1, 1, 0);
  cr_assert_eq(qd_side_file_json(file, "tokenizer_config.json", QD_SIDE_FILE_BYTES, &what, &made), QD_OK, "%s",
               qd_error_text());
  cr_expect_str_eq(qd_json_text(qd_json_get(made, "chat_template")), "{{ messages }}\n\"x\"");
  cr_expect_str_eq(qd_json_text(qd_json_get(made, "eos_token")), "</s>");
  cr_expect_null(qd_json_get(made, "unk_token"));
  qd_heap_free(what);
  qd_json_free(made);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------ */

static void begin_short(const char *second, size_t n_scores) {
  put(0, "a", NORMAL), put(1, second, NORMAL);
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "llama");
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", token, n_tokens);
  qd_make_gguf_floats(&maker, "tokenizer.ggml.scores", score, n_scores);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.bos_token_id", 0);
}

static void expect_refusal(qd_status expected, const char *text) {
  qd_tokenizer *t;
  qd_make_gguf(&maker, file);
  qd_status got = qd_tokenizer_open(file, &t);
  cr_expect_eq(got, expected, "%s: %s", qd_status_name(got), qd_error_text());
  cr_expect(strstr(qd_error_text(), text) != NULL, "\"%s\" is not in: %s", text, qd_error_text());
}

Test(gguf_tokenizer, says_what_is_wrong_with_a_vocabulary) {
  begin_short("a", 2);
  expect_refusal(QD_EBADINPUT, "the tokens 0 and 1 are both \"a\"");
  begin_short("", 2);
  expect_refusal(QD_EBADINPUT, "token 1 is empty");
  begin_short("\xff", 2);
  expect_refusal(QD_EBADINPUT, "tokenizer.ggml.tokens is no UTF-8");
  begin_short("b", 1);
  expect_refusal(QD_EBADINPUT, "tokenizer.ggml.scores has 1 elements, there are 2 tokens");
  begin_short("b", 2);
  qd_make_gguf_ints(&maker, "tokenizer.ggml.token_type", type, 1);
  expect_refusal(QD_EBADINPUT, "tokenizer.ggml.token_type has 1 elements");
  begin_short("b", 2);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.eos_token_id", 2);
  expect_refusal(QD_EBADINPUT, "tokenizer.ggml.eos_token_id is 2, 0 to 1 is expected");
  begin_short("b", 2);
  qd_make_gguf_bool(&maker, "tokenizer.ggml.add_eos_token", 1);
  expect_refusal(QD_EBADINPUT, "add_eos_token without");
  begin_short("b", 2);
  qd_make_gguf_bool(&maker, "tokenizer.ggml.remove_extra_whitespaces", 1);
  expect_refusal(QD_EUNSUPPORTED, "remove_extra_whitespaces");
  static char text[1 << 20]; /* cut at each place this would take an hour */
  memset(text, 'a', sizeof text - 1);
  begin_short(text, 2);
  expect_refusal(QD_EBADINPUT, "token 1 has 1048575 bytes, at most 1024 are read");
  expect_refusal(QD_ENOTFOUND, "no vocabulary");
}
