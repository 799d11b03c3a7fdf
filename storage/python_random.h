/* Python's `random` for integers: MT19937 (Matsumoto and Nishimura, 1998) seeded by init_by_array as CPython does, and randint
 * by rejection.  Calibration windows of published results are drawn with it. */
#ifndef QDIST_STORAGE_PYTHON_RANDOM_H
#define QDIST_STORAGE_PYTHON_RANDOM_H

#include "kernels/base/status.h"

enum { QD_MT19937_WORDS = 624 };

typedef struct qd_python_random {
  uint32_t word[QD_MT19937_WORDS];
  int      next;
} qd_python_random;

void     qd_python_random_seed(qd_python_random *random, int64_t seed); /* random.seed(seed): the sign does not count */
uint64_t qd_python_random_bits(qd_python_random *random, int bits);     /* random.getrandbits(bits), 1 to 64 */
int64_t  qd_python_randint(qd_python_random *random, int64_t low, int64_t high); /* both inclusive, low <= high */

/* random.sample(range(n), k): k different numbers below n, in the order drawn, as CPython's 3.x versions draw them.  k <= n. */
qd_status qd_python_sample(qd_python_random *random, int64_t n, int64_t k, int64_t *out) QD_MUST_USE;

#endif
