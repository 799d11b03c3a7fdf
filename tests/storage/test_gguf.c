#define _XOPEN_SOURCE 700
#include "storage/sources/gguf.h"

#include "kernels/base/heap.h"
#include "tests/support/gguf_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { F32 = 0, TYPE_U8 = 0, TYPE_I64 = 11, TYPE_U64 = 10, TYPE_F64 = 12, TYPE_ARRAY = 9, TYPE_TEXT = 8 };

static qd_temporary_folder folder;
static qd_gguf_maker maker;
static char file[600];
static qd_bytes bytes;

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  snprintf(file, sizeof file, "%s/x.gguf", folder.path);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(gguf, .init = open_folder, .fini = close_folder);

static qd_gguf read_made(void) {
  qd_gguf gguf;
  qd_make_gguf(&maker, file);
  cr_assert_eq(qd_bytes_open_file(file, &bytes), QD_OK);
  cr_assert_eq(qd_gguf_read(&bytes, &gguf), QD_OK, "%s", qd_error_text());
  return gguf;
}

static void done(qd_gguf *gguf) {
  qd_gguf_release(gguf);
  qd_bytes_close(&bytes);
}

static void expect_file(qd_status expected, const char *text) {
  qd_gguf gguf;
  cr_assert_eq(qd_bytes_open_file(file, &bytes), QD_OK);
  qd_status got = qd_gguf_read(&bytes, &gguf);
  cr_expect_eq(got, expected, "%s: %s", qd_status_name(got), qd_error_text());
  cr_expect(strstr(qd_error_text(), text) != NULL, "\"%s\" is not in: %s", text, qd_error_text());
  cr_expect(strstr(qd_error_text(), file) != NULL, "%s", qd_error_text());
  done(&gguf);
}

static void expect_refusal(qd_status expected, const char *text) {
  qd_make_gguf(&maker, file);
  expect_file(expected, text);
}

Test(gguf, values_of_all_kinds) {
  static const char *const texts[] = {"", "caf\xc3\xa9", "a b"};
  const uint8_t u8 = 200;
  const int64_t i64 = -5;
  const uint64_t huge = UINT64_MAX;
  const double f64 = 0.1;
  qd_make_gguf_raw(&maker, "u8", TYPE_U8, &u8, sizeof u8);
  qd_make_gguf_raw(&maker, "i64", TYPE_I64, &i64, sizeof i64);
  qd_make_gguf_raw(&maker, "huge", TYPE_U64, &huge, sizeof huge);
  qd_make_gguf_raw(&maker, "f64", TYPE_F64, &f64, sizeof f64);
  qd_make_gguf_f32(&maker, "f32", 1e-6f);
  qd_make_gguf_f32(&maker, "nan", NAN);
  qd_make_gguf_f32(&maker, "infinite", -INFINITY);
  qd_make_gguf_bool(&maker, "bool", 1);
  qd_make_gguf_text(&maker, "text", "x y");
  qd_make_gguf_texts(&maker, "texts", texts, 3);
  qd_make_gguf_floats(&maker, "floats", (float[]){1, 2}, 2);
  qd_make_gguf_ints(&maker, "ints", (int32_t[]){-1, 7, 9}, 3);
  qd_gguf g = read_made();
  int64_t whole;
  double number;
  bool truth;
  char *text;
  qd_gguf_texts list;
  float *floats;
  int32_t *ints;
  size_t n;
  cr_assert(qd_gguf_integer(&g, "u8", 0, 255, 0, &whole) == QD_OK && whole == 200);
  cr_assert(qd_gguf_integer(&g, "i64", -9, 9, 0, &whole) == QD_OK && whole == -5);
  cr_assert(qd_gguf_integer(&g, "absent", 0, 255, 77, &whole) == QD_OK && whole == 77);
  cr_assert(qd_gguf_number(&g, "f64", 0, &number) == QD_OK && number == 0.1);
  cr_assert(qd_gguf_number(&g, "f32", 0, &number) == QD_OK && number == 1e-6);
  cr_assert(qd_gguf_bool(&g, "bool", false, &truth) == QD_OK && truth);
  cr_assert(qd_gguf_text(&g, "text", &text) == QD_OK && strcmp(text, "x y") == 0);
  qd_heap_free(text);
  cr_assert(qd_gguf_text(&g, "absent", &text) == QD_OK && text == NULL);
  cr_assert(qd_gguf_read_texts(&g, "texts", &list) == QD_OK && list.n == 3);
  for (int i = 0; i < 3; i++) cr_expect(strcmp(list.text[i], texts[i]) == 0 && list.bytes[i] == strlen(texts[i]));
  qd_gguf_texts_release(&list);
  cr_assert(qd_gguf_read_floats(&g, "floats", &floats, &n) == QD_OK && n == 2 && floats[1] == 2);
  cr_assert(qd_gguf_read_ints(&g, "ints", &ints, &n) == QD_OK && n == 3 && ints[0] == -1 && ints[2] == 9);
  qd_heap_free(floats), qd_heap_free(ints);
  cr_expect_eq(qd_gguf_integer(&g, "huge", 0, INT32_MAX, 0, &whole), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_integer(&g, "text", 0, 1, 0, &whole), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_integer(&g, "f32", 0, 1, 0, &whole), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_number(&g, "u8", 0, &number), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_number(&g, "nan", 0, &number), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_number(&g, "infinite", 0, &number), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_bool(&g, "u8", 0, &truth), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_text(&g, "ints", &text), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_read_texts(&g, "ints", &list), QD_EBADINPUT);
  cr_expect_eq(qd_gguf_read_ints(&g, "floats", &ints, &n), QD_EBADINPUT);
  done(&g);
}

