#include "storage/tokens.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "tests/support/temporary_folder.h"

/* One token a character: a to z are 0 to 25, then space, newline, "=", ".", and <s> in front of every text. */
enum { SPACE = 26, NEWLINE = 27, BOS = 32 };
static const char spelling[] = "abcdefghijklmnopqrstuvwxyz \n=.\r";

static qd_temporary_folder folder;

static void write_tokenizer(const char *unknown) {
  char text[4096], *to = text + sprintf(text, "{\"model\":{\"type\":\"BPE\",%s\"vocab\":{", unknown);
  for (int i = 0; i < 26; i++) to += sprintf(to, "\"%c\":%d,", 'a' + i, i);
  sprintf(to,
          "\" "
          "\":26,\"\\n\":27,\"=\":28,\".\":29,\"\\r\":30,\"?\":31,\"<s>\":32},\"merges\":[]},\"added_tokens\":[{\"id\":32,"
          "\"content\":\"<s>\",\"special\":true}],"
          "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{"
          "\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
          "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[32],\"tokens\":[\"<s>\"]}}}}");
  qd_temporary_write_text(&folder, "tokenizer.json", text);
}

static qd_tokenizer *tokenizer;

static void begin(void) {
  qd_temporary_folder_open(&folder);
  write_tokenizer("");
  cr_assert_eq(qd_tokenizer_open(folder.path, &tokenizer), QD_OK, "%s", qd_error_text());
}

static void end(void) {
  qd_tokenizer_close(tokenizer);
  qd_temporary_folder_close(&folder);
}

TestSuite(tokens, .init = begin, .fini = end);

/* "kind:" with a file of this folder. */
static const char *dataset(const char *kind, const char *name) {
  static char text[2048];
  snprintf(text, sizeof text, "%s%s", kind, qd_temporary_path(&folder, name));
  return text;
}

static qd_tokens_request calibration(const char *what, int64_t rows, int64_t length, int64_t seed) {
  return (qd_tokens_request){.dataset = what,
                             .use = QD_TOKENS_CALIBRATION,
                             .rows = rows,
                             .sequence_tokens = length,
                             .seed = seed,
                             .bos = QD_BOS_NO,
                             .pack = true};
}

static qd_tokens_request evaluation(const char *what, int64_t rows, int64_t length) {
  qd_tokens_request r = calibration(what, rows, length, 0);
  r.use = QD_TOKENS_EVALUATION;
  return r;
}

static qd_tokens must_load(qd_tokens_request request) {
  qd_tokens tokens;
  cr_assert_eq(qd_tokens_load(tokenizer, &request, &tokens), QD_OK, "%s: %s", request.dataset, qd_error_text());
  return tokens;
}

static void expect_failure(qd_tokens_request request, qd_status status, const char *says) {
  qd_tokens tokens;
  cr_expect_eq(qd_tokens_load(tokenizer, &request, &tokens), status, "%s: %s", request.dataset, qd_error_text());
  cr_expect_neq(strstr(qd_error_text(), says), NULL, "expected \"%s\" in: %s", says, qd_error_text());
  cr_expect_null(tokens.ids);
  cr_expect_null(tokens.path);
}

/* A text without a period that would hide a wrong offset. */
static char letter(size_t document, size_t i) { return (char)('a' + (i * i + 3 * i + 7 * document + i / 26) % 26); }

static void write_letters(const char *name, size_t n) {
  char text[4096];
  for (size_t i = 0; i < n; i++) text[i] = letter(0, i);
  qd_temporary_write(&folder, name, text, n);
}

static void expect_row(const qd_tokens *tokens, int64_t row, size_t document, int64_t first) {
  for (int64_t i = 0; i < tokens->sequence_tokens; i++) {
    int32_t id = tokens->ids[row * tokens->sequence_tokens + i],
            expected = first + i < 0 ? BOS : letter(document, (size_t)(first + i)) - 'a';
    cr_assert_eq(id, expected, "row %d, position %d: %d, expected %d", (int)row, (int)i, id, expected);
  }
}

