#include "tests/support/bad_input_table.h"

#include "kernels/base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOCUMENT_BYTES = 1 << 20, MAX_CELLS = 4 };

static const char any[] = "\xe2\x80\xa6";

/* ---- parsing ------------------------------------------------------------------------------------------------------------- */

typedef struct cells {
  int  n;
  char cell[MAX_CELLS][QD_CELL_BYTES];
} cells;

static void copy_trimmed(const char *from, const char *end, char to[QD_CELL_BYTES]) {
  while (from < end && *from == ' ') from++;
  while (end > from && end[-1] == ' ') end--;
  QD_ASSERT(end - from < QD_CELL_BYTES);
  memcpy(to, from, (size_t)(end - from));
  to[end - from] = '\0';
}

/* "| a | b | c |" */
static void split(const char *line, const char *end, cells *out) {
  out->n = 0;
  for (const char *bar = line, *next; (next = memchr(bar + 1, '|', (size_t)(end - bar - 1))) != NULL; bar = next) {
    QD_ASSERT(out->n < MAX_CELLS);
    copy_trimmed(bar + 1, next, out->cell[out->n++]);
  }
}

static void remove_ticks(char *text) {
  size_t n = strlen(text);
  if (n < 2 || text[0] != '`' || text[n - 1] != '`') return;
  memmove(text, text + 1, n - 2);
  text[n - 2] = '\0';
}

static void add_row(cells *line, qd_table *out) {
  QD_ASSERT(out->n < QD_MAX_ROWS && line->n >= 3);
  qd_table_row *row = &out->row[out->n++];
  char *test = line->cell[line->n - 1], *colons = strstr(test, "::");
  if (colons == NULL) fprintf(stderr, "no suite::name in the row of \"%s\"\n", line->cell[0]);
  QD_ASSERT(colons != NULL && colons - test < (long)sizeof row->suite);
  strcpy(row->kind, line->cell[0]);
  strcpy(row->sentence, line->cell[1]);
  remove_ticks(row->sentence);
  row->exit_code = line->n == 4 ? atoi(line->cell[2]) : -1;
  snprintf(row->suite, sizeof row->suite, "%.*s", (int)(colons - test), test);
  strcpy(row->test, colons + 2);
}

static bool is_heading(const char *line, size_t level) { return strspn(line, "#") > 0 && strspn(line, "#") <= level; }

void qd_table_parse(const char *document, const char *heading, qd_table *out) {
  const char *line = strstr(document, heading);
  QD_ASSERT(line != NULL);
  size_t level = strspn(heading, "#");
  cells cell;
  out->n = 0;
  for (int in_table = 0; (line = strchr(line, '\n')) != NULL && !is_heading(++line, level);) {
    const char *end = line + strcspn(line, "\n");
    in_table = *line == '|' ? in_table + 1 : 0;
    if (in_table <= 2) continue; /* names of columns, dashes */
    split(line, end, &cell);
    add_row(&cell, out);
  }
}

/* ---- the document -------------------------------------------------------------------------------------------------------- */

const qd_table *qd_bad_input_table(void) {
  static qd_table table;
  static char document[DOCUMENT_BYTES];
  if (table.n > 0) return &table;
  FILE *file = fopen(QDIST_SOURCE_DIR "/docs/operations.md", "r");
  QD_ASSERT(file != NULL);
  size_t n = fread(document, 1, sizeof document - 1, file);
  fclose(file);
  QD_ASSERT(n > 0 && n < sizeof document - 1);
  qd_table_parse(document, "## Bad input", &table);
  return &table;
}

const qd_table_row *qd_bad_input_row(const char *kind) {
  const qd_table *table = qd_bad_input_table();
  for (int i = 0; i < table->n; i++)
    if (strcmp(table->row[i].kind, kind) == 0) return &table->row[i];
  fprintf(stderr, "docs/operations.md has no row \"%s\" under \"Bad input\"\n", kind);
  abort();
}

/* ---- matching ------------------------------------------------------------------------------------------------------------ */

/* The whole of [text, end) is the sentence, each "…" of it any text. */
static bool matches(const char *sentence, const char *text, const char *end) {
  const char *gap = strstr(sentence, any);
  size_t n = gap != NULL ? (size_t)(gap - sentence) : strlen(sentence);
  if ((size_t)(end - text) < n || memcmp(text, sentence, n) != 0) return false;
  if (gap == NULL) return text + n == end;
  for (const char *at = text + n; at <= end; at++)
    if (matches(gap + sizeof any - 1, at, end)) return true;
  return false;
}

bool qd_sentence_is_told(const char *sentence, const char *text) {
  for (const char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n'), line += line != NULL) {
    const char *end = line + strcspn(line, "\n"), *colon = strstr(line, ": ");
    if (strncmp(line, "qdist", 5) == 0 && colon != NULL && colon < end && matches(sentence, colon + 2, end)) return true;
  }
  return false;
}