Test(gguf, tensors_lie_by_the_alignment) {
  const int64_t dim[] = {3, 2};
  float data[6] = {0};
  for (uint32_t alignment = 0; alignment <= 256; alignment = alignment ? 4 * alignment : 4) {
    maker.alignment = alignment, maker.version = alignment == 16 ? 2 : 3;
    qd_make_gguf_tensor(&maker, "a", F32, 2, dim, data, sizeof data);
    qd_make_gguf_tensor(&maker, "b", F32, 1, dim, data, 12);
    qd_gguf g = read_made();
    uint64_t step = alignment ? alignment : 32;
    const qd_gguf_tensor *a = qd_gguf_find_tensor(&g, "a"), *b = qd_gguf_find_tensor(&g, "b");
    cr_expect_eq(a->bytes, 24);
    cr_expect_eq(a->offset % step, 0);
    cr_expect_eq(b->offset - a->offset, (24 + step - 1) / step * step);
    cr_expect_null(qd_gguf_find_tensor(&g, "c"));
    done(&g);
  }
}

Test(gguf, says_what_is_no_file_of_ours) {
  qd_temporary_write(&folder, "x.gguf", "GGU", 3);
  expect_file(QD_EBADINPUT, "cut off");
  qd_temporary_write(&folder, "x.gguf", "PK..0123456789ab", 16);
  expect_file(QD_EBADINPUT, "does not begin with \"GGUF\"");
  maker.version = 1;
  expect_refusal(QD_EUNSUPPORTED, "version 1");
  maker.version = 4;
  expect_refusal(QD_EUNSUPPORTED, "version 4");
  maker.version = 3u << 24;
  expect_refusal(QD_EUNSUPPORTED, "big-endian");
}