/* The text that the ids spell. */
static void expect_text(const qd_tokens *tokens, const char *expected) {
  char text[1024] = "";
  int64_t n = tokens->rows * tokens->sequence_tokens;
  cr_assert_lt(n, 1024);
  for (int64_t i = 0; i < n; i++) text[i] = spelling[tokens->ids[i]];
  cr_expect_str_eq(text, expected, "\"%s\", expected \"%s\"", text, expected);
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

Test(tokens, knows_kinds_by_prefix_and_by_ending) {
  static const struct {
    const char  *dataset, *path;
    qd_text_kind kind;
  } known[] = {{"a.txt", "a.txt", QD_TEXT_PLAIN},
               {"wikitext2:w.raw", "w.raw", QD_TEXT_WIKITEXT2},
               {"ptb:p", "p", QD_TEXT_PTB},
               {"c4:c.json.gz", "c.json.gz", QD_TEXT_C4},
               {"c4-new:c.json", "c.json", QD_TEXT_C4_NEW},
               {"d.jsonl", "d.jsonl", QD_TEXT_JSONL},
               {"d.json.gz", "d.json.gz", QD_TEXT_JSONL},
               {"d.jsonl.gz", "d.jsonl.gz", QD_TEXT_JSONL},
               {"x.i32", "x.i32", QD_TEXT_IDS},
               {"plain:x.i32", "x.i32", QD_TEXT_PLAIN},
               {"ids:x", "x", QD_TEXT_IDS},
               {"jsonl:x", "x", QD_TEXT_JSONL},
               {"c4", "c4", QD_TEXT_PLAIN},
               {"other:x", "other:x", QD_TEXT_PLAIN},
               {"d.json", "d.json", QD_TEXT_PLAIN}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    const char *path;
    cr_expect_eq(qd_tokens_kind(known[i].dataset, &path), known[i].kind, "%s", known[i].dataset);
    cr_expect_str_eq(path, known[i].path);
  }
  cr_expect_str_eq(qd_text_kind_name(QD_TEXT_C4_NEW), "c4-new");
}

/* ---- one text ------------------------------------------------------------------------------------------------------- */

Test(tokens, draws_calibration_windows_as_python_does) {
  static const int64_t seed0[] = {864, 394, 776, 911, 430, 41},
                       seed2[] = {978, 883, 970, 869, 57, 93}; /* random.randint(0, 1000 - 16 - 1) */
  write_letters("t", 1000);
  qd_tokens a = must_load(calibration(dataset("", "t"), 6, 16, 0)),
            b = must_load(calibration(dataset("plain:", "t"), 6, 16, 2));
  cr_expect_eq(a.rows, 6);
  cr_expect_eq(a.text_tokens, 1000);
  cr_expect_eq(a.distinct_tokens, 6 * 16);
  cr_expect_eq(b.distinct_tokens, 6 * 16 - (869 + 16 - 883) - (970 + 16 - 978));
  cr_expect_eq(a.kind, QD_TEXT_PLAIN);
  cr_expect_str_eq(a.path, qd_temporary_path(&folder, "t"));
  for (int64_t i = 0; i < 6; i++) {
    expect_row(&a, i, 0, seed0[i]);
    expect_row(&b, i, 0, seed2[i]);
  }
  qd_tokens_release(&a);
  qd_tokens_release(&b);
}

Test(tokens, never_draws_the_last_window_that_fits) {
  write_letters("t", 17);
  qd_tokens tokens = must_load(calibration(dataset("", "t"), 8, 16, 0)); /* random.randint(0, 0) */
  cr_expect_eq(tokens.distinct_tokens, 16);
  for (int64_t i = 0; i < 8; i++) expect_row(&tokens, i, 0, 0);
  qd_tokens_release(&tokens);
}

Test(tokens, cuts_evaluation_windows_from_the_start) {
  write_letters("t", 100);
  qd_tokens all = must_load(evaluation(dataset("", "t"), 0, 16)), two = must_load(evaluation(dataset("", "t"), 2, 16));
  cr_assert_eq(all.rows, 6);
  cr_assert_eq(two.rows, 2);
  for (int64_t i = 0; i < 6; i++) expect_row(&all, i, 0, 16 * i);
  expect_row(&two, 1, 0, 16);
  qd_tokens_release(&all);
  qd_tokens_release(&two);
}

Test(tokens, puts_bos_once_at_the_start_of_the_text) {
  write_letters("t", 31);
  qd_tokens_request r = evaluation(dataset("", "t"), 0, 16);
  r.bos = QD_BOS_AUTO;
  qd_tokens tokens = must_load(r);
  cr_assert_eq(tokens.rows, 2);
  expect_row(&tokens, 0, 0, -1);
  expect_row(&tokens, 1, 0, 15);
  qd_tokens_release(&tokens);
}

Test(tokens, joins_rows_of_wikitext2) {
  qd_temporary_write_text(&folder, "w", " \n = a = \n \n\n b b \n  c\r\n \t\nd");
  static const char joined[] = "" "\n\n = a = \n" "\n\n" "\n\n" "\n\n b b \n" "\n\n  c\r\n" "\n\n" "\n\nd";
  qd_tokens tokens = must_load(evaluation(dataset("wikitext2:", "w"), 0, (int64_t)strlen(joined)));
  expect_text(&tokens, joined);
  cr_expect_eq(tokens.text_tokens, (int64_t)strlen(joined));
  cr_expect_eq(tokens.text_rows, 8);
  qd_tokens_release(&tokens);
}

Test(tokens, joins_stripped_rows_of_ptb) {
  qd_temporary_write_text(&folder, "p", " a b \n\n  c\n d ");
  static const char joined[] = "a b" "\n\n" "\n\n" "c" "\n\n" "d";
  qd_tokens tokens = must_load(evaluation(dataset("ptb:", "p"), 0, (int64_t)strlen(joined)));
  expect_text(&tokens, joined);
  qd_tokens_release(&tokens);
}

Test(tokens, reads_a_plain_text_as_llama_cpp_does) {
  qd_temporary_write_text(&folder, "l", "abcabc\n\n");
  qd_tokens_request request = evaluation(dataset("", "l"), 0, 3);
  request.llama_cpp = true;
  qd_tokens tokens = must_load(request);
  cr_expect_eq(tokens.text_tokens, 7);
  cr_expect_eq(tokens.rows, 2);
  qd_tokens_release(&tokens);
  request.sequence_tokens = 4;
  expect_failure(request, QD_EBADINPUT, "two windows of 4");
  request.llama_cpp = false;
  tokens = must_load(request);
  cr_expect_eq(tokens.text_tokens, 8);
  qd_tokens_release(&tokens);
}

Test(tokens, keeps_crlf_of_a_plain_text) {
  qd_temporary_write_text(&folder, "t", "a\r\nb");
  qd_tokens tokens = must_load(evaluation(dataset("", "t"), 0, 4));
  expect_text(&tokens, "a\r\nb");
  qd_tokens_release(&tokens);
}

/* ---- documents ------------------------------------------------------------------------------------------------------ */

static const size_t document_letters[] = {5, 40, 16, 100, 3, 17};
enum { DOCUMENTS = 6 };

static const char *write_documents(const char *name) {
  static char text[4096];
  char *to = text;
  for (size_t d = 0; d < DOCUMENTS; d++) {
    to += sprintf(to, "{\"url\":\"x\",\"text\":\"");
    for (size_t i = 0; i < document_letters[d]; i++) *to++ = letter(d, i);
    to += sprintf(to, "\"}\n");
  }
  return qd_temporary_write_text(&folder, name, text);
}

typedef struct drawn {
  size_t  document;
  int64_t first;
} drawn;

/* random.randint(0, 5) until the document has 16 tokens, then random.randint(0, n - 16 - 1) unless it has just 16. */
static const drawn seed0[] = {{3, 53}, {2, 0}, {3, 51}, {2, 0}, {3, 45}, {1, 16}, {1, 9}, {1, 3}, {2, 0}, {5, 0}};
static const drawn seed7[] = {{2, 0}, {1, 12}, {5, 0}, {2, 0}, {1, 1}, {3, 53}, {1, 2}, {3, 7}, {1, 20}, {5, 0}};

Test(tokens, draws_c4_documents_and_windows_from_one_stream) {
  static const char *const kind[] = {"c4:", "c4-new:"};
  write_documents("c");
  for (int k = 0; k < 2; k++) {
    qd_tokens a = must_load(calibration(dataset(kind[k], "c"), 10, 16, 0)),
              b = must_load(calibration(dataset(kind[k], "c"), 10, 16, 7));
    for (int64_t i = 0; i < 10; i++) {
      expect_row(&a, i, seed0[i].document, seed0[i].first);
      expect_row(&b, i, seed7[i].document, seed7[i].first);
    }
    cr_expect_eq(a.distinct_tokens, (16 + 6 + 2) + 16 + (16 + 7 + 6) + 16, "%d", (int)a.distinct_tokens);
    qd_tokens_release(&a);
    qd_tokens_release(&b);
  }
}

Test(tokens, evaluates_c4_on_256_windows_of_seed_0) {
  write_documents("c");
  qd_tokens_request r = evaluation(dataset("c4:", "c"), 0, 16);
  r.seed = 7;
  qd_tokens tokens = must_load(r);
  cr_assert_eq(tokens.rows, 256);
  for (int64_t i = 0; i < 10; i++) expect_row(&tokens, i, seed0[i].document, seed0[i].first);
  expect_row(&tokens, 253, 5, 0);
  expect_row(&tokens, 254, 2, 0);
  expect_row(&tokens, 255, 3, 4);
  qd_tokens_release(&tokens);
  r.rows = 3;
  tokens = must_load(r);
  cr_assert_eq(tokens.rows, 3);
  expect_row(&tokens, 2, 3, 51);
  qd_tokens_release(&tokens);
}

Test(tokens, counts_special_tokens_in_a_documents_length) {
  write_documents("c");
  qd_tokens_request r = calibration(dataset("c4:", "c"), 1, 101, 0); /* 100 letters and BOS */
  r.bos = QD_BOS_AUTO;
  qd_tokens tokens = must_load(r);
  expect_row(&tokens, 0, 3, -1);
  qd_tokens_release(&tokens);
}

Test(tokens, evaluates_c4_new_on_joined_texts) {
  qd_temporary_write_text(&folder, "c", "{\"text\":\"ab\"}\n{\"text\":\"\"}\n{\"text\":\"c d\"}\n");
  qd_tokens tokens = must_load(evaluation(dataset("c4-new:", "c"), 0, 7));
  expect_text(&tokens, "ab  c d");
  qd_tokens_release(&tokens);
}

Test(tokens, takes_1100_texts_and_256_windows_of_c4_new) {
  char *text, *to;
  cr_assert_eq(qd_heap_new(1200, 32, &text), QD_OK);
  to = text;
  for (int i = 0; i < 1200; i++) to += sprintf(to, "{\"text\":\"%s\"}\n", i < 1100 ? "aaa" : "b");
  qd_temporary_write_text(&folder, "c", text);
  qd_heap_free(text);
  qd_tokens tokens = must_load(evaluation(dataset("c4-new:", "c"), 0, 4)),
            whole = must_load(evaluation(dataset("c4-new:", "c"), 1000, 1));
  cr_expect_eq(tokens.rows, 256);
  cr_expect_eq(whole.rows, 256);
  cr_expect_eq(tokens.text_tokens, 1100 * 4 - 1);
  qd_tokens_release(&tokens);
  qd_tokens_release(&whole);
}

Test(tokens, packs_documents_each_with_its_special_tokens) {
  qd_temporary_write_text(&folder, "d.jsonl", "{\"text\":\"ab\"}\n\n{\"text\":\"\"}\n{\"text\":\"cde\"}\n");
  static const int32_t expected[] = {BOS, 0, 1, BOS, BOS, 2, 3, 4};
  qd_tokens_request r = evaluation(dataset("", "d.jsonl"), 0, 4);
  r.bos = QD_BOS_AUTO;
  qd_tokens tokens = must_load(r);
  cr_assert_eq(tokens.rows, 2);
  cr_expect_arr_eq(tokens.ids, expected, sizeof expected);
  cr_expect_eq(tokens.kind, QD_TEXT_JSONL);
  qd_tokens_release(&tokens);
}

Test(tokens, takes_one_document_a_row_without_packing) {
  static const size_t document[] = {1, 2, 3, 5};
  write_documents("d.jsonl");
  qd_tokens_request r = evaluation(dataset("", "d.jsonl"), 0, 16);
  r.pack = false;
  qd_tokens tokens = must_load(r);
  cr_assert_eq(tokens.rows, 4);
  cr_expect_eq(tokens.distinct_tokens, 4 * 16);
  for (int64_t i = 0; i < 4; i++) expect_row(&tokens, i, document[i], 0);
  cr_expect_eq(tokens.dropped_documents, 2);
  cr_expect_eq(tokens.text_tokens, 5 + 40 + 16 + 100 + 3 + 17);
  qd_tokens_release(&tokens);
  r.use = QD_TOKENS_CALIBRATION;
  r.rows = 3;
  tokens = must_load(r);
  cr_expect_eq(tokens.rows, 3);
  cr_expect_eq(tokens.dropped_documents, 1);
  qd_tokens_release(&tokens);
  r.rows = 5;
  expect_failure(r, QD_EBADINPUT, "4 of its 6 documents have 16 tokens or more, but 5 rows are needed");
}

/* ---- ids ------------------------------------------------------------------------------------------------------------ */

Test(tokens, takes_ids_as_they_are) {
  static const int32_t ids[] = {0x8B1F, 1, 2, 3, 4, 70000}; /* the first two bytes are those of gzip */
  qd_temporary_write(&folder, "x.i32", ids, sizeof ids);
  qd_tokenizer_close(tokenizer);
  tokenizer = NULL;
  qd_tokens all = must_load(evaluation(dataset("", "x.i32"), 0, 3)),
            one = must_load(calibration(dataset("", "x.i32"), 1, 3, 5)),
            more = must_load(calibration(dataset("", "x.i32"), 9, 3, 5));
  cr_assert_eq(all.rows, 2);
  cr_expect_arr_eq(all.ids, ids, sizeof ids);
  cr_assert_eq(one.rows, 1);
  cr_expect_arr_eq(one.ids, ids, sizeof ids / 2);
  cr_expect_eq(more.rows, 2);
  cr_expect_eq(one.text_tokens, 6);
  cr_expect_eq(one.distinct_tokens, 3);
  qd_tokens_release(&all);
  qd_tokens_release(&one);
  qd_tokens_release(&more);
}

Test(tokens, refuses_ids_outside_the_vocabulary) {
  static const int32_t ids[] = {0, 1, 2, 3, 100, 5}, negative[] = {0, 1, 2, -3};
  qd_temporary_write(&folder, "x.i32", ids, sizeof ids);
  qd_tokens_request r = evaluation(dataset("", "x.i32"), 0, 3);
  r.vocabulary = 100;
  expect_failure(r, QD_EBADINPUT, "row 1, position 1: the id 100 is outside the model's vocabulary of 100");
  r.vocabulary = 101;
  qd_tokens tokens = must_load(r);
  qd_tokens_release(&tokens);
  qd_temporary_write(&folder, "x.i32", negative, sizeof negative);
  expect_failure(evaluation(dataset("", "x.i32"), 0, 2), QD_EBADINPUT, "row 1, position 1: the id -3 is negative");
  qd_temporary_write_text(&folder, "t", "abcz");
  r = evaluation(dataset("", "t"), 0, 2);
  r.vocabulary = 25;
  expect_failure(r, QD_EBADINPUT, "row 1, position 1: the id 25 is outside");
}

/* ---- refused -------------------------------------------------------------------------------------------------------- */

Test(tokens, says_what_is_wrong_with_a_file) {
  qd_temporary_write(&folder, "empty", "", 0);
  expect_failure(evaluation(dataset("", "empty"), 0, 4), QD_EBADINPUT, "is empty");
  qd_temporary_write_text(&folder, "short", "abcd");
  expect_failure(evaluation(dataset("", "short"), 0, 5), QD_EBADINPUT, "4 tokens are too few for one row of 5");
  expect_failure(calibration(dataset("", "short"), 1, 4, 0), QD_EBADINPUT,
                 "4 tokens are too few for rows of 4: at least 5 are needed");
  qd_temporary_write(&folder, "odd.i32", "abcdefghij", 10);
  expect_failure(evaluation(dataset("", "odd.i32"), 0, 2), QD_EBADINPUT,
                 "10 bytes are no whole number of rows of 2 tokens (8 bytes each)");
  qd_temporary_write_text(&folder, "bad", "abc\xC3(");
  expect_failure(evaluation(dataset("", "bad"), 0, 2), QD_EBADINPUT, "byte 0xC3 at offset 3");
  qd_temporary_write_text(&folder, "other", "ab\xE2\x82\xAC");
  expect_failure(evaluation(dataset("", "other"), 0, 2), QD_EBADINPUT, "U+20AC");
  expect_failure(evaluation(dataset("", "missing"), 0, 2), QD_ENOTFOUND, "missing");
  expect_failure(evaluation("wikitext-2:missing", 0, 2), QD_ENOTFOUND,
                 "there is no file wikitext-2:missing, and no kind of text \"wikitext-2\" (plain, wikitext2, ptb, c4, ");
  expect_failure(evaluation("plain:a:b", 0, 2), QD_ENOTFOUND, "cannot open a:b");
  expect_failure(evaluation("./a:b", 0, 2), QD_ENOTFOUND, "cannot open ./a:b");
  qd_temporary_make_folder(&folder, "folder");
  expect_failure(evaluation(dataset("", "folder"), 0, 2), QD_EIO, "folder");
}

Test(tokens, says_what_is_wrong_with_documents) {
  qd_temporary_write_text(&folder, "d", "{\"text\":\"ab\"}\n{\"txt\":\"ab\"}\n");
  expect_failure(evaluation(dataset("jsonl:", "d"), 0, 2), QD_EBADINPUT, "line 2");
  qd_temporary_write_text(&folder, "d", "not json\n");
  expect_failure(evaluation(dataset("jsonl:", "d"), 0, 2), QD_EBADINPUT, "line 1");
  expect_failure(calibration(dataset("c4:", "d"), 1, 2, 0), QD_EBADINPUT,
                 "line 1: no JSON object: lines of JSON, each with a text");
  qd_temporary_write_text(&folder, "d", "{\"text\":\n");
  expect_failure(evaluation(dataset("jsonl:", "d"), 0, 2), QD_EBADINPUT, "line 1, column");
  cr_expect_null(strstr(qd_error_text(), "line 1, line"), "%s", qd_error_text());
  qd_temporary_write_text(&folder, "d", "{\"text\":\"ab\"}\nnot json\n");
  expect_failure(evaluation(dataset("jsonl:", "d"), 0, 2), QD_EBADINPUT, "line 2, column 3");
  qd_temporary_write_text(&folder, "d", " \n\n");
  expect_failure(evaluation(dataset("c4:", "d"), 0, 2), QD_EBADINPUT, "no line");
  write_documents("d");
  expect_failure(calibration(dataset("c4:", "d"), 1, 101, 0), QD_EBADINPUT,
                 "none of its 6 documents has 101 tokens, the longest has 100");
  qd_temporary_write(&folder, "d", "\x1F\x8B\x08 abc", 7);
  expect_failure(evaluation(dataset("c4:", "d"), 0, 2), QD_EBADINPUT, "gzip");
}

Test(tokens, refuses_requests_that_make_no_sense) {
  write_letters("t", 100);
  expect_failure(evaluation(dataset("", "t"), 0, 0), QD_EINVAL, "0 tokens");
  expect_failure(evaluation(dataset("", "t"), -1, 4), QD_EINVAL, "-1 rows");
  expect_failure(calibration(dataset("", "t"), 0, 4, 0), QD_EINVAL, "0 rows");
  expect_failure(calibration("wikitext2:", 1, 4, 0), QD_EINVAL, "names no file");
  qd_tokenizer_close(tokenizer);
  tokenizer = NULL;
  expect_failure(evaluation(dataset("", "t"), 0, 4), QD_EINVAL, "needs a tokenizer");
}

Test(tokens, refuses_nul_only_where_no_token_spells_it) {
  static const char text[] = "ab\0cd";
  qd_temporary_write(&folder, "t", text, 5);
  expect_failure(evaluation(dataset("", "t"), 0, 2), QD_EBADINPUT, "byte 2 is NUL");
  qd_tokenizer_close(tokenizer);
  write_tokenizer("\"unk_token\":\"?\","); /* an unknown token is no spelling */
  cr_assert_eq(qd_tokenizer_open(folder.path, &tokenizer), QD_OK, "%s", qd_error_text());
  expect_failure(evaluation(dataset("", "t"), 0, 2), QD_EBADINPUT, "byte 2 is NUL");
  qd_tokenizer_close(tokenizer);
  cr_assert_eq(qd_tokenizer_open(QDIST_SOURCE_DIR "/tests/golden/tokenizers/smollm", &tokenizer), QD_OK);
  qd_tokens tokens = must_load(evaluation(dataset("", "t"), 0, 2));
  cr_expect_geq(tokens.rows, 1);
  qd_tokens_release(&tokens);
}

/* ---- real texts ----------------------------------------------------------------------------------------------------- */

Test(tokens, gives_the_windows_of_real_models) {
  static const struct {
    const char *text, *windows;
  } known[] = {{"debian-faq.txt", "qdist-tiny.calibration"}, {"debian-policy.txt", "qdist-tiny.evaluation"}};
  const char *root = getenv("QDIST_TEST_DATA");
  if (root == NULL) cr_skip_test("QDIST_TEST_DATA, the folder with data/models, is not set");
  char path[4096], text[4096];
  qd_tokenizer_close(tokenizer);
  snprintf(path, sizeof path, "%s/data/models/qdist-tiny", root);
  cr_assert_eq(qd_tokenizer_open(path, &tokenizer), QD_OK, "%s", qd_error_text());
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    snprintf(path, sizeof path, "%s/golden/windows/%s.i32", root, known[i].windows);
    snprintf(text, sizeof text, "%s/data/text/%s", root, known[i].text);
    qd_tokens windows = must_load(evaluation(path, 0, 512));
    qd_tokens_request r = evaluation(text, windows.rows, 512);
    r.bos = QD_BOS_AUTO;
    qd_tokens made = must_load(r);
    cr_assert_eq(made.rows, windows.rows);
    cr_expect(memcmp(made.ids, windows.ids, (size_t)(made.rows * 512) * sizeof *made.ids) == 0, "%s", known[i].windows);
    qd_tokens_release(&windows);
    qd_tokens_release(&made);
  }
  snprintf(text, sizeof text, "wikitext2:%s/data/text/wikitext2.test.raw", root);
  qd_tokens_request r = evaluation(text, 0, 512);
  r.bos = QD_BOS_AUTO;
  qd_tokens made = must_load(r);
  cr_expect_eq(made.text_tokens, 527798); /* the library's count of the joined rows */
  qd_tokens_release(&made);
}

