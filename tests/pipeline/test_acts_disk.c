#include "pipeline/acts_disk.h"

#include "tests/support/folder.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(acts_disk, .init = open_folder, .fini = close_folder);

static qd_acts_shape shape_of(int64_t sequences, int64_t tokens) {
  return (qd_acts_shape){
      .dtype = QD_BF16, .sequences = sequences, .tokens = tokens, .hidden = 64, .widest = 128, .disk = folder.path};
}

Test(acts_disk, memory_does_not_grow_with_the_number_of_sequences) {
  qd_acts_shape few = shape_of(32, 16), many = shape_of(100000, 16), one = shape_of(1, 16), none = shape_of(0, 16);
  cr_expect_eq(qd_acts_disk_host_bytes(&few), 2 * 8 * 16 * (64 + 128) * 2);
  cr_expect_eq(qd_acts_disk_host_bytes(&many), qd_acts_disk_host_bytes(&few));
  cr_expect_eq(qd_acts_disk_host_bytes(&one), 2 * 16 * (64 + 128) * 2);
  cr_expect_eq(qd_acts_disk_host_bytes(&none), 0);
  cr_expect_eq(qd_acts_disk_file_bytes(&many), (uint64_t)100000 * 16 * (64 + 128) * 2);
  many.saves = true;
  cr_expect_eq(qd_acts_disk_file_bytes(&many), (uint64_t)100000 * 16 * (64 + 64 + 128) * 2);
}

Test(acts_disk, windows_are_of_eight_sequences_or_half_a_gibibyte) {
  qd_acts_shape usual = shape_of(1000, 16), large = shape_of(1000, 65536 * 8), huge = shape_of(1000, (int64_t)1 << 30);
  cr_expect_eq(qd_acts_disk_window(&usual), 8);
  cr_expect_eq(qd_acts_disk_window(&large), 2); /* 192 MiB each */
  cr_expect_eq(qd_acts_disk_window(&huge), 1);
  usual.sequences = 13; /* fewer: no more than half of what memory would take */
  cr_expect_eq(qd_acts_disk_window(&usual), 3);
}

Test(acts_disk, leaves_nothing_in_the_folder) {
  qd_arena arena;
  qd_acts_disk *disk;
  qd_acts_shape shape = shape_of(9, 16);
  MUST(qd_arena_open(&arena, "activations", qd_acts_disk_host_bytes(&shape)));
  MUST(qd_acts_disk_open(&shape, &arena, &disk));
  cr_expect_str_eq(qd_folder_names(folder.path), "", "not even while it is used");
  qd_acts_disk_close(disk);
  qd_acts_disk_close(NULL);
  qd_arena_close(&arena);
}

Test(acts_disk, a_folder_that_is_not_there_is_named) {
  qd_arena arena;
  qd_acts_disk *disk;
  qd_acts_shape shape = shape_of(9, 16);
  MUST(qd_arena_open(&arena, "activations", qd_acts_disk_host_bytes(&shape)));
  shape.disk = qd_temporary_path(&folder, "absent");
  cr_expect_eq(qd_acts_disk_open(&shape, &arena, &disk), QD_ENOTFOUND);
  cr_expect_null(disk);
  cr_expect(strstr(qd_error_text(), shape.disk) != NULL, "%s", qd_error_text());
  qd_arena_close(&arena);
}

/* Where the disk could not reserve, a write fails in the task: the pass tells it, or the next one does. */
Test(acts_disk, a_write_that_fails_is_told_with_its_reason) {
  qd_arena arena;
  qd_acts_disk *disk;
  qd_acts_window window = {.n = 1};
  qd_acts_shape shape = shape_of(16, 16);
  struct rlimit limit = {4 * 16 * 64 * 2, 4 * 16 * 64 * 2}; /* h of the first window */
  MUST(qd_arena_open(&arena, "activations", qd_acts_disk_host_bytes(&shape)));
  MUST(qd_acts_disk_open(&shape, &arena, &disk));
  signal(SIGXFSZ, SIG_IGN);
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  qd_acts_disk_begin(disk, (qd_acts_use){.writes_h = true});
  qd_status status = QD_OK;
  int windows = 0;
  for (; status == QD_OK && window.n > 0; windows += status == QD_OK) status = qd_acts_disk_next(disk, &window);
  cr_expect_eq(status, QD_EIO);
  cr_expect_eq(windows, 3, "the second window goes out while the third is worked on");
  cr_expect(strstr(qd_error_text(), "cannot write") != NULL && strstr(qd_error_text(), "File too large") != NULL, "%s",
            qd_error_text());
  qd_acts_disk_close(disk);
  qd_arena_close(&arena);
}