Test(gguf, says_which_count_is_absurd) {
  maker.n_tensors = (uint64_t)1 << 60;
  expect_refusal(QD_EBADINPUT, "the number of tensors is 1152921504606846976");
  maker.n_pairs = (uint64_t)1 << 33;
  expect_refusal(QD_EBADINPUT, "the number of keys");
  qd_make_gguf_raw(&maker, "list", TYPE_ARRAY, "\4\0\0\0\0\0\0\0\0\0\0\x40", 12);
  expect_refusal(QD_EBADINPUT, "the array list of 4611686018427387904 elements");
  qd_make_gguf_raw(&maker, "list", TYPE_ARRAY, "\x8\0\0\0\1\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0", 20);
  expect_refusal(QD_EBADINPUT, "a text of 4294967295 bytes");
  qd_make_gguf_raw(&maker, "text", TYPE_TEXT, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
  expect_refusal(QD_EBADINPUT, "a text of 18446744073709551615 bytes");
  qd_make_gguf_raw(&maker, "list", TYPE_ARRAY, "\x8\0\0\0\0\0\0\x08\0\0\0\0", 12); /* empty ones, in a file of holes */
  qd_make_gguf(&maker, file);
  cr_assert_eq(truncate(file, (off_t)2 << 30), 0);
  expect_file(QD_EBADINPUT, "the array list has 134217728 texts, at most 67108864 are read");
}

Test(gguf, says_which_value_is_odd) {
  qd_make_gguf_raw(&maker, "nested", TYPE_ARRAY, "\x9\0\0\0\1\0\0\0\0\0\0\0", 12);
  expect_refusal(QD_EBADINPUT, "nested is an array of arrays");
  qd_make_gguf_raw(&maker, "odd", 77, "1234", 4);
  expect_refusal(QD_EBADINPUT, "odd is of the type 77");
  qd_make_gguf_u32(&maker, "twice", 1);
  qd_make_gguf_u32(&maker, "twice", 2);
  expect_refusal(QD_EBADINPUT, "the key twice is twice there");
  qd_make_gguf_u32(&maker, "", 1);
  expect_refusal(QD_EBADINPUT, "a key at byte 24 has 0 bytes");
  qd_make_gguf_u32(&maker, "\xff\xfe", 1);
  expect_refusal(QD_EBADINPUT, "no UTF-8");
  qd_make_gguf_u32(&maker, "general.alignment", 24);
  expect_refusal(QD_EBADINPUT, "general.alignment 24 is no power of two");
  qd_make_gguf_u32(&maker, "general.alignment", 0);
  expect_refusal(QD_EBADINPUT, "general.alignment is 0");
}

static void tensor(const char *name, uint32_t type, int rank, int64_t columns, int64_t rows) {
  static const char data[256];
  qd_make_gguf_tensor(&maker, name, type, rank, (int64_t[]){columns, rows, 1, 1, 1}, data, sizeof data);
}

Test(gguf, says_which_tensor_is_odd) {
  char name[80];
  memset(name, 'n', sizeof name);
  name[64] = '\0';
  tensor(name, F32, 1, 4, 1);
  expect_refusal(QD_EBADINPUT, "a tensor's name at byte 24 has 64 bytes");
  tensor("t", F32, 5, 4, 1);
  expect_refusal(QD_EBADINPUT, "5 dimensions");
  tensor("t", F32, 0, 4, 1);
  expect_refusal(QD_EBADINPUT, "0 dimensions");
  tensor("t", F32, 2, 4, 0);
  expect_refusal(QD_EBADINPUT, "dimension 1 of the tensor t is 0");
  tensor("t", F32, 2, (int64_t)1 << 40, (int64_t)1 << 40);
  expect_refusal(QD_EBADINPUT, "dimension 1 of the tensor t is 1099511627776");
  tensor("t", 20, 1, 32, 1);
  expect_refusal(QD_EUNSUPPORTED, "the tensor t is of the type IQ4_NL");
  tensor("t", 1234, 1, 32, 1);
  expect_refusal(QD_EUNSUPPORTED, "number 1234");
  tensor("t", 2, 1, 31, 1);
  expect_refusal(QD_EBADINPUT, "31 elements, no multiple of a block's 32 (Q4_0)");
  tensor("t", F32, 1, 4, 1), tensor("u", F32, 1, 4, 1);
  expect_refusal(QD_EBADINPUT, "the tensor u begins at byte 256 of the data, where 32 is expected");
  tensor("t", F32, 1, 64, 1), tensor("t", F32, 1, 64, 1);
  expect_refusal(QD_EBADINPUT, "the tensor t is twice there");
  tensor("t", F32, 1, 68, 1);
  expect_refusal(QD_EBADINPUT, "the tensor t of 272 bytes");
}
