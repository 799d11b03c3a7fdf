#include "storage/json.h"

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void expect_refusal(qd_status got, qd_status expected, const char *first, const char *second) {
  cr_assert_eq(got, expected, "%s: %s", qd_status_name(got), qd_error_text());
  cr_assert(strstr(qd_error_text(), first) != NULL, "\"%s\" is not in: %s", first, qd_error_text());
  cr_assert(strstr(qd_error_text(), second) != NULL, "\"%s\" is not in: %s", second, qd_error_text());
}

static qd_json *parsed(const char *text) {
  qd_json *root;
  cr_assert_eq(qd_json_parse(text, strlen(text), "doc", &root), QD_OK, "%s", qd_error_text());
  return root;
}

static void expect_print(const qd_json *value, int indent, const char *expected) {
  char *text;
  cr_assert_eq(qd_json_print(value, indent, &text), QD_OK);
  cr_assert_str_eq(text, expected);
  qd_heap_free(text);
}

/* ---- parsing ---- */

Test(json, refuses_what_is_ambiguous_or_no_json) {
  const char *const cases[][2] = {
      {"", "empty"},
      {"\xef\xbb\xbf{}", "byte order mark"},
      {"   ", "line 1"},
      {"{", "line 1"},
      {"[1,\n2,\n", "line 3"},
      {"{\"a\": 1,}", "doc"},
      {"{'a': 1}", "doc"},
      {"{\"a\" 1}", "doc"},
      {"nul", "doc"},
      {"01", "doc"},
      {"+1", "doc"},
      {"1.", "doc"},
      {"NaN", "doc"},
      {"Infinity", "doc"},
      {"1e999", "doc"},
      {"{} {}", "end of file"},
      {"{}x", "end of file"},
      {"\"\x01\"", "control character"},
      {"\"\xff\"", "0xff"},
      {"\"\xc0\x80\"", "doc"},
      {"\"\xed\xa0\x80\"", "doc"},
      {"\"\\ud800\"", "doc"},
      {"\"\\x\"", "doc"},
      {"\xef\xbb\xbf{}", "doc"},
      {"{\"a\": 1, \"b\": 2, \"a\": 3}", "\"a\""},
      {"{\"o\": {\"a\": 1,\n \"\\u0061\": 3}}", "line 2"},
      {"{\"a\\u0000b\": 1}", "NUL"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    qd_json *root;
    qd_status status = qd_json_parse(cases[i][0], strlen(cases[i][0]), "doc", &root);
    cr_assert_null(root, "%s", cases[i][0]);
    expect_refusal(status, QD_EBADINPUT, "doc", cases[i][1]);
  }
}

static size_t nest(char *text, size_t depth, const char *open, const char *close) {
  *text = '\0';
  for (size_t i = 0; i < depth; i++) strcat(text, open);
  strcat(text, "0");
  for (size_t i = 0; i < depth; i++) strcat(text, close);
  return strlen(text);
}

Test(json, nests_to_64_levels_and_no_deeper) {
  char text[1000];
  qd_json *root;
  cr_assert_eq(qd_json_parse(text, nest(text, 64, "[", "]"), "doc", &root), QD_OK, "%s", qd_error_text());
  qd_json_free(root);
  cr_assert_eq(qd_json_parse(text, nest(text, 64, "{\"a\":", "}"), "doc", &root), QD_OK, "%s", qd_error_text());
  qd_json_free(root);
  expect_refusal(qd_json_parse(text, nest(text, 65, "[", "]"), "doc", &root), QD_EBADINPUT, "doc, line 1", "deeper than 64");
  expect_refusal(qd_json_parse(text, nest(text, 65, "\n{\"a\":", "}"), "doc", &root), QD_EBADINPUT, "doc, line 66",
                 "deeper than 64");
  root = parsed(
      "[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\"]"); /* text, not nesting */
  qd_json_free(root);
}

Test(json, survives_a_million_open_brackets) {
  char *text;
  qd_json *root;
  cr_assert_eq(qd_heap_new(1000000, 1, &text), QD_OK);
  memset(text, '[', 1000000);
  expect_refusal(qd_json_parse(text, 1000000, "doc", &root), QD_EBADINPUT, "doc", "deeper");
  qd_heap_free(text);
}

static const char sample[] =
    "{\"n\": [1, -2.5e3, true, false, null, 99999999999999999999], \"t\\u00e9\\n\": \"a\\u0000b \xc3\xa9\", \"o\": {}}";

Test(json, refuses_every_truncation) {
  for (size_t n = 0; n < sizeof sample - 1; n++) {
    char *exact; /* of exactly n bytes: an address sanitizer sees the first one behind it */
    qd_json *root;
    cr_assert_eq(qd_heap_new(n, 1, &exact), QD_OK);
    memcpy(exact, sample, n);
    cr_assert_eq(qd_json_parse(exact, n, "doc", &root), QD_EBADINPUT, "%zu", n);
    cr_assert_null(root);
    qd_heap_free(exact);
  }
  qd_json_free(parsed(sample));
}

Test(json, survives_every_changed_byte) {
  char text[sizeof sample];
  for (size_t i = 0; i + 1 < sizeof sample; i++) {
    for (int byte = 0; byte < 256; byte++) {
      memcpy(text, sample, sizeof text);
      text[i] = (char)byte;
      qd_json *root;
      qd_status status = qd_json_parse(text, sizeof sample - 1, "doc", &root);
      cr_assert(status == QD_OK || status == QD_EBADINPUT);
      cr_assert_eq(status == QD_OK, root != NULL);
      qd_json_free(root);
    }
  }
}

Test(json, takes_whole_numbers_exactly_and_larger_ones_as_reals) {
  qd_json *root = parsed(
      "[9007199254740993, -9223372036854775808, 9223372036854775807, 9223372036854775808, -9223372036854775809, "
      "1000000000000000019884624838656, 0, -0, \"99999999999999999999\"]");
  const int64_t exact[] = {9007199254740993, INT64_MIN, INT64_MAX};
  for (size_t i = 0; i < 3; i++) {
    cr_assert(qd_json_is_integer(qd_json_at(root, i)));
    cr_assert_eq(qd_json_integer(qd_json_at(root, i)), exact[i]);
  }
  const double wide[] = {9223372036854775808.0, -9223372036854775808.0, 1e30};
  for (size_t i = 0; i < 3; i++) {
    cr_assert(qd_json_is_number(qd_json_at(root, 3 + i)));
    cr_assert_not(qd_json_is_integer(qd_json_at(root, 3 + i)));
    cr_assert_eq(qd_json_number(qd_json_at(root, 3 + i)), wide[i]);
  }
  cr_assert_eq(qd_json_integer(qd_json_at(root, 6)), 0);
  cr_assert_str_eq(qd_json_text(qd_json_at(root, 8)), "99999999999999999999");
  qd_json_free(root);
}

Test(json, reads_files_within_their_limit) {
  qd_temporary_folder folder;
  qd_temporary_folder_open(&folder);
  qd_json *root;
  const char *path = qd_temporary_write_text(&folder, "a.json", "{\"a\": 1}");
  cr_assert_eq(qd_json_read(path, 8, &root), QD_OK);
  expect_print(root, 0, "{\"a\": 1}");
  qd_json_free(root);
  expect_refusal(qd_json_read(path, 7, &root), QD_EBADINPUT, path, "8 bytes, at most 7");
  path = qd_temporary_write_text(&folder, "b.json", "{\n\"a\":");
  expect_refusal(qd_json_read(path, 100, &root), QD_EBADINPUT, path, "line 2");
  path = qd_temporary_path(&folder, "none.json");
  expect_refusal(qd_json_read(path, 100, &root), QD_ENOTFOUND, path, "No such file");
  cr_assert_null(root);
  expect_refusal(qd_json_read(folder.path, 100, &root), QD_EIO, folder.path, "folder");
  qd_temporary_folder_close(&folder);
}

/* ---- reading ---- */

Test(json, a_missing_key_and_a_null_are_the_same) {
  qd_json *root = parsed("{\"nothing\": null, \"list\": [null, 1], \"false\": false}");
  cr_assert_null(qd_json_get(root, "nothing"));
  cr_assert_null(qd_json_get(root, "absent"));
  cr_assert_not_null(qd_json_get(root, "false"));
  cr_assert_null(qd_json_at(qd_json_get(root, "list"), 0));
  cr_assert_null(qd_json_at(qd_json_get(root, "list"), 2));
  cr_assert_null(qd_json_get(NULL, "x"));
  cr_assert_null(qd_json_get(qd_json_get(root, "list"), "x"));
  cr_assert_null(qd_json_at(NULL, 0));
  cr_assert_null(qd_json_at(root, 0));
  cr_assert_null(qd_json_text(NULL));
  cr_assert_null(qd_json_text(root));
  cr_assert_eq(qd_json_number(NULL), 0);
  cr_assert_eq(qd_json_integer(root), 0);
  cr_assert_eq(qd_json_length(NULL), 0);
  cr_assert_eq(qd_json_length(qd_json_get(root, "false")), 0);
  cr_assert_eq(qd_json_length(root), 3);
  cr_assert_eq(qd_json_length(qd_json_get(root, "list")), 2);
  qd_json_free(root);
  qd_json_free(NULL);
}

Test(json, tells_kinds_apart) {
  qd_json *root = parsed("[{}, [], \"t\", 1, 1.0, true, null]");
  const char *const expected = "oatinbz";
  for (size_t i = 0; i < 7; i++) {
    const qd_json *value = qd_json_at(root, i);
    cr_assert_eq(qd_json_is_object(value), expected[i] == 'o');
    cr_assert_eq(qd_json_is_array(value), expected[i] == 'a');
    cr_assert_eq(qd_json_is_text(value), expected[i] == 't');
    cr_assert_eq(qd_json_is_integer(value), expected[i] == 'i');
    cr_assert_eq(qd_json_is_number(value), expected[i] == 'i' || expected[i] == 'n');
  }
  qd_json_free(root);
}

Test(json, texts_may_hold_nul) {
  qd_json *root = parsed("[\"a\\u0000b\", \"\"]");
  cr_assert_eq(qd_json_text_bytes(qd_json_at(root, 0)), 3);
  cr_assert_eq(memcmp(qd_json_text(qd_json_at(root, 0)), "a\0b", 4), 0);
  cr_assert_eq(qd_json_text_bytes(qd_json_at(root, 1)), 0);
  qd_json_free(root);
}

static void expect_member(const qd_json *object, size_t index, const char *key, int64_t number) {
  const char *found;
  const qd_json *value;
  cr_assert(qd_json_member(object, index, &found, &value), "%zu", index);
  cr_assert_str_eq(found, key);
  cr_assert_eq(qd_json_integer(value), number);
}

Test(json, gives_members_in_file_order) {
  const char *key;
  const qd_json *value;
  qd_json *root = parsed("{\"z\": 1, \"a\": 2, \"m\": 3, \"nothing\": null}");
  for (int round = 0; round < 2; round++) {
    expect_member(root, 0, "z", 1);
    expect_member(root, 1, "a", 2);
    expect_member(root, 2, "m", 3);
    expect_member(root, 3, "nothing", 0);
    cr_assert_not(qd_json_member(root, 4, &key, &value));
  }
  expect_member(root, 2, "m", 3);
  expect_member(root, 0, "z", 1);
  cr_assert(qd_json_member(root, 3, &key, &value));
  cr_assert_null(value);
  cr_assert_not(qd_json_member(NULL, 0, &key, &value));
  cr_assert_not(qd_json_member(value, 0, &key, &value));
  qd_json_free(root);
}

/* Member by member through 200,000 of them, each with an object of its own inside: a walk from the start for each would take
 * minutes. */
Test(json, goes_through_many_members_by_index) {
  enum { MANY = 200000 };
  qd_json *root = qd_json_object();
  char name[32];
  for (int i = 0; i < MANY; i++) {
    qd_json *inner = qd_json_object();
    snprintf(name, sizeof name, "member %d", i);
    qd_json_set_integer(inner, "a", i);
    qd_json_set_integer(inner, "b", -i);
    qd_json_set(root, name, inner);
  }
  const char *key;
  const qd_json *value;
  for (int i = 0; i < MANY; i++) {
    cr_assert(qd_json_member(root, (size_t)i, &key, &value));
    snprintf(name, sizeof name, "member %d", i);
    cr_assert_str_eq(key, name);
    const qd_json *inner = value;
    expect_member(inner, 0, "a", i);
    expect_member(inner, 1, "b", -i);
  }
  qd_json_free(root);
}

static qd_json *two_members(const char *first, const char *second) {
  qd_json *object = qd_json_object();
  qd_json_set_integer(object, first, 0);
  qd_json_set_integer(object, second, 1);
  return object;
}

/* A new object often lies where a freed one lay, its members (of longer names) elsewhere: what was remembered of the walk
 * through the old one must not be used. */
Test(json, forgets_walks_of_freed_values) {
  const char *const longer[] = {"a name that is longer than the other names are, 0",
                                "a name that is longer than the other names are, 1"};
  for (int round = 0; round < 20; round++) {
    qd_json *old = two_members("a", "b");
    expect_member(old, 1, "b", 1);
    qd_json_free(old);
    qd_json *new = two_members(longer[0], longer[1]);
    expect_member(new, 1, longer[1], 1);
    qd_json_free(new);
  }
}

Test(json, forgets_walks_of_replaced_members) {
  const char *const longer[] = {"a name that is longer than the other names are, 0",
                                "a name that is longer than the other names are, 1"};
  qd_json *root = qd_json_object();
  for (int round = 0; round < 20; round++) {
    qd_json_set(root, "member", two_members("a", "b"));
    expect_member(qd_json_get(root, "member"), 1, "b", 1);
    qd_json_set_integer(root, "member", round);
    qd_json *new = two_members(longer[0], longer[1]);
    expect_member(new, 1, longer[1], 1);
    qd_json_set(root, "member", new);
  }
  qd_json_free(root);
}

Test(json, members_may_be_added_during_a_walk) {
  qd_json *root = parsed("{\"a\": 1}");
  char name[16];
  for (int i = 0; i < 1000; i++) {
    const char *key;
    const qd_json *value;
    cr_assert(qd_json_member(root, (size_t)i, &key, &value));
    snprintf(name, sizeof name, "n%d", i);
    qd_json_set_integer(root, name, i);
    expect_member(root, (size_t)i + 1, name, i);
  }
  qd_json_free(root);
}

/* ---- typed members ---- */

static qd_json *typed;
static void open_typed(void) {
  typed = parsed(
      "{\"five\": 5, \"real\": 2.5, \"whole real\": 5.0, \"text\": \"hi\", \"yes\": true, \"no\": false, \"nothing\": null, "
      "\"list\": [], \"huge\": 1e30, \"nul\": \"a\\u0000\", \"long\": "
      "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}");
}
static void close_typed(void) { qd_json_free(typed); }

TestSuite(json_typed, .init = open_typed, .fini = close_typed);

Test(json_typed, needs_integers) {
  int64_t n = -1;
  cr_assert_eq(qd_json_need_integer(typed, "doc", "five", 5, 5, &n), QD_OK);
  cr_assert_eq(n, 5);
  n = -1;
  expect_refusal(qd_json_need_integer(typed, "doc", "five", 6, 9, &n), QD_EBADINPUT, "doc: \"five\"", "from 6 to 9, it is 5");
  expect_refusal(qd_json_need_integer(typed, "doc", "five", 0, 4, &n), QD_EBADINPUT, "doc: \"five\"", "from 0 to 4, it is 5");
  expect_refusal(qd_json_need_integer(typed, "doc", "five", 6, INT64_MAX, &n), QD_EBADINPUT, "\"five\"",
                 "of at least 6, it is 5");
  expect_refusal(qd_json_need_integer(typed, "doc", "five", INT64_MIN, 4, &n), QD_EBADINPUT, "\"five\"",
                 "of at most 4, it is 5");
  const char *const wrong[][2] = {{"real", "it is 2.5"},      {"whole real", "it is 5"}, {"text", "it is the text \"hi\""},
                                  {"yes", "it is true"},      {"no", "it is false"},     {"list", "it is an array"},
                                  {"huge", "it is 1e+30"},    {"nothing", "missing"},    {"absent", "missing"},
                                  {"long", "0123456789...\""}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    expect_refusal(qd_json_need_integer(typed, "doc", wrong[i][0], INT64_MIN, INT64_MAX, &n), QD_EBADINPUT, wrong[i][0],
                   wrong[i][1]);
  cr_assert_eq(n, -1);
  expect_refusal(qd_json_need_integer(NULL, "doc", "five", 0, 9, &n), QD_EBADINPUT, "\"five\"", "found nothing");
  expect_refusal(qd_json_need_integer(qd_json_get(typed, "list"), "doc", "five", 0, 9, &n), QD_EBADINPUT, "\"five\"",
                 "found an array");
}

Test(json_typed, takes_integers_or_the_default) {
  int64_t n;
  cr_assert_eq(qd_json_take_integer(typed, "doc", "five", 0, 9, 7, &n), QD_OK);
  cr_assert_eq(n, 5);
  cr_assert_eq(qd_json_take_integer(typed, "doc", "absent", 0, 9, 77, &n), QD_OK);
  cr_assert_eq(n, 77);
  cr_assert_eq(qd_json_take_integer(typed, "doc", "nothing", 0, 9, 78, &n), QD_OK);
  cr_assert_eq(n, 78);
  expect_refusal(qd_json_take_integer(typed, "doc", "real", 0, 9, 7, &n), QD_EBADINPUT, "doc: \"real\"", "2.5");
  expect_refusal(qd_json_take_integer(typed, "doc", "five", 0, 4, 3, &n), QD_EBADINPUT, "doc: \"five\"", "from 0 to 4");
}

Test(json_typed, takes_numbers_or_the_default) {
  double x;
  cr_assert_eq(qd_json_take_number(typed, "doc", "real", 2.5, 2.5, 7, &x), QD_OK);
  cr_assert_eq(x, 2.5);
  cr_assert_eq(qd_json_take_number(typed, "doc", "five", 0, 9, 7, &x), QD_OK);
  cr_assert_eq(x, 5);
  cr_assert_eq(qd_json_take_number(typed, "doc", "nothing", 0, 9, 0.5, &x), QD_OK);
  cr_assert_eq(x, 0.5);
  expect_refusal(qd_json_take_number(typed, "doc", "real", 3, 4, 7, &x), QD_EBADINPUT, "doc: \"real\"",
                 "from 3 to 4, it is 2.5");
  expect_refusal(qd_json_take_number(typed, "doc", "real", 1, 2, 7, &x), QD_EBADINPUT, "doc: \"real\"",
                 "from 1 to 2, it is 2.5");
  expect_refusal(qd_json_take_number(typed, "doc", "text", 0, 9, 7, &x), QD_EBADINPUT, "doc: \"text\"", "the text \"hi\"");
}

Test(json_typed, takes_bools_or_the_default) {
  bool b;
  cr_assert_eq(qd_json_take_bool(typed, "doc", "yes", false, &b), QD_OK);
  cr_assert(b);
  cr_assert_eq(qd_json_take_bool(typed, "doc", "no", true, &b), QD_OK);
  cr_assert_not(b);
  cr_assert_eq(qd_json_take_bool(typed, "doc", "absent", true, &b), QD_OK);
  cr_assert(b);
  expect_refusal(qd_json_take_bool(typed, "doc", "five", true, &b), QD_EBADINPUT, "doc: \"five\"", "true or false, it is 5");
}

Test(json_typed, needs_texts) {
  const char *text = NULL;
  cr_assert_eq(qd_json_need_text(typed, "doc", "text", &text), QD_OK);
  cr_assert_str_eq(text, "hi");
  expect_refusal(qd_json_need_text(typed, "doc", "five", &text), QD_EBADINPUT, "doc: \"five\"", "a text, it is 5");
  expect_refusal(qd_json_need_text(typed, "doc", "nothing", &text), QD_EBADINPUT, "doc: \"nothing\"", "missing");
  expect_refusal(qd_json_need_text(typed, "doc", "nul", &text), QD_EBADINPUT, "doc: \"nul\"", "NUL");
}

/* ---- making and printing ---- */

static qd_json *made_document(void) {
  qd_json *root = qd_json_object(), *list = qd_json_array();
  qd_json_set_text(root, "z text", "a \"b\" \n \xc3\xa9 /");
  qd_json_set_integer(root, "integer", INT64_MIN);
  qd_json_set_number(root, "number", 0.1);
  qd_json_set_bool(root, "bool", true);
  qd_json_set_text(root, "nothing", NULL);
  qd_json_set_number(root, "nan", NAN);
  qd_json_set_number(root, "inf", -INFINITY);
  qd_json_append_integer(list, 1);
  qd_json_append_number(list, 1);
  qd_json_append_text(list, "t");
  qd_json_append(list, qd_json_object());
  qd_json_append(list, NULL);
  qd_json_set(root, "a list", list);
  qd_json_set(root, "no value", NULL);
  return root;
}

Test(json, prints_members_in_order) {
  qd_json *root = made_document();
  expect_print(
      root, 0,
      "{\"z text\": \"a \\\"b\\\" \\n \xc3\xa9 /\", \"integer\": -9223372036854775808, \"number\": 0.10000000000000001, "
      "\"bool\": true, \"nothing\": null, \"nan\": null, \"inf\": null, \"a list\": [1, 1.0, \"t\", {}, null], \"no value\": "
      "null}");
  qd_json_set_integer(root, "integer", 3);
  qd_json *copy = qd_json_copy(root);
  qd_json_free(root);
  char *text;
  cr_assert_eq(qd_json_print(copy, 2, &text), QD_OK);
  cr_assert(strncmp(text, "{\n  \"z text\": ", 14) == 0, "%s", text);
  cr_assert(strstr(text, "\n  \"integer\": 3,\n") != NULL, "%s", text);
  qd_json *again = parsed(text);
  cr_assert(qd_json_equal(copy, again));
  qd_heap_free(text);
  qd_json_free(copy);
  qd_json_free(again);
  cr_assert_null(qd_json_copy(NULL));
}

Test(json, prints_values_that_are_no_containers) {
  qd_json *root = parsed("[12, \"x\", null]");
  expect_print(qd_json_at(root, 0), 0, "12");
  expect_print(qd_json_at(root, 1), 2, "\"x\"");
  expect_print(NULL, 0, "null");
  qd_json_free(root);
}

Test(json, numbers_keep_every_bit) {
  uint64_t state = 1;
  for (int i = 0; i < 20000; i++) {
    const double special[] = {0.0, -0.0, DBL_MIN, DBL_MAX, DBL_TRUE_MIN, 1.0 / 3, 1e15, 1e16, 1e17, 123456789.0};
    state = state * 6364136223846793005u + 1442695040888963407u;
    double value, back;
    memcpy(&value, &state, sizeof value);
    if (i < 10) value = special[i];
    if (!isfinite(value)) continue;
    qd_json *list = qd_json_array();
    char *text;
    qd_json_append_number(list, value);
    cr_assert_eq(qd_json_print(list, 0, &text), QD_OK);
    qd_json *again = parsed(text);
    back = qd_json_number(qd_json_at(again, 0));
    cr_assert_eq(memcmp(&value, &back, sizeof value), 0, "%s", text);
    cr_assert_not(qd_json_is_integer(qd_json_at(again, 0)), "%s", text);
    qd_heap_free(text);
    qd_json_free(list);
    qd_json_free(again);
  }
}

Test(json, repairs_texts_that_are_no_utf8) {
  const char *const cases[][2] = {
      {"a\xff"
       "b",
       "a\xef\xbf\xbd"
       "b"},
      {"\xc3", "\xef\xbf\xbd"},
      {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbd"},
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xf0\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    qd_json *root = qd_json_object();
    qd_json_set_text(root, "path", cases[i][0]);
    cr_assert_str_eq(qd_json_text(qd_json_get(root, "path")), cases[i][1], "case %zu", i);
    qd_json_free(root);
  }
}

Test(json, compares_values) {
  const char *const cases[][2] = {{"{\"a\": 1, \"b\": [1, 2]}", "{\"b\": [1, 2], \"a\": 1}"},
                                  {"[1]", "[2]"},
                                  {"[1]", "[1, 1]"},
                                  {"{\"a\": 1}", "{\"a\": null}"},
                                  {"[1]", "[1.0]"},
                                  {"[\"a\"]", "[\"b\"]"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    qd_json *a = parsed(cases[i][0]), *b = parsed(cases[i][1]);
    cr_assert(qd_json_equal(a, a));
    cr_assert_eq(qd_json_equal(a, b), i == 0, "case %zu", i);
    cr_assert_not(qd_json_equal(a, NULL));
    qd_json_free(a);
    qd_json_free(b);
  }
  cr_assert(qd_json_equal(NULL, NULL));
}

Test(json, prints_the_same_bytes_each_time) {
  qd_json *a = made_document(), *b = made_document();
  char *first, *second;
  cr_assert_eq(qd_json_print(a, 1, &first), QD_OK);
  cr_assert_eq(qd_json_print(b, 1, &second), QD_OK);
  cr_assert_str_eq(first, second);
  qd_heap_free(first);
  qd_heap_free(second);
  qd_json_free(a);
  qd_json_free(b);
}
