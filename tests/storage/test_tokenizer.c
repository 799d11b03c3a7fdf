#include "storage/tokenizer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/json.h"
#include "tests/support/temporary_folder.h"

static qd_tokenizer *must_open(const char *folder) {
  qd_tokenizer *t;
  cr_assert_eq(qd_tokenizer_open(folder, &t), QD_OK, "%s", qd_error_text());
  return t;
}

static qd_json *must_read(const char *path) {
  qd_json *json;
  cr_assert_eq(qd_json_read(path, 1 << 28, &json), QD_OK, "%s", qd_error_text());
  return json;
}

static bool same_ids(const int32_t *ids, size_t n, const qd_json *list) {
  bool same = n == qd_json_length(list);
  for (size_t i = 0; same && i < n; i++) same = ids[i] == qd_json_integer(qd_json_at(list, i));
  return same;
}

static void expect_encoding(const qd_tokenizer *t, const qd_json *text, qd_add_bos bos, const qd_json *expected,
                            const char *what) {
  int32_t *ids;
  size_t n;
  cr_assert_eq(qd_tokenizer_encode(t, qd_json_text(text), qd_json_text_bytes(text), bos, &ids, &n), QD_OK, "%s",
               qd_error_text());
  cr_expect(same_ids(ids, n, expected), "%s: ids of \"%s\"", what, qd_json_text(text));
  qd_heap_free(ids);
}

static void expect_decoding(const qd_tokenizer *t, const qd_json *list, const char *expected, const char *what) {
  int32_t ids[4096];
  char *text;
  size_t n = qd_json_length(list);
  cr_assert_leq(n, sizeof ids / sizeof *ids);
  for (size_t i = 0; i < n; i++) ids[i] = (int32_t)qd_json_integer(qd_json_at(list, i));
  cr_assert_eq(qd_tokenizer_decode(t, ids, n, &text), QD_OK, "%s", qd_error_text());
  cr_expect_str_eq(text, expected, "%s: \"%s\", expected \"%s\"", what, text, expected);
  qd_heap_free(text);
}

/* ---- the families, against the library ------------------------------------------------------------------------------ */

static const char *const family[] = {"llama2",    "mistral",     "llama3",     "qwen2",       "smollm",
                                     "tekken",    "unknown",     "unfused",    "odd",         "strange",
                                     "cuts_gpt2", "cuts_llama3", "cuts_qwen2", "cuts_tekken", "cuts_digits"};

Test(tokenizer, gives_the_librarys_ids_and_texts) {
  for (size_t f = 0; f < sizeof family / sizeof *family; f++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/tokenizers/%s", QDIST_SOURCE_DIR, family[f]);
    qd_tokenizer *t = must_open(path);
    strcat(path, "/cases.json");
    qd_json *cases = must_read(path);
    cr_assert_gt(qd_json_length(cases), 80);
    for (size_t i = 0; i < qd_json_length(cases); i++) {
      const qd_json *c = qd_json_at(cases, i);
      expect_encoding(t, qd_json_get(c, "text"), QD_BOS_AUTO, qd_json_get(c, "ids"), family[f]);
      expect_encoding(t, qd_json_get(c, "text"), QD_BOS_NO, qd_json_get(c, "plain"), family[f]);
      expect_decoding(t, qd_json_get(c, "ids"), qd_json_text(qd_json_get(c, "decoded")), family[f]); /* up to a NUL */
    }
    qd_json_free(cases);
    qd_tokenizer_close(t);
  }
}

static const struct {
  const char *golden, *model;
} real[] = {{"tiny1m", "tiny1m"},
            {"babyllama-tok361", "babyllama-tok361"},
            {"stories260K", "stories260K"},
            {"qdist-tiny", "qdist-tiny"},
            {"qdist-tiny.wikitext2", "qdist-tiny"}};

/* The bytes of the first `characters` characters. */
static size_t bytes_of(const char *text, size_t n, int64_t characters) {
  size_t i = 0;
  while (i < n && (((unsigned char)text[i] & 0xC0) == 0x80 || characters-- > 0)) i++;
  return i;
}

static void expect_whole_text(const qd_tokenizer *t, const char *root, const qd_json *golden) {
  char path[4096], *text;
  size_t n, n_ids;
  int32_t *ids;
  snprintf(path, sizeof path, "%s/data/text/%s", root, qd_json_text(qd_json_get(golden, "text")));
  cr_assert_eq(qd_file_read(path, 1 << 28, &text, &n), QD_OK, "%s", qd_error_text());
  n = bytes_of(text, n, qd_json_integer(qd_json_get(golden, "tokenized_chars")));
  cr_assert_eq(qd_tokenizer_encode(t, text, n, QD_BOS_AUTO, &ids, &n_ids), QD_OK, "%s", qd_error_text());
  cr_expect_eq((int64_t)n_ids, qd_json_integer(qd_json_get(golden, "n_tokens")), "%s: %zu", path, n_ids);
  const qd_json *first = qd_json_get(golden, "first_ids");
  cr_expect(same_ids(ids, qd_json_length(first), first), "%s", path);
  qd_heap_free(ids);
  qd_heap_free(text);
}

