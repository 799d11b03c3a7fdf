#define _POSIX_C_SOURCE 200809L
#include "storage/h5.h"

#include "storage/h5_zstd.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static qd_h5_layout layout_of(qd_dtype dtype, int rank, const int64_t *dim) {
  qd_h5_layout layout;
  cr_assert_eq(qd_h5_layout_make(dtype, rank, dim, &layout), QD_OK, "%s", qd_error_text());
  return layout;
}
#define LAYOUT(dtype, rank, ...) layout_of(dtype, rank, (const int64_t[]){__VA_ARGS__})

/* ---- layouts ---- */

static void check_cover(qd_h5_layout layout) {
  size_t expected = 0;
  for (int64_t i = 0; i < layout.n_chunks; i++) {
    size_t offset, n;
    qd_h5_chunk_range(&layout, i, &offset, &n);
    cr_assert_eq(offset, expected);
    cr_assert(n > 0 && n <= layout.chunk_bytes);
    expected += n;
  }
  size_t bytes = qd_dtype_bytes(layout.dtype);
  for (int i = 0; i < layout.rank; i++) bytes *= (size_t)layout.dim[i];
  cr_assert_eq(expected, bytes);
}

Test(h5, chunks_follow_each_other_and_cover_all) {
  check_cover(LAYOUT(QD_U8, 1, 1));
  check_cover(LAYOUT(QD_F32, 1, 1 << 20));
  check_cover(LAYOUT(QD_I64, 2, 3, 1000003));
  check_cover(LAYOUT(QD_U8, 2, 4097, 1024));
  check_cover(LAYOUT(QD_F16, 3, 5, 700, 999));
  check_cover(LAYOUT(QD_F64, 3, 2, 3, 400000));
  check_cover(LAYOUT(QD_F32, 4, 2, 3, 700, 500));
  check_cover(LAYOUT(QD_F32, 4, 1, 1, 1, 3000000));
  check_cover(LAYOUT(QD_BF16, 4, 7, 1, 1, 1));
}

Test(h5, chunks_are_whole_rows_of_about_a_mebibyte) {
  qd_h5_layout small = LAYOUT(QD_F32, 2, 100, 10), even = LAYOUT(QD_U8, 2, 4097, 1024), wide = LAYOUT(QD_F32, 2, 3, 1 << 20);
  cr_assert_eq(small.n_chunks, 1);
  cr_assert_eq(small.chunk_bytes, 4000);
  cr_assert_eq(even.axis, 0);
  cr_assert_eq(even.n_chunks, 5); /* four would take 1025 rows */
  cr_assert_eq(even.extent, 820);
  cr_assert_eq(wide.axis, 1); /* a row of 4 MiB is cut itself */
  cr_assert_eq(wide.extent, 1 << 18);
  cr_assert_eq(wide.n_chunks, 12);
  cr_assert_eq(wide.chunk_bytes, QD_H5_CHUNK_BYTES);
}

Test(h5, no_elements_no_chunks) {
  cr_assert_eq(LAYOUT(QD_F32, 1, 0).n_chunks, 0);
  cr_assert_eq(LAYOUT(QD_F32, 3, 4, 0, 5).n_chunks, 0);
}

Test(h5, refuses_impossible_shapes) {
  qd_h5_layout layout;
  const int64_t huge[] = {INT64_C(1) << 40, INT64_C(1) << 40}, negative[] = {3, -1}, five[] = {1, 1, 1, 1, 1};
  cr_assert_eq(qd_h5_layout_make(QD_U8, 2, huge, &layout), QD_ESHAPE);
  cr_assert_eq(qd_h5_layout_make(QD_U8, 2, negative, &layout), QD_ESHAPE);
  cr_assert_eq(qd_h5_layout_make(QD_U8, 0, five, &layout), QD_ESHAPE);
  cr_assert_eq(qd_h5_layout_make(QD_U8, 5, five, &layout), QD_ESHAPE);
}

/* ---- files ---- */

static qd_temporary_folder folder;
static void setup(void) { qd_temporary_folder_open(&folder); }
static void teardown(void) { qd_temporary_folder_close(&folder); }
TestSuite(h5_file, .init = setup, .fini = teardown);

