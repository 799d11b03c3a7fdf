/* What docs/extending.md shows as added to a file is there, and of a file that it makes nothing is left out. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };

typedef struct page {
  char text[MOST_BYTES];
  char path[512];
} page;

static void read_page(const char *name, page *out) {
  snprintf(out->path, sizeof out->path, QDIST_SOURCE_DIR "/%s", name);
  FILE *file = fopen(out->path, "r");
  cr_assert_not_null(file, "there is no file %s", name);
  size_t n = fread(out->text, 1, sizeof out->text - 1, file);
  fclose(file);
  cr_assert_lt(n, sizeof out->text - 1);
  out->text[n] = '\0';
}

/* Is this a whole line of the page? */
static bool has_line(const page *p, const char *line, size_t n) {
  for (const char *at = p->text; at != NULL; at = strchr(at, '\n')) {
    at += *at == '\n';
    if (strcspn(at, "\n") == n && memcmp(at, line, n) == 0) return true;
  }
  return false;
}

/* Reads the diffs line by line: what one adds to a file, and whether that file is new. */
typedef struct reader {
  page file;
  bool inside, is_new;
  char shown[MOST_BYTES]; /* of a new file so far */
  int  n_lines, n_new;
} reader;

static void end_file(reader *r) {
  if (r->is_new) cr_expect_str_eq(r->shown, r->file.text, "%s is not shown whole, but:\n%s", r->file.path, r->shown);
  r->n_new += r->is_new;
  r->is_new = false;
}

static void begin_file(reader *r, const char *line, size_t n, bool is_new) {
  char name[256];
  end_file(r);
  snprintf(name, sizeof name, "%.*s", (int)(n - 4), line + 4);
  read_page(name, &r->file);
  r->is_new = is_new, r->shown[0] = '\0';
}

static void take_line(reader *r, const char *line, size_t n) {
  size_t used = strlen(r->shown);
  snprintf(r->shown + used, sizeof r->shown - used, "%.*s\n", (int)n, line);
  cr_expect(has_line(&r->file, line, n), "%s has no line \"%.*s\"", r->file.path, (int)n, line);
  r->n_lines++;
}

Test(extending, every_line_that_a_diff_adds_is_there_and_new_files_are_whole) {
  static const char none[] = "--- /dev/null\n";
  static page doc;
  static reader r;
  bool is_new = false;
  read_page("docs/extending.md", &doc);
  for (char *line = doc.text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
    size_t n = strcspn(line, "\n");
    if (strncmp(line, "```", 3) == 0) end_file(&r), r.inside = strncmp(line, "```diff", 7) == 0;
    if (!r.inside) continue;
    if (strncmp(line, "+++ ", 4) == 0) begin_file(&r, line, n, is_new);
    else if (*line == '+') take_line(&r, line + 1, n - 1);
    is_new = strncmp(line, none, sizeof none - 1) == 0;
  }
  cr_expect_gt(r.n_lines, 60, "the page has diffs");
  cr_expect_eq(r.n_new, 2);
}
