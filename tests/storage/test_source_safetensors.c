#define _GNU_SOURCE
#include "kernels/base/heap.h"
#include "storage/source.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qd_temporary_folder folder;
static const char config[] = "{\"model_type\": \"llama\"}";

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  qd_temporary_write_text(&folder, "config.json", config);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(source_safetensors, .init = open_folder, .fini = close_folder);

static qd_source *opened(void) {
  qd_source *source;
  cr_assert_eq(qd_source_open(folder.path, &source), QD_OK, "%s", qd_error_text());
  return source;
}

/* The message must name the file as well as the two texts given. */
static void expect_refusal(qd_status expected, const char *file, const char *first, const char *second) {
  qd_source *source;
  qd_status got = qd_source_open(folder.path, &source);
  const char *text = qd_error_text();
  cr_assert_eq(got, expected, "%s: %s", qd_status_name(got), text);
  cr_assert_null(source);
  cr_assert(strstr(text, qd_temporary_path(&folder, file)) != NULL, "%s is not in: %s", file, text);
  cr_assert(strstr(text, first) != NULL, "\"%s\" is not in: %s", first, text);
  cr_assert(strstr(text, second) != NULL, "\"%s\" is not in: %s", second, text);
}

static void write_header(const char *header, size_t data_bytes) {
  char *data;
  cr_assert_eq(qd_heap_new(data_bytes, 1, &data), QD_OK);
  qd_make_raw_safetensors(qd_temporary_path(&folder, "model.safetensors"), header, strlen(header), data, data_bytes);
  qd_heap_free(data);
}

static float element(const void *data, qd_dtype dtype, int64_t i) {
  float value;
  qd_widen((const char *)data + (size_t)i * qd_dtype_bytes(dtype), dtype, &value, 1);
  return value;
}

static float rounded(float value, qd_dtype dtype) {
  if (dtype == QD_F32) return value;
  return dtype == QD_F16 ? qd_f16_to_f32(qd_f16_from_f32(value)) : qd_round_bf16(value);
}

/* Name, dtype, shape and every element are as they were made. */
static void expect_tensor(const qd_source *source, const qd_made_tensor *made) {
  const qd_source_tensor *t = qd_source_find(source, made->name);
  cr_assert_not_null(t, "%s", made->name);
  cr_assert_str_eq(t->name, made->name);
  cr_assert_eq(t->dtype, made->dtype);
  cr_assert_eq(t->rank, made->rank);
  int64_t n = 1;
  for (int i = 0; i < made->rank; i++) n *= made->dim[i];
  for (int i = 0; i < made->rank; i++) cr_assert_eq(t->dim[i], made->dim[i]);
  cr_assert_eq(t->bytes, (uint64_t)n * qd_dtype_bytes(made->dtype));
  unsigned char *data;
  cr_assert_eq(qd_heap_new((size_t)t->bytes, 1, &data), QD_OK);
  cr_assert_eq(qd_source_read(source, t, 0, data, (size_t)t->bytes), QD_OK, "%s", qd_error_text());
  for (int64_t i = 0; i < n; i++)
    cr_assert_eq(element(data, t->dtype, i), rounded(qd_made_value(made->name, i), t->dtype), "%s[%d]", made->name, (int)i);
  qd_heap_free(data);
}

static const qd_made_tensor several[] = {
    {.name = "z.weight", .dtype = QD_F32, .rank = 2, .dim = {3, 5}, .shard = 0},
    {.name = "scalar", .dtype = QD_F32, .rank = 0, .shard = 1},
    {.name = "a.weight", .dtype = QD_BF16, .rank = 1, .dim = {7}, .shard = 1},
    {.name = "empty", .dtype = QD_F16, .rank = 2, .dim = {0, 4}, .shard = 0},
    {.name = "weights of \xc3\xa9t\xc3\xa9", .dtype = QD_F16, .rank = 3, .dim = {2, 1, 3}, .shard = 2},
    {.name = "four", .dtype = QD_F32, .rank = 4, .dim = {2, 3, 1, 2}, .shard = 2},
};
enum { SEVERAL = sizeof several / sizeof *several };

