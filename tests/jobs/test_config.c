#include "jobs/config.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;

static void begin(void) { qd_temporary_folder_open(&folder); }
static void end(void) { qd_temporary_folder_close(&folder); }

TestSuite(config, .init = begin, .fini = end);

static const struct argp_option inner_list[] = {{"threads", 't', "N", 0, "", 0}, {"config", 0x300, "FILE", 0, "", 0}, {0}};
static const struct argp inner = {.options = inner_list};
static const struct argp_child children[] = {{&inner, 0, NULL, 0}, {0}};
static const struct argp_option list[] = {{"bits", 'b', "N", 0, "", 0},
                                          {"wbits", 'b', 0, OPTION_ALIAS, 0, 0},
                                          {0, 0, 0, 0, "A heading:", 1},
                                          {"sym", 0x301, 0, 0, "", 0},
                                          {"asym", 0x302, 0, 0, "", 0},
                                          {"mse", 0x303, 0, 0, "", 0},
                                          {"no-mse", 0x304, 0, 0, "", 0},
                                          {"ignore", 0x305, "X", 0, "", 0},
                                          {"override", 0x306, "X", 0, "", 0},
                                          {"act-order", 0x307, "X", 0, "", 0},
                                          {"desc-act", 0x308, 0, 0, "", 0},
                                          {"head", 0x309, "N", OPTION_ARG_OPTIONAL, "", 0},
                                          {0}};
static const struct argp argp = {.options = list, .children = children};

/* The command line, words parted by blanks, with the file "c" for FILE, as it is afterwards. */
static qd_status apply(const char *line, const char *file, char *out) {
  static char words[1000];
  char *argv[40], **changed = argv;
  int argc = 0;
  qd_temporary_write_text(&folder, "c", file);
  snprintf(words, sizeof words, "%s", line);
  for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
    argv[argc++] = strcmp(word, "FILE") == 0 ? (char *)(uintptr_t)qd_temporary_path(&folder, "c") : word;
  argv[argc] = NULL;
  qd_status status = qd_config_apply(&argp, &argc, &changed);
  *out = '\0';
  for (int i = 1; status == QD_OK && i < argc; i++)
    if (strstr(changed[i], "qdist-test") == NULL) sprintf(out + strlen(out), "%s ", changed[i]);
  return status;
}

static void expect_line(const char *line, const char *file, const char *expected) {
  char got[1000];
  cr_assert_eq(apply(line, file, got), QD_OK, "%s: %s", line, qd_error_text());
  cr_expect_str_eq(got, expected, "%s with %s: %s", line, file, got);
}

Test(config, options_of_the_file_stand_before_the_command_lines) {
  expect_line("x -b 4", "", "-b 4 ");
  expect_line("x --config FILE", "bits: 3\nsym: true\nthreads: 2\n", "--bits=3 --sym --threads=2 --config ");
  expect_line("x -t 1 --config FILE", "bits: 3\n", "--bits=3 -t 1 --config ");
  expect_line("x --config FILE", "sym: false\nmse: true\n", "--mse --config ");
  expect_line("x --config FILE", "ignore: [a, b]\nact_order: static\n", "--ignore=a --ignore=b --act-order=static --config ");
  expect_line("x --config FILE", "{\"wbits\": 3}", "--bits=3 --config ");
}

Test(config, the_command_line_goes_before_the_file) {
  expect_line("x --config FILE -b 4", "bits: 3\nsym: true\n", "--sym --config -b 4 ");
  expect_line("x --config FILE -b4", "wbits: 3\n", "--config -b4 ");
  expect_line("x --config FILE --wbi=4", "bits: 3\n", "--config --wbi=4 ");
  expect_line("x --config FILE --asym --no-mse", "sym: true\nmse: true\nbits: 3\n", "--bits=3 --config --asym --no-mse ");
  expect_line("x --config FILE --desc-act", "act-order: static\n", "--config --desc-act ");
  expect_line("x --config FILE --ignore c", "ignore: [a, b]\n", "--config --ignore c ");
}

static void expect_refusal(const char *line, const char *file, const char *says) {
  char got[1000];
  cr_expect_eq(apply(line, file, got), QD_EUSAGE, "%s", file);
  cr_expect_not_null(strstr(qd_error_text(), says), "%s: %s", file, qd_error_text());
}

Test(config, names_that_are_none_are_refused_with_the_nearest) {
  expect_refusal("x --config FILE", "bits: 3\nignroe: a\n", "line 2: there is no option \"ignroe\"; did you mean ignore?");
  expect_refusal("x --config FILE", "bit: 3\n", "did you mean bits?"); /* no beginning of a name either */
  expect_refusal("x --config FILE", "xyzzyxyzzy: 3\n", "line 1: there is no option \"xyzzyxyzzy\"");
  expect_refusal("x --config FILE", "sym: yes\n", "sym takes true or false, got \"yes\"");
  expect_refusal("x --config FILE", "bits:\n", "bits has no value");
  expect_refusal("x --config FILE", "config: y\n", "cannot name another one");
  expect_refusal("x --config FILE --config FILE", "", "--config is given twice");
}

Test(config, two_names_of_one_option_are_refused) {
  char got[1000];
  cr_expect_eq(apply("x --config FILE", "bits: 3\nwbits: 4\n", got), QD_EBADINPUT);
  cr_expect_not_null(strstr(qd_error_text(), "line 2: \"wbits\" is the option \"bits\", which is there before"), "%s",
                     qd_error_text());
  cr_expect_eq(apply("x --config FILE", "act_order: static\nact-order: none\n", got), QD_EBADINPUT, "%s", got);
  expect_line("x --config FILE", "- ignore: a\n- override: b\n- ignore: [c, d]\n",
              "--ignore=a --override=b --ignore=c --ignore=d --config ");
}

static void expect_text(const char *line, const char *file, const char *expected) {
  char got[1000], *text;
  const qd_given *given;
  cr_assert_eq(apply(line, file, got), QD_OK);
  size_t n = qd_config_given(&given);
  cr_assert_eq(qd_config_print(given, n, &text), QD_OK);
  cr_expect_str_eq(strchr(text, '\n') + 1, expected, "%s", text);
  qd_heap_free(text);
}

Test(config, a_value_may_be_left_out_where_the_option_says_so) {
  expect_line("x --config FILE", "head: true\n", "--head --config ");
  expect_line("x --config FILE", "head: 3\n", "--head=3 --config ");
  expect_line("x --config FILE", "head: false\n", "--config ");
  expect_text("x --head 5 --sym", "", "head: 5\nsym: true\n");
  expect_text("x --head --sym", "", "head: true\nsym: true\n");
  expect_text("x --head=6", "", "head: 6\n");
}

Test(config, what_was_given_is_printed_again) {
  expect_text("x -b 4 --sym", "", "bits: 4\nsym: true\n");
  expect_text("x --config FILE -b 4 --ignore a.*b", "sym: true\nbits: 3\n", "sym: true\nbits: 4\nignore: \"a.*b\"\n");
  expect_text("x --ignore a --ignore b --override c", "", "ignore:\n  - a\n  - b\noverride: c\n");
  expect_text("x --ignore a --override c --ignore b", "", "- ignore: a\n- override: c\n- ignore: b\n");
}
