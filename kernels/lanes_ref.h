/* The last step of a sum in lanes (ops.h), for the reference loops: lanes l and l + 8, l + 4, l + 2, l + 1 are added. */
#ifndef QDIST_KERNELS_LANES_REF_H
#define QDIST_KERNELS_LANES_REF_H

#include "kernels/ref_real.h"

enum { QD_LANES = 16 };

static inline qd_real qd_ref_lanes_total(qd_real lane[QD_LANES]) {
  for (int width = QD_LANES / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) lane[l] += lane[l + width];
  return lane[0];
}

static inline double qd_ref_lanes_total_double(double lane[QD_LANES]) {
  for (int width = QD_LANES / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) lane[l] += lane[l + width];
  return lane[0];
}

#endif
