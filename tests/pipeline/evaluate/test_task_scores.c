#include "pipeline/evaluate/task_scores.h"

#include "kernels/base/heap.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { DOCUMENTS = 4 };

static void expect_near(double got, double wanted, const char *what) {
  cr_expect(fabs(got - wanted) <= 1e-12 * fmax(1, fabs(wanted)), "%s: %.17g instead of %.17g", what, got, wanted);
}

/* Two choices a document, 2 and 4 characters long; the first is right. */
static qd_task_choice choices[DOCUMENTS][2];
static qd_task_document documents[DOCUMENTS];

static qd_task_set set_of(const char *task, size_t n, size_t n_choices) {
  for (size_t i = 0; i < DOCUMENTS; i++) {
    choices[i][0].characters = 2, choices[i][1].characters = 4;
    documents[i] = (qd_task_document){.choice = choices[i], .n_choices = n_choices};
  }
  return (qd_task_set){.task = qd_task_find(task, strlen(task)), .document = documents, .n = n, .shots = 3};
}

/* Right; wrong, right by characters; a tie, which the first choice wins; right, wrong by characters. */
static const qd_loglikelihood found[8] = {{-1, 1}, {-9, 0}, {-3, 0}, {-2, 0}, {-5, 0}, {-5, 0}, {-4, 0}, {-6, 0}};

Test(task_scores, accuracy_and_accuracy_by_characters) {
  qd_task_score score;
  qd_task_set set = set_of("piqa", DOCUMENTS, 2);
  MUST(qd_task_score_of(&set, found, &score));
  cr_expect_eq(score.documents, DOCUMENTS);
  cr_expect_eq(score.shots, 3);
  expect_near(score.acc.value, 0.75, "acc");
  expect_near(score.acc.error, sqrt(0.75 * 0.25 / 3), "its error");
  expect_near(score.acc_norm.value, 0.25, "acc_norm: -1/2 > -9/4, -3/2 < -2/4, -5/2 < -5/4, -4/2 < -6/4");
  choices[1][1].characters = choices[2][1].characters = choices[3][1].characters = choices[0][1].characters = 2;
  MUST(qd_task_score_of(&set, found, &score));
  expect_near(score.acc_norm.value, score.acc.value, "choices of one length");
  set = set_of("winogrande", 1, 2);
  MUST(qd_task_score_of(&set, found + 2, &score));
  cr_expect_eq(score.acc.value, 0);
  documents[0].gold = 1;
  MUST(qd_task_score_of(&set, found + 2, &score));
  cr_expect_eq(score.acc.value, 1);
  cr_expect_eq(score.acc.error, 0);
  cr_expect_eq(score.acc_norm.value, 0, "not reported for this task");
}

Test(task_scores, greedy_words_and_their_perplexity) {
  qd_task_score score;
  qd_task_set set = set_of("lambada", DOCUMENTS, 1);
  MUST(qd_task_score_of(&set, found, &score)); /* -1, -9, -3, -2 */
  expect_near(score.acc.value, 0.25, "acc");
  expect_near(score.perplexity.value, exp(15.0 / 4), "perplexity");
  expect_near(score.perplexity.error, exp(15.0 / 4) * sqrt((95.0 / 4 - 225.0 / 16) / 3), "its error");
}

/* Three documents of a, one right, and one of b: the mean counts documents, the error is pooled. */
Test(task_scores, subjects_by_their_size) {
  static char a[] = "a", b[] = "b";
  static const qd_loglikelihood of_four[8] = {{-1, 0}, {-2, 0}, {-1, 0}, {-2, 0}, {-2, 0}, {-1, 0}, {-2, 0}, {-1, 0}};
  qd_task_score score;
  qd_task_set set = set_of("mmlu", DOCUMENTS, 2);
  documents[0].subject = documents[2].subject = documents[3].subject = a, documents[1].subject = b;
  MUST(qd_task_score_of(&set, of_four, &score));
  cr_assert_eq(score.n_groups, 2);
  cr_expect_str_eq(score.group[0].name, "a");
  cr_expect_eq(score.group[0].documents, 3);
  expect_near(score.group[0].acc.value, 1.0 / 3, "a");
  cr_expect_eq(score.group[1].acc.value, 1);
  expect_near(score.acc.value, 0.5, "all");
  double of_a = sqrt(1.0 / 3 * 2 / 3 / 2);
  expect_near(score.acc.error, sqrt(2 * of_a * of_a * 3 / (4 - 2)) / sqrt(4), "pooled");
  qd_task_score_release(&score);
}

/* With one document of each nothing varies within a subject, which is no reason to be certain. */
Test(task_scores, subjects_of_one_document) {
  static char names[4][2] = {"a", "b", "c", "d"};
  static const qd_loglikelihood of_four[8] = {{-1, 0}, {-2, 0}, {-1, 0}, {-2, 0}, {-2, 0}, {-1, 0}, {-2, 0}, {-1, 0}};
  qd_task_score score;
  qd_task_set set = set_of("mmlu", DOCUMENTS, 2);
  for (int i = 0; i < 4; i++) documents[i].subject = names[i];
  MUST(qd_task_score_of(&set, of_four, &score));
  cr_assert_eq(score.n_groups, 4);
  expect_near(score.acc.error, sqrt(0.5 * 0.5 / 3), "of the mean");
  qd_task_score_release(&score);
}

Test(task_scores, a_line_of_json_a_document) {
  static const qd_request requests[4] = {{0, 5, 2}, {5, 6, 3}, {11, 4, 1}, {15, 4, 1}};
  qd_task_text out = {0};
  qd_task_set set = set_of("piqa", 2, 2);
  MUST(qd_task_lines(&set, requests, found, &out));
  static const char wanted[] =
      "{\"task\": \"piqa\", \"document\": 1, \"gold\": 0, \"best\": 0, \"right\": true, \"loglikelihoods\": [-1.0, -9.0], "
      "\"greedy\": [1, 0], \"tokens\": [2, 3], \"characters\": [2, 4]}\n"
      "{\"task\": \"piqa\", \"document\": 2, \"gold\": 0, \"best\": 1, \"right\": false, \"loglikelihoods\": [-3.0, -2.0], "
      "\"greedy\": [0, 0], \"tokens\": [1, 1], \"characters\": [2, 4]}\n";
  cr_expect_eq(out.n, sizeof wanted - 1);
  cr_expect_eq(memcmp(out.text, wanted, sizeof wanted - 1), 0, "%.*s", (int)out.n, out.text);
  qd_heap_free(out.text);
}
