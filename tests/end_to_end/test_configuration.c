/* A job from a file, and the file that each output has of its job. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"
#include "tests/support/folder.h"

TestSuite(configuration, .init = setup, .fini = teardown, .timeout = 600);

static char again[600], written[700];

static void expect_same(const char *const *first) {
  qd_run run = run_words(0, first);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  snprintf(again, sizeof again, "%s/again", folder.path);
  snprintf(written, sizeof written, "%s/job.yaml", out);
  EXPECT(0, "wrote", again, "quantize", "--config", written, "--output", again);
  const char *difference = qd_folder_difference(out, again, false);
  cr_expect_null(difference, "%s", difference);
}

/* Rules in an order that counts, a mixture, and settings that are not the usual ones. */
Test(configuration, the_written_job_makes_the_same_store) {
  char heavy[700];
  snprintf(heavy, sizeof heavy, "%s:0.75", ids);
  const char *const words[] = {"quantize",   "-m",         model,         "-d",       heavy,
                               "-d",         ids,          "--seqlen",    "16",       "--nsamples",
                               "5",          "-o",         out,           "-b3",      "-g",
                               "4",          "--sym",      "--damp",      "0.05",     "--ignore",
                               "k_proj",     "--override", "q_proj=5:-1", "--ignore", "layers\\.1\\.self_attn\\.q",
                               "--desc-act", NULL};
  expect_same(words);
}

Test(configuration, a_job_of_usual_settings_is_written_whole) {
  static const char *const lines[] = {"method: gptq\n",
                                      "bits: 4\n",
                                      "group-size: 128\n",
                                      "asym: true\n",
                                      "mse: true\n",
                                      "act-order: static\n",
                                      "true-sequential: true\n",
                                      "damp: 0.01\n",
                                      "block-size: 128\n",
                                      "nsamples: 128\n",
                                      "seed: 0\n",
                                      "arithmetic: f32\n",
                                      "scale-dtype: f16\n",
                                      "readers: coordinator\n"};
  char *text;
  size_t n;
  expect_same((const char *const[]){QUANTIZE, NULL});
  cr_assert_eq(qd_file_read(written, 1 << 16, &text, &n), QD_OK);
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    cr_expect_not_null(strstr(text, lines[i]), "%s in %s", lines[i], text);
  qd_heap_free(text);
}

/* A preset that is named keeps its bits and groups. */
Test(configuration, an_average_takes_the_best_setting_that_fits) {
  EXPECT(0, "spqr, 4 bits, groups of 64", out, QUANTIZE, "--method", "spqr", "--avg-bits", "4.2");
  snprintf(again, sizeof again, "%s/again", folder.path);
  EXPECT(0, "spqr, 3 bits, groups of 16", again, QUANTIZE, "-o", again, "--method", "spqr", "--avg-bits", "4.2", "--preset",
         "spqr-4bit");
}

/* SpQR's whole grid as well; a threshold typed takes the place of the average, an order that of its other name. */
Test(configuration, a_job_with_outliers_is_written_whole) {
  static const char *const lines[] = {"method: spqr\n",    "avg-bits: 3.99\n", "bits: 3\n",
                                      "group-size: 16\n",  "asym: true\n",     "scale-bits: 3\n",
                                      "zero-bits: 3\n",    "stat-group: 16\n", "permutation-order: act_order\n",
                                      "block-size: 128\n", "damp: auto\n"};
  char *text;
  size_t n;
  expect_same((const char *const[]){QUANTIZE, "--method", "spqr", NULL});
  cr_assert_eq(qd_file_read(written, 1 << 16, &text, &n), QD_OK);
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    cr_expect_not_null(strstr(text, lines[i]), "%s in %s", lines[i], text);
  qd_heap_free(text);
  snprintf(again, sizeof again, "%s/third", folder.path);
  EXPECT(0, "wrote", again, "quantize", "--config", written, "--output", again, "--outlier-threshold", "0.3", "--act-order",
         "none");
}

/* The file decides bits; the command line goes before it. */
Test(configuration, decides_as_the_command_line_does) {
  const char *path = qd_temporary_write_text(&folder, "rtn.json", "{\"method\": \"rtn\", \"bits\": 3, \"group_size\": 4}");
  EXPECT(0, "wrote", out, "quantize", "-m", model, "-o", out, "--config", path);
  snprintf(again, sizeof again, "%s/again", folder.path);
  EXPECT(0, "wrote", again, "quantize", "-m", model, "-o", again, "--method", "rtn", "-b", "3", "-g", "4");
  const char *difference = qd_folder_difference(out, again, false);
  cr_expect_null(difference, "%s", difference);
  EXPECT(1, "bits was 3 there, now it is 4", out, "quantize", "-m", model, "-o", out, "--config", path, "-b", "4");
}
