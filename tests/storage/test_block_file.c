#define _POSIX_C_SOURCE 200809L
#include "storage/block_file.h"

#include "storage/h5.h"
#include "storage/h5_zstd.h"
#include "tests/support/store_maker.h"

#include <sys/stat.h>
#include <unistd.h>

static qd_temporary_folder folder;

static void setup(void) {
  qd_temporary_folder_open(&folder);
  qd_temporary_make_folder(&folder, "partial");
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(block_file, .init = setup, .fini = teardown);

enum { MOST_BYTES = 8 << 20 };

static unsigned char data[MOST_BYTES], back[MOST_BYTES + 16];

static void fill(size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; i++) seed = seed * 1664525u + 1013904223u, data[i] = (unsigned char)(seed >> (i % 3 ? 24 : 29));
}

static qd_tensor tensor_of(void *at, qd_dtype dtype, int rank, const int64_t *dim) {
  qd_tensor tensor = {.data = at, .dtype = dtype, .rank = rank};
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0; i--) tensor.dim[i] = dim[i], tensor.stride[i] = stride, stride *= dim[i];
  return tensor;
}

static qd_entry_file write_one(const char *name, qd_tensor tensor, qd_stored_part *part) {
  qd_out_tensor out = {"group/x", tensor};
  qd_entry_file file;
  qd_digest digest;
  MUST(qd_store_write_file(folder.path, name, &out, 1, &file, &digest));
  *part = made_part(&out, &digest);
  return file;
}

static void check_round_trip(qd_dtype dtype, int rank, const int64_t *dim) {
  qd_tensor tensor = tensor_of(data, dtype, rank, dim);
  size_t n = qd_tensor_bytes(tensor);
  qd_stored_part part;
  cr_assert_leq(n, MOST_BYTES);
  fill(n, (uint32_t)n);
  qd_entry_file file = write_one("a.h5", tensor, &part);
  const char *path = qd_temporary_path(&folder, "a.h5");
  qd_digest digest;
  qd_file_identity identity;
  MUST(qd_digest_file(path, &digest));
  MUST(qd_file_identify(path, &identity));
  cr_assert(qd_digest_equal(&digest, &file.digest) && identity.size == file.bytes);
  cr_assert_str_eq(file.name, "a.h5");
  memset(back, 0xaa, sizeof back);
  MUST(qd_block_file_read(path, &part, back));
  cr_assert_eq(memcmp(back, data, n), 0, "%s, rank %d, %zu bytes", qd_dtype_name(dtype), rank, n);
  cr_assert_eq(back[n], 0xaa);
  MUST(qd_block_file_read(path, &part, NULL));
}

enum { SHAPES = 8, SMALL = SHAPES * QD_MAX_RANK };

static void make_shapes(qd_dtype dtype, qd_out_tensor out[SMALL], char names[SMALL][16]) {
  const int64_t dims[SHAPES][QD_MAX_RANK] = {{1, 0, 0, 0}, {7, 0, 5, 3},   {13, 1, 1, 1}, {3, 5, 7, 2},
                                             {1, 1, 1, 9}, {31, 17, 3, 1}, {0, 3, 2, 1},  {4, 1, 0, 6}};
  for (int i = 0; i < SMALL; i++) {
    snprintf(names[i], sizeof names[i], "g%d/x%d", i % 3, i);
    out[i] = (qd_out_tensor){names[i], tensor_of(data + 8 * i, dtype, 1 + i % QD_MAX_RANK, dims[i / QD_MAX_RANK])};
  }
}

static void check_small_shapes(qd_dtype dtype) {
  qd_out_tensor out[SMALL];
  qd_digest digest[SMALL];
  qd_entry_file file;
  char names[SMALL][16];
  make_shapes(dtype, out, names);
  MUST(qd_store_write_file(folder.path, "a.h5", out, SMALL, &file, digest));
  cr_expect(file.compress_seconds > 0 && file.write_seconds > 0);
  for (int i = 0; i < SMALL; i++) {
    qd_stored_part part = made_part(&out[i], &digest[i]);
    size_t n = qd_tensor_bytes(out[i].tensor);
    memset(back, 0xaa, n + 1);
    MUST(qd_block_file_read(qd_temporary_path(&folder, "a.h5"), &part, back));
    cr_assert_eq(memcmp(back, out[i].tensor.data, n), 0, "%s, shape %d", qd_dtype_name(dtype), i);
    cr_assert_eq(back[n], 0xaa);
  }
}

Test(block_file, every_type_and_rank_comes_back) {
#define DTYPE(code, name, bytes) code,
  const qd_dtype dtypes[] = {QD_DTYPE_LIST(DTYPE)};
#undef DTYPE
  fill(100000, 3);
  for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) check_small_shapes(dtypes[t]);
}

