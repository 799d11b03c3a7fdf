#include "storage/seal.h"

#include "kernels/base/heap.h"
#include "storage/atomic.h"
#include "storage/bytes.h"

#include <string.h>

static const char before[] = "\"digest\": \"", zeros[] = "00000000000000000000000000000000", after[] = "\"\n}\n";

enum {
  BEFORE_BYTES = sizeof before - 1,
  AFTER_BYTES = sizeof after - 1,
  SEAL_BYTES = BEFORE_BYTES + QD_DIGEST_DIGITS + AFTER_BYTES
};

qd_status qd_as_corrupt(qd_status status) {
  if (status != QD_EBADINPUT) return status;
  QD_FAIL(QD_ECORRUPT, "%s", qd_error_text());
}

/* Where the digits are in a document that ends as a sealed one; NULL in any other. */
static char *find_digits(char *text, size_t n) {
  if (n < SEAL_BYTES) return NULL;
  char *seal = text + n - SEAL_BYTES, *digits = seal + BEFORE_BYTES;
  if (memcmp(seal, before, BEFORE_BYTES) != 0 || memcmp(digits + QD_DIGEST_DIGITS, after, AFTER_BYTES) != 0) return NULL;
  return digits;
}

static qd_status print_sealed(qd_json *document, char **text) {
  char *bare = NULL;
  qd_json_set_text(document, "digest", zeros);
  QD_TRY(qd_json_print(document, 1, &bare));
  size_t n = strlen(bare);
  qd_status status = qd_heap_new(n + 2, 1, text);
  if (status == QD_OK) memcpy(*text, bare, n), (*text)[n] = '\n';
  qd_heap_free(bare);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_seal_write(qd_json *document, const char *folder, const char *temporary_folder, const char *name) {
  char *text = NULL;
  QD_TRY(print_sealed(document, &text));
  size_t n = strlen(text);
  char *digits = find_digits(text, n);
  QD_ASSERT(digits != NULL);
  qd_digest digest;
  qd_digest_of(text, n, &digest);
  memcpy(digits, digest.hex, QD_DIGEST_DIGITS);
  qd_status status = qd_atomic_write(folder, temporary_folder, name, text, n);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status check_seal(char *text, size_t n, const char *path) {
  qd_digest written = {""}, counted;
  char *digits = find_digits(text, n);
  QD_CHECK(digits != NULL, QD_ECORRUPT, "%s does not end with its digest: it is damaged or cut off", path);
  memcpy(written.hex, digits, QD_DIGEST_DIGITS);
  memcpy(digits, zeros, QD_DIGEST_DIGITS);
  qd_digest_of(text, n, &counted);
  memcpy(digits, written.hex, QD_DIGEST_DIGITS);
  QD_CHECK(qd_digest_equal(&written, &counted), QD_ECORRUPT, "%s is damaged: the digest at its end is not that of its bytes",
           path);
  return QD_OK;
}

static qd_status parse_sealed(char *text, size_t n, const char *path, qd_json **out) {
  QD_TRY(check_seal(text, n, path));
  QD_TRY(qd_as_corrupt(qd_json_parse(text, n, path, out)));
  return QD_OK;
}

qd_status qd_seal_read(const char *path, qd_json **out) {
  *out = NULL;
  char *text = NULL;
  size_t n = 0;
  QD_TRY(qd_as_corrupt(qd_file_read(path, QD_SEALED_BYTES, &text, &n)));
  qd_status status = parse_sealed(text, n, path, out);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
