/* The tables under "Bad input" in docs/operations.md are what the tests assert: each row says what is wrong, the sentence that
 * a user gets, the exit code and the test that sees it.  A test names the row's first column; the sentence stands there only.
 */
#ifndef QDIST_TESTS_SUPPORT_BAD_INPUT_TABLE_H
#define QDIST_TESTS_SUPPORT_BAD_INPUT_TABLE_H

#include <stdbool.h>

enum { QD_MAX_ROWS = 320, QD_CELL_BYTES = 768 };

/* A sentence: "…" stands for what differs from one machine or run to another.  Exit code -1: not told in this table. */
typedef struct qd_table_row {
  char kind[QD_CELL_BYTES], sentence[QD_CELL_BYTES], suite[64], test[QD_CELL_BYTES];
  int  exit_code;
} qd_table_row;

typedef struct qd_table {
  int n;
  qd_table_row row[QD_MAX_ROWS];
} qd_table;

/* The rows of all tables between the heading `heading` of a document and the next one of its level; lines that are no row of
 * four cells (what, sentence in backticks, number, suite::name) or of three (what, anything, suite::name) end the test. */
void qd_table_parse(const char *document, const char *heading, qd_table *out);

/* docs/operations.md's, read once; the row of that kind, which ends the test when it is not there. */
const qd_table     *qd_bad_input_table(void);
const qd_table_row *qd_bad_input_row(const char *kind);

/* Does a line of `text` hold the sentence, from behind "qdist COMMAND: " (or "qdist: ") to its end? */
bool qd_sentence_is_told(const char *sentence, const char *text);

#endif
