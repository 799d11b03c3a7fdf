/* What docs/extending.md shows as added to a file is there. */
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

Test(extending, every_line_that_a_diff_adds_is_there) {
  static page doc, file;
  bool inside = false;
  int n_lines = 0;
  read_page("docs/extending.md", &doc);
  for (char *line = doc.text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
    size_t n = strcspn(line, "\n");
    if (strncmp(line, "```", 3) == 0) inside = strncmp(line, "```diff", 7) == 0;
    if (!inside || *line != '+') continue;
    if (strncmp(line, "+++ ", 4) == 0) {
      char name[256];
      snprintf(name, sizeof name, "%.*s", (int)(n - 4), line + 4);
      read_page(name, &file);
      continue;
    }
    cr_expect(has_line(&file, line + 1, n - 1), "%s has no line \"%.*s\"", file.path, (int)(n - 1), line + 1);
    n_lines++;
  }
  cr_expect_gt(n_lines, 40, "the page has diffs");
}
