#include "kernels/base/nearest.h"

#include <stddef.h>
#include <string.h>

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Letters to change, insert, leave out or swap. */
static size_t distance(const char *a, const char *b) {
  enum { MOST = 64 };
  size_t table[MOST + 1][MOST + 1], n = least(strlen(a), MOST), m = least(strlen(b), MOST);
  for (size_t i = 0; i <= n; i++) table[i][0] = i;
  for (size_t j = 0; j <= m; j++) table[0][j] = j;
  for (size_t i = 1; i <= n; i++)
    for (size_t j = 1; j <= m; j++) {
      size_t best = table[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      best = least(best, least(table[i - 1][j], table[i][j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) best = least(best, table[i - 2][j - 2] + 1);
      table[i][j] = best;
    }
  return table[n][m];
}

const char *qd_nearest(const char *name, const char *const *names) {
  const char *nearest = NULL;
  size_t fewest = strlen(name) / 3 + 2;
  for (; *names != NULL; names++) {
    size_t changes = distance(name, *names);
    if (changes < fewest) fewest = changes, nearest = *names;
  }
  return nearest;
}
