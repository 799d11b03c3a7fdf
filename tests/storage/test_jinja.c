#include "storage/jinja.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#define GOLDEN QDIST_SOURCE_DIR "/tests/golden/chat_templates"

static qd_status render(const char *text, const qd_json *variables, char **out, size_t *n) {
  qd_jinja *jinja;
  *out = NULL;
  qd_status status = qd_jinja_open(text, strlen(text), "the template", &jinja);
  if (status == QD_OK) status = qd_jinja_render(jinja, variables, out, n);
  qd_jinja_close(jinja);
  return status;
}

/* ---- as transformers renders --------------------------------------------------------------------------------------------- */

static void expect_case(const qd_json *item) {
  const char *name = qd_json_text(qd_json_get(item, "template"));
  const qd_json *expected = qd_json_get(item, "text");
  char path[600], *template, *got;
  size_t n;
  snprintf(path, sizeof path, GOLDEN "/%s", name);
  cr_assert_eq(qd_file_read(path, 1 << 20, &template, &n), QD_OK);
  qd_status status = render(template, qd_json_get(item, "variables"), &got, &n);
  if (expected == NULL)
    cr_expect_neq(status, QD_OK, "%s: %s", name, qd_json_text(qd_json_get(item, "error")));
  else if (status != QD_OK)
    cr_expect_fail("%s: %s", name, qd_error_text());
  else
    cr_expect(n == qd_json_text_bytes(expected) && memcmp(got, qd_json_text(expected), n) == 0, "%s:\n%s\n---- expected\n%s",
              name, got, qd_json_text(expected));
  qd_heap_free(got);
  qd_heap_free(template);
}

Test(jinja, renders_as_transformers_does) {
  qd_json *cases;
  cr_assert_eq(qd_json_read(GOLDEN "/cases.json", 1 << 24, &cases), QD_OK, "%s", qd_error_text());
  cr_assert_geq(qd_json_length(cases), 90);
  for (size_t i = 0; i < qd_json_length(cases); i++) expect_case(qd_json_at(cases, i));
  qd_json_free(cases);
}

/* ---- single constructs --------------------------------------------------------------------------------------------------- */

static void expect_text(const char *template, const char *expected) {
  char *got;
  size_t n;
  qd_json *variables = qd_json_object();
  qd_json_set_text(variables, "name", "value");
  cr_expect_eq(render(template, variables, &got, &n), QD_OK, "%s: %s", template, qd_error_text());
  if (got != NULL) cr_expect_str_eq(got, expected, "%s: \"%s\", expected \"%s\"", template, got, expected);
  qd_heap_free(got);
  qd_json_free(variables);
}

Test(jinja, empty_and_plain) {
  expect_text("", "");
  expect_text("plain { text } %} }}", "plain { text } %} }}");
  expect_text("one\n", "one");
  expect_text("one\n\n", "one\n");
  expect_text("a\r\nb\rc", "a\nb\nc");
  expect_text("{{ name }}{{ 'it''s' }}", "valueits");
}

Test(jinja, else_with_several_statements_and_siblings) {
  expect_text("{% if 0 %}a{% elif 0 %}b{% else %}{% if 1 %}c{% endif %}d{% endif %}e", "cde");
  expect_text("{% if 1 %}a{% endif %}{% if 1 %}b{% endif %}", "ab");
  expect_text("{% if 0 %}a{% else %}{% if 0 %}b{% endif %}{% endif %}z", "z");
}

Test(jinja, scopes) {
  expect_text("{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}", "12121");
  expect_text("{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "2");
  expect_text("{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210");
}

static void expect_refusal(const char *template, qd_status status, const char *says) {
  char *got;
  size_t n;
  qd_json *variables = qd_json_object();
  cr_expect_eq(render(template, variables, &got, &n), status, "%s: %s", template, qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), says), "%s: \"%s\" is not in: %s", template, says, qd_error_text());
  qd_heap_free(got);
  qd_json_free(variables);
}