/* ---- mixtures ------------------------------------------------------------------------------------------------------- */

static void expect_shares(const double *weight, int n, int64_t rows, const int64_t *expected) {
  qd_text_share text[QD_MAX_TEXTS];
  int64_t share[QD_MAX_TEXTS];
  for (int i = 0; i < n; i++) text[i] = (qd_text_share){.dataset = "x", .weight = weight[i]};
  cr_assert_eq(qd_tokens_shares(text, n, rows, share), QD_OK, "%s", qd_error_text());
  for (int i = 0; i < n; i++) cr_expect_eq(share[i], expected[i], "%d: %d", i, (int)share[i]);
}

Test(tokens, shares_go_by_largest_remainder) {
  expect_shares((double[]){1, 1}, 2, 5, (int64_t[]){3, 2}); /* equal remainders: the earlier */
  expect_shares((double[]){0.5, 0.25, 0.25}, 3, 128, (int64_t[]){64, 32, 32});
  expect_shares((double[]){5, 3, 2}, 3, 7, (int64_t[]){4, 2, 1}); /* 3.5, 2.1, 1.4: one to share out */
  int64_t share[2];
  qd_text_share next_to_nothing[2] = {{.dataset = "a", .weight = 5e-324}, {.dataset = "b", .weight = 1e-308}};
  cr_expect_eq(qd_tokens_shares(next_to_nothing, 2, 5, share), QD_EINVAL);
}

