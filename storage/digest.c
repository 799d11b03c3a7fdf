#include "storage/digest.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <string.h>
#include <xxhash.h>

enum { PIECE_BYTES = 1 << 20 };

static void to_hex(XXH128_hash_t hash, qd_digest *out) {
  static const char digits[] = "0123456789abcdef";
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  for (size_t i = 0; i < sizeof canonical.digest; i++) {
    out->hex[2 * i] = digits[canonical.digest[i] >> 4];
    out->hex[2 * i + 1] = digits[canonical.digest[i] & 15];
  }
  out->hex[QD_DIGEST_DIGITS] = '\0';
}

void qd_digest_of(const void *data, size_t n, qd_digest *out) { to_hex(XXH3_128bits(n > 0 ? data : "", n), out); }

static qd_status digest_bytes(qd_bytes *bytes, XXH3_state_t *state, unsigned char *piece) {
  QD_CHECK(state != NULL && XXH3_128bits_reset(state) == XXH_OK, QD_ENOMEM, "no memory left for the digest of %s", bytes->name);
  for (uint64_t offset = 0; offset < bytes->size;) {
    uint64_t left = bytes->size - offset;
    size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    QD_TRY(qd_bytes_read(bytes, offset, piece, n));
    XXH3_128bits_update(state, piece, n);
    offset += n;
  }
  return QD_OK;
}

qd_status qd_digest_file(const char *path, qd_digest *out) {
  *out = (qd_digest){""};
  qd_status status;
  qd_bytes bytes = {0};
  unsigned char *piece = NULL;
  XXH3_state_t *state = NULL;
  QD_TRY_GOTO(status, done, qd_bytes_open_file(path, &bytes));
  QD_TRY_GOTO(status, done, qd_heap_new(PIECE_BYTES, 1, &piece));
  state = XXH3_createState();
  QD_TRY_GOTO(status, done, digest_bytes(&bytes, state, piece));
  to_hex(XXH3_128bits_digest(state), out);
done:
  XXH3_freeState(state);
  qd_heap_free(piece);
  qd_bytes_close(&bytes);
  return status;
}

bool qd_digest_equal(const qd_digest *a, const qd_digest *b) { return strcmp(a->hex, b->hex) == 0; }