Test(tokenizer, gives_real_models_ids) {
  const char *root = getenv("QDIST_TEST_DATA");
  if (root == NULL) cr_skip_test("QDIST_TEST_DATA, the folder with data/models, is not set");
  for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s.json", root, real[i].golden);
    qd_json *golden = must_read(path);
    snprintf(path, sizeof path, "%s/data/models/%s", root, real[i].model);
    qd_tokenizer *t = must_open(path);
    const qd_json *list = qd_json_get(golden, "tokenizer");
    for (size_t k = 0; k < qd_json_length(list); k++)
      expect_encoding(t, qd_json_get(qd_json_at(list, k), "text"), QD_BOS_AUTO, qd_json_get(qd_json_at(list, k), "ids"),
                      real[i].model);
    expect_whole_text(t, root, golden);
    qd_tokenizer_close(t);
    qd_json_free(golden);
  }
}

/* ---- BOS ------------------------------------------------------------------------------------------------------------ */

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"</s>\":1,\"a\":2,\"b\":3},\"merges\":[]}"
#define SPECIAL "{\"id\":0,\"content\":\"<s>\",\"special\":true},{\"id\":1,\"content\":\"</s>\",\"special\":true}"
#define TOKEN(name, id) "\"" name "\":{\"id\":\"" name "\",\"ids\":[" id "],\"tokens\":[\"" name "\"]}"
#define POST(single)                                                        \
  "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" single \
  "],\"special_tokens\":{" TOKEN("<s>", "0") "," TOKEN("</s>", "1") "}}"
#define BOS "{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}}"
#define EOS "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}"
#define TEXT "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"

static qd_status open_text(qd_temporary_folder *folder, const char *tokenizer, const char *config, qd_tokenizer **out) {
  qd_temporary_write_text(folder, "tokenizer.json", tokenizer);
  if (config != NULL) qd_temporary_write_text(folder, "tokenizer_config.json", config);
  return qd_tokenizer_open(folder->path, out);
}

static void expect_ids(const qd_tokenizer *t, const char *text, qd_add_bos bos, const char *expected) {
  int32_t *ids;
  size_t n;
  char got[256] = "";
  cr_assert_eq(qd_tokenizer_encode(t, text, strlen(text), bos, &ids, &n), QD_OK, "%s", qd_error_text());
  for (size_t i = 0; i < n; i++) snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids[i]);
  cr_expect_str_eq(got, expected, "\"%s\" (%d): %s, expected %s", text, (int)bos, got, expected);
  qd_heap_free(ids);
}

Test(tokenizer, adds_the_default_one_bos_or_none) {
  qd_temporary_folder folder;
  qd_tokenizer *t;
  qd_temporary_folder_open(&folder);
  cr_assert_eq(open_text(&folder, "{" MODEL ",\"added_tokens\":[" SPECIAL "]," POST(BOS "," BOS "," TEXT "," EOS) "}",
                         "{\"bos_token\":\"<s>\",\"add_bos_token\":false}", &t),
               QD_OK, "%s", qd_error_text());
  cr_expect_eq(qd_tokenizer_bos(t), 0);
  cr_expect(qd_tokenizer_adds_bos(t));
  cr_expect_eq(qd_tokenizer_size(t), 4);
  cr_expect_eq(qd_tokenizer_unknown(t), -1);
  expect_ids(t, "ab", QD_BOS_AUTO, "0 0 2 3 1");
  expect_ids(t, "ab", QD_BOS_YES, "0 2 3 1");
  expect_ids(t, "<s>ab", QD_BOS_YES, "0 2 3 1"); /* the text brings its own */
  expect_ids(t, "ab", QD_BOS_NO, "2 3");
  expect_ids(t, "", QD_BOS_AUTO, "0 0 1");
  expect_ids(t, "", QD_BOS_NO, "");
  qd_tokenizer_close(t);
  qd_temporary_folder_close(&folder);
}

Test(tokenizer, adds_a_bos_that_is_not_the_default) {
  qd_temporary_folder folder;
  qd_tokenizer *t;
  qd_temporary_folder_open(&folder);
  cr_assert_eq(open_text(&folder, "{" MODEL ",\"added_tokens\":[" SPECIAL "]}",
                         "{\"bos_token\":{\"content\":\"</s>\",\"special\":true}}", &t),
               QD_OK);
  cr_expect_eq(qd_tokenizer_bos(t), 1);
  cr_expect_not(qd_tokenizer_adds_bos(t));
  expect_ids(t, "ab", QD_BOS_AUTO, "2 3");
  expect_ids(t, "ab", QD_BOS_YES, "1 2 3");
  qd_tokenizer_close(t);
  qd_temporary_folder_close(&folder);
}