static qd_text_share shares[2];

static qd_tokens_request mixture(int64_t rows) {
  qd_tokens_request r = calibration(shares[0].dataset, rows, 4, 7);
  r.text = shares, r.n_texts = 2;
  return r;
}

static void write_two_texts(double a, double b) {
  static char name[2][600];
  for (int i = 0; i < 2; i++) {
    char text[301] = "";
    for (int k = 0; k < 300; k++) text[k] = (char)('a' + 13 * i + k % 13);
    qd_temporary_write(&folder, i ? "b.txt" : "a.txt", text, 300);
    snprintf(name[i], sizeof name[i], "%s", qd_temporary_path(&folder, i ? "b.txt" : "a.txt"));
    shares[i] = (qd_text_share){.dataset = name[i], .weight = i ? b : a};
  }
}

/* Rows of each text are those that it gives alone, dealt so that every beginning is mixed. */
Test(tokens, a_mixture_takes_each_share_as_if_it_were_alone) {
  static const int from[] = {0, 1, 0, 0, 1, 0}; /* (2 j + 1) / share: 1/4, 1/2, 3/4, 5/4, 3/2, 7/4 */
  write_two_texts(2, 1);
  qd_tokens all = must_load(mixture(6)), part[2];
  int64_t taken[2] = {0, 0};
  for (int i = 0; i < 2; i++) part[i] = must_load(calibration(shares[i].dataset, i ? 2 : 4, 4, 7));
  cr_assert_eq(all.rows, 6);
  cr_assert_eq(all.n_parts, 2);
  for (int row = 0; row < 6; row++)
    cr_expect_arr_eq(all.ids + 4 * row, part[from[row]].ids + 4 * taken[from[row]]++, 4 * sizeof *all.ids, "row %d", row);
  for (int i = 0; i < 2; i++) {
    cr_expect_eq(all.part[i].rows, part[i].rows);
    cr_expect(qd_digest_equal(&all.part[i].text_digest, &part[i].text_digest));
    cr_expect_eq(all.part[i].text_tokens, 300);
    qd_tokens_release(&part[i]);
  }
  cr_expect_eq(all.text_tokens, 600);
  qd_tokens_release(&all);
}

