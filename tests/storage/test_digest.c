#include "storage/digest.h"

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <string.h>

/* Values of the python-xxhash package, xxh3_128_hexdigest. */
Test(digest, has_the_published_values) {
  unsigned char data[1000];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7);
  qd_digest digest;
  qd_digest_of(data, sizeof data, &digest);
  cr_assert_str_eq(digest.hex, "abee229cdadad76d10ad30264426c830");
  qd_digest_of(NULL, 0, &digest);
  cr_assert_str_eq(digest.hex, "99aa06d3014798d86001c324468d497f");
  qd_digest_of("hello", 5, &digest);
  cr_assert_str_eq(digest.hex, "b5e9c1ad071b3e7fc779cfaa5e523818");
}

Test(digest, of_a_file_is_that_of_its_bytes) {
  const size_t sizes[] = {0, 1, 240, 241, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 17};
  qd_temporary_folder folder;
  qd_temporary_folder_open(&folder);
  unsigned char *data;
  cr_assert_eq(qd_heap_new((3 << 20) + 17, 1, &data), QD_OK);
  for (size_t i = 0; i < (3 << 20) + 17; i++) data[i] = (unsigned char)(i * i >> 7);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    qd_digest whole, pieces;
    const char *path = qd_temporary_write(&folder, "data", data, sizes[i]);
    qd_digest_of(data, sizes[i], &whole);
    cr_assert_eq(qd_digest_file(path, &pieces), QD_OK, "%s", qd_error_text());
    cr_assert_str_eq(whole.hex, pieces.hex, "%zu bytes", sizes[i]);
    cr_assert_eq(strlen(whole.hex), QD_DIGEST_DIGITS);
  }
  qd_heap_free(data);
  qd_temporary_folder_close(&folder);
}

Test(digest, differs_for_one_bit) {
  unsigned char data[1000] = {0};
  qd_digest before, after;
  qd_digest_of(data, sizeof data, &before);
  for (size_t bit = 0; bit < 8 * sizeof data; bit += 13) {
    data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    qd_digest_of(data, sizeof data, &after);
    cr_assert_not(qd_digest_equal(&before, &after));
    data[bit / 8] = 0;
  }
  qd_digest_of(data, sizeof data, &after);
  cr_assert(qd_digest_equal(&before, &after));
}

Test(digest, of_a_missing_file_names_it) {
  qd_digest digest;
  cr_assert_eq(qd_digest_file("/nonexistent/file", &digest), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "/nonexistent/file") != NULL);
  cr_assert_str_eq(digest.hex, "");
}
