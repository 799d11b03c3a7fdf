/* A unit that multiplies bf16 or bytes by an instruction of its own is tried against the plain loops before it is used: what a
 * manual says of the order of a sum need not be what a machine, or its emulator, does. */
#ifndef QDIST_KERNELS_UNIT_PROOF_H
#define QDIST_KERNELS_UNIT_PROOF_H

#include "kernels/device.h"

/* Where the unit of the device's arithmetic (AMX, AVX512_BF16 or AVX512_VNNI) gives other bits than `ref`, takes the
 * instructions below it (device->isa) and warns in the log.  Milliseconds; nothing without such a unit.  QD_ENOMEM. */
qd_status qd_unit_prove(qd_device *device) QD_MUST_USE;

#endif
