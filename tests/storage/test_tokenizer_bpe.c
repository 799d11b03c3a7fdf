#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"

static qd_status open_bpe(const char *text, qd_bpe *bpe) {
  qd_json *json;
  cr_assert_eq(qd_json_parse(text, strlen(text), "model", &json), QD_OK, "%s", qd_error_text());
  *bpe = (qd_bpe){0};
  qd_status status = qd_bpe_parse(json, "model", bpe);
  qd_json_free(json);
  return status;
}

static void encode(const qd_bpe *bpe, bool remember, const char *piece, size_t n, qd_ids *ids) {
  qd_bpe_work work;
  ids->n = 0;
  cr_assert_eq(qd_bpe_work_open(&work, remember), QD_OK);
  cr_assert_eq(qd_bpe_encode(bpe, &work, piece, n, ids), QD_OK, "%s", qd_error_text());
  size_t once = ids->n;
  cr_assert_eq(qd_bpe_encode(bpe, &work, piece, n, ids), QD_OK); /* the second time, it may be remembered */
  cr_assert_eq(ids->n, 2 * once);
  if (once > 0) cr_assert_arr_eq(ids->at, ids->at + once, once * sizeof *ids->at);
  ids->n = once;
  qd_bpe_work_close(&work);
}

static void expect_ids(const qd_bpe *bpe, const char *piece, const int32_t *expected, size_t n) {
  qd_ids ids = {0};
  encode(bpe, true, piece, strlen(piece), &ids);
  cr_expect(ids.n == n && (n == 0 || memcmp(ids.at, expected, n * sizeof *expected) == 0), "%s: %zu ids", piece, ids.n);
  qd_ids_release(&ids);
}
#define EXPECT_IDS(bpe, piece, ...) \
  expect_ids(bpe, piece, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4)

/* ---- against the definition ----------------------------------------------------------------------------------------- */

enum { LETTERS = 3, MERGES = 40, LONGEST = 200 };

typedef struct random_model {
  char token[LETTERS + MERGES][256];
  int  n, left[MERGES], right[MERGES], merged[MERGES], merges;
} random_model;

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u, *state >> 8; }

static int token_index(const random_model *m, const char *text) {
  for (int i = 0; i < m->n; i++)
    if (strcmp(m->token[i], text) == 0) return i;
  return -1;
}

/* Merges of tokens that are there; two merges may make the same token. */
static void make_random_model(random_model *m, uint32_t *state) {
  *m = (random_model){.n = LETTERS};
  for (int i = 0; i < LETTERS; i++) m->token[i][0] = (char)('a' + i);
  while (m->merges < MERGES) {
    char joined[512];
    int left = (int)(next_random(state) % (uint32_t)m->n), right = (int)(next_random(state) % (uint32_t)m->n), k = m->merges;
    bool there = false;
    for (int i = 0; i < k; i++) there = there || (m->left[i] == left && m->right[i] == right);
    snprintf(joined, sizeof joined, "%s%s", m->token[left], m->token[right]);
    if (there || strlen(joined) > 12) continue;
    int at = token_index(m, joined);
    if (at < 0) strcpy(m->token[at = m->n++], joined);
    m->left[k] = left, m->right[k] = right, m->merged[k] = at;
    m->merges++;
  }
}

static void open_random_model(const random_model *m, bool pairs, qd_bpe *bpe) {
  static char json[65536];
  char *to = json + sprintf(json, "{\"type\":\"BPE\",\"vocab\":{");
  for (int i = 0; i < m->n; i++) to += sprintf(to, "%s\"%s\":%d", i ? "," : "", m->token[i], i);
  to += sprintf(to, "},\"merges\":[");
  for (int i = 0; i < m->merges; i++)
    to += sprintf(to, pairs ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"", i ? "," : "", m->token[m->left[i]], m->token[m->right[i]]);
  sprintf(to, "]}");
  cr_assert_eq(open_bpe(json, bpe), QD_OK, "%s", qd_error_text());
}

/* The definition: again and again the leftmost pair of lowest rank. */
static size_t merge_slowly(const random_model *m, const char *piece, int32_t *ids) {
  size_t n = strlen(piece);
  for (size_t i = 0; i < n; i++) ids[i] = piece[i] - 'a';
  for (;;) {
    int best = MERGES;
    size_t at = 0;
    for (size_t i = 0; i + 1 < n; i++)
      for (int k = 0; k < best; k++)
        if (m->left[k] == ids[i] && m->right[k] == ids[i + 1]) best = k, at = i;
    if (best == MERGES) return n;
    ids[at] = m->merged[best];
    memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
    n--;
  }
}

