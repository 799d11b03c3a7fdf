#define _POSIX_C_SOURCE 200809L
#include "storage/listing.h"

#include "tests/support/store_maker.h"

static qd_temporary_folder folder;
static void setup(void) { qd_temporary_folder_open(&folder); }
static void teardown(void) { qd_temporary_folder_close(&folder); }
TestSuite(listing, .init = setup, .fini = teardown);

Test(listing, is_in_order_and_complete) {
  qd_listing listing;
  MUST(qd_listing_read(folder.path, &listing));
  cr_assert_eq(listing.n, 0);
  cr_assert_not(qd_listing_has(&listing, "a"));
  qd_listing_release(&listing);
  for (int i = 0; i < 40; i++) {
    char name[16];
    snprintf(name, sizeof name, "f%02d", i * 7 % 40);
    qd_temporary_write_text(&folder, name, "");
  }
  qd_temporary_write_text(&folder, ".hidden", "");
  MUST(qd_listing_read(folder.path, &listing));
  cr_assert_eq(listing.n, 41);
  cr_assert_str_eq(listing.name[0], ".hidden");
  cr_assert_str_eq(listing.name[1], "f00");
  cr_assert_str_eq(listing.name[40], "f39");
  cr_assert(qd_listing_has(&listing, "f17") && !qd_listing_has(&listing, "f40") && !qd_listing_has(&listing, "."));
  qd_listing_release(&listing);
}

Test(listing, needs_a_folder) {
  qd_listing listing;
  cr_assert_eq(qd_listing_read(qd_temporary_path(&folder, "none"), &listing), QD_ENOTFOUND);
  cr_assert_eq(qd_listing_read(qd_temporary_write_text(&folder, "file", ""), &listing), QD_EEXIST);
  cr_assert_eq(listing.n, 0);
  qd_listing_release(&listing);
}

Test(listing, knows_what_lies_beside_a_store) {
  static const char *const beside[] = {"job.lock", "job.yaml", "qdist.log",   "slurm-7.log",  "report.json",
                                       "report.txt", "status.json", "status-3.json"};
  static const char *const inside[] = {"manifest.json", "config.json", "log",     "my.log.h5",
                                       "job.lock2",     "status.txt",  "reports", "partial"};
  for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) cr_assert(qd_is_beside_store(beside[i]), "%s", beside[i]);
  for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) cr_assert_not(qd_is_beside_store(inside[i]), "%s", inside[i]);
}
