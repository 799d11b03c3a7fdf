#include "storage/text_file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

/* Python's gzip.compress of {"text":"hello"}\n and of {"text":"world"}\n, one after the other. */
static const char packed[] =
    "\x1F\x8B\x08\x00\x00\x00\x00\x00\x02\x03\xAB\x56\x2A\x49\xAD\x28\x51\xB2\x52\xCA\x48\xCD\xC9\xC9\x57\xAA\xE5\x02\x00\xBE"
    "\xA6\x31\x1D\x11\x00"
    "\x00\x00\x1F\x8B\x08\x00\x00\x00\x00\x00\x02\x03\xAB\x56\x2A\x49\xAD\x28\x51\xB2\x52\x2A\xCF\x2F\xCA\x49\x51\xAA\xE5\x02"
    "\x00\x9D\x3E\x07\xF2"
    "\x11\x00\x00\x00";
enum { PACKED_BYTES = sizeof packed - 1, FIRST_MEMBER = 37, FILLING = 28 };
static const char unpacked[] = "{\"text\":\"hello\"}\n{\"text\":\"world\"}\n";

Test(text_file, unpacks_all_members_of_gzip) {
  char *text;
  size_t n;
  cr_assert_eq(qd_gzip_unpack(packed, PACKED_BYTES, "test", &text, &n), QD_OK, "%s", qd_error_text());
  cr_expect_eq(n, strlen(unpacked));
  cr_expect_arr_eq(text, unpacked, n);
  qd_heap_free(text);
}

Test(text_file, refuses_damaged_gzip) {
  for (size_t cut = 0; cut < PACKED_BYTES; cut++) { /* cut anywhere but between the members */
    char *text;
    size_t n;
    qd_status status = qd_gzip_unpack(packed, cut, "test", &text, &n);
    cr_expect_eq(status, cut == FIRST_MEMBER ? QD_OK : QD_EBADINPUT, "cut at %zu", cut);
    qd_heap_free(text);
  }
  for (size_t at = 10; at < FIRST_MEMBER; at++) { /* a flipped bit breaks the data or the checksum, or is filling */
    char damaged[PACKED_BYTES], *text;
    size_t n;
    memcpy(damaged, packed, PACKED_BYTES);
    damaged[at] = (char)(damaged[at] ^ 0x10);
    qd_status status = qd_gzip_unpack(damaged, PACKED_BYTES, "test", &text, &n);
    bool same = status == QD_OK && n == strlen(unpacked) && memcmp(text, unpacked, n) == 0;
    cr_expect(status == QD_EBADINPUT || (same && at == FILLING), "flipped at %zu", at);
    qd_heap_free(text);
  }
  char more[PACKED_BYTES + 1], *text;
  size_t n;
  memcpy(more, packed, PACKED_BYTES);
  more[PACKED_BYTES] = 'x';
  cr_expect_eq(qd_gzip_unpack(more, sizeof more, "test", &text, &n), QD_EBADINPUT);
  cr_expect_neq(strstr(qd_error_text(), "1 bytes that are not gzip"), NULL, "%s", qd_error_text());
}

Test(text_file, reads_packed_and_plain_alike_with_the_files_own_digest) {
  qd_temporary_folder folder;
  qd_text_file a, b, c;
  qd_digest digest;
  qd_temporary_folder_open(&folder);
  cr_assert_eq(qd_text_file_read(qd_temporary_write(&folder, "a.gz", packed, PACKED_BYTES), true, &a), QD_OK);
  cr_assert_eq(qd_text_file_read(qd_temporary_write_text(&folder, "b", unpacked), true, &b), QD_OK);
  cr_assert_eq(qd_text_file_read(qd_temporary_path(&folder, "a.gz"), false, &c), QD_OK);
  cr_expect_eq(a.n, b.n);
  cr_expect_arr_eq(a.text, b.text, b.n);
  cr_expect_eq(c.n, PACKED_BYTES);
  qd_digest_of(packed, PACKED_BYTES, &digest);
  cr_expect(qd_digest_equal(&a.digest, &digest));
  cr_expect_not(qd_digest_equal(&b.digest, &digest));
  qd_text_file_release(&a);
  qd_text_file_release(&b);
  qd_text_file_release(&c);
  cr_expect_eq(qd_text_file_read(qd_temporary_path(&folder, "none"), true, &a), QD_ENOTFOUND);
  qd_temporary_folder_close(&folder);
}

Test(text_file, finds_the_lines_that_are_not_blank) {
  static const char text[] = "\xEF\xBB\xBF{\"text\":\"a\"}\n\n \t\r\n{\"id\":1,\"text\":\"b\\u0000\\n\"}\r\n{\"text\":\"c\"}";
  static const size_t number[] = {1, 4, 5}, bytes[] = {1, 3, 1};
  static const char *const expected[] = {"a", "b\0\n", "c"};
  qd_jsonl lines;
  cr_assert_eq(qd_jsonl_open(text, sizeof text - 1, "x.jsonl", &lines), QD_OK, "%s", qd_error_text());
  cr_assert_eq(lines.n, 3);
  for (size_t i = 0; i < 3; i++) {
    char *got;
    size_t n;
    cr_expect_eq(lines.line[i].number, number[i]);
    cr_assert_eq(qd_jsonl_text(&lines, i, &got, &n), QD_OK, "%s", qd_error_text());
    cr_expect_eq(n, bytes[i]);
    cr_expect_arr_eq(got, expected[i], n);
    qd_heap_free(got);
  }
  qd_jsonl_close(&lines);
}

Test(text_file, names_the_line_that_is_wrong) {
  static const char *const bad[] = {"{\"text\":\"a\"",   "{\"content\":\"a\"}", "{\"text\":7}", "[\"a\"]", "7",
                                    "{\"text\":\"a\"} x"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[128], *got;
    qd_jsonl lines;
    size_t n;
    snprintf(text, sizeof text, "{\"text\":\"a\"}\n\n%s\n", bad[i]);
    cr_assert_eq(qd_jsonl_open(text, strlen(text), "x.jsonl", &lines), QD_OK);
    cr_expect_eq(qd_jsonl_text(&lines, 1, &got, &n), QD_EBADINPUT, "%s", bad[i]);
    cr_expect_neq(strstr(qd_error_text(), "x.jsonl, line 3"), NULL, "%s", qd_error_text());
    cr_expect_null(got);
    qd_jsonl_close(&lines);
  }
}

Test(text_file, gives_a_lines_document) {
  char what[QD_JSONL_WHAT_BYTES];
  qd_json *line;
  qd_jsonl lines;
  cr_assert_eq(qd_jsonl_open("\n[1]\n{", 6, "x.jsonl", &lines), QD_OK);
  cr_assert_eq(qd_jsonl_parse(&lines, 0, what, &line), QD_OK, "%s", qd_error_text());
  cr_expect_str_eq(what, "x.jsonl, line 2");
  cr_expect_eq(qd_json_length(line), 1);
  qd_json_free(line);
  cr_expect_eq(qd_jsonl_parse(&lines, 1, what, &line), QD_EBADINPUT);
  cr_expect_neq(strstr(qd_error_text(), "x.jsonl, line 3"), NULL, "%s", qd_error_text());
  cr_expect_null(line);
  qd_jsonl_close(&lines);
}

Test(text_file, refuses_a_file_without_lines) {
  qd_jsonl lines;
  cr_expect_eq(qd_jsonl_open("\n \n", 3, "x.jsonl", &lines), QD_EBADINPUT);
}