Test(source_safetensors, reads_one_file) {
  qd_make_safetensors(qd_temporary_path(&folder, "model.safetensors"), several, SEVERAL);
  qd_source *source = opened();
  cr_assert_eq(qd_source_tensors(source), SEVERAL);
  for (int i = 0; i < SEVERAL; i++) expect_tensor(source, &several[i]);
  cr_assert_eq(qd_source_files(source), 1);
  cr_assert_str_eq(qd_source_file_path(source, 0), qd_temporary_path(&folder, "model.safetensors"));
  qd_source_close(source);
}

Test(source_safetensors, reads_a_single_file_of_any_name) {
  qd_make_safetensors(qd_temporary_path(&folder, "mod\xc3\xa8le 1.safetensors"), several, SEVERAL);
  qd_temporary_write_text(&folder, "._model.safetensors", "not one of ours");
  qd_source *source = opened();
  expect_tensor(source, &several[0]);
  qd_source_close(source);
}

Test(source_safetensors, reads_shards_by_their_index) {
  qd_make_model(folder.path, config, several, SEVERAL, 3);
  qd_temporary_write_text(&folder, "extra.safetensors", "not in the index");
  qd_source *source = opened();
  cr_assert_eq(qd_source_tensors(source), SEVERAL);
  cr_assert_eq(qd_source_files(source), 3);
  for (int i = 0; i < SEVERAL; i++) {
    expect_tensor(source, &several[i]);
    const qd_source_tensor *t = qd_source_find(source, several[i].name);
    char name[64];
    snprintf(name, sizeof name, "model-%05d-of-00003.safetensors", several[i].shard + 1);
    cr_assert_str_eq(qd_source_file_path(source, (size_t)t->file), qd_temporary_path(&folder, name));
  }
  qd_source_close(source);
}

Test(source_safetensors, prefers_the_single_file_to_an_index) {
  qd_make_model(folder.path, config, several, SEVERAL, 3);
  qd_make_safetensors(qd_temporary_path(&folder, "model.safetensors"), several, 2);
  qd_source *source = opened();
  cr_assert_eq(qd_source_tensors(source), 2);
  qd_source_close(source);
}

Test(source_safetensors, sorts_tensors_by_name) {
  enum { MANY = 5000 };
  static char names[MANY][32];
  static qd_made_tensor tensors[MANY];
  for (int i = 0; i < MANY; i++) {
    snprintf(names[i], sizeof names[i], "model.layers.%d.weight", (i * 7919) % MANY);
    tensors[i] = (qd_made_tensor){.name = names[i], .dtype = QD_F32, .rank = 1, .dim = {i % 3}};
  }
  qd_make_safetensors(qd_temporary_path(&folder, "model.safetensors"), tensors, MANY);
  qd_source *source = opened();
  cr_assert_eq(qd_source_tensors(source), MANY);
  for (size_t i = 1; i < MANY; i++)
    cr_assert_lt(strcmp(qd_source_tensor_at(source, i - 1)->name, qd_source_tensor_at(source, i)->name), 0);
  for (int i = 0; i < MANY; i++) expect_tensor(source, &tensors[i]);
  const char *const absent[] = {"", "a", "model.layers.5000.weight", "model.layers.1", "zzz"};
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) cr_assert_null(qd_source_find(source, absent[i]));
  qd_source_close(source);
}

Test(source_safetensors, reads_data_that_are_not_aligned) {
  const char header[] =
      "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[2,10]},"
      "\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}} ";
  const float values[] = {1.5f, -2.25f};
  unsigned char data[10] = {0};
  memcpy(data + 2, values, sizeof values);
  for (size_t header_bytes = sizeof header - 1; header_bytes >= sizeof header - 2; header_bytes--) {
    qd_make_raw_safetensors(qd_temporary_path(&folder, "model.safetensors"), header, header_bytes, data, sizeof data);
    qd_source *source = opened();
    float got[2];
    cr_assert_eq(qd_source_read(source, qd_source_find(source, "t"), 0, got, sizeof got), QD_OK);
    cr_assert_eq(memcmp(got, values, sizeof got), 0);
    qd_source_close(source);
  }
}