Test(jinja, what_is_not_known_is_refused_by_name) {
  expect_refusal("{{ 1|frobnicate }}", QD_EUNSUPPORTED, "line 1: the filter \"frobnicate\"");
  expect_refusal("\n{{ 1 is frob }}", QD_EUNSUPPORTED, "line 2: the test \"frob\"");
  expect_refusal("{{ 'a'.frob() }}", QD_EUNSUPPORTED, "the method \"frob\" of a str");
  expect_refusal("{{ frob() }}", QD_EUNSUPPORTED, "the function \"frob\"");
  expect_refusal("{{ strftime_now('%Y') }}", QD_EUNSUPPORTED, "strftime_now");
  expect_refusal("{% include 'x' %}", QD_EUNSUPPORTED, "the tag \"include\"");
  expect_refusal("{{ 2 ** 3 }}", QD_EUNSUPPORTED, "**");
  expect_refusal("{{ 1 < 2 < 3 }}", QD_EUNSUPPORTED, "in a chain");
  expect_refusal("{{ [1] }}", QD_EUNSUPPORTED, "a list as text");
  expect_refusal("{{ '\xc3\xa9'|upper }}", QD_EUNSUPPORTED, "beyond ASCII");
  expect_refusal("{% for x in [] recursive %}{% endfor %}", QD_EUNSUPPORTED, "recursive");
}

Test(jinja, what_is_wrong_is_told_with_its_line) {
  static const char *const wrong[] = {
      "{{",         "{{ 1",        "{% if 1 %}",      "{% endif %}",     "{# x",
      "{{ 'x }}",   "{{ 1 + }}",   "{{ a b }}",       "{% for x %}",     "{{ (1 }}",
      "{{ [1 }}",   "{{ {1} }}",   "{% set x = %}",   "{{ a.1 }}",       "{% break %}",
      "{{ if }}",   "{% %}",       "{{ f(a=1, 2) }}", "{{ '\\ud800' }}", "{% if 1 %}{% endfor %}",
      "{{ \x01 }}", "{{ x[1:2 }}", "{% macro %}",     "{{ 1|  }}",       "{% else %}"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) expect_refusal(wrong[i], QD_EBADINPUT, "the template, line 1: ");
  expect_refusal("\n\n{{ raise_exception('no ' ~ 'way') }}", QD_EBADINPUT, "line 3: the template refuses the messages: no way");
  expect_refusal("{{ a.b }}", QD_EBADINPUT, "\"b\" is asked of \"a\", which is undefined");
  expect_refusal("{{ 1 // 0 }}", QD_EBADINPUT, "division by zero");
  expect_refusal("{{ 'a' + 1 }}", QD_EBADINPUT, "+ of str and int");
  expect_refusal("{{ none + 1 }}", QD_EBADINPUT, "+ of None and int");
  expect_refusal("{% for x in 3 %}{% endfor %}", QD_EBADINPUT, "got int");
}

/* ---- hostile templates --------------------------------------------------------------------------------------------------- */

static void expect_deep(const char *open, const char *middle, const char *close, const char *says) {
  enum { TIMES = 5000 };
  char *text, *to;
  cr_assert_eq(qd_heap_new(TIMES * (strlen(open) + strlen(close)) + strlen(middle) + 20, 1, &text), QD_OK);
  to = text + sprintf(text, "{{ ");
  for (int i = 0; i < TIMES; i++) to += sprintf(to, "%s", open);
  to += sprintf(to, "%s", middle);
  for (int i = 0; i < TIMES; i++) to += sprintf(to, "%s", close);
  sprintf(to, " }}");
  expect_refusal(text, QD_EBADINPUT, says);
  qd_heap_free(text);
}