Test(block_file, several_chunks_come_back) {
  const int64_t rows[] = {1025, 4099}, wide[] = {2, 1048577}, deep[] = {3, 2, 200001};
  const int64_t many[] = {5, 131, 1999, 1}, run[] = {MOST_BYTES};
  check_round_trip(QD_U8, 2, rows);
  check_round_trip(QD_U8, 2, wide);
  check_round_trip(QD_BF16, 2, wide);
  check_round_trip(QD_F32, 3, deep);
  check_round_trip(QD_F16, 3, deep);
  check_round_trip(QD_F16, 4, many);
  check_round_trip(QD_U8, 1, run);
}

/* Chunk `index` as it is stored, decompressed: with the padding, and shuffled. */
static void read_raw(const qd_stored_part *part, int64_t index, unsigned char *to, qd_h5_layout *layout) {
  static unsigned char frame[2 * QD_H5_CHUNK_BYTES];
  qd_h5_file file;
  qd_h5_dataset dataset;
  size_t n = 0;
  MUST(qd_h5_layout_make(part->dtype, part->rank, part->dim, layout));
  MUST(qd_h5_open(qd_temporary_path(&folder, "a.h5"), &file));
  MUST(qd_h5_dataset_open(&file, part->dataset, layout, &dataset));
  MUST(qd_h5_chunk_read(&dataset, index, frame, sizeof frame, &n));
  MUST(qd_zstd_decompress(frame, n, to, layout->chunk_bytes));
  qd_h5_dataset_close(&dataset);
  qd_h5_close(&file);
}

static void check_padding(qd_dtype dtype, int64_t rows, int64_t columns) {
  qd_stored_part part;
  qd_h5_layout layout;
  size_t offset, n, zeros = 0;
  memset(data, 0x55, MOST_BYTES);
  write_one("a.h5", qd_tensor_2d(data, dtype, rows, columns), &part);
  MUST(qd_h5_layout_make(part.dtype, part.rank, part.dim, &layout));
  qd_h5_chunk_range(&layout, layout.n_chunks - 1, &offset, &n);
  cr_assert(n < layout.chunk_bytes);
  read_raw(&part, layout.n_chunks - 1, back, &layout);
  for (size_t i = 0; i < layout.chunk_bytes; i++) zeros += back[i] == 0;
  cr_assert_eq(zeros, layout.chunk_bytes - n);
  size_t half = layout.chunk_bytes / 2;
  if (qd_dtype_bytes(dtype) == 2) cr_assert(back[half - 1] == 0 && back[half] == 0x55);
}

Test(block_file, the_last_chunk_is_padded_with_zeros) {
  check_padding(QD_U8, 4099, 1025);
  check_padding(QD_F16, 1531, 999);
  check_padding(QD_BF16, 3, 1310723); /* the ninth chunk, in the buffer of a full one */
}

Test(block_file, random_bytes_are_frames_as_well) {
  uint32_t state = 1;
  for (size_t i = 0; i < 100000; i++) state = state * 1664525u + 1013904223u, data[i] = (unsigned char)(state >> 24);
  qd_stored_part part;
  qd_entry_file file = write_one("a.h5", qd_tensor_1d(data, QD_U8, 100000), &part);
  cr_assert(file.bytes > 100000 && file.bytes < 110000);
  MUST(qd_block_file_read(qd_temporary_path(&folder, "a.h5"), &part, back));
  cr_assert_eq(memcmp(back, data, 100000), 0);
}

Test(block_file, zeros_take_next_to_nothing) {
  memset(data, 0, MOST_BYTES);
  qd_stored_part part;
  cr_assert_lt(write_one("a.h5", qd_tensor_1d(data, QD_F32, MOST_BYTES / 4), &part).bytes, 10000);
}

/* Enough datasets for HDF5 to leave its compact form of groups, and other things in memory the second time. */
static qd_entry_file write_many(const char *name) {
  enum { MANY = 40 };
  static char names[MANY][32];
  qd_out_tensor out[MANY];
  qd_digest digests[MANY];
  qd_entry_file file;
  fill(3000, 5);
  for (int i = 0; i < MANY; i++) {
    snprintf(names[i], sizeof names[i], "linear_%d/%s", i / 3, i % 3 == 0 ? "codes" : i % 3 == 1 ? "scales" : "values");
    qd_dtype dtype = i % 3 == 0 ? QD_U8 : i % 3 == 1 ? QD_F16 : QD_BF16;
    out[i] = (qd_out_tensor){names[i], qd_tensor_2d(data + 2 * i, dtype, 20 + i, 5)};
  }
  MUST(qd_store_write_file(folder.path, name, out, MANY, &file, digests));
  return file;
}