/* ---- hostile headers ---- */

/* One tensor named t with these members. */
static void expect_tensor_refusal(qd_status expected, const char *dtype, const char *shape, const char *offsets,
                                  size_t data_bytes, const char *reason) {
  char header[512];
  snprintf(header, sizeof header, "{\"t\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}}", dtype, shape, offsets);
  write_header(header, data_bytes);
  expect_refusal(expected, "model.safetensors", "tensor t", reason);
}

Test(source_safetensors, checks_offsets) {
  const char *const f = "\"F32\"";
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[-8,0]", 8, "whole numbers");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,-8]", 8, "whole numbers");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,8.0]", 8, "whole numbers");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0.5,8]", 8, "whole numbers");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,\"8\"]", 8, "whole numbers");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,18446744073709551624]", 8, "whole numbers"); /* 2^64 + 8 */
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,null]", 8, "whole numbers");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,9223372036854775807]", 8, "9223372036854775807");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[9223372036854775800,9223372036854775807]", 8, "9223372036854775807");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[8,0]", 8, "begins at byte 8");
  expect_tensor_refusal(QD_EBADINPUT, f, "[3]", "[0,12]", 8, "ends at byte 12 of the data, there are 8");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,4]", 4, "takes 8 bytes by its shape and dtype, 4 by its data_offsets");
  expect_tensor_refusal(QD_EBADINPUT, f, "[1]", "[0,8]", 8, "takes 4 bytes by its shape and dtype, 8 by its data_offsets");
  expect_tensor_refusal(QD_EBADINPUT, "\"F16\"", "[2]", "[0,8]", 8, "takes 4 bytes");
  expect_tensor_refusal(QD_EBADINPUT, f, "[]", "[0,0]", 0, "takes 4 bytes");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0]", 8, "not two");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "[0,4,8]", 8, "not two");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "8", 8, "not two");
  expect_tensor_refusal(QD_EBADINPUT, f, "[2]", "null", 8, "not two");
}

Test(source_safetensors, checks_shapes) {
  const char *const f = "\"F32\"";
  expect_tensor_refusal(QD_EBADINPUT, f, "[-2]", "[0,8]", 8, "dimension 0");
  expect_tensor_refusal(QD_EBADINPUT, f, "[1,2.0]", "[0,8]", 8, "dimension 1");
  expect_tensor_refusal(QD_EBADINPUT, f, "[1,\"2\"]", "[0,8]", 8, "dimension 1");
  expect_tensor_refusal(QD_EBADINPUT, f, "[null]", "[0,8]", 8, "dimension 0");
  expect_tensor_refusal(QD_EBADINPUT, f, "[99999999999999999999]", "[0,8]", 8, "dimension 0");
  expect_tensor_refusal(QD_EBADINPUT, f, "[4611686018427387906]", "[0,8]", 8, "larger");   /* x 4 = 8 mod 2^64 */
  expect_tensor_refusal(QD_EBADINPUT, f, "[4294967296,4294967296]", "[0,0]", 0, "larger"); /* x 4 = 0 mod 2^64 */
  expect_tensor_refusal(QD_EBADINPUT, f, "[9223372036854775807]", "[0,8]", 8, "larger");
  expect_tensor_refusal(QD_EBADINPUT, f, "[0,4294967296,4294967296]", "[0,0]", 0, "larger");
  expect_tensor_refusal(QD_EBADINPUT, f, "[4294967296,4294967296,0]", "[0,0]", 0, "larger");
  expect_tensor_refusal(QD_EBADINPUT, f, "2", "[0,8]", 8, "no shape");
  expect_tensor_refusal(QD_EBADINPUT, f, "null", "[0,8]", 8, "no shape");
  expect_tensor_refusal(QD_EUNSUPPORTED, f, "[1,1,1,1,2]", "[0,8]", 8, "5 dimensions, at most 4");
}

