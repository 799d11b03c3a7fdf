#include <criterion/criterion.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"

/* The matches of a pattern, joined by "|", other stretches in brackets. */
static void expect_cover(const char *pattern, const char *text, const char *expected) {
  qd_regex regex;
  qd_matcher matcher;
  char got[512] = "";
  cr_assert_eq(qd_regex_open(pattern, strlen(pattern), "test", &regex), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_matcher_open(&matcher), QD_OK);
  cr_assert_eq(qd_regex_cover(&regex, &matcher, text, strlen(text)), QD_OK, "%s", qd_error_text());
  for (size_t i = 0; i < matcher.spans.n; i++) {
    qd_span s = matcher.spans.at[i];
    if (i > 0) strcat(got, "|");
    if (!s.matched) strcat(got, "[");
    strncat(got, text + s.begin, s.end - s.begin);
    if (!s.matched) strcat(got, "]");
  }
  cr_expect_str_eq(got, expected, "%s on \"%s\": %s", pattern, text, got);
  qd_matcher_close(&matcher);
  qd_regex_close(&regex);
}

Test(tokenizer_regex, covers_a_text) {
  expect_cover("b+", "abbcb", "[a]|bb|[c]|b");
  expect_cover("b", "xyz", "[xyz]");
  expect_cover("b", "", "");
  expect_cover("x?", "axb", "|[a]|x|[b]|"); /* as Oniguruma's iterator: no empty match right behind a match */
  expect_cover("(?i:'s|'t)", "it'S'T's", "[it]|'S|'T|'s");
  expect_cover(" ?\\p{L}+|\\s+(?!\\S)|\\s+", "a  b", "a| | b");
  expect_cover("(?<=a)b", "abcb", "[a]|b|[cb]");
  expect_cover("[^\\s\\p{N}]{2,3}", "abcd ef1", "abc|[d ]|ef|[1]");
  expect_cover("\\x{e9}|\\r|\\.", "\xC3\xA9.\r", "\xC3\xA9|.|\r");
}

Test(tokenizer_regex, means_white_space_by_s) {
  expect_cover("\\s+", "a\xE1\xA0\x8E" "b\xC2\x85", "[a\xE1\xA0\x8E" "b]|\xC2\x85"); /* not U+180E, but U+0085 */
  expect_cover("[\\S]+", "a \xE1\xA0\x8E", "a|[ ]|\xE1\xA0\x8E");
}

Test(tokenizer_regex, refuses_what_would_mean_something_else) {
  static const char *const pattern[] = {
      "\\w+",    "\\h",   "\\b",    "\\v",     "\\K",   "\\1",     "\\k<a>",  "\\p{Han}", "\\p{Alphabetic}",
      "\\p{Cn}", "\\pL",  "\\p",    "\\",      "^a",    "a$",      "[a[b]]",  "[a&&b]",   "[[:alpha:]]",
      "[]a]",    "[^]a]", "(?m:a)", "(?<n>a)", "(?#c)", "(*UTF)a", "a{2,3}+", "a{2}?",    "a{,3}",
      "a{",      "a{x}",  "\\x41",  "\\x{",    "(?i)a", "(?"};
  for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
    qd_regex regex = {NULL};
    cr_expect_eq(qd_regex_open(pattern[i], strlen(pattern[i]), "test", &regex), QD_EUNSUPPORTED, "%s", pattern[i]);
    cr_expect_null(regex.code);
    cr_expect_neq(strstr(qd_error_text(), pattern[i]), NULL, "%s", qd_error_text());
  }
}

Test(tokenizer_regex, refuses_what_is_no_pattern) {
  static const char *const pattern[] = {"(a", "a)", "[a", "*a", "[z-a]", "(?<=a+)b"};
  for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
    qd_regex regex = {NULL};
    cr_expect_eq(qd_regex_open(pattern[i], strlen(pattern[i]), "test", &regex), QD_EBADINPUT, "%s", pattern[i]);
  }
}

Test(tokenizer_regex, gives_up_on_a_pattern_that_explodes) {
  qd_regex regex;
  qd_matcher matcher;
  char text[64];
  memset(text, 'a', sizeof text);
  memcpy(text + sizeof text - 2, "cx", 2);
  cr_assert_eq(qd_regex_open("(?:a+a+)+x", 10, "test", &regex), QD_OK);
  cr_assert_eq(qd_matcher_open(&matcher), QD_OK);
  cr_expect_eq(qd_regex_cover(&regex, &matcher, text, sizeof text), QD_EUNSUPPORTED);
  qd_matcher_close(&matcher);
  qd_regex_close(&regex);
}

Test(tokenizer_regex, replaces_literally) {
  qd_regex regex;
  qd_matcher matcher;
  qd_buffer content = {0}, out = {0};
  cr_assert_eq(qd_regex_open_literal("a.", 2, "test", &regex), QD_OK);
  cr_assert_eq(qd_matcher_open(&matcher), QD_OK);
  cr_assert_eq(qd_buffer_add(&content, "<$0>", 4), QD_OK);
  cr_assert_eq(qd_regex_replace(&regex, &matcher, (qd_span){.begin = 1, .end = 8}, "xaba.a.ba", &content, &out), QD_OK);
  cr_expect_eq(out.n, 11);
  cr_expect_arr_eq(out.at, "ab<$0><$0>b", 11);
  qd_buffer_release(&content);
  qd_buffer_release(&out);
  qd_matcher_close(&matcher);
  qd_regex_close(&regex);
}
