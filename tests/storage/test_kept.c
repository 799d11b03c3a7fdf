#define _POSIX_C_SOURCE 200809L
#include "storage/kept.h"

#include "tests/support/folder.h"
#include "tests/support/store_maker.h"

enum { SEQUENCES = 5, TOKENS = 3, HIDDEN = 4, BYTES = TOKENS * HIDDEN * 2 };

static qd_temporary_folder folder;
static const char *out;

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  out = qd_temporary_make_folder(&folder, "out");
  made_begin(out);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(kept, .init = open_folder, .fini = close_folder);

static void sequence_bytes(int64_t blocks, int64_t stream, int64_t sequence, unsigned char bytes[BYTES]) {
  for (int i = 0; i < BYTES; i++) bytes[i] = (unsigned char)(17 * blocks + 5 * stream + 3 * sequence + i);
}

/* Two files, of three and two sequences; two streams. */
static qd_kept made_kept(int64_t blocks) {
  qd_kept kept = {.blocks = blocks, .dtype = QD_BF16, .streams = 2, .sequences = SEQUENCES, .tokens = TOKENS, .hidden = HIDDEN};
  MUST(qd_kept_new(&kept, 2));
  kept.part[0] = (qd_kept_part){0, 3}, kept.part[1] = (qd_kept_part){3, 2};
  for (int p = 0; p < 2; p++) {
    qd_raw_file file;
    unsigned char bytes[BYTES];
    MUST(qd_kept_create(out, &kept, kept.part[p].first, &file));
    for (int64_t s = 0; s < kept.streams; s++)
      for (int64_t i = 0; i < kept.part[p].n; i++) {
        int64_t sequence = kept.part[p].first + i;
        sequence_bytes(blocks, s, sequence, bytes);
        qd_digest_of(bytes, BYTES, &kept.digest[s * SEQUENCES + sequence]);
        MUST(qd_raw_file_write(&file, (uint64_t)((s * kept.part[p].n + i) * BYTES), bytes, BYTES));
      }
    MUST(qd_kept_publish(out, &kept, kept.part[p].first, &file));
  }
  return kept;
}

static void keep(int64_t blocks) {
  qd_kept kept = made_kept(blocks);
  MUST(qd_kept_note(out, &kept));
  qd_kept_release(&kept);
}

static const char *names(void) { return qd_folder_names(qd_temporary_path(&folder, "out/partial")); }

Test(kept, what_was_noted_is_read_back) {
  qd_kept kept;
  unsigned char wanted[BYTES], got[BYTES];
  keep(7);
  MUST(qd_kept_read(out, &kept));
  cr_expect(kept.blocks == 7 && kept.dtype == QD_BF16 && kept.streams == 2 && kept.sequences == SEQUENCES &&
            kept.tokens == TOKENS && kept.hidden == HIDDEN);
  cr_expect_eq(qd_kept_sequence_bytes(&kept), BYTES);
  for (int64_t s = 0; s < 2; s++)
    for (int64_t i = 0; i < SEQUENCES; i++) {
      MUST(qd_kept_read_sequence(out, &kept, s, i, got));
      sequence_bytes(7, s, i, wanted);
      cr_expect_eq(memcmp(got, wanted, BYTES), 0, "stream %d sequence %d", (int)s, (int)i);
    }
  qd_kept_release(&kept);
}

Test(kept, none_are_there_at_first) {
  qd_kept kept;
  cr_expect_eq(qd_kept_read(out, &kept), QD_ENOTFOUND);
  qd_kept_release(&kept);
}

/* Until the new ones are noted the old ones are the good ones; then they go. */
Test(kept, the_old_ones_stay_until_the_new_ones_are_noted) {
  qd_kept kept, next;
  keep(1);
  next = made_kept(2);
  cr_expect_str_eq(names(), "activations-00001-00000.raw activations-00001-00003.raw activations-00002-00000.raw "
                            "activations-00002-00003.raw activations.json job.json ");
  MUST(qd_kept_read(out, &kept));
  cr_expect_eq(kept.blocks, 1);
  qd_kept_release(&kept);
  MUST(qd_kept_note(out, &next));
  cr_expect_str_eq(names(), "activations-00002-00000.raw activations-00002-00003.raw activations.json job.json ");
  qd_kept_release(&next);
}

static void expect_damage(int64_t sequence, const char *sentence) {
  qd_kept kept;
  unsigned char got[BYTES];
  MUST(qd_kept_read(out, &kept));
  cr_expect_eq(qd_kept_read_sequence(out, &kept, 1, sequence, got), QD_ECORRUPT);
  cr_expect(strstr(qd_error_text(), sentence) != NULL, "%s", qd_error_text());
  qd_kept_release(&kept);
}

Test(kept, damage_is_found) {
  size_t n;
  const char *path = qd_temporary_path(&folder, "out/partial/activations-00003-00003.raw");
  keep(3);
  unsigned char *bytes = made_read(path, &n);
  cr_assert_eq(n, 2 * 2 * BYTES);
  bytes[n - 1] ^= 1;
  made_write(path, bytes, n);
  expect_damage(4, "activations-00003-00003.raw is damaged: sequence 4 has another digest");
  made_write(path, bytes, n - 1);
  expect_damage(4, "activations-00003-00003.raw");
  cr_assert_eq(unlink(path), 0);
  expect_damage(3, "activations-00003-00003.raw");
  qd_heap_free(bytes);
}

Test(kept, a_damaged_document_is_found_wherever_a_byte_is_changed) {
  size_t n;
  const char *path = qd_temporary_path(&folder, "out/partial/activations.json");
  keep(3);
  unsigned char *bytes = made_read(path, &n);
  for (size_t i = 0; i < n; i += 7) {
    qd_kept kept;
    bytes[i] ^= 4;
    made_write(path, bytes, n);
    cr_expect_neq(qd_kept_read(out, &kept), QD_OK, "byte %zu", i);
    qd_kept_release(&kept);
    bytes[i] ^= 4;
  }
  qd_heap_free(bytes);
}

/* Sealed, but saying what cannot be. */
Test(kept, a_document_that_contradicts_itself_is_refused) {
  for (int wrong = 0; wrong < 4; wrong++) {
    qd_kept kept = made_kept(3), read;
    if (wrong == 0) kept.part[1].n = 3;
    if (wrong == 1) kept.part[1].first = 2;
    if (wrong == 2) kept.part[0].n = 2;
    if (wrong == 3) kept.blocks = 0;
    MUST(qd_kept_note(out, &kept));
    cr_expect_eq(qd_kept_read(out, &read), QD_ECORRUPT, "%d", wrong);
    qd_kept_release(&kept);
  }
}
