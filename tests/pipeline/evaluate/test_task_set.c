#include "pipeline/evaluate/task_set.h"

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { POSITIONS = 512 };
static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";
static qd_temporary_folder folder;
static qd_tokenizer *tokenizer;

static void begin(void) {
  qd_temporary_folder_open(&folder);
  MUST(qd_tokenizer_open(demo, &tokenizer));
}

static void end(void) {
  qd_tokenizer_close(tokenizer);
  qd_temporary_folder_close(&folder);
}

TestSuite(task_set, .init = begin, .fini = end);

/* Five documents "qN", the right one of whose choices is "rN". */
static const char *write_five(const char *name) {
  char text[1024] = "";
  for (int i = 0; i < 5; i++)
    sprintf(text + strlen(text), "{\"query\": \"q%d\\n\", \"choices\": [\"r%d\", \"wrong\"], \"gold\": 0}\n", i, i);
  return qd_temporary_write_text(&folder, name, text);
}

static qd_tasks_request request_of(const char *tasks, int64_t shots, int64_t limit) {
  return (qd_tasks_request){.tasks = tasks, .folder = folder.path, .shots = shots, .limit = limit};
}

static qd_status resolve(const qd_tasks_request *request, qd_task_set *out) {
  return qd_task_set_resolve(request, request->tasks, strlen(request->tasks), out);
}

/* ---- which file ---------------------------------------------------------------------------------------------------------- */

static void expect_set(const char *tasks, const char *task, const char *path, const char *shots_path) {
  qd_task_set set;
  qd_tasks_request request = request_of(tasks, QD_USUAL_SHOTS, 0);
  MUST(resolve(&request, &set));
  cr_expect_str_eq(set.task->name, task);
  cr_expect_str_eq(set.path, path);
  cr_expect((set.shots_path == NULL) == (shots_path == NULL));
  if (shots_path != NULL && set.shots_path != NULL) cr_expect_str_eq(set.shots_path, shots_path);
  qd_task_set_release(&set);
}

