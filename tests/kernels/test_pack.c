#include "tests/kernels/products_support.h"

/* rows x columns codes below 2^bits, with `gap` bytes between rows. */
static qd_tensor make_codes(int64_t rows, int64_t columns, int bits, int64_t gap) {
  uint8_t *data = malloc((size_t)(rows * (columns + gap)) + 1);
  cr_assert_not_null(data);
  for (int64_t i = 0; i < rows * (columns + gap); i++) data[i] = (uint8_t)(random_bits() & ((1u << bits) - 1));
  qd_tensor t = qd_tensor_2d(data, QD_U8, rows, columns + gap);
  t.dim[1] = columns;
  return t;
}

static qd_tensor make_bytes(int64_t rows, int64_t columns, int64_t gap, uint8_t fill) {
  uint8_t *data = malloc((size_t)(rows * (columns + gap)) + 1);
  cr_assert_not_null(data);
  memset(data, fill, (size_t)(rows * (columns + gap)));
  qd_tensor t = qd_tensor_2d(data, QD_U8, rows, columns + gap);
  t.dim[1] = columns;
  return t;
}

Test(pack, bits_lie_from_low_to_high) {
  devices d = open_devices();
  uint8_t codes[11] = {1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3}, packed[5], expected[5] = {0xd1, 0x58, 0x1f, 0xd1, 0x00};
  for (int i = -1; i < d.n; i++) {
    OK(qd_pack(i < 0 ? &d.ref : &d.cpu[i], qd_tensor_2d(codes, QD_U8, 1, 11), 3, qd_tensor_2d(packed, QD_U8, 1, 5)));
    cr_assert_arr_eq(packed, expected, 5);
  }
  close_devices(&d);
}

static void compare(devices *d, int64_t rows, int64_t columns, int bits) {
  int64_t row_bytes = qd_packed_row_bytes(columns, bits), gap = columns % 3;
  qd_tensor codes = make_codes(rows, columns, bits, gap), expected = make_bytes(rows, row_bytes, gap, 0xa5);
  OK(qd_pack(&d->ref, codes, bits, expected));
  for (int i = 0; i <= d->n; i++) {
    qd_device *device = i < d->n ? &d->cpu[i] : &d->ref;
    qd_tensor packed = make_bytes(rows, row_bytes, gap, 0xa5), back = make_bytes(rows, columns, gap, 0x5a);
    OK(qd_pack(device, codes, bits, packed));
    cr_assert_eq(memcmp(packed.data, expected.data, (size_t)(rows * (row_bytes + gap))), 0,
                 "pack: %d bits, %" PRId64 " columns", bits, columns);
    OK(qd_unpack(device, packed, bits, back));
    for (int64_t r = 0; r < rows; r++) {
      const uint8_t *got = (const uint8_t *)back.data + r * (columns + gap),
                    *want = (const uint8_t *)codes.data + r * (columns + gap);
      cr_assert_eq(memcmp(got, want, (size_t)columns), 0, "unpack: %d bits, %" PRId64 " columns, row %" PRId64, bits, columns,
                   r);
      for (int64_t g = 0; g < gap; g++) cr_assert_eq(got[columns + g], 0x5a, "unpack wrote behind row %" PRId64, r);
    }
    free(packed.data);
    free(back.data);
  }
  free(codes.data);
  free(expected.data);
}

Test(pack, codes_come_back_for_every_width) {
  static const int64_t columns[] = {0, 1, 7, 8, 9, 31, 32, 33, 64, 127, 256, 300};
  devices d = open_devices();
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) compare(&d, 5, columns[i], bits);
  compare(&d, 0, 8, 4);
  close_devices(&d);
}

Test(pack, wrong_arguments_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1);
  uint8_t codes[16] = {0}, packed[16];
  qd_tensor code = qd_tensor_2d(codes, QD_U8, 2, 8), bytes = qd_tensor_2d(packed, QD_U8, 2, 3);
  OK(qd_pack(&cpu, code, 3, bytes));
  FAILS(QD_EINVAL, qd_pack(&cpu, code, 1, bytes));
  FAILS(QD_EINVAL, qd_unpack(&cpu, bytes, 9, code));
  FAILS(QD_ESHAPE, qd_pack(&cpu, code, 4, bytes));
  FAILS(QD_ESHAPE, qd_unpack(&cpu, qd_tensor_1d(packed, QD_U8, 6), 3, code));
  FAILS(QD_ESHAPE, qd_pack(&cpu, qd_tensor_transposed(qd_tensor_2d(codes, QD_U8, 8, 2)), 3, bytes));
  FAILS(QD_EDTYPE, qd_unpack(&cpu, bytes, 3, qd_tensor_2d(codes, QD_I32, 2, 8)));
  codes[9] = 8;
  FAILS(QD_EINVAL, qd_pack(&cpu, code, 3, bytes));
  cr_assert_not_null(strstr(qd_error_text(), "row 1"));
  qd_device_close(&cpu);
}
