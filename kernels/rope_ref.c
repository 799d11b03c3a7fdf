#include "kernels/ref_real.h"
#include "kernels/vecmath.h"

static void sine_and_cosine(double angle, double *s, double *c) {
#ifdef QD_REAL64
  *s = sin(angle), *c = cos(angle);
#else
  qd_vm_sincos(angle, s, c);
#endif
}

qd_status QD_REF(rope_table)(qd_device *device, qd_tensor frequency, int64_t first, double factor, qd_tensor cosine,
                             qd_tensor sine) {
  (void)device;
  const double *f = frequency.data;
  for (int64_t t = 0; t < cosine.dim[0]; t++)
    for (int64_t i = 0; i < frequency.dim[0]; i++) {
      double s, c;
      sine_and_cosine((double)(first + t) * f[i], &s, &c);
      qd_ref_store(cosine, t * cosine.stride[0] + i, (qd_real)(c * factor));
      qd_ref_store(sine, t * sine.stride[0] + i, (qd_real)(s * factor));
    }
  return QD_OK;
}

static void rotate(qd_tensor x, int64_t ai, int64_t bi, qd_real c, qd_real s) {
  qd_real a = qd_ref_load(x, ai), b = qd_ref_load(x, bi);
  qd_ref_store(x, ai, qd_real_fma(a, c, -(b * s)));
  qd_ref_store(x, bi, qd_real_fma(b, c, a * s));
}

qd_status QD_REF(rope)(qd_device *device, qd_tensor x, qd_tensor cosine, qd_tensor sine) {
  (void)device;
  int64_t half = x.dim[2] / 2;
  for (int64_t t = 0; t < x.dim[0]; t++)
    for (int64_t h = 0; h < x.dim[1]; h++)
      for (int64_t i = 0; i < half; i++) {
        int64_t ai = t * x.stride[0] + h * x.stride[1] + i;
        rotate(x, ai, ai + half, qd_ref_load(cosine, t * cosine.stride[0] + i), qd_ref_load(sine, t * sine.stride[0] + i));
      }
  return QD_OK;
}