Test(tokenizer_bpe, merges_as_the_definition_says) {
  uint32_t state = 1;
  for (int trial = 0; trial < 40; trial++) {
    random_model m;
    qd_bpe bpe;
    make_random_model(&m, &state);
    open_random_model(&m, trial % 2, &bpe);
    for (int t = 0; t < 20; t++) {
      char piece[LONGEST + 1] = "";
      int32_t expected[LONGEST];
      size_t n = next_random(&state) % LONGEST;
      for (size_t i = 0; i < n; i++) piece[i] = (char)('a' + next_random(&state) % LETTERS);
      size_t n_expected = merge_slowly(&m, piece, expected);
      expect_ids(&bpe, piece, expected, n_expected);
    }
    qd_bpe_release(&bpe);
  }
}

/* ---- what a model cannot spell -------------------------------------------------------------------------------------- */

Test(tokenizer_bpe, fuses_unknown_characters_if_told) {
  qd_bpe bpe;
  cr_assert_eq(
      open_bpe("{\"type\":\"BPE\",\"unk_token\":\"?\",\"fuse_unk\":true,\"vocab\":{\"?\":0,\"a\":1},\"merges\":[]}", &bpe),
      QD_OK);
  EXPECT_IDS(&bpe, "axya\xE2\x82\xAC", 1, 0, 1, 0);
  qd_bpe_release(&bpe);
  cr_assert_eq(open_bpe("{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1},\"merges\":[]}", &bpe), QD_OK);
  EXPECT_IDS(&bpe, "axya\xE2\x82\xAC", 1, 0, 0, 1, 0);
  qd_bpe_release(&bpe);
}

Test(tokenizer_bpe, falls_back_to_bytes_only_if_all_are_there) {
  qd_bpe bpe;
  cr_assert_eq(open_bpe("{\"type\":\"BPE\",\"unk_token\":\"?\",\"byte_fallback\":true,\"vocab\":{\"?\":0,\"a\":1,\"<0xC3>\":2,"
                        "\"<0xA9>\":3},\"merges\":[]}",
                        &bpe),
               QD_OK);
  EXPECT_IDS(&bpe, "a\xC3\xA9", 1, 2, 3);
  EXPECT_IDS(&bpe, "\xC3\xA8" "a", 0, 1);
  EXPECT_IDS(&bpe, "\xC3\xA8\xC3\xA9" "a", 2, 3, 0, 1); /* the unknown one waits, as in the library */
  qd_bpe_release(&bpe);
}

Test(tokenizer_bpe, names_a_character_without_any_token) {
  qd_bpe bpe;
  qd_bpe_work work;
  qd_ids ids = {0};
  cr_assert_eq(open_bpe("{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[]}", &bpe), QD_OK);
  cr_assert_eq(qd_bpe_work_open(&work, false), QD_OK);
  cr_expect_eq(qd_bpe_encode(&bpe, &work, "a\xE2\x82\xAC", 4, &ids), QD_EBADINPUT);
  cr_expect_neq(strstr(qd_error_text(), "U+20AC"), NULL, "%s", qd_error_text());
  qd_ids_release(&ids);
  qd_bpe_work_close(&work);
  qd_bpe_release(&bpe);
}

Test(tokenizer_bpe, takes_a_whole_piece_before_merging_if_told) {
  static const char model[] =
      "{\"type\":\"BPE\",\"ignore_merges\":%s,\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4},\"merges\":[\"a b\"]}";
  char text[256];
  qd_bpe bpe;
  snprintf(text, sizeof text, model, "true");
  cr_assert_eq(open_bpe(text, &bpe), QD_OK);
  EXPECT_IDS(&bpe, "abc", 4);
  EXPECT_IDS(&bpe, "abcc", 3, 2, 2);
  qd_bpe_release(&bpe);
  snprintf(text, sizeof text, model, "false");
  cr_assert_eq(open_bpe(text, &bpe), QD_OK);
  EXPECT_IDS(&bpe, "abc", 3, 2);
  qd_bpe_release(&bpe);
}

