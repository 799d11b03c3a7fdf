#include "storage/config_file.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;

static void begin(void) { qd_temporary_folder_open(&folder); }
static void end(void) { qd_temporary_folder_close(&folder); }

TestSuite(config_file, .init = begin, .fini = end);

/* "key=value;" of each item, "-" for null. */
static void expect_items(const char *text, const char *expected) {
  qd_config_file file;
  char got[1000] = "";
  cr_assert_eq(qd_config_file_read(qd_temporary_write_text(&folder, "c", text), &file), QD_OK, "%s: %s", text, qd_error_text());
  for (size_t i = 0; i < file.n; i++)
    sprintf(got + strlen(got), "%s=%s;", file.item[i].key, file.item[i].value ? file.item[i].value : "-");
  cr_expect_str_eq(got, expected, "%s: %s", text, got);
  qd_config_file_release(&file);
}

Test(config_file, reads_yaml_and_json) {
  expect_items("", "");
  expect_items("# only a comment\n", "");
  expect_items("{}", "");
  expect_items("bits: 4\ngroup_size: -1\nmodel: a b/c # comment\nsym: true\n", "bits=4;group-size=-1;model=a b/c;sym=true;");
  expect_items("{\"bits\": 4, \"ignore\": [\"a\", \"b\\n\\u00e9\"], \"damp\": 0.01}",
               "bits=4;ignore=a;ignore=b\n\xc3\xa9;damp=0.01;");
  expect_items("ignore:\n- x\n- 'y: z'\nempty: []\nnone: null\ntext: 'null'\n", "ignore=x;ignore=y: z;none=-;text=null;");
  expect_items("- ignore: a\n- override: b\n  bits: 3\n- ignore: c\n", "ignore=a;override=b;bits=3;ignore=c;");
}

static void expect_refusal(const char *text, const char *says) {
  qd_config_file file;
  cr_expect_eq(qd_config_file_read(qd_temporary_write_text(&folder, "c", text), &file), QD_EBADINPUT, "%s", text);
  cr_expect_not_null(strstr(qd_error_text(), says), "%s: %s", text, qd_error_text());
  cr_expect_null(file.item);
}

Test(config_file, refuses_what_it_does_not_take) {
  expect_refusal("bits", "line 1: a mapping of options to values is expected");
  expect_refusal("- 4\n", "line 1: a mapping");
  expect_refusal("a: {b: 1}\n", "\"a\" takes a value or a list of values");
  expect_refusal("a: [[1]]\n", "\"a\" takes a value or a list of values");
  expect_refusal("b: 1\na: 1\nb: 2\n", "line 3: \"b\" is there twice");
  expect_refusal("a_b: 1\na-b: 1\n", "line 2: \"a-b\" is there twice");
  expect_refusal("a: &x 1\nb: *x\n", "line 2: \"b\" takes a value");
  expect_refusal("[1]: 2\n", "the name of an option is expected");
  expect_refusal("a: 1\n---\nb: 2\n", "a second document");
  expect_refusal("a: \"x\\0y\"\n", "a NUL in a text");
  expect_refusal("a: [1\n", "line 2: ");
  expect_refusal("a: \xff\n", "UTF-8");
  qd_config_file file;
  cr_expect_eq(qd_config_file_read(qd_temporary_path(&folder, "absent"), &file), QD_ENOTFOUND);
}

/* Within a second, not in the square of their number. */
Test(config_file, refuses_more_values_than_any_job_has, .timeout = 10) {
  enum { NAMES = 90000 };
  char *text, *to;
  cr_assert_eq(qd_heap_new(NAMES * 10 + 1, 1, &text), QD_OK);
  to = text;
  for (int i = 0; i < NAMES; i++) to += sprintf(to, "k%d: 1\n", i);
  expect_refusal(text, "line 4097: more than 4096 values");
  qd_heap_free(text);
}

/* What is quoted comes back. */
Test(config_file, quotes_what_is_not_plain) {
  static const char *const texts[] = {
      "",         "4",   "-1",   "-",   "--x",        "...",  "null",     "~",
      "true",     "a b", "a: b", "#",   "'",          "\"\\", "\n\t\x7f", "model\\.layers\\.0\\.",
      "\xc3\xa9", "x#y", "[a]",  "1e3", "/a/b-c_d.e", "@x",   "%",        "*",
      "&",        "!",   "|",    ">",   "? x"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    char *quoted, document[200];
    qd_config_file file;
    cr_assert_eq(qd_config_quote(texts[i], &quoted), QD_OK);
    snprintf(document, sizeof document, "key: %s\n", quoted);
    cr_assert_eq(qd_config_file_read(qd_temporary_write_text(&folder, "c", document), &file), QD_OK, "%s: %s", document,
                 qd_error_text());
    cr_assert_eq(file.n, 1);
    cr_expect(file.item[0].value != NULL && strcmp(file.item[0].value, texts[i]) == 0, "%s", document);
    qd_config_file_release(&file);
    qd_heap_free(quoted);
  }
}
