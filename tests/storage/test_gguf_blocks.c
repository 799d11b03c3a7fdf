#include "storage/sources/gguf_blocks.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const char *const decoded[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"};

static const qd_gguf_block *named(const char *name) {
  for (uint32_t type = 0; type < 64; type++)
    if (qd_gguf_block_of(type) != NULL && strcmp(qd_gguf_block_of(type)->name, name) == 0) return qd_gguf_block_of(type);
  cr_assert_fail("no type %s", name);
  return NULL;
}

/* Bit by bit what the Python package decodes (tests/golden/make_gguf.py). */
Test(gguf_blocks, decode_as_the_python_package_does) {
  enum { BLOCKS = 3 };
  for (size_t i = 0; i < sizeof decoded / sizeof *decoded; i++) {
    const qd_gguf_block *b = named(decoded[i]);
    size_t n, packed = BLOCKS * (size_t)b->bytes, elements = BLOCKS * (size_t)b->elements;
    char path[512], *file;
    float got[BLOCKS * QD_GGUF_MOST_ELEMENTS];
    snprintf(path, sizeof path, "%s/tests/golden/gguf/%s.bin", QDIST_SOURCE_DIR, b->name);
    cr_assert_eq(qd_file_read(path, 1 << 20, &file, &n), QD_OK, "%s", qd_error_text());
    cr_assert_eq(n, packed + elements * sizeof *got);
    b->decode((const unsigned char *)file, BLOCKS, got);
    cr_expect_eq(memcmp(got, file + packed, elements * sizeof *got), 0, "%s", b->name);
    qd_heap_free(file);
  }
}

/* What gguf-py encodes of -16 ... 15, decoded by hand: scale, minimum and codes as they stand in the bytes. */
Test(gguf_blocks, known_answers) {
#define NIBBLES "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
  static const char q4_0[] = "\x00\x40\x80\x91\x91\xa2\xa2\xb3\xb3\xc4\xc4\xd5\xd5\xe6\xe6\xf7\xf7\xf8";
  static const char q4_1[] = "\x22\x40\x00\xcc\x80\x80\x91\x91\xa2\xa2\xb3\xb3\xc4\xc4\xd5\xd5\xe6\xe6\xf7\xf7";
  static const char q5_0[] = "\x00\x3c\x00\x00\xff\xff" NIBBLES, q5_1[] = "\x00\x3c\x00\xcc\x00\x00\xff\xff" NIBBLES;
  static const char q8_0[] = "\x08\x30\x81\x89\x91\x99\xa1\xa9\xb1\xb9\xc0\xc8\xd0\xd8\xe0\xe8\xf0\xf8\x00\x08\x10\x18\x20\x28"
                             "\x30\x38\x40\x47\x4f\x57\x5f\x67\x6f\x77";
  float x[32];
  named("Q5_0")->decode((const unsigned char *)q5_0, 1, x);
  for (int j = 0; j < 32; j++) cr_expect_eq(x[j], (float)(j - 16), "Q5_0[%d] %g", j, (double)x[j]);
  named("Q5_1")->decode((const unsigned char *)q5_1, 1, x);
  for (int j = 0; j < 32; j++) cr_expect_eq(x[j], (float)(j - 16), "Q5_1[%d] %g", j, (double)x[j]);
  named("Q4_0")->decode((const unsigned char *)q4_0, 1, x);
  for (int j = 0; j < 32; j++)
    cr_expect_eq(x[j], (float)(j == 31 ? 14 : 2 * ((j + 1) / 2) - 16), "Q4_0[%d] %g", j, (double)x[j]);
  named("Q4_1")->decode((const unsigned char *)q4_1, 1, x);
  for (int j = 0; j < 32; j++) cr_expect_eq(x[j], 2.06640625f * (float)(j / 2) - 16, "Q4_1[%d] %g", j, (double)x[j]);
  named("Q8_0")->decode((const unsigned char *)q8_0, 1, x);
  for (int j = 0; j < 32; j++)
    cr_expect_eq(x[j], 0.1259765625f * (float)(int8_t)q8_0[2 + j], "Q8_0[%d] %g", j, (double)x[j]);
}

/* sc = 7, 14 ... 56 and m = 63, 54 ... 0 in the twelve bytes of six bits each; codes all 1. */
Test(gguf_blocks, six_bit_scales) {
  unsigned char block[144] = {0x00, 0x3c, 0x00, 0x3c, 0x87, 0x8e, 0xd5, 0xdc, 0x7f, 0x76, 0x2d, 0x24, 0xb3, 0x2a, 0x91, 0x08};
  float x[256];
  memset(block + 16, 0x11, 128);
  named("Q4_K")->decode(block, 1, x);
  for (int j = 0; j < 256; j++) cr_expect_eq(x[j], (float)(7 * (j / 32 + 1) - (63 - 9 * (j / 32))), "[%d] %g", j, (double)x[j]);
}

Test(gguf_blocks, names_all_types) {
  static const char *const stored[] = {"F32", "F16", "BF16"};
  static const qd_dtype dtype[] = {QD_F32, QD_F16, QD_BF16};
  for (int i = 0; i < 3; i++) {
    cr_expect_null(named(stored[i])->decode);
    cr_expect_eq(named(stored[i])->dtype, dtype[i]);
    cr_expect_eq((size_t)named(stored[i])->bytes, qd_dtype_bytes(dtype[i]));
  }
  cr_expect_null(qd_gguf_block_of(39));
  cr_expect_str_eq(qd_gguf_type_name(39), "MXFP4");
  cr_expect_str_eq(qd_gguf_type_name(14), "Q6_K");
  cr_expect_null(qd_gguf_type_name(5));
}
