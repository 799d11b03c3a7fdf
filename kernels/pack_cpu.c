#include "kernels/codes.h"
#include "kernels/ops_table.h"

qd_status qd_cpu_pack(qd_device *device, qd_tensor code, int bits, qd_tensor packed) {
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t r = 0; r < code.dim[0]; r++)
    QD_ISA_CALL(
        device, qd_codes_pack,
        ((const uint8_t *)code.data + r * code.stride[0], code.dim[1], bits, (uint8_t *)packed.data + r * packed.stride[0]));
  return QD_OK;
}

qd_status qd_cpu_unpack(qd_device *device, qd_tensor packed, int bits, qd_tensor code) {
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t r = 0; r < code.dim[0]; r++)
    QD_ISA_CALL(
        device, qd_codes_unpack,
        ((const uint8_t *)packed.data + r * packed.stride[0], code.dim[1], bits, (uint8_t *)code.data + r * code.stride[0]));
  return QD_OK;
}