Test(block_file, same_tensors_same_bytes) {
  qd_entry_file first = write_many("a.h5");
  size_t n, m;
  unsigned char *a = made_read(qd_temporary_path(&folder, "a.h5"), &n);
  for (int i = 0; i < 5; i++) {
    qd_heap_free(made_read(qd_temporary_path(&folder, "a.h5"), &m));
    qd_entry_file again = write_many("b.h5");
    cr_assert(qd_digest_equal(&first.digest, &again.digest) && first.bytes == again.bytes);
  }
  unsigned char *b = made_read(qd_temporary_path(&folder, "b.h5"), &m);
  cr_assert(n == m && memcmp(a, b, n) == 0);
  qd_heap_free(a);
  qd_heap_free(b);
}

/* ---- damage ---- */

typedef struct small_file {
  const char    *path;
  qd_stored_part part[MADE_PARTS];
  made_tensors   values;
  unsigned char *bytes;
  size_t         n;
} small_file;

static small_file make_small(void) {
  small_file small = {.values = made_values(1)};
  qd_out_tensor out[MADE_PARTS];
  qd_digest digest[MADE_PARTS];
  qd_entry_file file;
  MUST(qd_store_write_file(folder.path, "a.h5", out, made_outputs(&small.values, out), &file, digest));
  for (int i = 0; i < MADE_PARTS; i++) small.part[i] = made_part(&out[i], &digest[i]);
  small.path = qd_temporary_path(&folder, "a.h5");
  small.bytes = made_read(small.path, &small.n);
  return small;
}

/* Each part is right or refused. */
static int count_refused(const small_file *small, const char *path) {
  made_tensors values = small->values;
  qd_out_tensor out[MADE_PARTS];
  made_outputs(&values, out);
  int refused = 0;
  for (int i = 0; i < MADE_PARTS; i++) {
    qd_status status = qd_block_file_read(path, &small->part[i], back);
    cr_assert(status == QD_OK || status == QD_ECORRUPT, "%s: %s", qd_status_name(status), qd_error_text());
    if (status == QD_OK) cr_assert_eq(memcmp(back, out[i].tensor.data, qd_tensor_bytes(out[i].tensor)), 0);
    refused += status != QD_OK;
  }
  return refused;
}

Test(block_file, a_flipped_byte_is_refused_or_harmless) {
  small_file small = make_small();
  const char *path = qd_temporary_path(&folder, "flipped.h5");
  int refused = 0;
  for (size_t i = 0; i < small.n; i++) {
    unsigned char kept = small.bytes[i];
    small.bytes[i] ^= (unsigned char)(1u << i % 8);
    made_write(path, small.bytes, small.n);
    refused += count_refused(&small, path) > 0;
    small.bytes[i] = kept;
  }
  cr_assert_gt(refused, 1000);
  qd_heap_free(small.bytes);
}

Test(block_file, a_file_that_is_cut_off_is_refused) {
  small_file small = make_small();
  const char *path = qd_temporary_path(&folder, "cut.h5");
  for (size_t n = 0; n < small.n; n++) {
    made_write(path, small.bytes, n);
    cr_assert_eq(count_refused(&small, path), MADE_PARTS, "%zu of %zu bytes", n, small.n);
  }
  qd_heap_free(small.bytes);
}

Test(block_file, garbage_does_not_crash) {
  small_file small = make_small();
  const char *path = qd_temporary_path(&folder, "garbage.h5");
  unsigned char *bytes;
  uint32_t state = 7;
  MUST(qd_heap_new(small.n, 1, &bytes));
  for (int round = 0; round < 2000; round++) {
    memcpy(bytes, small.bytes, small.n);
    for (int k = 0; k < 1 + round % 40; k++) {
      state = state * 1664525u + 1013904223u;
      bytes[(state >> 8) % small.n] = (unsigned char)state;
    }
    made_write(path, bytes, small.n);
    count_refused(&small, path);
  }
  qd_heap_free(bytes);
  qd_heap_free(small.bytes);
}

Test(block_file, names_file_and_dataset_when_it_refuses) {
  small_file small = make_small();
  small.part[1].digest.hex[0] ^= 1;
  cr_assert_eq(qd_block_file_read(small.path, &small.part[1], back), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "a.h5") && strstr(qd_error_text(), "q_proj/scales") && strstr(qd_error_text(), "digest"));
  small.part[0].dim[0]++;
  cr_assert_eq(qd_block_file_read(small.path, &small.part[0], NULL), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "a.h5") && strstr(qd_error_text(), "q_proj/codes") && strstr(qd_error_text(), "shape"));
  cr_assert_eq(qd_block_file_read(qd_temporary_path(&folder, "none.h5"), &small.part[2], NULL), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "none.h5 is missing"));
  qd_heap_free(small.bytes);
}