Test(tokenizer, finds_its_bos_without_a_config) {
  static const struct {
    const char *tokenizer;
    int32_t     bos;
  } known[] = {{"{" MODEL ",\"added_tokens\":[" SPECIAL "]," POST(EOS "," TEXT) "}", 1},
               {"{" MODEL ",\"added_tokens\":[" SPECIAL "]}", 0},
               {"{" MODEL "}", -1}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    qd_temporary_folder folder;
    qd_tokenizer *t;
    qd_temporary_folder_open(&folder);
    cr_assert_eq(open_text(&folder, known[i].tokenizer, NULL, &t), QD_OK, "%s", qd_error_text());
    cr_expect_eq(qd_tokenizer_bos(t), known[i].bos, "%zu", i);
    int32_t *ids;
    size_t n;
    qd_status expected = known[i].bos < 0 ? QD_EINVAL : QD_OK;
    cr_expect_eq(qd_tokenizer_encode(t, "a", 1, QD_BOS_YES, &ids, &n), expected);
    qd_heap_free(ids);
    qd_tokenizer_close(t);
    qd_temporary_folder_close(&folder);
  }
}

/* ---- refused -------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *tokenizer;
  qd_status   status;
  const char *says;
} bad[] = {
    {"", QD_EBADINPUT, "tokenizer.json"},
    {"[1]", QD_EBADINPUT, "not an object"},
    {"{}", QD_EBADINPUT, "model"},
    {"{\"version\":\"2.0\"," MODEL "}", QD_EUNSUPPORTED, "2.0"},
    {"{" MODEL ",\"added_tokens\":{}}", QD_EBADINPUT, "added_tokens"},
    {"{" MODEL ",\"added_tokens\":[1]}", QD_EBADINPUT, "added token"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":4,\"content\":\"\"}]}", QD_EBADINPUT, "empty"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]}", QD_EBADINPUT, "-1"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":99999999999,\"content\":\"x\"}]}", QD_EBADINPUT, "99999999999"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"x\"}]}", QD_EBADINPUT, "\"x\" has the id 3, its place gives it 4"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":4,\"content\":\"a\"}]}", QD_EBADINPUT, "\"a\" has the id 4"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":4,\"content\":\"x\"},{\"id\":4,\"content\":\"y\"}]}", QD_EBADINPUT,
     "\"y\" has the id 4"},
    {"{" MODEL ",\"added_tokens\":[{\"id\":4,\"content\":\"x\",\"lstrip\":1}]}", QD_EBADINPUT, "lstrip"},
    {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\"},\"added_tokens\":[{"
               "\"id\":4,\"content\":\"x\"}]}",
     QD_EUNSUPPORTED, "leaves nothing"},
    {"{" MODEL ",\"normalizer\":{\"type\":\"Lowercase\"}}", QD_EUNSUPPORTED, "normalizer Lowercase"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Whitespace\"}}", QD_EUNSUPPORTED, "pre-tokenizer Whitespace"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}}", QD_EUNSUPPORTED,
     "Odd"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+\"},\"behavior\":\"Isolated\"}}",
     QD_EUNSUPPORTED, "\\w+"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}}",
     QD_EBADINPUT, "(a"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":{}}}", QD_EBADINPUT, "pretokenizers"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", QD_EBADINPUT, "one character"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}}",
     QD_EUNSUPPORTED, "last"},
    {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\",\"add_prefix_"
               "space\":false}}",
     QD_EBADINPUT, "add_prefix_space"},
    {"{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", QD_EUNSUPPORTED, "post-processor BertProcessing"},
    {"{" MODEL "," POST(BOS) "}", QD_EUNSUPPORTED, "Sequence A"},
    {"{" MODEL "," POST(TEXT "," TEXT) "}", QD_EUNSUPPORTED, "one Sequence A"},
    {"{" MODEL "," POST("{}") "}", QD_EBADINPUT, "piece 0"},
    {"{" MODEL "," POST("{\"SpecialToken\":{\"id\":\"<x>\",\"type_id\":0}}," TEXT) "}", QD_EBADINPUT, "<x>"},
    {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" BOS "," TEXT
     "],\"special_tokens\":{" TOKEN("<s>", "4") "}}}",
     QD_EBADINPUT, "expected 0 to 3"},
    {"{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" BOS "," TEXT
     "],\"special_tokens\":{" TOKEN("<s>", "-1") "}}}",
     QD_EBADINPUT, "-1"},
    {"{" MODEL ",\"decoder\":{\"type\":\"WordPiece\"}}", QD_EUNSUPPORTED, "decoder WordPiece"},
    {"{" MODEL ",\"decoder\":{\"type\":\"Strip\",\"content\":\"\",\"start\":1,\"stop\":0}}", QD_EBADINPUT, "content"},
    {"{" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[null]}}", QD_EBADINPUT, "decoder 0"},
};

Test(tokenizer, refuses_bad_files) {
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    qd_temporary_folder folder;
    qd_tokenizer *t;
    qd_temporary_folder_open(&folder);
    cr_expect_eq(open_text(&folder, bad[i].tokenizer, NULL, &t), bad[i].status, "%s: %s", bad[i].tokenizer, qd_error_text());
    cr_expect_null(t);
    cr_expect_neq(strstr(qd_error_text(), bad[i].says), NULL, "%s says: %s", bad[i].tokenizer, qd_error_text());
    qd_temporary_folder_close(&folder);
  }
}

Test(tokenizer, names_a_missing_file) {
  qd_temporary_folder folder;
  qd_tokenizer *t;
  qd_temporary_folder_open(&folder);
  cr_expect_eq(qd_tokenizer_open(folder.path, &t), QD_ENOTFOUND);
  cr_expect_neq(strstr(qd_error_text(), "tokenizer.json"), NULL, "%s", qd_error_text());
  qd_temporary_folder_close(&folder);
}

Test(tokenizer, names_the_byte_that_is_not_utf8) {
  qd_temporary_folder folder;
  qd_tokenizer *t;
  int32_t *ids;
  size_t n;
  qd_temporary_folder_open(&folder);
  cr_assert_eq(open_text(&folder, "{" MODEL "}", NULL, &t), QD_OK);
  cr_expect_eq(qd_tokenizer_encode(t, "ab\xFF", 3, QD_BOS_AUTO, &ids, &n), QD_EBADINPUT);
  cr_expect_neq(strstr(qd_error_text(), "0xFF at offset 2"), NULL, "%s", qd_error_text());
  cr_expect_eq(qd_tokenizer_encode(t, "ax", 2, QD_BOS_AUTO, &ids, &n), QD_EBADINPUT); /* no token for x */
  cr_expect_null(ids);
  qd_tokenizer_close(t);
  qd_temporary_folder_close(&folder);
}

