/* What is told of a job before any work, by plan and by quantize. */
#define _XOPEN_SOURCE 700
#include "storage/json.h"
#include "tests/end_to_end/bad_input_support.h"

TestSuite(preflight, .init = setup, .fini = teardown, .timeout = 600);

#define HARDWARE QDIST_SOURCE_DIR "/jobs/hardware.json"

static void expect_before(const char *text, const char *first, const char *then) {
  const char *a = strstr(text, first), *b = strstr(text, then);
  cr_expect(a != NULL && b != NULL && a < b, "\"%s\" before \"%s\" in: %s", first, then, text);
}

Test(preflight, quantize_tells_each_setting_before_the_first_block) {
  const char *const words[] = {QUANTIZE, "--show-plan", "--ignore", "v_proj", "-g", "4", NULL};
  for (int ranks = 0; ranks < 3; ranks += 2) {
    qd_run run = run_words(ranks, words);
    cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
    expect_before(run.err.text, "2 blocks as block 0: q_proj [8, 8]: gptq, 4 bits, groups of 4", "block    0  q_proj");
    expect_before(run.err.text, "v_proj [8, 8]: kept: --ignore \"v_proj\"", "block    0  q_proj");
    expect_before(run.err.text, "plan: about", "block    0  q_proj");
    qd_run_close(&run);
    EXPECT(0, "", "", "verify", out);
    snprintf(out, sizeof out, "%s/out2", folder.path);
  }
}

/* The folder holds config.json and nothing else. */
Test(preflight, plan_for_another_machine_needs_no_weights) {
  char bare[600];
  snprintf(bare, sizeof bare, "%s/bare", folder.path);
  qd_temporary_make_folder(&folder, "bare");
  qd_temporary_write_text(&folder, "bare/config.json", sound);
  qd_run run = run_words(0, (const char *const[]){"plan", "-m", bare, "--ranks", "16", "--hardware", HARDWARE ":h100", "--json",
                                                  "--show-plan", NULL});
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_json *json;
  cr_assert_eq(qd_json_parse(run.out.text, strlen(run.out.text), "plan", &json), QD_OK, "%s", qd_error_text());
  const qd_json *time = qd_json_get(json, "time");
  cr_expect_eq(qd_json_length(qd_json_get(json, "ranks")), 16);
  cr_expect_eq(qd_json_length(qd_json_get(json, "settings")), 9);
  cr_expect_gt(qd_json_number(qd_json_get(time, "factor")), 0);
  cr_expect_gt(qd_json_number(qd_json_get(time, "reading")), 0);
  cr_expect_geq(qd_json_number(qd_json_get(json, "seconds")), qd_json_number(qd_json_get(time, "factor")));
  qd_json_free(json);
  qd_run_close(&run);
}

Test(preflight, tables_of_machines_are_checked) {
  const char *path = qd_temporary_write_text(
      &folder, "small.json", "{\"machines\": [{\"name\": \"tiny\", \"memory_bytes\": 1000, \"linear\": 1, \"hessian\": 1, "
                             "\"factor\": 1, \"fit\": 1, \"solve\": 1, \"measure\": 1, \"read\": 1, \"wire\": 1}]}");
  EXPECT_ROW("a machine that the table does not have", "plan", "-m", model, "--hardware", HARDWARE ":b200");
  EXPECT_ROW("a machine with too little memory", "plan", "-m", model, "--hardware", path);
  EXPECT_ROW("a plan for another machine with a text", "plan", "-m", model, "--hardware", path, "-d", ids);
}