/* What HDF5 takes without a word and the frame does not. */
static qd_status read_made_of(const void *frame, size_t n, const qd_stored_part *part) {
  const char *path = qd_temporary_path(&folder, "made.h5");
  qd_h5_layout layout;
  qd_h5_file file;
  qd_h5_dataset dataset;
  MUST(qd_h5_layout_make(part->dtype, part->rank, part->dim, &layout));
  MUST(qd_h5_create(path, &file));
  MUST(qd_h5_dataset_create(&file, part->dataset, &layout, &dataset));
  MUST(qd_h5_chunk_write(&dataset, 0, frame, n));
  qd_h5_dataset_close(&dataset);
  MUST(qd_h5_finish(&file));
  return qd_block_file_read(path, part, back);
}

Test(block_file, refuses_chunks_that_are_not_one_whole_frame) {
  unsigned char plain[101] = {1, 2, 3}, frame[400];
  size_t n, longer;
  qd_stored_part part = {.name = "x", .dtype = QD_U8, .rank = 1, .dim = {100}, .dataset = "x"};
  qd_digest_of(plain, 100, &part.digest);
  MUST(qd_zstd_compress(plain, 100, frame, sizeof frame, &n));
  cr_assert_eq(read_made_of(frame, n, &part), QD_OK, "%s", qd_error_text());
  cr_assert_eq(read_made_of(frame, n - 1, &part), QD_ECORRUPT);
  cr_assert_eq(read_made_of(frame, n + 1, &part), QD_ECORRUPT);
  cr_assert_eq(read_made_of(plain, 100, &part), QD_ECORRUPT);
  cr_assert_eq(read_made_of(frame, sizeof frame, &part), QD_ECORRUPT);
  MUST(qd_zstd_compress(plain, 101, frame, sizeof frame, &longer));
  cr_assert_eq(read_made_of(frame, longer, &part), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "made.h5") && strstr(qd_error_text(), "chunk 0 of x"), "%s", qd_error_text());
}

/* ---- failures of writing ---- */

static qd_status try_to_write(const char *out, const char *name, const char *dataset, qd_tensor tensor) {
  qd_out_tensor one = {dataset, tensor};
  qd_entry_file file;
  qd_digest digest;
  return qd_store_write_file(out, name, &one, 1, &file, &digest);
}

Test(block_file, a_failure_leaves_nothing_behind) {
  qd_tensor tensor = qd_tensor_2d(data, QD_U8, 4, 6);
  cr_assert_eq(try_to_write(folder.path, "a.h5", "x/../y", tensor), QD_EINVAL);
  cr_assert_eq(try_to_write(folder.path, "a.h5", "/x", tensor), QD_EINVAL);
  cr_assert_eq(try_to_write(folder.path, "a.h5", "x", qd_tensor_transposed(tensor)), QD_ESHAPE);
  cr_assert_eq(try_to_write(folder.path, "../a.h5", "x", tensor), QD_EINVAL);
  cr_assert_eq(try_to_write(folder.path, "a.json", "x", tensor), QD_EINVAL);
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "a.h5")));
  cr_assert_eq(rmdir(qd_temporary_path(&folder, "partial")), 0); /* it is empty */
  cr_assert_eq(try_to_write(folder.path, "a.h5", "x", tensor), QD_EIO);
  cr_assert(strstr(qd_error_text(), folder.path) && strstr(qd_error_text(), "No such file"), "%s", qd_error_text());
  cr_assert_eq(try_to_write(qd_temporary_path(&folder, "gone"), "a.h5", "x", tensor), QD_EIO);
}

Test(block_file, a_folder_without_permission_is_named) {
  if (geteuid() == 0) cr_skip_test("root may write everywhere");
  chmod(qd_temporary_path(&folder, "partial"), 0500);
  cr_assert_eq(try_to_write(folder.path, "a.h5", "x", qd_tensor_1d(data, QD_U8, 4)), QD_EIO);
  cr_assert(strstr(qd_error_text(), "partial") && strstr(qd_error_text(), "Permission denied"), "%s", qd_error_text());
}

Test(block_file, an_old_temporary_is_in_nobody_s_way) {
  qd_temporary_write_text(&folder, "partial/a.h5.tmp", "what a killed run left");
  qd_stored_part part;
  write_one("a.h5", qd_tensor_1d(data, QD_U8, 50), &part);
  MUST(qd_block_file_read(qd_temporary_path(&folder, "a.h5"), &part, back));
  cr_assert_eq(rmdir(qd_temporary_path(&folder, "partial")), 0);
}