Test(source_safetensors, names_the_dtype_that_it_does_not_read) {
  const char *const names[] = {"F8_E4M3", "F8_E5M2", "F64", "I64", "I32", "U8", "BOOL", "F4", "f32", "", "F32 "};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char dtype[32], reason[48];
    snprintf(dtype, sizeof dtype, "\"%s\"", names[i]);
    snprintf(reason, sizeof reason, "is of type %s;", names[i]);
    expect_tensor_refusal(QD_EUNSUPPORTED, dtype, "[8]", "[0,8]", 8, reason);
  }
  expect_tensor_refusal(QD_EBADINPUT, "4", "[2]", "[0,8]", 8, "no dtype");
  expect_tensor_refusal(QD_EBADINPUT, "null", "[2]", "[0,8]", 8, "no dtype");
}

Test(source_safetensors, checks_that_tensors_cover_the_data_once) {
  const char *const format =
      "{\"a\":{\"dtype\":\"F16\",\"shape\":[%d],\"data_offsets\":[%d,%d]},"
      "\"b\":{\"dtype\":\"F16\",\"shape\":[%d],\"data_offsets\":[%d,%d]}}";
  const struct {
    int a_begin, a_end, b_begin, b_end;
    size_t data_bytes;
    const char *first, *second; /* NULL: it is fine */
  } cases[] = {
      {0, 4, 4, 8, 8, NULL, NULL},
      {4, 8, 0, 4, 8, NULL, NULL},
      {0, 0, 0, 8, 8, NULL, NULL},
      {8, 8, 0, 8, 8, NULL, NULL},
      {0, 0, 0, 0, 0, NULL, NULL},
      {0, 4, 2, 8, 8, "a and b overlap", ""},
      {2, 8, 0, 4, 8, "b and a overlap", ""},
      {0, 8, 0, 8, 8, "overlap", ""},
      {0, 8, 2, 4, 8, "a and b overlap", ""},
      {4, 4, 0, 8, 8, "b and a overlap", ""},
      {0, 2, 4, 8, 8, "bytes 2 to 4", "before the tensor b"},
      {2, 4, 4, 8, 8, "bytes 0 to 2", "before the tensor a"},
      {0, 4, 4, 8, 11, "the last 3 bytes", "no tensor"},
      {0, 0, 0, 0, 1, "the last 1 bytes", "no tensor"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char header[512];
    snprintf(header, sizeof header, format, (cases[i].a_end - cases[i].a_begin) / 2, cases[i].a_begin, cases[i].a_end,
             (cases[i].b_end - cases[i].b_begin) / 2, cases[i].b_begin, cases[i].b_end);
    write_header(header, cases[i].data_bytes);
    if (cases[i].first != NULL)
      expect_refusal(QD_EBADINPUT, "model.safetensors", cases[i].first, cases[i].second);
    else
      qd_source_close(opened());
  }
}

Test(source_safetensors, checks_the_header_as_json) {
  const char *const cases[][2] = {
      {"", "header, line 1"},
      {"x", "header, line 1"},
      {"[]", "not a JSON object"},
      {"null", "not a JSON object"},
      {"3", "not a JSON object"},
      {"{\"t\":3}", "tensor t is not an object"},
      {"{\"t\":null}", "tensor t is not an object"},
      {"{\"t\":[]}", "tensor t is not an object"},
      {"{\"t\":{}}", "tensor t has no dtype"},
      {"{\"t\":{\"dtype\":\"F32\"}}", "tensor t has no shape"},
      {"{\"t\":{\"dtype\":\"F32\",\"shape\":[0]}}", "data_offsets of the tensor t"},
      {"{\"t\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},\"t\":{}}", "duplicate"},
      {"{\"t\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]}}", "duplicate"},
      {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", "NUL"},
      {"{\"t\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}", "header, line 1"},
      {"{\"t\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}x", "end of file"},
      {"{\"\xff\":{}}", "0xff"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_header(cases[i][0], 0);
    expect_refusal(QD_EBADINPUT, "model.safetensors", cases[i][1], "");
  }
}

Test(source_safetensors, checks_the_nesting_of_the_header) {
  char header[600] = "{\"__metadata__\":";
  for (int i = 0; i < 100; i++) strcat(header, "[");
  for (int i = 0; i < 100; i++) strcat(header, "]");
  strcat(header, "}");
  write_header(header, 0);
  expect_refusal(QD_EBADINPUT, "model.safetensors", "nested deeper than 64", "header");
}

Test(source_safetensors, ignores_metadata_and_what_it_does_not_know) {
  write_header(
      "{\"__metadata__\":{\"format\":\"pt\",\"x\":[1]},\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2],"
      "\"new\":{}}}   ",
      2);
  qd_source *source = opened();
  cr_assert_eq(qd_source_tensors(source), 1);
  qd_source_close(source);
}

Test(source_safetensors, a_file_without_tensors_is_no_model) {
  qd_source *source;
  write_header("{\"__metadata__\":{}}", 0);
  cr_assert_eq(qd_source_open(folder.path, &source), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), folder.path) != NULL);
}

Test(source_safetensors, checks_the_length_of_the_header) {
  const char *path = qd_temporary_write(&folder, "model.safetensors", "\x03\0\0\0\0\0\0\0{}", 10);
  expect_refusal(QD_EBADINPUT, "model.safetensors", "header of 3 bytes", "file of 10:");
  qd_temporary_write(&folder, "model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  expect_refusal(QD_EBADINPUT, "model.safetensors", "header of 18446744073709551615 bytes", "file of 10:");
  qd_temporary_write(&folder, "model.safetensors", "\xf8\xff\xff\xff\xff\xff\xff\xff{}", 10); /* 8 + length wraps to 0 */
  expect_refusal(QD_EBADINPUT, "model.safetensors", "header of 18446744073709551608 bytes", "file of 10:");
  qd_temporary_write(&folder, "model.safetensors", "\x01\xe1\xf5\x05\0\0\0\0{}", 10); /* 100,000,001 */
  cr_assert_eq(truncate(path, 100000100), 0);                                         /* a hole: it takes no space */
  expect_refusal(QD_EBADINPUT, "model.safetensors", "100000001 bytes", "at most 100000000");
}

Test(source_safetensors, knows_a_pointer_of_git_lfs) {
  qd_temporary_write_text(&folder, "model.safetensors",
                          "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4000000000\n");
  expect_refusal(QD_EBADINPUT, "model.safetensors", "Git LFS", "git lfs pull");
}

static void write_small(unsigned char *file, size_t *n) {
  static const qd_made_tensor two[] = {{.name = "one", .dtype = QD_F32, .rank = 2, .dim = {2, 2}},
                                       {.name = "two", .dtype = QD_BF16, .rank = 1, .dim = {3}}};
  const char *path = qd_temporary_path(&folder, "model.safetensors");
  qd_make_safetensors(path, two, 2);
  FILE *whole = fopen(path, "rb");
  *n = fread(file, 1, 4096, whole);
  fclose(whole);
  cr_assert(*n > 100 && *n < 4096);
  qd_source_close(opened());
}

Test(source_safetensors, refuses_every_truncation) {
  unsigned char file[4096];
  size_t whole;
  write_small(file, &whole);
  for (size_t n = 0; n < whole; n++) {
    qd_temporary_write(&folder, "model.safetensors", file, n);
    expect_refusal(QD_EBADINPUT, "model.safetensors", "", "");
  }
}

/* Whatever one changed bit does to the header, the file opens (and then all of it can be read) or is refused by name. */
Test(source_safetensors, survives_every_changed_bit) {
  unsigned char file[4096], data[4096];
  size_t n, refused = 0;
  write_small(file, &n);
  const char *path = qd_temporary_path(&folder, "model.safetensors");
  for (size_t bit = 0; bit < 8 * (n - 22); bit++) { /* 22 bytes of data */
    file[bit / 8] ^= (unsigned char)(1u << bit % 8);
    qd_temporary_write(&folder, "model.safetensors", file, n);
    file[bit / 8] ^= (unsigned char)(1u << bit % 8);
    qd_source *source;
    qd_status status = qd_source_open(folder.path, &source);
    if (status != QD_OK) {
      cr_assert(status == QD_EBADINPUT || status == QD_EUNSUPPORTED, "%s", qd_error_text());
      cr_assert(strstr(qd_error_text(), path) != NULL, "%s", qd_error_text());
      refused++;
    } else {
      for (size_t i = 0; i < qd_source_tensors(source); i++) {
        const qd_source_tensor *t = qd_source_tensor_at(source, i);
        cr_assert_leq(t->bytes, 22);
        cr_assert_eq(qd_source_read(source, t, 0, data, (size_t)t->bytes), QD_OK, "%s", qd_error_text());
      }
    }
    qd_source_close(source);
  }
  cr_assert_gt(refused, 8 * 50, "only %zu refused", refused);
}

/* ---- reading ---- */

Test(source_safetensors, reads_pieces_and_refuses_more_than_there_is) {
  qd_make_safetensors(qd_temporary_path(&folder, "model.safetensors"), several, SEVERAL);
  qd_source *source = opened();
  const qd_source_tensor *t = qd_source_find(source, "z.weight");
  float whole[15], piece[2];
  cr_assert_eq(qd_source_read(source, t, 0, whole, sizeof whole), QD_OK);
  cr_assert_eq(qd_source_read(source, t, 8, piece, sizeof piece), QD_OK);
  cr_assert_eq(memcmp(piece, whole + 2, sizeof piece), 0);
  cr_assert_eq(qd_source_read(source, t, sizeof whole, piece, 0), QD_OK);
  cr_assert_eq(qd_source_read(source, t, 56, piece, 8), QD_EINVAL);
  cr_assert(strstr(qd_error_text(), "z.weight") != NULL);
  cr_assert_eq(qd_source_read(source, t, UINT64_MAX, piece, 8), QD_EINVAL);
  cr_assert_eq(qd_source_read(source, t, 61, piece, 0), QD_EINVAL);
  cr_assert_eq(qd_source_read(source, qd_source_find(source, "empty"), 0, piece, 0), QD_OK);
  qd_source_close(source);
}

Test(source_safetensors, says_so_when_a_file_shrank) {
  const char *path = qd_temporary_path(&folder, "model.safetensors");
  qd_make_safetensors(path, several, 1);
  qd_source *source = opened();
  float whole[15];
  cr_assert_eq(truncate(path, (off_t)qd_source_tensor_at(source, 0)->offset + 10), 0);
  cr_assert_eq(qd_source_read(source, qd_source_tensor_at(source, 0), 0, whole, sizeof whole), QD_EBADINPUT);
  cr_assert(strstr(qd_error_text(), path) != NULL && strstr(qd_error_text(), "shrank") != NULL, "%s", qd_error_text());
  qd_source_close(source);
}

static void *read_all(void *context) {
  const qd_source *source = context;
  for (int round = 0; round < 50; round++)
    for (int i = 0; i < SEVERAL; i++) {
      float data[16], first;
      const qd_source_tensor *t = qd_source_find(source, several[i].name);
      if (t->bytes == 0) continue;
      if (qd_source_read(source, t, 0, data, (size_t)t->bytes) != QD_OK) return context;
      first = rounded(qd_made_value(several[i].name, 0), t->dtype);
      if (element(data, t->dtype, 0) != first) return context;
    }
  return NULL;
}

Test(source_safetensors, may_be_read_by_many_threads) {
  qd_make_model(folder.path, config, several, SEVERAL, 3);
  qd_source *source = opened();
  pthread_t thread[4];
  for (int i = 0; i < 4; i++) cr_assert_eq(pthread_create(&thread[i], NULL, read_all, source), 0);
  for (int i = 0; i < 4; i++) {
    void *wrong;
    pthread_join(thread[i], &wrong);
    cr_assert_null(wrong);
  }
  qd_source_close(source);
}

/* ---- the index ---- */

static void write_index(const char *text) { qd_temporary_write_text(&folder, "model.safetensors.index.json", text); }

Test(source_safetensors, names_a_missing_shard_and_its_index) {
  qd_make_model(folder.path, config, several, SEVERAL, 3);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model-00002-of-00003.safetensors")), 0);
  expect_refusal(QD_ENOTFOUND, "model.safetensors.index.json", "model-00002-of-00003.safetensors", "1 of 3 shards");
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model-00001-of-00003.safetensors")), 0);
  cr_assert_eq(unlink(qd_temporary_path(&folder, "model-00003-of-00003.safetensors")), 0);
  expect_refusal(QD_ENOTFOUND, "model.safetensors.index.json", "model-00001-of-00003.safetensors", "3 of 3 shards");
}

Test(source_safetensors, refuses_shards_outside_the_folder) {
  const char *const names[] = {"../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\u0000b",
                               "x..safetensors"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char index[128];
    snprintf(index, sizeof index, "{\"weight_map\": {\"t\": \"%s\"}}", names[i]);
    write_index(index);
    expect_refusal(QD_EBADINPUT, "model.safetensors.index.json", "tensor t", "not a plain file name");
  }
}

Test(source_safetensors, checks_the_index_as_json) {
  const char *const cases[][2] = {
      {"{", "line 1"},
      {"", "line 1"},
      {"[]", "weight_map"},
      {"{}", "weight_map"},
      {"{\"weight_map\": []}", "weight_map"},
      {"{\"weight_map\": {\"t\": 3}}", "tensor t is not a text"},
      {"{\"weight_map\": {\"t\": null}}", "tensor t is not a text"},
      {"{\"weight_map\": {\"t\": \"a\", \"t\": \"b\"}}", "duplicate"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_index(cases[i][0]);
    expect_refusal(QD_EBADINPUT, "model.safetensors.index.json", cases[i][1], "");
  }
  qd_source *source;
  write_index("{\"weight_map\": {}}");
  cr_assert_eq(qd_source_open(folder.path, &source), QD_ENOTFOUND);
}

Test(source_safetensors, refuses_an_index_that_contradicts_its_shards) {
  qd_make_safetensors(qd_temporary_path(&folder, "1.safetensors"), several, 2);
  qd_make_safetensors(qd_temporary_path(&folder, "2.safetensors"), several + 2, 1);
  write_index("{\"weight_map\": {\"z.weight\": \"1.safetensors\", \"a.weight\": \"2.safetensors\"}}");
  qd_source_close(opened());
  write_index("{\"weight_map\": {\"z.weight\": \"1.safetensors\", \"b.weight\": \"2.safetensors\"}}");
  expect_refusal(QD_EBADINPUT, "model.safetensors.index.json", "tensor b.weight", "shard 2.safetensors, which lacks it");
  write_index("{\"weight_map\": {\"scalar\": \"2.safetensors\", \"z.weight\": \"1.safetensors\"}}");
  expect_refusal(QD_EBADINPUT, "model.safetensors.index.json", "tensor scalar in the shard 2.safetensors",
                 "it is in 1.safetensors");
}

Test(source_safetensors, refuses_a_tensor_in_two_shards) {
  qd_make_safetensors(qd_temporary_path(&folder, "1.safetensors"), several, 2);
  qd_make_safetensors(qd_temporary_path(&folder, "2.safetensors"), several + 1, 2);
  write_index("{\"weight_map\": {\"z.weight\": \"1.safetensors\", \"a.weight\": \"2.safetensors\"}}");
  expect_refusal(QD_EBADINPUT, "1.safetensors", "tensor scalar", qd_temporary_path(&folder, "2.safetensors"));
}

Test(source_safetensors, names_the_damaged_shard) {
  qd_make_model(folder.path, config, several, SEVERAL, 3);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "model-00003-of-00003.safetensors"), 200), 0);
  expect_refusal(QD_EBADINPUT, "model-00003-of-00003.safetensors", "cut off", "");
}