Test(jinja, bounds, .timeout = 60) {
  expect_deep("(", "1", ")", "nested deeper than 100");
  expect_deep("[", "1", "]", "nested deeper than 100");
  expect_deep("-", "1", "", "nested deeper than 100");
  expect_deep("not ", "1", "", "nested deeper than 100");
  expect_deep("1 + ", "1", "", "nested deeper than 400");
  expect_deep("", "x", "[0]", "nested deeper than 400");
  expect_deep("1 if 0 else ", "1", "", "nested deeper than 100");
  expect_refusal(
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(20) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
      "{% for i in range(99) %}{{ 'y' in ns.s }}{% endfor %}",
      QD_EBADINPUT, "works too long");
  expect_refusal("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", QD_EBADINPUT,
                 "bytes of values");
  expect_refusal("{{ range(10000000)|length }}", QD_EBADINPUT, "range gives more than");
  expect_refusal("{{ range(9007199254740991, -9007199254740991, -1) }}", QD_EBADINPUT, "range gives more than");
  expect_refusal(
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      QD_EBADINPUT, "bytes of values");
  expect_refusal(
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(20) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
      "{% for i in range(9) %}{{ ns.s }}{% endfor %}",
      QD_EBADINPUT, "longer than");
  expect_refusal("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", QD_EBADINPUT, "eep");
  expect_refusal("{{ 9007199254740991 * 9007199254740991 }}", QD_EUNSUPPORTED, "2^53");
}

/* What takes long on long texts uses up the work that a document may cost, whatever it is: each of these would take minutes to
 * days. */
Test(jinja, work_on_long_texts_is_bounded, .timeout = 60) {
  static const char *const slow[] = {"{{ t.find(t[:8000000] ~ 'b') }}", "{{ (t[:8000000] ~ 'b') in t }}",
                                     "{{ t.split(t[:8000000] ~ 'b')|length }}", "{{ t.replace(t[:8000000] ~ 'b', '')|length }}",
                                     "{{ t.strip(t[:8000000].replace('a', 'b') ~ 'a')|length }}"},
             *const often[] = {"t[16777215]", "t[:5]", "u.startswith(t)", "u.endswith(t)", "u.removeprefix(t)", "u < t",
                               "{t: 1}[t]", "m[u]", "m.get(u)", "u in m", "[m]|map(attribute=u)|list"};
  static const char text[] = "{% set ns = namespace(t='a') %}{% for i in range(24) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"
                             "{% set t = ns.t %}";
  char template[600];
  for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
    snprintf(template, sizeof template, "%s%s", text, slow[i]);
    expect_refusal(template, QD_EBADINPUT, "works too long");
  }
  for (size_t i = 0; i < sizeof often / sizeof *often; i++) {
    snprintf(template, sizeof template,
             "%s{%% set u = t ~ '' %%}{%% set m = {t: 1} %%}{%% for i in range(60000) %%}{%% set x = %s %%}{%% endfor %%}",
             text, often[i]);
    expect_refusal(template, QD_EBADINPUT, "works too long");
  }
}

/* Every beginning of every template, and every one with a byte changed: refused or rendered, never worse. */
Test(jinja, damaged_templates, .timeout = 300) {
  static const char *const names[] = {"constructs.jinja", "llama2.jinja", "qwen3.jinja"};
  qd_json *cases, *variables = NULL;
  cr_assert_eq(qd_json_read(GOLDEN "/cases.json", 1 << 24, &cases), QD_OK);
  variables = qd_json_copy(qd_json_get(qd_json_at(cases, 3), "variables"));
  for (size_t k = 0; k < 3; k++) {
    char path[600], *text, *got;
    size_t n, made;
    snprintf(path, sizeof path, GOLDEN "/%s", names[k]);
    cr_assert_eq(qd_file_read(path, 1 << 20, &text, &n), QD_OK);
    for (size_t i = 0; i < n; i += 3) {
      char kept = text[i];
      text[i] = "{}%'\"(|.-\n"[i % 10];
      if (render(text, variables, &got, &made) == QD_OK) qd_heap_free(got);
      text[i] = '\0';
      if (render(text, variables, &got, &made) == QD_OK) qd_heap_free(got);
      text[i] = kept;
    }
    qd_heap_free(text);
  }
  qd_json_free(variables);
  qd_json_free(cases);
}
