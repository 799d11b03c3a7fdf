#include "storage/raw_file.h"

#include "tests/support/folder.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(raw_file, .init = open_folder, .fini = close_folder);

Test(raw_file, a_nameless_one_holds_what_is_written_and_no_name) {
  qd_raw_file file;
  char got[8] = "";
  MUST(qd_raw_file_nameless(folder.path, 100, &file));
  cr_expect_str_eq(qd_folder_names(folder.path), "");
  MUST(qd_raw_file_write(&file, 90, "0123456789", 10));
  MUST(qd_raw_file_write(&file, 92, "ab", 2));
  MUST(qd_raw_file_read(&file, 90, got, 6));
  cr_expect_str_eq(got, "01ab45");
  MUST(qd_raw_file_write(&file, 5, NULL, 0));
  qd_raw_file_close(&file);
  qd_raw_file_close(&file);
}

Test(raw_file, reading_beyond_the_end_is_an_error) {
  qd_raw_file file;
  char got[8];
  MUST(qd_raw_file_nameless(folder.path, 0, &file));
  MUST(qd_raw_file_write(&file, 0, "0123", 4));
  cr_expect_eq(qd_raw_file_read(&file, 2, got, 3), QD_EIO);
  cr_expect(strstr(qd_error_text(), "ends before byte 5") != NULL, "%s", qd_error_text());
  qd_raw_file_close(&file);
}

Test(raw_file, a_created_one_begins_empty) {
  qd_raw_file file;
  qd_temporary_write_text(&folder, "x", "something long");
  MUST(qd_raw_file_create(qd_temporary_path(&folder, "x"), &file));
  MUST(qd_raw_file_write(&file, 0, "abc", 3));
  MUST(qd_raw_file_finish(&file));
  cr_expect_str_eq(qd_folder_names(folder.path), "x ");
  char line[32] = "";
  FILE *read = fopen(qd_temporary_path(&folder, "x"), "r");
  cr_assert_not_null(fgets(line, sizeof line, read));
  fclose(read);
  cr_expect_str_eq(line, "abc");
}

Test(raw_file, what_cannot_be_had_is_named) {
  qd_raw_file file;
  const char *plain = qd_temporary_write_text(&folder, "plain", "x");
  cr_expect_eq(qd_raw_file_nameless(qd_temporary_path(&folder, "absent"), 1, &file), QD_ENOTFOUND);
  cr_expect(strstr(qd_error_text(), "there is no folder") != NULL, "%s", qd_error_text());
  cr_expect_eq(qd_raw_file_nameless(plain, 1, &file), QD_ENOTFOUND);
  cr_expect(strstr(qd_error_text(), "is a file") != NULL, "%s", qd_error_text());
  cr_expect_eq(qd_raw_file_create(qd_temporary_path(&folder, "absent/x"), &file), QD_EIO);
  cr_expect(strstr(qd_error_text(), "absent/x") != NULL, "%s", qd_error_text());
}

Test(raw_file, more_than_the_disk_gives_is_refused_at_once) {
  qd_raw_file file;
  struct rlimit limit = {1000, 1000};
  signal(SIGXFSZ, SIG_IGN);
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  cr_expect_eq(qd_raw_file_nameless(folder.path, 5000, &file), QD_EIO);
  cr_expect(strstr(qd_error_text(), "cannot reserve 5000 bytes in") != NULL, "%s", qd_error_text());
  cr_expect_eq(qd_raw_file_nameless(folder.path, UINT64_MAX, &file), QD_EIO);
  MUST(qd_raw_file_nameless(folder.path, 0, &file));
  cr_expect_eq(qd_raw_file_write(&file, 900, "0123456789", 10), QD_OK);
  char large[200] = "";
  cr_expect_eq(qd_raw_file_write(&file, 900, large, sizeof large), QD_EIO);
  cr_expect(strstr(qd_error_text(), "cannot write") != NULL, "%s", qd_error_text());
  qd_raw_file_close(&file);
}
