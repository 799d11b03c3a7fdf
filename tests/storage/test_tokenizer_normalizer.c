#include <criterion/criterion.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"

static qd_status open_normalizer(const char *text, qd_normalizer *out) {
  qd_json *json;
  cr_assert_eq(qd_json_parse(text, strlen(text), "part", &json), QD_OK, "%s", qd_error_text());
  *out = (qd_normalizer){0};
  qd_status status = qd_normalizer_parse(json, "part", out);
  qd_json_free(json);
  return status;
}

static void expect_text(const char *part, const char *text, const char *expected) {
  qd_normalizer normalizer;
  qd_matcher matcher;
  qd_buffer buffer = {0}, spare = {0};
  cr_assert_eq(open_normalizer(part, &normalizer), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_matcher_open(&matcher), QD_OK);
  cr_assert_eq(qd_buffer_add(&buffer, text, strlen(text)), QD_OK);
  cr_assert_eq(qd_normalizer_apply(&normalizer, &matcher, &buffer, &spare), QD_OK, "%s", qd_error_text());
  bool same = buffer.n == strlen(expected) && memcmp(buffer.at, expected, buffer.n) == 0;
  cr_expect(same, "%s of \"%s\": \"%.*s\"", part, text, (int)buffer.n, buffer.at);
  qd_buffer_release(&buffer);
  qd_buffer_release(&spare);
  qd_matcher_close(&matcher);
  qd_normalizer_release(&normalizer);
}

Test(tokenizer_normalizer, prepends_and_replaces) {
  expect_text("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "a", "_a");
  expect_text("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "", "");
  expect_text("{\"type\":\"Replace\",\"pattern\":{\"String\":\".\"},\"content\":\"--\"}", "a.b.", "a--b--");
  expect_text("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"\"}", "a   b c", "ab c");
  expect_text(
      "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\" "
      "\"},{\"type\":\"Sequence\",\"normalizers\":["
      "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}]}]}",
      "a b", "_a_b");
}

Test(tokenizer_normalizer, refuses_to_make_a_terabyte_of_a_page) {
  enum { CONTENT = 1000, STEPS = 4 };
  char part[STEPS * (CONTENT + 100)] = "{\"type\":\"Sequence\",\"normalizers\":[";
  for (int i = 0; i < STEPS; i++) {
    strcat(part, i > 0 ? "," : "");
    strcat(part, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"");
    memset(part + strlen(part), 'a', CONTENT);
    strcat(part, "\"}");
  }
  strcat(part, "]}");
  qd_normalizer normalizer;
  qd_matcher matcher;
  qd_buffer buffer = {0}, spare = {0};
  cr_assert_eq(open_normalizer(part, &normalizer), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_matcher_open(&matcher), QD_OK);
  cr_assert_eq(qd_buffer_add(&buffer, "aaaaaaaaaa", 10), QD_OK);
  cr_assert_eq(qd_normalizer_apply(&normalizer, &matcher, &buffer, &spare), QD_EBADINPUT);
  cr_assert_not_null(strstr(qd_error_text(), "of a text of 10"), "%s", qd_error_text());
  qd_buffer_release(&buffer);
  qd_buffer_release(&spare);
  qd_matcher_close(&matcher);
  qd_normalizer_release(&normalizer);
}

Test(tokenizer_normalizer, gives_the_unicode_forms) {
  static const char text[] =
      "\xC3\xA9"
      "e\xCC\x81\xEF\xAC\x81\xE1\xBA\x9B\xCC\xA3\xEA\xB0\x80"; /* e', e + ', fi ligature, s with two dots, ga */
  expect_text("{\"type\":\"NFC\"}", text, "\xC3\xA9\xC3\xA9\xEF\xAC\x81\xE1\xBA\x9B\xCC\xA3\xEA\xB0\x80");
  expect_text("{\"type\":\"NFD\"}", text, "e\xCC\x81" "e\xCC\x81\xEF\xAC\x81\xC5\xBF\xCC\xA3\xCC\x87\xE1\x84\x80\xE1\x85\xA1");
  expect_text("{\"type\":\"NFKC\"}", text, "\xC3\xA9\xC3\xA9" "fi\xE1\xB9\xA9\xEA\xB0\x80");
  expect_text("{\"type\":\"NFKD\"}", text, "e\xCC\x81" "e\xCC\x81" "fis\xCC\xA3\xCC\x87\xE1\x84\x80\xE1\x85\xA1");
  expect_text("{\"type\":\"NFC\"}", "plain ASCII\r\n", "plain ASCII\r\n");
}

Test(tokenizer_normalizer, sorts_a_long_run_of_marks) { /* quadratic work would not end */
  enum { PAIRS = 200000 };
  qd_normalizer normalizer;
  qd_matcher matcher;
  qd_buffer buffer = {0}, spare = {0};
  cr_assert_eq(open_normalizer("{\"type\":\"NFC\"}", &normalizer), QD_OK);
  cr_assert_eq(qd_matcher_open(&matcher), QD_OK);
  cr_assert_eq(qd_buffer_add(&buffer, "x", 1), QD_OK);
  for (int i = 0; i < PAIRS; i++)
    cr_assert_eq(qd_buffer_add(&buffer, "\xCC\x81\xCC\x96", 4), QD_OK); /* above (230), below (220) */
  cr_assert_eq(qd_normalizer_apply(&normalizer, &matcher, &buffer, &spare), QD_OK);
  cr_assert_eq(buffer.n, 1 + 4 * (size_t)PAIRS);
  for (int i = 0; i < PAIRS; i++) {
    cr_assert(memcmp(buffer.at + 1 + 2 * i, "\xCC\x96", 2) == 0);
    cr_assert(memcmp(buffer.at + 1 + 2 * (PAIRS + i), "\xCC\x81", 2) == 0);
  }
  qd_buffer_release(&buffer);
  qd_buffer_release(&spare);
  qd_matcher_close(&matcher);
  qd_normalizer_release(&normalizer);
}

Test(tokenizer_normalizer, refuses_by_name) {
  static const struct {
    const char *part;
    qd_status   status;
    const char *says;
  } bad[] = {{"{\"type\":\"Lowercase\"}", QD_EUNSUPPORTED, "Lowercase"},
             {"{\"type\":\"BertNormalizer\"}", QD_EUNSUPPORTED, "BertNormalizer"},
             {"{\"type\":\"Precompiled\"}", QD_EUNSUPPORTED, "Precompiled"},
             {"{\"type\":7}", QD_EBADINPUT, "type"},
             {"[]", QD_EBADINPUT, "not an object"},
             {"{\"type\":\"Prepend\"}", QD_EBADINPUT, "prepend"},
             {"{\"type\":\"Sequence\"}", QD_EBADINPUT, "normalizers"},
             {"{\"type\":\"Sequence\",\"normalizers\":[null]}", QD_EBADINPUT, "null"},
             {"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Strip\"}]}", QD_EUNSUPPORTED, "Strip"},
             {"{\"type\":\"Replace\",\"content\":\"\"}", QD_EBADINPUT, "pattern"},
             {"{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}", QD_EBADINPUT, "String"},
             {"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}", QD_EBADINPUT, "("}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    qd_normalizer normalizer;
    cr_expect_eq(open_normalizer(bad[i].part, &normalizer), bad[i].status, "%s", bad[i].part);
    cr_expect_neq(strstr(qd_error_text(), bad[i].says), NULL, "%s says: %s", bad[i].part, qd_error_text());
    qd_normalizer_release(&normalizer);
  }
}
