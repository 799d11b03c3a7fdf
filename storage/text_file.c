#include "storage/text_file.h"

#include <string.h>
#define ZLIB_CONST
#include <zlib.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"

static const size_t SIZE_LIMIT = (size_t)16 << 30;

typedef struct unpacker {
  z_stream    stream;
  const char *packed, *what;
  size_t      n, used;
  char       *out;
  size_t      out_n, capacity;
} unpacker;

static bool is_gzip(const char *bytes, size_t n) {
  return n >= 2 && (unsigned char)bytes[0] == 0x1F && (unsigned char)bytes[1] == 0x8B;
}

/* One call of inflate: as much as zlib's 32-bit counts take. */
static qd_status inflate_some(unpacker *u, int *rc) {
  enum { STEP = 1 << 20 };
  QD_CHECK(u->out_n <= SIZE_LIMIT, QD_EBADINPUT, "%s: unpacks to more than %zu bytes", u->what, SIZE_LIMIT);
  QD_TRY(qd_heap_grow(&u->out, &u->capacity, u->out_n + STEP, 1));
  size_t left = u->n - u->used;
  uInt in = (uInt)(left < STEP ? left : STEP), room = STEP;
  u->stream.next_in = (const unsigned char *)(u->packed + u->used);
  u->stream.avail_in = in;
  u->stream.next_out = (unsigned char *)(u->out + u->out_n);
  u->stream.avail_out = room;
  *rc = inflate(&u->stream, Z_NO_FLUSH);
  size_t eaten = in - u->stream.avail_in, made = room - u->stream.avail_out;
  u->used += eaten;
  u->out_n += made;
  bool stuck = *rc == Z_BUF_ERROR || (*rc == Z_OK && eaten == 0 && made == 0);
  QD_CHECK(!stuck, QD_EBADINPUT, "%s: the gzip data ends in the middle, after %zu bytes", u->what, u->n);
  QD_CHECK(*rc == Z_OK || *rc == Z_STREAM_END, QD_EBADINPUT, "%s: damaged gzip data near byte %zu: %s", u->what, u->used,
           u->stream.msg ? u->stream.msg : zError(*rc));
  return QD_OK;
}

static qd_status unpack_members(unpacker *u) {
  for (int rc = Z_OK; u->used < u->n || rc != Z_STREAM_END;) {
    if (rc == Z_STREAM_END) {
      QD_CHECK(is_gzip(u->packed + u->used, u->n - u->used), QD_EBADINPUT, "%s: %zu bytes that are not gzip follow its end",
               u->what, u->n - u->used);
      QD_CHECK(inflateReset(&u->stream) == Z_OK, QD_EBADINPUT, "%s: cannot start the next gzip member", u->what);
    }
    QD_TRY(inflate_some(u, &rc));
  }
  return QD_OK;
}

qd_status qd_gzip_unpack(const char *packed, size_t n, const char *what, char **out, size_t *out_n) {
  enum { GZIP_ONLY = 15 + 16 };
  unpacker u = {.packed = packed, .n = n, .what = what};
  *out = NULL;
  *out_n = 0;
  QD_CHECK(inflateInit2(&u.stream, GZIP_ONLY) == Z_OK, QD_ENOMEM, "no memory left to unpack %s", what);
  qd_status status = unpack_members(&u);
  inflateEnd(&u.stream);
  if (status != QD_OK) {
    qd_heap_free(u.out);
    return qd_forward(status, __FILE__, __LINE__);
  }
  *out = u.out;
  *out_n = u.out_n;
  return QD_OK;
}

qd_status qd_text_file_read(const char *path, bool unpack, qd_text_file *out) {
  *out = (qd_text_file){0};
  QD_TRY(qd_file_read(path, SIZE_LIMIT, &out->text, &out->n));
  qd_digest_of(out->text, out->n, &out->digest);
  if (!unpack || !is_gzip(out->text, out->n)) return QD_OK;
  char *packed = out->text;
  qd_status status = qd_gzip_unpack(packed, out->n, path, &out->text, &out->n);
  qd_heap_free(packed);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

void qd_text_file_release(qd_text_file *file) {
  qd_heap_free(file->text);
  *file = (qd_text_file){0};
}