/* One dataset of bytes, each chunk a frame of 0, 1, 2 ... */
static void write_bytes(const char *path, const char *name, qd_h5_layout layout, int64_t n_chunks) {
  static unsigned char plain[QD_H5_CHUNK_BYTES], frame[2 * QD_H5_CHUNK_BYTES];
  qd_h5_file file;
  qd_h5_dataset dataset;
  cr_assert_eq(qd_h5_create(path, &file), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_h5_dataset_create(&file, name, &layout, &dataset), QD_OK, "%s", qd_error_text());
  for (int64_t i = 0; i < n_chunks; i++) {
    size_t n = 0;
    memset(plain, (int)i, layout.chunk_bytes);
    cr_assert_eq(qd_zstd_compress(plain, layout.chunk_bytes, frame, sizeof frame, &n), QD_OK);
    cr_assert_eq(qd_h5_chunk_write(&dataset, i, frame, n), QD_OK, "%s", qd_error_text());
  }
  qd_h5_dataset_close(&dataset);
  cr_assert_eq(qd_h5_finish(&file), QD_OK, "%s", qd_error_text());
}

static qd_status open_as(const char *path, const char *name, qd_h5_layout expected) {
  qd_h5_file file;
  qd_h5_dataset dataset;
  cr_assert_eq(qd_h5_open(path, &file), QD_OK, "%s", qd_error_text());
  qd_status status = qd_h5_dataset_open(&file, name, &expected, &dataset);
  qd_h5_dataset_close(&dataset);
  qd_h5_close(&file);
  return status;
}

Test(h5_file, opens_only_what_was_asked_for) {
  const char *path = qd_temporary_path(&folder, "a.h5");
  write_bytes(path, "group/inner/x", LAYOUT(QD_U8, 2, 6, 4), 1);
  cr_assert_eq(open_as(path, "group/inner/x", LAYOUT(QD_U8, 2, 6, 4)), QD_OK, "%s", qd_error_text());
  cr_assert_eq(open_as(path, "group/inner/y", LAYOUT(QD_U8, 2, 6, 4)), QD_ECORRUPT);
  cr_assert_eq(open_as(path, "group/inner", LAYOUT(QD_U8, 2, 6, 4)), QD_ECORRUPT);
  cr_assert_eq(open_as(path, "group/inner/x", LAYOUT(QD_U8, 2, 4, 6)), QD_ECORRUPT);
  cr_assert_eq(open_as(path, "group/inner/x", LAYOUT(QD_U8, 1, 24)), QD_ECORRUPT);
  cr_assert_eq(open_as(path, "group/inner/x", LAYOUT(QD_I32, 2, 6, 4)), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "a.h5") && strstr(qd_error_text(), "group/inner/x") && strstr(qd_error_text(), "I32"));
}

Test(h5_file, tells_half_from_bfloat) {
  const char *half = qd_temporary_path(&folder, "half.h5"), *bfloat = qd_temporary_path(&folder, "bfloat.h5");
  write_bytes(half, "x", LAYOUT(QD_F16, 1, 6), 1);
  write_bytes(bfloat, "x", LAYOUT(QD_BF16, 1, 6), 1);
  cr_assert_eq(open_as(half, "x", LAYOUT(QD_F16, 1, 6)), QD_OK);
  cr_assert_eq(open_as(bfloat, "x", LAYOUT(QD_BF16, 1, 6)), QD_OK);
  cr_assert_eq(open_as(half, "x", LAYOUT(QD_BF16, 1, 6)), QD_ECORRUPT);
  cr_assert_eq(open_as(bfloat, "x", LAYOUT(QD_F16, 1, 6)), QD_ECORRUPT);
}

static qd_status read_chunk_of(const char *path, qd_h5_layout layout, int64_t index, size_t capacity) {
  static unsigned char frame[2 * QD_H5_CHUNK_BYTES];
  qd_h5_file file;
  qd_h5_dataset dataset;
  size_t n = 0;
  cr_assert_eq(qd_h5_open(path, &file), QD_OK);
  cr_assert_eq(qd_h5_dataset_open(&file, "x", &layout, &dataset), QD_OK);
  qd_status status = qd_h5_chunk_read(&dataset, index, frame, capacity, &n);
  qd_h5_dataset_close(&dataset);
  qd_h5_close(&file);
  return status;
}

Test(h5_file, refuses_missing_and_oversized_chunks) {
  const char *path = qd_temporary_path(&folder, "a.h5");
  qd_h5_layout layout = LAYOUT(QD_U8, 2, 3, 900000);
  write_bytes(path, "x", layout, 2);
  cr_assert_eq(read_chunk_of(path, layout, 1, QD_H5_CHUNK_BYTES), QD_OK, "%s", qd_error_text());
  cr_assert_eq(read_chunk_of(path, layout, 2, QD_H5_CHUNK_BYTES), QD_ECORRUPT);
  cr_assert_eq(read_chunk_of(path, layout, 1, 10), QD_ECORRUPT);
}

