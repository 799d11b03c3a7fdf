#include "storage/h5_zstd.h"

#include <zstd.h>

/* RFC 8878, section 3.1.1: the magic number takes four bytes, then comes the frame header's descriptor. */
enum { DESCRIPTOR_AT = 4, CHECKSUM_FLAG = 1 << 2 };

size_t qd_zstd_bound(size_t n) { return ZSTD_compressBound(n); }

/* A context of its own for each frame: what a used one remembers must not be able to show in the bytes. */
qd_status qd_zstd_compress(const void *from, size_t n, void *frame, size_t capacity, size_t *frame_bytes) {
  ZSTD_CCtx *context = ZSTD_createCCtx();
  QD_CHECK(context != NULL, QD_ENOMEM, "no memory left to compress %zu bytes", n);
  size_t result = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, QD_ZSTD_LEVEL);
  if (!ZSTD_isError(result)) result = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  if (!ZSTD_isError(result)) result = ZSTD_compress2(context, frame, capacity, from, n);
  ZSTD_freeCCtx(context);
  QD_CHECK(!ZSTD_isError(result), QD_ENOMEM, "%zu bytes cannot be compressed: %s", n, ZSTD_getErrorName(result));
  *frame_bytes = result;
  return QD_OK;
}

qd_status qd_zstd_decompress(const void *frame, size_t frame_bytes, void *to, size_t n) {
  size_t whole = ZSTD_findFrameCompressedSize(frame, frame_bytes);
  QD_CHECK(!ZSTD_isError(whole), QD_ECORRUPT, "no whole zstd frame in %zu bytes: %s", frame_bytes, ZSTD_getErrorName(whole));
  QD_CHECK(whole == frame_bytes, QD_ECORRUPT, "the zstd frame has %zu bytes, %zu are stored", whole, frame_bytes);
  unsigned long long content = ZSTD_getFrameContentSize(frame, frame_bytes);
  QD_CHECK(content == n, QD_ECORRUPT, "the zstd frame does not say that it holds %zu bytes", n);
  unsigned descriptor = ((const unsigned char *)frame)[DESCRIPTOR_AT];
  QD_CHECK(descriptor & CHECKSUM_FLAG, QD_ECORRUPT, "the zstd frame has no checksum");
  size_t got = ZSTD_decompress(to, n, frame, frame_bytes);
  QD_CHECK(!ZSTD_isError(got), QD_ECORRUPT, "the zstd frame is damaged: %s", ZSTD_getErrorName(got));
  QD_CHECK(got == n, QD_ECORRUPT, "the zstd frame gives %zu bytes, expected %zu", got, n);
  return QD_OK;
}