Test(tokens, a_mixture_that_cannot_be_is_refused) {
  write_two_texts(1, 1e-3);
  expect_failure(mixture(6), QD_EINVAL, "gives none of 6 sequences");
  write_two_texts(1, 1);
  qd_tokens_request r = mixture(2);
  r.use = QD_TOKENS_EVALUATION;
  expect_failure(r, QD_EINVAL, "for calibration only");
  int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  qd_temporary_write(&folder, "few.i32", ids, sizeof ids);
  char name[600];
  snprintf(name, sizeof name, "%s", qd_temporary_path(&folder, "few.i32"));
  shares[1].dataset = name;
  expect_failure(mixture(8), QD_EBADINPUT, "has 2 rows, but its weight asks for 4");
}

/* ---- messages ------------------------------------------------------------------------------------------------------- */

static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"}]}\n{\"text\":\"cd\"}\n";

static qd_tokens load_chat(qd_add_bos bos) {
  qd_temporary_write_text(&folder, "chat.jsonl", chat);
  qd_tokens_request r = evaluation(dataset("", "chat.jsonl"), 0, 1);
  r.folder = folder.path, r.bos = bos;
  return must_load(r);
}

static void expect_ids(qd_tokens tokens, const int32_t *expected, int64_t n) {
  cr_expect_eq(tokens.rows, n, "%d", (int)tokens.rows);
  cr_expect_arr_eq(tokens.ids, expected, (size_t)(tokens.rows < n ? tokens.rows : n) * sizeof *expected);
  qd_tokens_release(&tokens);
}

