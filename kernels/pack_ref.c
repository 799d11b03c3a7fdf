#include "kernels/ref_real.h"

qd_status QD_REF(pack)(qd_device *device, qd_tensor code, int bits, qd_tensor packed) {
  (void)device;
  for (int64_t r = 0; r < code.dim[0]; r++) {
    const uint8_t *from = (const uint8_t *)code.data + r * code.stride[0];
    uint8_t *to = (uint8_t *)packed.data + r * packed.stride[0];
    for (int64_t byte = 0; byte < packed.dim[1]; byte++) to[byte] = 0;
    for (int64_t place = 0; place < code.dim[1] * bits; place++)
      to[place / 8] |= (uint8_t)(((from[place / bits] >> (place % bits)) & 1) << (place % 8));
  }
  return QD_OK;
}

qd_status QD_REF(unpack)(qd_device *device, qd_tensor packed, int bits, qd_tensor code) {
  (void)device;
  for (int64_t r = 0; r < code.dim[0]; r++) {
    const uint8_t *from = (const uint8_t *)packed.data + r * packed.stride[0];
    uint8_t *to = (uint8_t *)code.data + r * code.stride[0];
    for (int64_t c = 0; c < code.dim[1]; c++) to[c] = 0;
    for (int64_t place = 0; place < code.dim[1] * bits; place++)
      to[place / bits] |= (uint8_t)(((from[place / 8] >> (place % 8)) & 1) << (place % bits));
  }
  return QD_OK;
}