Test(h5_file, says_why_in_one_sentence_and_prints_nothing) {
  qd_h5_file file;
  cr_redirect_stderr();
  char spaces[200];
  memset(spaces, ' ', sizeof spaces);
  const char *text = qd_temporary_write(&folder, "text.h5", spaces, sizeof spaces);
  cr_assert_eq(qd_h5_open(text, &file), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "text.h5") && strstr(qd_error_text(), "signature"), "%s", qd_error_text());
  qd_h5_close(&file);
  cr_assert_eq(qd_h5_open(qd_temporary_path(&folder, "none.h5"), &file), QD_EIO);
  cr_assert(strstr(qd_error_text(), "none.h5 cannot be opened as HDF5: No such file or directory"), "%s", qd_error_text());
  cr_assert_eq(qd_h5_create(qd_temporary_path(&folder, "gone/a.h5"), &file), QD_EIO);
  cr_assert(strstr(qd_error_text(), "gone/a.h5: No such file or directory"), "%s", qd_error_text());
  cr_assert_null(strchr(qd_error_text(), '\n'));
  fflush(stderr);
  cr_assert_stderr_eq_str("");
}

static void limit_file_size(size_t bytes) {
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A disk that fills up, at any byte of the file: the failure is reported, and the next file can be written. */
Test(h5_file, reports_a_full_disk) {
  static unsigned char frame[100000];
  const char *path = qd_temporary_path(&folder, "a.h5");
  qd_h5_layout layout = LAYOUT(QD_U8, 1, 200000);
  for (size_t most = 0; most < 120000; most += 997) {
    qd_h5_file file;
    qd_h5_dataset dataset = {.id = -1};
    limit_file_size(most);
    qd_status status = qd_h5_create(path, &file);
    if (status == QD_OK) status = qd_h5_dataset_create(&file, "x", &layout, &dataset);
    if (status == QD_OK) status = qd_h5_chunk_write(&dataset, 0, frame, sizeof frame);
    qd_h5_dataset_close(&dataset);
    if (status == QD_OK) status = qd_h5_finish(&file);
    qd_h5_close(&file);
    limit_file_size(RLIM_INFINITY);
    cr_assert(status == QD_OK || status == QD_EIO);
    cr_assert(most > 100000 || status != QD_OK);
    cr_assert(most < 110000 || status == QD_OK, "%zu bytes: %s", most, qd_error_text());
    if (status != QD_OK) cr_assert(strstr(qd_error_text(), "a.h5: File too large"), "%s", qd_error_text());
    unlink(path);
  }
  write_bytes(path, "x", LAYOUT(QD_U8, 1, 5), 1);
  cr_assert_eq(open_as(path, "x", LAYOUT(QD_U8, 1, 5)), QD_OK);
}

/* ---- two threads ---- */

enum { ROUNDS = 60 };

static void *keep_writing(void *path) {
  for (int i = 0; i < ROUNDS; i++) write_bytes(path, "x", LAYOUT(QD_F16, 2, 5, 7), 1);
  return NULL;
}

static void *keep_failing(void *path) {
  qd_h5_file file;
  for (int i = 0; i < ROUNDS; i++) {
    cr_assert_eq(qd_h5_open(path, &file), QD_EIO);
    cr_assert(strstr(qd_error_text(), "No such file"));
  }
  return NULL;
}

Test(h5_file, may_be_called_from_several_threads) {
  char other[QD_TEMPORARY_PATH_BYTES], none[QD_TEMPORARY_PATH_BYTES];
  strcpy(other, qd_temporary_path(&folder, "other.h5"));
  strcpy(none, qd_temporary_path(&folder, "none.h5"));
  const char *path = qd_temporary_path(&folder, "a.h5");
  qd_h5_layout layout = LAYOUT(QD_U8, 2, 3, 900000);
  write_bytes(path, "x", layout, 3);
  pthread_t writer, failing;
  cr_assert_eq(pthread_create(&writer, NULL, keep_writing, other), 0);
  cr_assert_eq(pthread_create(&failing, NULL, keep_failing, none), 0);
  for (int i = 0; i < ROUNDS; i++)
    cr_assert_eq(read_chunk_of(path, layout, i % 3, QD_H5_CHUNK_BYTES), QD_OK, "%s", qd_error_text());
  pthread_join(writer, NULL);
  pthread_join(failing, NULL);
  cr_assert_eq(open_as(other, "x", LAYOUT(QD_F16, 2, 5, 7)), QD_OK);
}
