/* For test programs that run under mpirun, where Criterion cannot: the first expectation that fails ends the job. */
#ifndef QDIST_TESTS_SUPPORT_EXPECT_H
#define QDIST_TESTS_SUPPORT_EXPECT_H

#include <stdio.h>
#include <stdlib.h>

#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) {                                                            \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      _Exit(9);                                                                    \
    }                                                                              \
  } while (0)

#endif
