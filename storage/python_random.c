#include "storage/python_random.h"

#include "kernels/base/heap.h"

enum { WORDS = QD_MT19937_WORDS, MIDDLE = 397 };

static void init_by_word(qd_python_random *r, uint32_t seed) {
  r->word[0] = seed;
  for (uint32_t i = 1; i < WORDS; i++) r->word[i] = 1812433253u * (r->word[i - 1] ^ r->word[i - 1] >> 30) + i;
  r->next = WORDS;
}

static uint32_t wrap(qd_python_random *r, uint32_t i) {
  if (i < WORDS) return i;
  r->word[0] = r->word[WORDS - 1];
  return 1;
}

static void init_by_array(qd_python_random *r, const uint32_t *key, uint32_t n) {
  uint32_t i = 1, j = 0;
  init_by_word(r, 19650218u);
  for (uint32_t k = 0; k < WORDS; k++) { /* a key of one or two words is shorter than the state */
    r->word[i] = (r->word[i] ^ (r->word[i - 1] ^ r->word[i - 1] >> 30) * 1664525u) + key[j] + j;
    i = wrap(r, i + 1);
    j = (j + 1) % n;
  }
  for (uint32_t k = 0; k < WORDS - 1; k++) {
    r->word[i] = (r->word[i] ^ (r->word[i - 1] ^ r->word[i - 1] >> 30) * 1566083941u) - i;
    i = wrap(r, i + 1);
  }
  r->word[0] = 0x80000000u;
}

void qd_python_random_seed(qd_python_random *random, int64_t seed) {
  uint64_t size = seed < 0 ? 0 - (uint64_t)seed : (uint64_t)seed;
  uint32_t key[2] = {(uint32_t)size, (uint32_t)(size >> 32)};
  init_by_array(random, key, key[1] ? 2 : 1);
}

static void refill(qd_python_random *r) {
  for (int i = 0; i < WORDS; i++) {
    uint32_t y = (r->word[i] & 0x80000000u) | (r->word[(i + 1) % WORDS] & 0x7FFFFFFFu);
    r->word[i] = r->word[(i + MIDDLE) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908B0DFu : 0);
  }
  r->next = 0;
}

static uint32_t draw(qd_python_random *r) {
  if (r->next == WORDS) refill(r);
  uint32_t y = r->word[r->next++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9D2C5680u;
  y ^= y << 15 & 0xEFC60000u;
  return y ^ y >> 18;
}

uint64_t qd_python_random_bits(qd_python_random *random, int bits) {
  QD_ASSERT(bits >= 1 && bits <= 64);
  if (bits <= 32) return draw(random) >> (32 - bits);
  uint64_t low = draw(random); /* words come least significant first */
  return low | (uint64_t)(draw(random) >> (64 - bits)) << 32;
}

int64_t qd_python_randint(qd_python_random *random, int64_t low, int64_t high) {
  QD_ASSERT(low <= high);
  uint64_t n = (uint64_t)high - (uint64_t)low + 1, value;
  QD_ASSERT(n != 0);
  int bits = 0;
  while (bits < 64 && n >> bits) bits++;
  do value = qd_python_random_bits(random, bits);
  while (value >= n);
  return (int64_t)((uint64_t)low + value);
}

/* CPython: a list of all takes less room than a set of those drawn. */
static bool keeps_list(int64_t n, int64_t k) {
  int64_t set = 1;
  while (k > 5 && set < 3 * k) set *= 4;
  return n <= 21 + (k > 5 ? set : 0);
}

static qd_status sample_list(qd_python_random *random, int64_t n, int64_t k, int64_t *out) {
  int64_t *left;
  QD_TRY(qd_heap_new((size_t)n, sizeof *left, &left));
  for (int64_t i = 0; i < n; i++) left[i] = i;
  for (int64_t i = 0; i < k; i++) {
    int64_t j = qd_python_randint(random, 0, n - i - 1);
    out[i] = left[j], left[j] = left[n - i - 1];
  }
  qd_heap_free(left);
  return QD_OK;
}

static bool is_among(const int64_t *numbers, int64_t n, int64_t number) {
  for (int64_t i = 0; i < n; i++)
    if (numbers[i] == number) return true;
  return false;
}

qd_status qd_python_sample(qd_python_random *random, int64_t n, int64_t k, int64_t *out) {
  QD_ASSERT(k <= n);
  if (keeps_list(n, k)) return sample_list(random, n, k, out);
  for (int64_t i = 0; i < k; i++) {
    do out[i] = qd_python_randint(random, 0, n - 1);
    while (is_among(out, i, out[i]));
  }
  return QD_OK;
}