Test(tokenizer_bpe, merges_a_piece_of_a_million_characters) { /* quadratic work would not end */
  enum { N = 1000001 };
  qd_bpe bpe;
  qd_ids ids = {0};
  char *piece;
  cr_assert_eq(open_bpe("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2},\"merges\":[\"a a\",\"aa aa\"]}", &bpe),
               QD_OK);
  cr_assert_eq(qd_heap_new(N, 1, &piece), QD_OK);
  memset(piece, 'a', N);
  encode(&bpe, false, piece, N, &ids);
  cr_expect_eq(ids.n, N / 4 + 1);
  cr_expect_eq(ids.at[0], 2);
  cr_expect_eq(ids.at[N / 4], 0);
  qd_heap_free(piece);
  qd_ids_release(&ids);
  qd_bpe_release(&bpe);
}

/* ---- refused -------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *model;
  qd_status   status;
  const char *says;
} bad[] = {
    {"[]", QD_EBADINPUT, "not an object"},
    {"{\"vocab\":{}}", QD_EBADINPUT, "type"},
    {"{\"type\":\"Unigram\",\"vocab\":[]}", QD_EUNSUPPORTED, "Unigram"},
    {"{\"type\":\"WordPiece\",\"vocab\":{}}", QD_EUNSUPPORTED, "WordPiece"},
    {"{\"type\":\"WordLevel\",\"vocab\":{}}", QD_EUNSUPPORTED, "WordLevel"},
    {"{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}", QD_EUNSUPPORTED, "dropout"},
    {"{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",\"vocab\":{},\"merges\":[]}", QD_EUNSUPPORTED,
     "continuing_subword_prefix"},
    {"{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{},\"merges\":[]}", QD_EUNSUPPORTED, "end_of_word_suffix"},
    {"{\"type\":\"BPE\",\"vocab\":[\"a\"],\"merges\":[]}", QD_EBADINPUT, "vocab"},
    {"{\"type\":\"BPE\",\"merges\":[]}", QD_EBADINPUT, "vocab"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0}}", QD_EBADINPUT, "merges"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":{}}", QD_EBADINPUT, "merges"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}", QD_EBADINPUT, "-1"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":16777216},\"merges\":[]}", QD_EBADINPUT, "16777216"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":9223372036854775807},\"merges\":[]}", QD_EBADINPUT, "9223372036854775807"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}", QD_EBADINPUT, "whole number"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":\"1\"},\"merges\":[]}", QD_EBADINPUT, "whole number"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":null},\"merges\":[]}", QD_EBADINPUT, "whole number"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}", QD_EBADINPUT, "both have the id 0"},
    {"{\"type\":\"BPE\",\"vocab\":{\"\":0},\"merges\":[]}", QD_EBADINPUT, "0 bytes"},
    {"{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"a\":0},\"merges\":[]}", QD_EBADINPUT, "<unk>"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}", QD_EBADINPUT, "\"b\""},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"b a\"]}", QD_EBADINPUT, "\"b\""},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}", QD_EBADINPUT, "\"ab\""},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}", QD_EBADINPUT, "one space"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}", QD_EBADINPUT, "one space"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}", QD_EBADINPUT, "merge 0"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]}", QD_EBADINPUT, "merge 0"},
    {"{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[null]}", QD_EBADINPUT, "merge 0"},
    {"{\"type\":\"BPE\",\"fuse_unk\":1,\"vocab\":{\"a\":0},\"merges\":[]}", QD_EBADINPUT, "fuse_unk"},
};

Test(tokenizer_bpe, refuses_bad_models) {
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    qd_bpe bpe;
    cr_expect_eq(open_bpe(bad[i].model, &bpe), bad[i].status, "%s", bad[i].model);
    cr_expect_neq(strstr(qd_error_text(), bad[i].says), NULL, "%s says: %s", bad[i].model, qd_error_text());
    qd_bpe_release(&bpe);
  }
}

Test(tokenizer_bpe, reads_old_files_without_a_type_and_a_pair_that_comes_twice) {
  qd_bpe bpe;
  cr_assert_eq(open_bpe("{\"continuing_subword_prefix\":\"\",\"end_of_word_suffix\":\"\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,"
                        "\"ab\":3,\"bc\":4},"
                        "\"merges\":[\"a b\",\"b c\",\"a b\"]}",
                        &bpe),
               QD_OK, "%s", qd_error_text());
  EXPECT_IDS(&bpe, "abc", 0, 4); /* the last rank counts */
  qd_bpe_release(&bpe);
}
