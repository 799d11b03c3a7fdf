#define _GNU_SOURCE
#include "jobs/help.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 79, INDENT = 29, BYTES = 1 << 16 };

/* What argp_parse adds by itself. */
static const struct argp_option own_options[] = {
    {"help", '?', 0, 0, "Give this help list", -1}, {"usage", 0x101, 0, 0, "Give a short usage message", 0}, {0}};
static const struct argp own_argp = {.options = own_options};

/* The last blank within the room behind the first word, else the first one behind it; n where there is none. */
static size_t cut_at(const char *line, size_t n, size_t room) {
  size_t first = strspn(line, " "), at = room;
  while (at > first && line[at] != ' ') at--;
  if (at > first) return at;
  for (at = room; at < n && line[at] != ' ';) at++;
  return at;
}

static bool is_example(const char *line) { return strncmp(line, "  ", 2) == 0 && isalpha((unsigned char)line[2]); }

static void print_line(const char *line, size_t n, FILE *to) {
  size_t indent = *line == ' ' ? INDENT : 0, room = WIDTH;
  for (size_t at; n > room && !is_example(line) && (at = cut_at(line, n, room)) < n; room = WIDTH - indent) {
    fprintf(to, "%.*s\n%*s", (int)at, line, (int)indent, "");
    line += at + 1, n -= at + 1;
  }
  fprintf(to, "%.*s\n", (int)n, line);
}

void qd_help_print(const struct argp *argp, const char *name, FILE *to) {
  static char text[BYTES], name_copy[64];
  const struct argp_child children[] = {{argp, 0, NULL, 0}, {&own_argp, 0, NULL, 0}, {0}};
  const struct argp both = {.children = children};
  FILE *whole = fmemopen(text, sizeof text, "w");
  if (whole == NULL) return;
  snprintf(name_copy, sizeof name_copy, "%s", name);
  setenv("ARGP_HELP_FMT", "rmargin=100000", 0); /* a format of the reader's own stands */
  argp_help(&both, whole, ARGP_HELP_STD_HELP, name_copy);
  fclose(whole);
  bool blank = false;
  for (const char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
    if (!blank || end > line) print_line(line, (size_t)(end - line), to);
    blank = end == line;
  }
}