Test(source_safetensors, several_files_need_an_index) {
  qd_make_safetensors(qd_temporary_path(&folder, "1.safetensors"), several, 2);
  qd_make_safetensors(qd_temporary_path(&folder, "2.safetensors"), several + 2, 1);
  qd_source *source;
  cr_assert_eq(qd_source_open(folder.path, &source), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "2 safetensors files") != NULL, "%s", qd_error_text());
  cr_assert(strstr(qd_error_text(), "model.safetensors.index.json") != NULL, "%s", qd_error_text());
}

/* ---- real models ---- */

typedef struct known_tensor {
  const char *model;
  size_t n_tensors;
  const char *name;
  qd_dtype dtype;
  int64_t rows, columns; /* columns 0: a vector */
  float first, second, last;
} known_tensor;

/* Read by the safetensors package of Hugging Face. */
static const known_tensor known[] = {
    {"babyllama-tok361", 47, "model.embed_tokens.weight", QD_F32, 361, 128, 0x1.10debp-2f, 0x1.731846p-2f, 0x1.5dde1cp-3f},
    {"babyllama-tok361", 47, "model.norm.weight", QD_F32, 128, 0, 0x1.8b0120p+0f, 0x1.9ec222p+0f, 0x1.8dcd26p+0f},
    {"qdist-tiny", 56, "model.embed_tokens.weight", QD_BF16, 2048, 256, 0x1.78p-3f, -0x1.88p-6f, -0x1.ep-4f},
    {"qdist-tiny", 56, "model.layers.3.input_layernorm.weight", QD_BF16, 256, 0, 0x1.cp-1f, 0x1.f8p-1f, 0x1.12p+0f},
    {"qdist-tiny-moe", 231, "lm_head.weight", QD_BF16, 2048, 256, -0x1.bep-5f, -0x1.0ep-3f, -0x1.26p-4f},
    {"qdist-tiny-moe", 231, "model.layers.1.self_attn.v_proj.weight", QD_BF16, 64, 256, -0x1.e4p-6f, -0x1.a6p-5f, 0x1.44p-4f},
    {"stories15M-layers-only", 55, "model.norm.weight", QD_F32, 288, 0, 0x1.eb517ep+2f, 0x1.cc07dcp+2f, 0x1.ba33f2p+2f},
    {"stories260K", 47, "model.embed_tokens.weight", QD_F32, 512, 64, -0x1.2dd2ap-2f, 0x1.1fb0c8p-1f, -0x1.b2359ap-2f},
    {"tiny1m", 39, "model.layers.1.self_attn.v_proj.weight", QD_F32, 128, 128, -0x1.751884p-8f, 0x1.f2aa62p-6f,
     -0x1.624c08p-7f},
};

