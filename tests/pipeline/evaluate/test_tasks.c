#include "pipeline/evaluate/tasks.h"

#include "storage/bytes.h"
#include "storage/text_file.h"
#include "tests/pipeline/job_support.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(tasks, .init = open_folder, .fini = close_folder);

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";

static qd_status run(const qd_tasks_request *request, qd_task_scores *out) {
  qd_comm *comm = open_team();
  qd_device device = open_device((place){"cpu", NULL, 1});
  qd_subject subject;
  MUST(qd_subject_open(&subject, demo, QD_COMPUTE_FP32, comm, &device));
  qd_status status = qd_tasks_run(&subject, request, 0, out);
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return status;
}

/* ---- against transformers (tests/golden/make_tasks.py) ------------------------------------------------------------------- */

static void expect_document(const qd_json *got, const qd_json *wanted, const char *task, size_t document) {
  static const char *const whole[] = {"greedy", "tokens", "gold", "right", NULL};
  const qd_json *values = qd_json_get(got, "loglikelihoods"), *others = qd_json_get(wanted, "loglikelihoods");
  cr_assert_eq(qd_json_length(values), qd_json_length(others), "%s, document %zu", task, document);
  for (size_t i = 0; i < qd_json_length(values); i++) {
    double value = qd_json_number(qd_json_at(values, i)), other = qd_json_number(qd_json_at(others, i));
    cr_expect(fabs(value - other) <= 1e-4, "%s, document %zu, choice %zu: %.8g, transformers %.8g", task, document, i, value,
              other);
  }
  for (const char *const *key = whole; *key != NULL; key++)
    cr_expect(qd_json_equal(qd_json_get(got, *key), qd_json_get(wanted, *key)), "%s, document %zu: %s", task, document, *key);
}

static void expect_lines(const char *path, const qd_json *documents, const char *task) {
  qd_text_file file;
  qd_jsonl lines;
  char what[QD_JSONL_WHAT_BYTES];
  MUST(qd_text_file_read(path, false, &file));
  MUST(qd_jsonl_open(file.text, file.n, path, &lines));
  cr_assert_eq(lines.n, qd_json_length(documents), "%s", task);
  for (size_t i = 0; i < lines.n; i++) {
    qd_json *line;
    MUST(qd_jsonl_parse(&lines, i, what, &line));
    expect_document(line, qd_json_at(documents, i), task, i + 1);
    qd_json_free(line);
  }
  qd_jsonl_close(&lines);
  qd_text_file_release(&file);
}

static double share_of(const qd_json *documents, const char *key) {
  double n = 0;
  for (size_t i = 0; i < qd_json_length(documents); i++) {
    bool yes;
    MUST(qd_json_take_bool(qd_json_at(documents, i), "golden", key, false, &yes));
    n += yes;
  }
  return n / (double)qd_json_length(documents);
}

/* "FILE+SHOTS" of its first lines. */
static const char *write_mmlu(const char *tasks_folder) {
  enum { MMLU_LINES = 1000 };
  static char item[3 * PATH_BYTES];
  char path[PATH_BYTES + 32], *text;
  size_t n, end = 0;
  snprintf(path, sizeof path, "%s/mmlu_test.jsonl", tasks_folder);
  MUST(qd_file_read(path, (size_t)1 << 28, &text, &n));
  for (int line = 0; line < MMLU_LINES; line++) end = (size_t)((char *)memchr(text + end, '\n', n - end) - text) + 1;
  snprintf(item, sizeof item, "%s+%s/mmlu_dev.jsonl", qd_temporary_write(&folder, "mmlu.jsonl", text, end), tasks_folder);
  qd_heap_free(text);
  return item;
}

static void expect_job(const qd_json *job, const char *tasks_folder) {
  char output[QD_TEMPORARY_PATH_BYTES];
  const char *task = qd_json_text(qd_json_get(job, "task"));
  const qd_json *documents = qd_json_get(job, "documents");
  qd_task_scores scores;
  snprintf(output, sizeof output, "%s", qd_temporary_path(&folder, "documents.jsonl"));
  qd_tasks_request request = {.tasks = strcmp(task, "mmlu") == 0 ? write_mmlu(tasks_folder) : task, .folder = tasks_folder,
                              .output = output,
                              .shots = qd_json_integer(qd_json_get(job, "num_fewshot")),
                              .limit = qd_json_integer(qd_json_get(job, "limit"))};
  MUST(run(&request, &scores));
  cr_assert_eq(scores.n, 1);
  cr_expect_eq(scores.at[0].acc.value, share_of(documents, "right"), "%s", task);
  if (scores.at[0].task->metric == QD_TASK_ACC_AND_NORM)
    cr_expect_eq(scores.at[0].acc_norm.value, share_of(documents, "right_norm"), "%s", task);
  cr_expect_eq(scores.at[0].n_groups, strcmp(task, "mmlu") == 0 ? 8 : 0);
  expect_lines(output, documents, task);
  qd_task_scores_release(&scores);
}

