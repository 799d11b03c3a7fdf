#include "jobs/hardware.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;

static void begin(void) { qd_temporary_folder_open(&folder); }
static void end(void) { qd_temporary_folder_close(&folder); }

TestSuite(hardware, .init = begin, .fini = end);

#define RATES                                                              \
  "\"linear\": 1e3, \"hessian\": 2e3, \"factor\": 3e3, \"fit\": 4e3, " \
  "\"solve\": 5e3, \"measure\": 6e3, \"read\": 7e3, "

static qd_status read_table(const char *text, const char *name, qd_hardware *out) {
  char path[700];
  snprintf(path, sizeof path, "%s%s", qd_temporary_write_text(&folder, "table.json", text), name);
  return qd_hardware_read(path, out);
}

Test(hardware, reads_a_machine_by_its_name) {
  qd_hardware got;
  const char two[] = "{\"machines\": [{\"name\": \"a\", " RATES "\"wire\": 8e3}, {\"name\": \"b\", \"memory_bytes\": 99, " RATES
                     "\"wire\": 9000}]}";
  cr_assert_eq(read_table(two, ":b", &got), QD_OK, "%s", qd_error_text());
  cr_expect_str_eq(got.name, "b");
  cr_expect_eq(got.rates.linear, 1e3);
  cr_expect_eq(got.rates.hessian, 2e3);
  cr_expect_eq(got.rates.factor, 3e3);
  cr_expect_eq(got.rates.fit, 4e3);
  cr_expect_eq(got.rates.solve, 5e3);
  cr_expect_eq(got.rates.measure, 6e3);
  cr_expect_eq(got.rates.read, 7e3);
  cr_expect_eq(got.rates.wire, 9e3);
  cr_expect_eq(got.memory_bytes, 99);
  cr_expect_eq(read_table(two, "", &got), QD_EINVAL);
  cr_expect_not_null(strstr(qd_error_text(), "several machines: a, b"));
  cr_expect_eq(read_table(two, ":c", &got), QD_ENOTFOUND);
  cr_expect_not_null(strstr(qd_error_text(), "no machine \"c\", but a, b"));
  cr_expect_eq(read_table("{\"machines\": [{\"name\": \"a\", " RATES "\"wire\": 8e3}]}", "", &got), QD_OK);
  cr_expect_eq(got.memory_bytes, 0);
}

Test(hardware, refuses_what_is_no_table) {
  static const struct { const char *text, *says; } wrong[] = {
      {"[]", "no list \"machines\""},
      {"{\"machines\": []}", "no list \"machines\""},
      {"{\"machines\": [3]}", "machine 0 has no name"},
      {"{\"machines\": [{\"name\": \"a\", " RATES "\"wires\": 1}]}", "machine a: \"wire\" is missing"},
      {"{\"machines\": [{\"name\": \"a\", " RATES "\"wire\": 0}]}", "wire"},
      {"{\"machines\": [{\"name\": \"a\", " RATES "\"wire\": 1, \"memory_bytes\": -1}]}", "memory_bytes"},
      {"{\"machines\":", "table.json"}};
  qd_hardware got;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    cr_expect_eq(read_table(wrong[i].text, "", &got), QD_EBADINPUT, "%s", wrong[i].text);
    cr_expect_not_null(strstr(qd_error_text(), wrong[i].says), "%s: %s", wrong[i].text, qd_error_text());
  }
  cr_expect_eq(qd_hardware_read("absent.json:a", &got), QD_ENOTFOUND);
}

Test(hardware, the_table_that_comes_along_can_be_read) {
  qd_hardware got;
  cr_expect_eq(qd_hardware_read(QDIST_SOURCE_DIR "/jobs/hardware.json:h100", &got), QD_OK, "%s", qd_error_text());
  cr_expect_eq(qd_hardware_read(QDIST_SOURCE_DIR "/jobs/hardware.json:a100", &got), QD_OK, "%s", qd_error_text());
}
