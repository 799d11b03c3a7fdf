#define _POSIX_C_SOURCE 200809L
#include "storage/seal.h"

#include "tests/support/store_maker.h"

static qd_temporary_folder folder;
static void setup(void) { qd_temporary_folder_open(&folder); }
static void teardown(void) { qd_temporary_folder_close(&folder); }
TestSuite(seal, .init = setup, .fini = teardown);

static qd_json *small_document(void) {
  qd_json *document = qd_json_object(), *list = qd_json_array();
  qd_json_set_text(document, "format", "qdist");
  qd_json_append_integer(list, 12);
  qd_json_append_number(list, 0.1);
  qd_json_set(document, "list", list);
  return document;
}

static const char *write_small(void) {
  qd_json *document = small_document();
  MUST(qd_seal_write(document, folder.path, folder.path, "a.json"));
  qd_json_free(document);
  return qd_temporary_path(&folder, "a.json");
}

static qd_status read_and_free(const char *path) {
  qd_json *json;
  qd_status status = qd_seal_read(path, &json);
  cr_assert((status == QD_OK) == (json != NULL));
  qd_json_free(json);
  return status;
}

Test(seal, a_document_comes_back) {
  qd_json *document = small_document(), *read;
  MUST(qd_seal_read(write_small(), &read));
  cr_assert_eq(qd_json_length(read), 3);
  cr_assert(qd_json_equal(qd_json_get(read, "list"), qd_json_get(document, "list")));
  qd_json_free(document);
  qd_json_free(read);
}

Test(seal, the_digest_is_over_the_text_with_zeros_in_its_place) {
  size_t n;
  unsigned char *text = made_read(write_small(), &n);
  char *digits = strstr((char *)text, "\"digest\": \"");
  cr_assert_not_null(digits);
  digits += strlen("\"digest\": \"");
  qd_digest written = {""}, counted;
  memcpy(written.hex, digits, QD_DIGEST_DIGITS);
  memset(digits, '0', QD_DIGEST_DIGITS);
  qd_digest_of(text, n, &counted);
  cr_assert_str_eq(written.hex, counted.hex);
  cr_assert_str_eq(digits + QD_DIGEST_DIGITS, "\"\n}\n");
  qd_heap_free(text);
}

Test(seal, every_changed_byte_is_found) {
  size_t n;
  const char *path = write_small();
  unsigned char *text = made_read(path, &n);
  for (size_t i = 0; i < n; i++) {
    for (int bit = 0; bit < 8; bit++) {
      text[i] ^= (unsigned char)(1u << bit);
      made_write(path, text, n);
      cr_assert_eq(read_and_free(path), QD_ECORRUPT, "byte %zu, bit %d", i, bit);
      text[i] ^= (unsigned char)(1u << bit);
    }
  }
  made_write(path, text, n);
  MUST(read_and_free(path));
  qd_heap_free(text);
}

Test(seal, a_document_that_is_cut_off_or_longer_is_refused) {
  size_t n;
  const char *path = write_small();
  unsigned char *text = made_read(path, &n);
  for (size_t cut = n; cut-- > 0;) {
    made_write(path, text, cut);
    cr_assert_eq(read_and_free(path), QD_ECORRUPT, "%zu bytes", cut);
  }
  unsigned char longer[4096];
  memcpy(longer, text, n);
  memcpy(longer + n, "\n", 1);
  made_write(path, longer, n + 1);
  cr_assert_eq(read_and_free(path), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), path));
  qd_heap_free(text);
}

Test(seal, what_is_not_there_is_not_found) {
  cr_assert_eq(read_and_free(qd_temporary_path(&folder, "none.json")), QD_ENOTFOUND);
}