/* part of 2: the jobs that are even, or odd. */
static void expect_jobs(size_t part) {
  char tasks_folder[PATH_BYTES];
  qd_json *document;
  const char *data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with the tasks' files");
  snprintf(tasks_folder, sizeof tasks_folder, "%s/data/tasks", data);
  MUST(qd_json_read(QDIST_SOURCE_DIR "/tests/golden/tasks/qdist-tiny.json", (size_t)1 << 20, &document));
  const qd_json *jobs = qd_json_get(document, "jobs");
  cr_assert_geq(qd_json_length(jobs), 13);
  for (size_t i = part; i < qd_json_length(jobs); i += 2) expect_job(qd_json_at(jobs, i), tasks_folder);
  qd_json_free(document);
}

Test(tasks, are_those_of_transformers) { expect_jobs(0); }
Test(tasks, are_those_of_transformers_with_shots) { expect_jobs(1); }

/* ---- several tasks ------------------------------------------------------------------------------------------------------- */

static const char words[] = "{\"context\": \"The packages are\", \"continuation\": \"checked\"}\n";
static const char questions[] = "{\"query\": \"Question: q\\n\", \"choices\": [\"a file\", \"a b\"], \"gold\": 1}\n"
                                "{\"query\": \"Question: is it?\\n\", \"choices\": [\"yes\", \"no\"], \"gold\": 0}\n";

Test(tasks, together_are_as_each_alone) {
  char both[2 * QD_TEMPORARY_PATH_BYTES + 8], alone[2][QD_TEMPORARY_PATH_BYTES], output[QD_TEMPORARY_PATH_BYTES];
  qd_task_scores together, one;
  char *text;
  size_t n;
  snprintf(alone[0], sizeof alone[0], "%s", qd_temporary_write_text(&folder, "lambada.jsonl", words));
  snprintf(alone[1], sizeof alone[1], "%s", qd_temporary_write_text(&folder, "piqa.jsonl", questions));
  snprintf(both, sizeof both, "%s,%s", alone[0], alone[1]);
  snprintf(output, sizeof output, "%s", qd_temporary_path(&folder, "lines"));
  MUST(run(&(qd_tasks_request){.tasks = both, .shots = QD_USUAL_SHOTS, .output = output}, &together));
  cr_assert_eq(together.n, 2);
  cr_expect_eq(together.requests, 5);
  for (int i = 0; i < 2; i++) {
    MUST(run(&(qd_tasks_request){.tasks = alone[i], .shots = QD_USUAL_SHOTS}, &one));
    cr_expect_eq(one.at[0].acc.value, together.at[i].acc.value);
    cr_expect_eq(one.at[0].perplexity.value, together.at[i].perplexity.value);
    qd_task_scores_release(&one);
  }
  MUST(qd_file_read(output, 1 << 20, &text, &n));
  cr_expect_not_null(strstr(text, "\"task\": \"piqa\", \"document\": 2"), "%s", text);
  qd_heap_free(text);
  qd_task_scores_release(&together);
}

static void expect_refusal(qd_tasks_request request, qd_status status, const char *text) {
  qd_task_scores scores;
  cr_expect_eq(run(&request, &scores), status, "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), text), "%s", qd_error_text());
  cr_expect_eq(scores.n, 0);
}

Test(tasks, refuse_what_cannot_be_run) {
  const char *path = qd_temporary_write_text(&folder, "lambada.jsonl", words);
  expect_refusal((qd_tasks_request){.tasks = "piqa,,boolq", .folder = folder.path}, QD_ENOTFOUND, "piqa.jsonl");
  expect_refusal((qd_tasks_request){.tasks = "lambada,", .folder = folder.path}, QD_EINVAL, "a name is missing");
  expect_refusal((qd_tasks_request){.tasks = path, .output = qd_temporary_path(&folder, "none/lines")}, QD_EIO, "none");
}
