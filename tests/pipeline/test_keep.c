#include "pipeline/keep.h"

#include "tests/pipeline/stage_support.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;
static char out[QD_TEMPORARY_PATH_BYTES];

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  snprintf(out, sizeof out, "%s", qd_temporary_make_folder(&folder, "out"));
  qd_json *job = qd_json_object();
  MUST(qd_store_begin(out, job));
  qd_json_free(job);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(keep, .init = open_folder, .fini = close_folder);

static void open_job(stand *s, bool keeps) {
  open_stand(s, "cpu", QD_BF16);
  s->job.output = out, s->job.keep_activations = keeps;
}

static void close_job(stand *s) {
  qd_keep_close(&s->run);
  close_stand(s);
}

/* h of all sequences, each byte another one. */
static void visit_h(stand *s, unsigned seed, bool write) {
  qd_acts_window window;
  qd_acts_begin(&s->run.acts.quantized, (qd_acts_use){.reads_h = !write, .writes_h = write});
  for (;;) {
    MUST(qd_acts_next(&s->run.acts.quantized, &window));
    if (window.n == 0) return;
    unsigned char *byte = window.h.data;
    for (size_t b = 0; b < qd_tensor_bytes(window.h); b++) {
      unsigned char value = (unsigned char)(seed + 13 * (unsigned)b);
      if (write) byte[b] = value;
      else cr_assert_eq(byte[b], value, "byte %zu", b);
    }
  }
}

static void keep_after(stand *s, int64_t blocks, unsigned seed, bool noted) {
  visit_h(s, seed, true);
  MUST(qd_keep_write(&s->run, blocks));
  if (noted) MUST(qd_keep_note(&s->run, blocks));
}

static int64_t restored(stand *s, int64_t first_block) {
  visit_h(s, 99, true);
  s->run.first_block = first_block;
  s->run.stored.has_rest = true;
  MUST(qd_keep_restore(&s->run));
  return s->run.passed;
}

Test(keep, what_was_noted_is_restored) {
  stand s;
  open_job(&s, true);
  keep_after(&s, 2, 7, true);
  cr_expect_eq(restored(&s, 2), 2);
  visit_h(&s, 7, false);
  cr_expect_eq(restored(&s, 3), 2, "a block further on: that one is run again");
  visit_h(&s, 7, false);
  close_job(&s);
}

Test(keep, what_was_not_noted_is_not_looked_at) {
  stand s;
  open_job(&s, true);
  keep_after(&s, 1, 7, true);
  keep_after(&s, 2, 8, false);
  cr_expect_eq(restored(&s, 2), 1);
  visit_h(&s, 7, false);
  keep_after(&s, 3, 9, false);
  MUST(qd_keep_note(&s.run, 2)); /* of other blocks than were written */
  cr_expect_eq(restored(&s, 3), 1);
  close_job(&s);
}

Test(keep, nothing_is_kept_unless_it_is_asked_for) {
  stand s;
  open_job(&s, false);
  keep_after(&s, 1, 7, true);
  cr_expect_eq(restored(&s, 1), 0);
  s.job.keep_activations = true;
  keep_after(&s, 1, 7, true);
  s.job.keep_activations = false;
  cr_expect_eq(restored(&s, 1), 1, "but what is there is read");
  cr_expect_eq(restored(&s, 0), 0, "a job that begins has no use for it");
  close_job(&s);
}

/* They went through blocks that are not there any more. */
Test(keep, what_is_ahead_of_the_store_is_not_used) {
  stand s;
  open_job(&s, true);
  keep_after(&s, 3, 7, true);
  cr_expect_eq(restored(&s, 2), 0);
  close_job(&s);
}

Test(keep, what_is_damaged_or_of_another_shape_is_not_used) {
  stand s;
  open_job(&s, true);
  keep_after(&s, 1, 7, true);
  s.run.act = QD_F32;
  cr_expect_eq(restored(&s, 1), 0);
  s.run.act = QD_BF16;
  cr_expect_eq(restored(&s, 1), 1);
  qd_temporary_write_text(&folder, "out/partial/activations-00001-00000.raw", "no activations");
  cr_expect_eq(restored(&s, 1), 0);
  qd_temporary_write_text(&folder, "out/partial/activations.json", "{}");
  cr_expect_eq(restored(&s, 1), 0);
  close_job(&s);
}