static void expect_unresolved(const char *tasks, const char *in_folder, qd_status status, const char *words) {
  qd_task_set set;
  qd_tasks_request request = request_of(tasks, QD_USUAL_SHOTS, 0);
  request.folder = in_folder;
  cr_expect_eq(resolve(&request, &set), status, "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), words), "%s", qd_error_text());
  qd_task_set_release(&set);
}

Test(task_set, finds_the_file_of_a_task) {
  char piqa[1024], mmlu[1024], dev[1024], text[2200];
  snprintf(piqa, sizeof piqa, "%s", write_five("piqa.jsonl"));
  snprintf(mmlu, sizeof mmlu, "%s", write_five("mmlu_test.jsonl"));
  snprintf(dev, sizeof dev, "%s/mmlu_dev.jsonl", folder.path);
  expect_set("piqa", "piqa", piqa, NULL);
  expect_set(piqa, "piqa", piqa, NULL);
  snprintf(text, sizeof text, "arc_easy:%s+%s", piqa, mmlu);
  expect_set(text, "arc_easy", piqa, mmlu);
  expect_unresolved("mmlu", folder.path, QD_ENOTFOUND, "mmlu_dev.jsonl, from which the shots");
  write_five("mmlu_dev.jsonl");
  expect_set("mmlu", "mmlu", mmlu, dev);
  expect_unresolved("mmlu", NULL, QD_EINVAL, "--tasks-path");
  expect_unresolved("hellaswag", folder.path, QD_ENOTFOUND, "hellaswag.jsonl or hellaswag_val.jsonl");
  expect_unresolved("gsm8k", folder.path, QD_EINVAL, "names no task: piqa, arc_easy");
  expect_unresolved("piqa:absent.jsonl", folder.path, QD_ENOTFOUND, "no file absent.jsonl");
}

/* ---- texts and tokens ---------------------------------------------------------------------------------------------------- */

static qd_status make(const qd_tasks_request *request, int64_t positions, qd_task_set *set, qd_requests *out) {
  *out = (qd_requests){0};
  qd_status status = resolve(request, set);
  if (status == QD_OK) status = qd_task_set_read(set, request);
  if (status == QD_OK) status = qd_task_set_encode(set, tokenizer, positions, out);
  return status;
}

/* The text of request i behind BOS, and of its continuation. */
static void expect_request(const qd_requests *r, size_t i, const char *wanted, const char *continuation) {
  char *text;
  const int32_t *ids = r->ids + r->at[i].first;
  size_t n = (size_t)r->at[i].tokens, scored = (size_t)r->at[i].scored;
  cr_expect_eq(ids[0], qd_tokenizer_bos(tokenizer));
  MUST(qd_tokenizer_decode(tokenizer, ids + 1, n - 1, &text));
  cr_expect_str_eq(text, wanted, "%zu: \"%s\"", i, text);
  qd_heap_free(text);
  MUST(qd_tokenizer_decode(tokenizer, ids + n - scored, scored, &text));
  cr_expect_str_eq(text, continuation, "%zu: \"%s\"", i, text);
  qd_heap_free(text);
}

/* random.Random(1234).sample(range(5), 3): [3, 0, 4] [0, 1, 4] [0, 4, 2] ...; the document itself is left out. */
Test(task_set, draws_shots_in_the_order_of_documents) {
  qd_task_set set;
  qd_requests all, limited;
  write_five("piqa.jsonl");
  qd_tasks_request request = request_of("piqa", 2, 0);
  MUST(make(&request, POSITIONS, &set, &all));
  cr_assert_eq(all.n, 10);
  expect_request(&all, 0, "q3\nAnswer: r3\n\nq4\nAnswer: r4\n\nq0\nAnswer: r0", " r0");
  expect_request(&all, 6, "q1\nAnswer: r1\n\nq0\nAnswer: r0\n\nq3\nAnswer: r3", " r3");
  expect_request(&all, 1, "q3\nAnswer: r3\n\nq4\nAnswer: r4\n\nq0\nAnswer: wrong", " wrong");
  qd_task_set_release(&set);
  request.limit = 2;
  MUST(make(&request, POSITIONS, &set, &limited));
  cr_assert_eq(limited.n, 4);
  cr_expect_eq(memcmp(limited.ids, all.ids, limited.n_ids * sizeof *all.ids), 0, "a limit changes what is drawn");
  qd_requests_release(&all);
  qd_requests_release(&limited);
  qd_task_set_release(&set);
}

Test(task_set, takes_shots_from_another_file) {
  qd_task_set set;
  qd_requests r;
  char text[2200], piqa[1024];
  snprintf(piqa, sizeof piqa, "%s", write_five("piqa.jsonl"));
  snprintf(text, sizeof text, "%s+%s", piqa, write_five("other.jsonl"));
  qd_tasks_request request = request_of(text, 2, 1);
  MUST(make(&request, POSITIONS, &set, &r));
  expect_request(&r, 0, "q3\nAnswer: r3\n\nq0\nAnswer: r0\n\nq0\nAnswer: r0", " r0");
  qd_requests_release(&r);
  qd_task_set_release(&set);
}

Test(task_set, takes_the_first_shots_of_the_subject) {
  static const char line[] =
      "{\"subject\": \"%s\", \"question\": \"q%d\", \"choices\": [\"0\", \"1\", \"2\", \"3\"], \"answer\": %d}\n";
  static const char *const subjects[] = {"b", "a_c", "b", "a_c", "a_c"};
  char text[2048] = "";
  qd_task_set set;
  qd_requests r;
  for (int i = 0; i < 5; i++) snprintf(text + strlen(text), sizeof text - strlen(text), line, subjects[i], i, i % 4);
  qd_temporary_write_text(&folder, "mmlu.jsonl", text);
  qd_temporary_write_text(&folder, "mmlu_dev.jsonl", text);
  qd_tasks_request request = request_of("mmlu", 2, 1);
  MUST(make(&request, POSITIONS, &set, &r));
  cr_assert_eq(r.n, 8, "one document a subject");
#define ASKED(i) "q" #i "\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:"
  expect_request(&r, 5, "The following are multiple choice questions (with answers) about a c.\n\n" ASKED(1) " B\n\n" ASKED(3)
                 " D\n\n" ASKED(1) " B", " B");
  qd_requests_release(&r);
  qd_task_set_release(&set);
  request.shots = 3;
  cr_expect_eq(make(&request, POSITIONS, &set, &r), QD_EBADINPUT);
  cr_expect_not_null(strstr(qd_error_text(), "2 documents of b are too few for 3 shots"), "%s", qd_error_text());
  qd_requests_release(&r);
  qd_task_set_release(&set);
}

static void expect_lambada(const char *context, const char *text, const char *continuation) {
  qd_task_set set;
  qd_requests r;
  char line[512];
  snprintf(line, sizeof line, "{\"context\": \"%s\", \"continuation\": \"word\"}\n", context);
  qd_temporary_write_text(&folder, "lambada.jsonl", line);
  qd_tasks_request request = request_of("lambada", 0, 0);
  MUST(make(&request, POSITIONS, &set, &r));
  expect_request(&r, 0, text, continuation);
  qd_requests_release(&r);
  qd_task_set_release(&set);
}

Test(task_set, moves_white_space_to_the_continuation) {
  expect_lambada("The file", "The file word", " word");
  expect_lambada("The file \\n", "The file \n word", " \n word");
  expect_lambada("", " word", " word");
}

Test(task_set, keeps_the_end_of_what_is_too_long) {
  qd_task_set set;
  qd_requests r, whole;
  qd_temporary_write_text(&folder, "lambada.jsonl",
                          "{\"context\": \"The packages are checked before\", \"continuation\": \"release\"}");
  qd_tasks_request request = request_of("lambada", 0, 0);
  MUST(make(&request, POSITIONS, &set, &whole));
  int64_t n = whole.at[0].tokens, scored = whole.at[0].scored;
  qd_task_set_release(&set);
  MUST(make(&request, scored, &set, &r));
  cr_expect_eq(r.at[0].tokens, scored + 1, "one token of context");
  cr_expect_eq(memcmp(r.ids, whole.ids + n - scored - 1, (size_t)(scored + 1) * sizeof *r.ids), 0);
  qd_requests_release(&r);
  qd_task_set_release(&set);
  cr_expect_eq(make(&request, scored - 1, &set, &r), QD_EBADINPUT);
  cr_expect_not_null(strstr(qd_error_text(), "document 1: a continuation of"), "%s", qd_error_text());
  qd_requests_release(&r);
  qd_requests_release(&whole);
  qd_task_set_release(&set);
}

Test(task_set, says_which_line_is_none) {
  qd_task_set set;
  qd_requests r;
  qd_temporary_write_text(&folder, "piqa.jsonl",
                          "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n\n{\"query\": 1}\n");
  qd_tasks_request request = request_of("piqa", 0, 0);
  cr_expect_eq(make(&request, POSITIONS, &set, &r), QD_EBADINPUT);
  cr_expect_not_null(strstr(qd_error_text(), "piqa.jsonl, line 3: \"query\""), "%s", qd_error_text());
  qd_task_set_release(&set);
  request.limit = 1; /* what comes behind it is read as far as that */
  qd_temporary_write_text(&folder, "piqa.jsonl", "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n");
  MUST(make(&request, POSITIONS, &set, &r));
  cr_expect_eq(set.n, 1);
  qd_requests_release(&r);
  qd_task_set_release(&set);
  request.shots = 1; /* a document is no shot of itself */
  cr_expect_eq(make(&request, POSITIONS, &set, &r), QD_EBADINPUT);
  cr_expect_not_null(strstr(qd_error_text(), "1 documents are too few for 1 shots"), "%s", qd_error_text());
  qd_task_set_release(&set);
}
