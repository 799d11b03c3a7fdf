#include "kernels/base/nearest.h"

#include <criterion/criterion.h>
#include <string.h>

static void expect_nearest(const char *name, const char *expected) {
  static const char *const names[] = {"group-size", "model", "output", "bits", "act-order", "stop-after", "dataset", NULL};
  const char *got = qd_nearest(name, names);
  if (expected == NULL) cr_expect_null(got, "%s is not near %s", name, got);
  else cr_expect(got != NULL && strcmp(got, expected) == 0, "%s: %s instead of %s", name, got ? got : "nothing", expected);
}

Test(nearest, finds_the_nearest_name) {
  expect_nearest("model", "model");
  expect_nearest("modle", "model");     /* swapped */
  expect_nearest("modell", "model");    /* inserted */
  expect_nearest("mdel", "model");      /* left out */
  expect_nearest("nodel", "model");     /* changed */
  expect_nearest("gruop-size", "group-size");
  expect_nearest("groupsize", "group-size");
  expect_nearest("stopafter", "stop-after");
  expect_nearest("data-set", "dataset");
  expect_nearest("bit", "bits");
  expect_nearest("calibration", NULL);
  expect_nearest("xyzzy", NULL);
  expect_nearest("a-name-that-is-longer-than-any-option-could-sensibly-be-and-goes-on-and-on-and-on", NULL);
}

Test(nearest, prefers_the_fewest_changes) {
  static const char *const names[] = {"seqlen", "seed", "speed", NULL}, *const none[] = {NULL};
  cr_expect_str_eq(qd_nearest("sed", names), "seed");
  cr_expect_str_eq(qd_nearest("spede", names), "speed");
  cr_expect_null(qd_nearest("seed", none));
}