Test(tokenizer, decodes_ids_that_no_token_has_as_nothing) {
  qd_temporary_folder folder;
  qd_tokenizer *t;
  char *text;
  qd_temporary_folder_open(&folder);
  cr_assert_eq(open_text(&folder, "{" MODEL "}", NULL, &t), QD_OK);
  cr_assert_eq(qd_tokenizer_decode(t, (const int32_t[]){2, 4, 1000000, 3}, 4, &text), QD_OK);
  cr_expect_str_eq(text, "a b"); /* without a decoder, joined by spaces */
  qd_heap_free(text);
  cr_assert_eq(qd_tokenizer_decode(t, NULL, 0, &text), QD_OK);
  cr_expect_str_eq(text, "");
  qd_heap_free(text);
  cr_expect_eq(qd_tokenizer_decode(t, (const int32_t[]){-1}, 1, &text), QD_EBADINPUT);
  qd_tokenizer_close(t);
  qd_temporary_folder_close(&folder);
}

Test(tokenizer, decodes_halves_of_characters) {
  char path[4096], *text;
  int32_t *ids;
  size_t n;
  snprintf(path, sizeof path, "%s/tests/golden/tokenizers/llama2", QDIST_SOURCE_DIR);
  qd_tokenizer *t = must_open(path);
  cr_assert_eq(qd_tokenizer_encode(t, "\xE2\x82\xAC", 3, QD_BOS_NO, &ids, &n), QD_OK);
  cr_assert_eq(n, 4); /* the mark and three bytes */
  cr_assert_eq(qd_tokenizer_decode(t, ids, 3, &text), QD_OK);
  cr_expect_str_eq(text, "\xEF\xBF\xBD\xEF\xBF\xBD", "%s", text); /* byte fallback: one a byte */
  qd_heap_free(text);
  qd_heap_free(ids);
  qd_tokenizer_close(t);
  snprintf(path, sizeof path, "%s/tests/golden/tokenizers/cuts_gpt2", QDIST_SOURCE_DIR);
  t = must_open(path);
  cr_assert_eq(qd_tokenizer_encode(t, "\xE2\x82\xAC", 3, QD_BOS_NO, &ids, &n), QD_OK);
  cr_assert_eq(n, 4);
  cr_assert_eq(qd_tokenizer_decode(t, ids, 3, &text), QD_OK);
  cr_expect_str_eq(text, "\xE2\x96\x81\xEF\xBF\xBD", "%s", text); /* byte level: one a broken character */
  qd_heap_free(text);
  qd_heap_free(ids);
  qd_tokenizer_close(t);
}
