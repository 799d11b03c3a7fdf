#include "pipeline/evaluate/task_document.h"

#include "kernels/base/heap.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static qd_status read_text(const char *task, const char *text, qd_task_document *out) {
  qd_json *line;
  const qd_task *found = qd_task_find(task, strlen(task));
  cr_assert_not_null(found);
  MUST(qd_json_parse(text, strlen(text), "line 1", &line));
  qd_status status = qd_task_read(found, line, "line 1", out);
  qd_json_free(line);
  return status;
}

/* Context, then continuation of each choice, in one text. */
static void expect_texts(const char *task, const char *line, const char *wanted, size_t gold) {
  qd_task_document d;
  char got[1024] = "";
  MUST(read_text(task, line, &d));
  for (size_t i = 0; i < d.n_choices; i++) {
    size_t n = strlen(got);
    snprintf(got + n, sizeof got - n, "%s|%s|%d;", qd_task_context(&d, i), d.choice[i].continuation,
             (int)d.choice[i].characters);
  }
  cr_expect_str_eq(got, wanted, "%s: %s", task, got);
  cr_expect_eq(d.gold, gold);
  qd_task_document_release(&d);
}

Test(task_document, makes_the_texts_of_each_task) {
  expect_texts("piqa", "{\"query\": \"Question: q\\n\", \"choices\": [\"a\", \"\\u00e9\\u00e9\"], \"gold\": 1}",
               "Question: q\nAnswer:| a|1;Question: q\nAnswer:| \xC3\xA9\xC3\xA9|2;", 1);
  expect_texts("arc_easy", "{\"query\": \"Question: q\", \"choices\": [\"a\", \"b c\", \"d\"], \"gold\": 2}",
               "Question: q\nAnswer:| a|1;Question: q\nAnswer:| b c|3;Question: q\nAnswer:| d|1;", 2);
  expect_texts("boolq", "{\"query\": \"Passage: p\\nQuestion: q?\", \"choices\": [\"no\", \"yes\"], \"gold\": 0}",
               "p\nQuestion: q?\nAnswer:| no|2;p\nQuestion: q?\nAnswer:| yes|3;", 0);
  expect_texts("winogrande", "{\"context_options\": [\"so A\", \"so B\"], \"continuation\": \"won .\", \"gold\": 1}",
               "so A| won .|5;so B| won .|5;", 1);
  expect_texts("lambada", "{\"context\": \"a b\", \"continuation\": \"c\"}", "a b| c|1;", 0);
  expect_texts("mmlu",
               "{\"subject\": \"s_t\", \"question\": \" q \\n\", \"choices\": [\" 0\", \"1\", \"2\", \"3\"], \"answer\": 3}",
               "q\nA.  0\nB. 1\nC. 2\nD. 3\nAnswer:| A|1;q\nA.  0\nB. 1\nC. 2\nD. 3\nAnswer:| B|1;"
               "q\nA.  0\nB. 1\nC. 2\nD. 3\nAnswer:| C|1;q\nA.  0\nB. 1\nC. 2\nD. 3\nAnswer:| D|1;", 3);
  expect_texts("hellaswag",
               "{\"ctx\": \"Roof [title] a: A man is. \\\"x\\\"  he [step] runs\", "
               "\"endings\": [\"e  f \", \"[g] h\"], \"label\": 0}",
               "Roof. a: A man is. \"x\" he runs| e f|3;Roof. a: A man is. \"x\" he runs|  h|2;", 0);
}

static void expect_clean(const char *text, const char *wanted) {
  char *got;
  MUST(qd_hellaswag_clean(text, &got));
  cr_expect_str_eq(got, wanted, "\"%s\"", got);
  qd_heap_free(got);
}

/* strip, replace(" [title]", ". "), re.sub("\[.*?\]", ""), replace("  ", " "), as Python gives them. */
Test(task_document, cleans_hellaswag_as_the_harness_does) {
  expect_clean("  a b \n", "a b");
  expect_clean("a [title] b", "a. b");
  expect_clean("[header] How to [substeps] go", " How to go");
  expect_clean("a [b\nc] d", "a [b\nc] d");
  expect_clean("a    b", "a  b");
  expect_clean("a   b", "a  b");
  expect_clean("a [ b", "a [ b");
  expect_clean("[[a]]", "]");
  expect_clean("", "");
}

static void expect_capital(const char *context, const char *wanted) {
  qd_task_document d;
  char line[256];
  snprintf(line, sizeof line, "{\"ctx\": \"%s\", \"endings\": [\"a\", \"b\"], \"label\": 0}", context);
  MUST(read_text("hellaswag", line, &d));
  cr_expect_str_eq(d.context, wanted, "%s", d.context);
  qd_task_document_release(&d);
}

Test(task_document, begins_the_second_part_with_a_capital) {
  expect_capital("A man. he", "A man. He");
  expect_capital("A! man?') he", "A! man?') He");
  expect_capital("A man.he", "A man.he");
  expect_capital("A man. He", "A man. He");
  expect_capital("A man. he. ", "A man. he.");
  expect_capital("a man", "a man");
}

static void expect_refusal(const char *task, const char *line, const char *words) {
  qd_task_document d;
  cr_assert_eq(read_text(task, line, &d), QD_EBADINPUT, "%s", line);
  cr_expect_not_null(strstr(qd_error_text(), words), "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), "line 1"), "%s", qd_error_text());
}

Test(task_document, refuses_lines_that_are_none) {
  expect_refusal("piqa", "[]", "not an object");
  expect_refusal("piqa", "{\"choices\": [\"a\", \"b\"], \"gold\": 0}", "\"query\"");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": \"a\", \"gold\": 0}", "a list is expected");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 0}", "has 1 choices");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": [\"a\", 3], \"gold\": 0}", "a text is expected");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": [\"a\", \"\"], \"gold\": 0}", "choice 1 is empty");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 2}", "gold");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": -1}", "gold");
  expect_refusal("piqa", "{\"query\": \"q\", \"choices\": [\"a\", \"b\"]}", "gold");
  expect_refusal("piqa", "{\"query\": \"q\\u0000r\", \"choices\": [\"a\", \"b\"], \"gold\": 0}", "NUL");
  expect_refusal("mmlu", "{\"subject\": \"s\", \"question\": \"q\", \"choices\": [\"0\", \"1\", \"2\"], \"answer\": 0}",
                 "MMLU has 4");
  expect_refusal("lambada", "{\"context\": \"a\", \"continuation\": \"\"}", "empty");
  expect_refusal("winogrande", "{\"context_options\": [\"a\", 1], \"continuation\": \"c\", \"gold\": 0}", "a text is expected");
}

Test(task_document, is_known_by_its_name_and_its_file) {
  cr_expect_str_eq(qd_task_find("arc_easy:x", 8)->name, "arc_easy");
  cr_expect_null(qd_task_find("arc", 3));
  cr_expect_null(qd_task_find("piqas", 5));
  cr_expect_str_eq(qd_task_of_file("/a/piqa/mmlu_test.jsonl")->name, "mmlu");
  cr_expect_str_eq(qd_task_of_file("hellaswag_val.jsonl")->name, "hellaswag");
  cr_expect_null(qd_task_of_file("/piqa/x.jsonl"));
}
