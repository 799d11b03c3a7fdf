#include "storage/python_random.h"

#include <criterion/criterion.h>

static qd_python_random random_of(int64_t seed) {
  qd_python_random r;
  qd_python_random_seed(&r, seed);
  return r;
}

Test(python_random, gives_cpythons_words) {
  static const struct {
    int64_t  seed;
    uint32_t first, second;
  } known[] = {{0, 3626764237u, 1654615998u},          {1, 577090037u, 2444712010u},
               {2, 4106135923u, 3707026329u},          {42, 2746317213u, 478163327u},
               {-42, 2746317213u, 478163327u},         {(int64_t)1 << 32, 485306839u, 1508871100u},
               {((int64_t)1 << 40) + 5, 2166296868u, 2220160828u}, {INT64_MAX, 1359979423u, 2819855560u}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    qd_python_random r = random_of(known[i].seed);
    cr_expect_eq(qd_python_random_bits(&r, 32), known[i].first, "seed %lld", (long long)known[i].seed);
    cr_expect_eq(qd_python_random_bits(&r, 32), known[i].second, "seed %lld", (long long)known[i].seed);
  }
}

Test(python_random, goes_on_past_a_full_state) {
  qd_python_random r = random_of(5);
  uint64_t word[2000];
  for (int i = 0; i < 2000; i++) word[i] = qd_python_random_bits(&r, 32);
  cr_expect_eq(word[623], 2959306914u);
  cr_expect_eq(word[624], 3041615143u);
  cr_expect_eq(word[625], 4094254167u);
  cr_expect_eq(word[1999], 2894893787u);
}

Test(python_random, gives_any_number_of_bits) {
  static const int bits[] = {1, 5, 31, 32, 33, 48, 63, 64};
  static const uint64_t known[] = {
      0, 30, 323946139u, 1695753998u, 2795742288u, 231168335884083u, 868196408185819179u, 10750541312280087032u};
  qd_python_random r = random_of(7);
  for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
    cr_expect_eq(qd_python_random_bits(&r, bits[i]), known[i], "%d bits", bits[i]);
}

Test(python_random, draws_integers_by_rejection) {
  qd_python_random r = random_of(0);
  cr_expect_eq(qd_python_randint(&r, 0, 999999), 885440);
  cr_expect_eq(qd_python_randint(&r, 0, 999999), 403958);
  cr_expect_eq(qd_python_randint(&r, 0, 999999), 794772);
}

Test(python_random, draws_from_any_range) {
  qd_python_random r = random_of(3);
  cr_expect_eq(qd_python_randint(&r, -5, 5), -2);
  cr_expect_eq(qd_python_randint(&r, 0, 0), 0);
  cr_expect_eq(qd_python_randint(&r, INT64_MIN, INT64_MAX - 1), 7672827499569832356);
  cr_expect_eq(qd_python_randint(&r, 0, (int64_t)1 << 40), 1041975902461);
  cr_expect_eq(qd_python_randint(&r, 10, 10 + ((int64_t)1 << 32)), 3596902323);
}

static void expect_sample(qd_python_random *r, int64_t n, int64_t k, const int64_t *wanted, int64_t first_wanted) {
  int64_t got[64];
  cr_assert_eq(qd_python_sample(r, n, k, got), QD_OK, "%s", qd_error_text());
  for (int64_t i = 0; i < first_wanted; i++)
    cr_expect_eq(got[i], wanted[i], "%lld of %lld, number %lld", (long long)k, (long long)n, (long long)i);
}

/* random.Random(1234).sample twice, where CPython keeps a list and where it keeps a set. */
Test(python_random, samples_like_cpython) {
  static const struct {
    int64_t n, k, first[6], second[3];
  } known[] = {{10, 3, {7, 1, 0}, {1, 0, 9}},
               {21, 5, {14, 3, 0, 2, 1}, {2, 3, 11}},
               {22, 5, {14, 3, 0, 2, 18}, {1, 21, 2}},
               {85, 6, {56, 14, 0, 11, 74, 4}, {10, 12, 45}},
               {86, 6, {56, 14, 0, 11, 74, 4}, {85, 10, 12}},
               {300, 20, {225, 59, 3, 46, 298, 17}, {249, 127, 33}},
               {50, 50, {49, 28, 7, 0, 5, 37}, {0, 21, 9}},
               {1838, 4, {1593, 902, 239, 15}, {185, 1652, 1192}}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    qd_python_random r = random_of(1234);
    int64_t k = known[i].k;
    expect_sample(&r, known[i].n, k, known[i].first, k < 6 ? k : 6);
    expect_sample(&r, known[i].n, k, known[i].second, 3);
  }
}
