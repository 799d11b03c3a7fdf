#define _XOPEN_SOURCE 700
#include "tests/support/bad_input_table.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the parser ---------------------------------------------------------------------------------------------------------- */

Test(bad_input_table, rows_are_those_below_the_heading) {
  static const char document[] =
      "# T\n\n| no | row |\n|---|---|\n| of | it |\n\n## Bad input\n\ntext\n\n"
      "| what | sentence | exit | test |\n|---|---|---|---|\n"
      "| a file | `cannot read \xe2\x80\xa6: no` | 1 | a::b |\n| c |`d`| 75 | e::f_g |\n\n### works\n\n"
      "| what | becomes | test |\n|--|--|--|\n| h | fine | i::j |\n\n## Next\n| k | `l` | 1 | m::n |\n";
  static qd_table table;
  qd_table_parse(document, "## Bad input", &table);
  cr_assert_eq(table.n, 3);
  cr_expect_str_eq(table.row[0].kind, "a file");
  cr_expect_str_eq(table.row[0].sentence, "cannot read \xe2\x80\xa6: no");
  cr_expect_eq(table.row[0].exit_code, 1);
  cr_expect_str_eq(table.row[0].suite, "a");
  cr_expect_str_eq(table.row[1].sentence, "d");
  cr_expect_eq(table.row[1].exit_code, 75);
  cr_expect_str_eq(table.row[1].test, "f_g");
  cr_expect_eq(table.row[2].exit_code, -1);
  cr_expect_str_eq(table.row[2].test, "j");
}

Test(bad_input_table, a_sentence_is_told_from_beginning_to_end) {
  static const char text[] = "qdist quantize: 2 ranks x 1 threads\nqdist quantize: /tmp/x/a.json has 3 bytes, 4 are wanted\n";
  cr_expect(qd_sentence_is_told("\xe2\x80\xa6/a.json has 3 bytes, 4 are wanted", text));
  cr_expect(qd_sentence_is_told("\xe2\x80\xa6 has \xe2\x80\xa6 bytes, \xe2\x80\xa6 wanted", text));
  cr_expect(qd_sentence_is_told("/tmp/x/a.json has 3 bytes, 4 are wanted", text));
  cr_expect(qd_sentence_is_told("2 ranks x 1 threads", text));
  cr_expect_not(qd_sentence_is_told("a.json has 3 bytes, 4 are wanted", text), "the beginning is missing");
  cr_expect_not(qd_sentence_is_told("\xe2\x80\xa6 has 3 bytes", text), "the end is missing");
  cr_expect_not(qd_sentence_is_told("\xe2\x80\xa6 has 5 bytes, \xe2\x80\xa6", text));
  cr_expect_not(qd_sentence_is_told("2 ranks\xe2\x80\xa6 wanted", text), "over two lines");
  cr_expect_not(qd_sentence_is_told("no", "mpirun: no\n"));
}

/* ---- the document -------------------------------------------------------------------------------------------------------- */

static int wanted_rows = 40;
static bool found[QD_MAX_ROWS];

/* The body of Test(suite, name ...) in a source, NULL if it is not there; it ends at the first brace in column one. */
static const char *find_test(const char *source, const qd_table_row *row, size_t *n) {
  char opening[QD_CELL_BYTES + 80];
  snprintf(opening, sizeof opening, "Test(%s, %s", row->suite, row->test);
  const char *at = strstr(source, opening);
  if (at == NULL || (at[strlen(opening)] != ')' && at[strlen(opening)] != ',')) return NULL;
  const char *end = strstr(at, "\n}");
  *n = end != NULL ? (size_t)(end - at) : strlen(at);
  return at;
}

/* `"the kind"` within the test: it runs what the row tells. */
static bool is_named(const char *body, size_t n, const char *kind) {
  char quoted[QD_CELL_BYTES + 3];
  snprintf(quoted, sizeof quoted, "\"%s\"", kind);
  const char *at = strstr(body, quoted);
  return at != NULL && at < body + n;
}

static int look_into(const char *path, const struct stat *facts, int type, struct FTW *place) {
  (void)facts, (void)place;
  static char source[1 << 20];
  const qd_table *table = qd_bad_input_table();
  if (type != FTW_F || strlen(path) < 2 || strcmp(path + strlen(path) - 2, ".c") != 0) return 0;
  FILE *file = fopen(path, "r");
  cr_assert_not_null(file, "%s", path);
  source[fread(source, 1, sizeof source - 1, file)] = '\0';
  fclose(file);
  for (int i = 0; i < table->n; i++) {
    size_t n;
    const char *body = find_test(source, &table->row[i], &n);
    if (body == NULL) continue;
    found[i] = true;
    cr_expect(is_named(body, n, table->row[i].kind), "%s::%s does not name \"%s\"", table->row[i].suite, table->row[i].test,
              table->row[i].kind);
  }
  return 0;
}

Test(bad_input_table, every_row_has_a_test_that_names_it) {
  const qd_table *table = qd_bad_input_table();
  cr_assert_eq(nftw(QDIST_SOURCE_DIR "/tests", look_into, 16, FTW_PHYS), 0);
  for (int i = 0; i < table->n; i++)
    cr_expect(found[i], "there is no test %s::%s (\"%s\")", table->row[i].suite, table->row[i].test, table->row[i].kind);
}

Test(bad_input_table, kinds_are_many_and_each_once) {
  const qd_table *table = qd_bad_input_table();
  int told = 0;
  for (int i = 0; i < table->n; i++) {
    told += table->row[i].exit_code >= 0;
    for (int k = 0; k < i; k++) cr_expect_str_neq(table->row[i].kind, table->row[k].kind);
  }
  cr_expect_geq(told, wanted_rows);
}

Test(bad_input_table, exit_codes_are_those_of_the_program) {
  const qd_table *table = qd_bad_input_table();
  for (int i = 0; i < table->n; i++) {
    int code = table->row[i].exit_code;
    cr_expect(code == -1 || code == 1 || code == 2 || code == 3 || code == 75, "%s: %d", table->row[i].kind, code);
    cr_expect(code == -1 || strlen(table->row[i].sentence) > 20, "%s", table->row[i].kind);
  }
}