static void expect_known(const qd_source *source, const known_tensor *k) {
  cr_assert_eq(qd_source_tensors(source), k->n_tensors, "%s", k->model);
  const qd_source_tensor *t = qd_source_find(source, k->name);
  cr_assert_not_null(t, "%s", k->name);
  cr_assert_eq(t->dtype, k->dtype);
  cr_assert_eq(t->rank, k->columns == 0 ? 1 : 2);
  cr_assert_eq(t->dim[0], k->rows);
  cr_assert_eq(t->dim[1], k->columns);
  unsigned char data[8], last[4];
  size_t size = qd_dtype_bytes(t->dtype);
  cr_assert_eq(qd_source_read(source, t, 0, data, 2 * size), QD_OK);
  cr_assert_eq(qd_source_read(source, t, t->bytes - size, last, size), QD_OK);
  cr_assert_eq(element(data, t->dtype, 0), k->first);
  cr_assert_eq(element(data, t->dtype, 1), k->second);
  cr_assert_eq(element(last, t->dtype, 0), k->last);
}

Test(source_safetensors, reads_real_models) {
  const char *root = getenv("QDIST_TEST_DATA");
  if (root == NULL) cr_skip_test("QDIST_TEST_DATA, the folder with data/models, is not set");
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    char path[4096];
    qd_source *source;
    snprintf(path, sizeof path, "%s/data/models/%s", root, known[i].model);
    cr_assert_eq(qd_source_open(path, &source), QD_OK, "%s", qd_error_text());
    expect_known(source, &known[i]);
    qd_source_close(source);
  }
}
