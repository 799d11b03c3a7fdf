#include "pipeline/generate/new_text.h"

#include "tests/pipeline/logits_support.h"

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";

/* `text` token by token behind the first `prompt` of them, with what was shown at each. */
typedef struct shown {
  char   text[512];
  size_t n, times;
  bool   stopped;
} shown;

static shown show(const char *text, size_t prompt, const char *const *stop, int n_stops) {
  qd_tokenizer *tokenizer;
  int32_t *ids;
  size_t n;
  shown s = {0};
  MUST(qd_tokenizer_open(demo, &tokenizer));
  MUST(qd_tokenizer_encode(tokenizer, text, strlen(text), QD_BOS_NO, &ids, &n));
  cr_assert_gt(n, prompt);
  qd_new_text t = qd_new_text_behind(tokenizer, prompt, stop, n_stops);
  for (size_t i = prompt + 1; i <= n && !s.stopped; i++) {
    size_t ready;
    MUST(qd_new_text_add(&t, ids, i, i == n, &ready, &s.stopped));
    memcpy(s.text + s.n, t.text + t.emitted, ready);
    s.n += ready, t.emitted += ready, s.times += ready > 0;
  }
  cr_expect_str_eq(s.text, t.text);
  qd_heap_free(t.text);
  qd_heap_free(ids);
  qd_tokenizer_close(tokenizer);
  return s;
}

static const char words[] = "The packages are checked: caf\xc3\xa9 \xf0\x9f\x98\x80, \xe6\x97\xa5\xe6\x9c\xac\n and so on";

Test(new_text, is_all_of_the_text_in_pieces) {
  shown s = show(words, 0, NULL, 0);
  cr_expect_str_eq(s.text, words);
  cr_expect_gt(s.times, 8, "it comes in %zu pieces", s.times);
}

Test(new_text, begins_behind_the_prompt) {
  shown s = show(words, 3, NULL, 0);
  size_t n = strlen(words), m = strlen(s.text);
  cr_assert(m > 0 && m < n);
  cr_expect_str_eq(words + n - m, s.text);
}

Test(new_text, ends_before_a_stop_text) {
  shown s = show(words, 0, (const char *const[]){"nowhere", "so", "checked: c"}, 3);
  cr_expect_str_eq(s.text, "The packages are ");
  cr_expect(s.stopped);
  s = show(words, 0, (const char *const[]){"The"}, 1);
  cr_expect_str_eq(s.text, "");
  s = show(words, 0, (const char *const[]){" and so on forever"}, 1);
  cr_expect_str_eq(s.text, words, "the beginning of a stop text is shown in the end");
  cr_expect(!s.stopped);
}