/* The template's own BOS is the only one; a text beside it is tokenized as ever. */
Test(tokens, messages_are_spelled_by_the_chat_template) {
  qd_temporary_write_text(&folder, "tokenizer_config.json",
                          "{\"bos_token\":\"<s>\",\"chat_template\":"
                          "\"{{bos_token}}{% for m in messages %}{{m.content}}.{% endfor %}\"}");
  expect_ids(load_chat(QD_BOS_AUTO), (int32_t[]){BOS, 0, 1, 29, BOS, 2, 3}, 7);
  expect_ids(load_chat(QD_BOS_YES), (int32_t[]){BOS, 0, 1, 29, BOS, 2, 3}, 7);
  expect_ids(load_chat(QD_BOS_NO), (int32_t[]){BOS, 0, 1, 29, 2, 3}, 6);
  qd_tokens tokens = load_chat(QD_BOS_AUTO);
  cr_expect_eq(strlen(tokens.chat_digest.hex), QD_DIGEST_DIGITS);
  qd_tokens_release(&tokens);
}

Test(tokens, messages_that_cannot_be_spelled_are_refused) {
  qd_temporary_write_text(&folder, "chat.jsonl", chat);
  qd_tokens_request r = evaluation(dataset("", "chat.jsonl"), 0, 1);
  expect_failure(r, QD_EINVAL, "chat.jsonl, line 1: messages need a folder");
  r.folder = folder.path;
  expect_failure(r, QD_ENOTFOUND, "has no chat template");
  qd_temporary_write_text(&folder, "chat_template.jinja", "{{ raise_exception('never') }}");
  expect_failure(r, QD_EBADINPUT, "chat.jsonl, line 1: ");
  expect_failure(r, QD_EBADINPUT, "chat_template.jinja, line 1: the template refuses the messages: never");
  qd_temporary_write_text(&folder, "chat.jsonl", "{\"messages\":\"ab\"}\n");
  expect_failure(r, QD_EBADINPUT, "not an object with a text \"text\" or a list \"messages\"");
}
