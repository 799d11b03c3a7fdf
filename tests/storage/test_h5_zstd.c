#include "storage/h5_zstd.h"

#include <criterion/criterion.h>
#include <string.h>
#include <zstd.h>

enum { MOST = 70000 };

static unsigned char from[MOST], frame[2 * MOST], to[MOST + 1];

static void fill(size_t n, bool compressible) {
  uint32_t state = 12345;
  for (size_t i = 0; i < n; i++) {
    state = state * 1664525u + 1013904223u;
    from[i] = compressible ? (unsigned char)(i % 7) : (unsigned char)(state >> 24);
  }
}

static size_t compressed(size_t n) {
  size_t bytes = 0;
  cr_assert_eq(qd_zstd_compress(from, n, frame, sizeof frame, &bytes), QD_OK);
  cr_assert_leq(bytes, qd_zstd_bound(n));
  return bytes;
}

Test(h5_zstd, gives_back_what_was_compressed) {
  const size_t sizes[] = {1, 2, 255, 4096, 65537, MOST};
  for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
    size_t n = sizes[i / 2];
    fill(n, i % 2);
    size_t bytes = compressed(n);
    memset(to, 0xaa, sizeof to);
    cr_assert_eq(qd_zstd_decompress(frame, bytes, to, n), QD_OK);
    cr_assert_eq(memcmp(to, from, n), 0);
    cr_assert_eq(to[n], 0xaa);
  }
}

Test(h5_zstd, frame_has_content_size_and_checksum) {
  fill(1000, true);
  size_t bytes = compressed(1000);
  cr_assert_eq(ZSTD_getFrameContentSize(frame, bytes), 1000);
  cr_assert(frame[4] & 4);
}

Test(h5_zstd, every_flipped_bit_is_found_or_harmless) {
  fill(300, true);
  size_t bytes = compressed(300);
  for (size_t bit = 0; bit < 8 * bytes; bit++) {
    frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
    memset(to, 0, sizeof to);
    qd_status status = qd_zstd_decompress(frame, bytes, to, 300);
    cr_assert(status == QD_ECORRUPT || memcmp(to, from, 300) == 0, "bit %zu", bit);
    frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
  }
}

Test(h5_zstd, refuses_all_but_one_whole_frame) {
  fill(300, false);
  size_t bytes = compressed(300);
  for (size_t n = 0; n < bytes; n++) cr_assert_eq(qd_zstd_decompress(frame, n, to, 300), QD_ECORRUPT, "%zu bytes", n);
  cr_assert_eq(qd_zstd_decompress(frame, bytes + 1, to, 300), QD_ECORRUPT);
  cr_assert_eq(qd_zstd_decompress(frame, bytes, to, 299), QD_ECORRUPT);
  cr_assert_eq(qd_zstd_decompress(frame, bytes, to, 301), QD_ECORRUPT);
}

Test(h5_zstd, refuses_frames_that_give_the_right_bytes_together) {
  fill(300, true);
  size_t bytes = compressed(300), nothing = ZSTD_compress(frame + bytes, sizeof frame - bytes, from, 0, 1);
  cr_assert_not(ZSTD_isError(nothing));
  cr_assert_eq(qd_zstd_decompress(frame, bytes + nothing, to, 300), QD_ECORRUPT);
  cr_assert_eq(qd_zstd_decompress(frame, bytes, to, 300), QD_OK);
}

Test(h5_zstd, refuses_a_frame_without_content_size) {
  fill(300, true);
  ZSTD_CCtx *context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  size_t bytes = ZSTD_compress2(context, frame, sizeof frame, from, 300);
  ZSTD_freeCCtx(context);
  cr_assert_not(ZSTD_isError(bytes));
  cr_assert_eq(qd_zstd_decompress(frame, bytes, to, 300), QD_ECORRUPT);
}

Test(h5_zstd, refuses_a_frame_without_checksum) {
  fill(300, true);
  size_t bytes = ZSTD_compress(frame, sizeof frame, from, 300, 1);
  cr_assert_not(ZSTD_isError(bytes));
  cr_assert_eq(qd_zstd_decompress(frame, bytes, to, 300), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "no checksum"));
}
