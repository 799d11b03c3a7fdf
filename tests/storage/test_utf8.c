#include "storage/utf8.h"

#include <criterion/criterion.h>
#include <string.h>

Test(utf8, reads_back_every_code_point) {
  for (uint32_t c = 0; c <= 0x10FFFF; c++) {
    if (c == 0xD800) c = 0xE000;
    char text[QD_UTF8_MAX];
    size_t n = qd_utf8_write(c, text), bytes;
    uint32_t back;
    cr_assert(qd_utf8_next(text, n, &bytes, &back) && bytes == n && back == c, "U+%04X", c);
    cr_assert_eq(qd_utf8_bytes(text[0]), n);
  }
}

Test(utf8, refuses_what_is_not) {
  static const struct {
    const char *text;
    size_t      part; /* the longest start of a character */
  } bad[] = {{"\x80", 1},
             {"\xC0\xAF", 1},
             {"\xC1\xBF", 1},
             {"\xE0\x80\xAF", 1},
             {"\xED\xA0\x80", 1},
             {"\xF0\x8F\xBF\xBF", 1},
             {"\xF4\x90\x80\x80", 1},
             {"\xF5\x80\x80\x80", 1},
             {"\xFF", 1},
             {"\xC3", 1},
             {"\xE2\x82", 2},
             {"\xE2\x82 ", 2},
             {"\xF0\x9F\x98", 3},
             {"\xF0\x9F\x98x", 3}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t bytes, offset = 99;
    uint32_t c;
    char text[16] = "ok";
    strcat(text, bad[i].text);
    cr_expect_not(qd_utf8_next(bad[i].text, strlen(bad[i].text), &bytes, &c), "%zu", i);
    cr_expect_eq(bytes, bad[i].part, "%zu: %zu", i, bytes);
    cr_expect_not(qd_utf8_valid(text, strlen(text), &offset));
    cr_expect_eq(offset, 2);
  }
}

Test(utf8, takes_nul_and_nothing) {
  size_t bad;
  cr_expect(qd_utf8_valid("a\0b", 3, &bad));
  cr_expect(qd_utf8_valid(NULL, 0, &bad));
}

Test(utf8, knows_white_space) {
  static const uint32_t space[] = {9, 13, 32, 0x85, 0xA0, 0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  static const uint32_t other[] = {8, 14, 0x1F, 'a', 0x180E, 0x200B, 0x2060, 0xFEFF};
  for (size_t i = 0; i < sizeof space / sizeof *space; i++) cr_expect(qd_utf8_is_space(space[i]), "U+%04X", space[i]);
  for (size_t i = 0; i < sizeof other / sizeof *other; i++) cr_expect_not(qd_utf8_is_space(other[i]), "U+%04X", other[i]);
}

Test(utf8, strips_as_python_does) {
  static const struct {
    const char *text, *stripped;
  } known[] = {{"", ""}, {" \t\n", ""}, {"a", "a"}, {" \xC2\xA0" "a b\xE3\x80\x80\n", "a b"},
               {"\x1F\x1C\xC3\xA9 ", "\xC3\xA9"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    size_t begin, n = qd_utf8_strip(known[i].text, strlen(known[i].text), &begin);
    cr_expect_eq(n, strlen(known[i].stripped), "%zu: %zu", i, n);
    cr_expect_eq(memcmp(known[i].text + begin, known[i].stripped, n), 0, "%zu", i);
  }
  cr_expect_eq(qd_utf8_length("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 10), 4);
  cr_expect_eq(qd_utf8_length("", 0), 0);
}
