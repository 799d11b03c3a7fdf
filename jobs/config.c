#define _GNU_SOURCE
#include "jobs/config.h"

#include "jobs/options.h"
#include "kernels/base/heap.h"
#include "storage/config_file.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 256 };

/* ---- the options there are ----------------------------------------------------------------------------------------------- */

typedef struct known {
  const char *name, *first; /* first: the name that it is an alias of, or its own */
  const char *spelled;      /* of a first name: how the file names it, once it does */
  int key;
  bool takes_value, may_lack_it;
} known;

typedef struct catalogue {
  known option[MOST];
  size_t n;
} catalogue;

static void collect(const struct argp *argp, catalogue *out) {
  const struct argp_option *first = NULL;
  for (const struct argp_option *o = argp->options; o != NULL && (o->name || o->key || o->doc); o++) {
    if (o->name == NULL || out->n == MOST) continue;
    if (!(o->flags & OPTION_ALIAS)) first = o;
    QD_ASSERT(first != NULL);
    out->option[out->n++] = (known){.name = o->name,
                                    .first = first->name,
                                    .key = o->key,
                                    .takes_value = first->arg != NULL,
                                    .may_lack_it = (first->flags & OPTION_ARG_OPTIONAL) != 0};
  }
  for (const struct argp_child *c = argp->children; c != NULL && c->argp != NULL; c++) collect(c->argp, out);
}

static known *find(catalogue *all, const char *name) {
  for (size_t i = 0; i < all->n; i++)
    if (strcmp(all->option[i].name, name) == 0) return &all->option[i];
  return NULL;
}

bool qd_config_same_setting(const char *a, const char *b) {
  static const char *const groups[][4] = {
      {"sym", "asym"}, {"act-order", "permutation-order", "desc-act", "static-groups"}, {"arithmetic", "compute-dtype"},
      {"avg-bits", "outlier-threshold"}};
  if (strcmp(a, b) == 0) return true;
  const char *bare_a = strncmp(a, "no-", 3) == 0 ? a + 3 : a, *bare_b = strncmp(b, "no-", 3) == 0 ? b + 3 : b;
  if (strcmp(bare_a, bare_b) == 0) return true;
  for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
    int found = 0;
    for (int i = 0; i < 4 && groups[g][i] != NULL; i++)
      found += (strcmp(groups[g][i], a) == 0) + (strcmp(groups[g][i], b) == 0);
    if (found == 2) return true;
  }
  return false;
}

/* ---- what is given ------------------------------------------------------------------------------------------------------- */

typedef struct list {
  qd_given *at;
  size_t n, capacity;
} list;

static list given; /* of this process: argp works on the one command line that there is, too */

size_t qd_config_given(const qd_given **out) {
  *out = given.at;
  return given.n;
}

/* Copies: who parses a value may cut it in pieces. */
static qd_status add(list *to, const char *name, const char *value) {
  char *copy = NULL;
  QD_TRY(qd_heap_grow(&to->at, &to->capacity, to->n + 1, sizeof *to->at));
  if (value != NULL) QD_TRY(qd_heap_text(value, strlen(value), &copy));
  to->at[to->n++] = (qd_given){name, copy};
  return QD_OK;
}

static int argument_of(const known *o) {
  return !o->takes_value ? no_argument : o->may_lack_it ? optional_argument : required_argument;
}

/* The command line as getopt sees it, which is how argp does: names cut short, clusters of letters, values apart.  What is
 * wrong in it is argp's to say. */
static qd_status scan(const catalogue *all, int argc, char **argv, list *out, const char **config) {
  struct option longs[MOST + 1] = {{0}};
  char shorts[2 * MOST + 2] = "", *to = shorts, *copy[MOST * 4];
  enum { FIRST = 0x10000 };
  int code;
  if (argc >= MOST * 4) return QD_OK;
  memcpy(copy, argv, (size_t)(argc + 1) * sizeof *argv); /* it changes the order */
  for (size_t i = 0; i < all->n; i++) {
    const known *o = &all->option[i];
    longs[i] = (struct option){o->name, argument_of(o), NULL, FIRST + (int)i};
    if (o->key > ' ' && o->key < 0x7F && strchr(shorts, o->key) == NULL)
      *to++ = (char)o->key, *to++ = o->takes_value ? ':' : ' ', to -= !o->takes_value, *to = '\0';
  }
  for (optind = 0, opterr = 0; (code = getopt_long(argc, copy, shorts, longs, NULL)) != -1;) {
    const known *o = NULL;
    if (code >= FIRST) o = &all->option[code - FIRST];
    for (size_t i = 0; o == NULL && code != '?' && i < all->n; i++)
      if (all->option[i].key == code) o = &all->option[i];
    if (o == NULL) continue;
    const char *value = o->takes_value ? optarg : NULL;
    if (o->may_lack_it && value == NULL && optind < argc && isdigit((unsigned char)*copy[optind])) value = copy[optind++];
    if (strcmp(o->first, "config") != 0)
      QD_TRY(add(out, o->first, value));
    else {
      QD_CHECK(*config == NULL, QD_EUSAGE, "--config is given twice");
      *config = optarg;
    }
  }
  optind = 0;
  return QD_OK;
}

/* ---- the file ------------------------------------------------------------------------------------------------------------ */

static qd_status unknown(const catalogue *all, const char *path, const qd_config_item *item) {
  const char *names[MOST + 1];
  for (size_t i = 0; i < all->n; i++) names[i] = all->option[i].name;
  names[all->n] = NULL;
  const char *nearest = qd_nearest(item->key, names);
  if (nearest == NULL) QD_FAIL(QD_EUSAGE, "%s, line %zu: there is no option \"%.80s\"", path, item->line, item->key);
  QD_FAIL(QD_EUSAGE, "%s, line %zu: there is no option \"%.80s\"; did you mean %s?", path, item->line, item->key, nearest);
}

/* Two names of one option would let the second decide, unseen. */
static qd_status check_spelling(catalogue *all, const char *path, const qd_config_item *item, const known *o) {
  known *first = find(all, o->first);
  if (first->spelled == NULL) first->spelled = item->key;
  QD_CHECK(strcmp(first->spelled, item->key) == 0, QD_EBADINPUT,
           "%s, line %zu: \"%s\" is the option \"%s\", which is there before", path, item->line, item->key, first->spelled);
  return QD_OK;
}

/* One item of the file, unless the command line sets the same. */
static qd_status take_item(catalogue *all, const char *path, const qd_config_item *item, size_t n_typed) {
  const known *o = find(all, item->key);
  if (o == NULL) return unknown(all, path, item);
  QD_CHECK(strcmp(o->first, "config") != 0, QD_EUSAGE, "%s, line %zu: a configuration cannot name another one", path,
           item->line);
  QD_TRY(check_spelling(all, path, item, o));
  bool yes = item->value != NULL && strcmp(item->value, "true") == 0,
       no = item->value != NULL && strcmp(item->value, "false") == 0;
  bool is_flag = !o->takes_value || (o->may_lack_it && (yes || no));
  QD_CHECK(o->takes_value || yes || no, QD_EUSAGE, "%s, line %zu: %s takes true or false, got \"%.80s\"", path, item->line,
           o->name, item->value ? item->value : "");
  QD_CHECK(item->value != NULL, QD_EUSAGE, "%s, line %zu: %s has no value", path, item->line, o->name);
  for (size_t i = 0; i < n_typed; i++)
    if (qd_config_same_setting(given.at[i].name, o->first)) return QD_OK;
  if (is_flag && no) return QD_OK;
  return add(&given, o->first, is_flag ? NULL : item->value);
}

/* "--name=value", for argp. */
static qd_status spell(const qd_given *item, char **out) {
  size_t n = strlen(item->name) + (item->value ? strlen(item->value) : 0) + 4;
  QD_TRY(qd_heap_new(n, 1, out));
  snprintf(*out, n, "--%s%s%s", item->name, item->value ? "=" : "", item->value ? item->value : "");
  return QD_OK;
}

/* The file's options stand before the command line's in `given` as well: n_typed of them are behind the others. */
static void turn(size_t n_typed, size_t n_file) {
  for (size_t i = 0; i < n_typed; i++) {
    qd_given first = given.at[0];
    memmove(given.at, given.at + 1, (n_typed + n_file - 1) * sizeof first);
    given.at[n_typed + n_file - 1] = first;
  }
}

static qd_status prepend(int *argc, char ***argv, size_t n) {
  char **longer;
  QD_TRY(qd_heap_new((size_t)*argc + n + 1, sizeof *longer, &longer));
  longer[0] = (*argv)[0];
  for (size_t i = 0; i < n; i++) QD_TRY(spell(&given.at[i], &longer[1 + i]));
  for (int i = 1; i < *argc; i++) longer[(size_t)i + n] = (*argv)[i];
  *argc += (int)n, *argv = longer;
  return QD_OK;
}

static qd_status apply_file(catalogue *all, const char *path, int *argc, char ***argv) {
  qd_config_file file;
  size_t n_typed = given.n;
  QD_TRY(qd_config_file_read(path, &file));
  qd_status status = QD_OK;
  for (size_t i = 0; i < file.n && status == QD_OK; i++) status = take_item(all, path, &file.item[i], n_typed);
  qd_config_file_release(&file);
  QD_TRY(status);
  size_t n_file = given.n - n_typed;
  if (n_file > 0) turn(n_typed, n_file);
  return prepend(argc, argv, n_file);
}

qd_status qd_config_apply(const struct argp *argp, int *argc, char ***argv) {
  const char *path = NULL;
  catalogue all = {.n = 0};
  collect(argp, &all);
  given.n = 0;
  if (find(&all, "config") == NULL) return QD_OK;
  QD_TRY(scan(&all, *argc, *argv, &given, &path));
  return path != NULL ? apply_file(&all, path, argc, argv) : QD_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

/* Names that come several times keep their order among each other only in a list of mappings. */
static bool needs_list(const qd_given *all, size_t n) {
  static const char *const ordered[] = {"ignore", "override"};
  int runs = 0;
  const char *last = NULL;
  for (size_t i = 0; i < n; i++)
    for (int k = 0; k < 2; k++)
      if (strcmp(all[i].name, ordered[k]) == 0 && (last == NULL || strcmp(last, ordered[k]) != 0)) last = ordered[k], runs++;
  return runs > 2;
}

typedef struct writer {
  char *text;
  size_t n, capacity;
} writer;

static qd_status put(writer *w, const char *text) {
  size_t n = strlen(text);
  QD_TRY(qd_heap_grow(&w->text, &w->capacity, w->n + n + 1, 1));
  memcpy(w->text + w->n, text, n + 1);
  w->n += n;
  return QD_OK;
}

static qd_status put_value(writer *w, const qd_given *item, const char *before) {
  char *quoted;
  QD_TRY(put(w, before));
  if (item->value == NULL) return put(w, "true\n");
  QD_TRY(qd_config_quote(item->value, &quoted));
  qd_status status = put(w, quoted);
  qd_heap_free(quoted);
  return status == QD_OK ? put(w, "\n") : status;
}

static qd_status put_item(writer *w, const qd_given *all, size_t n, size_t i, bool as_list) {
  size_t more = 0;
  for (size_t k = 0; !as_list && k < i; k++)
    if (strcmp(all[k].name, all[i].name) == 0) return QD_OK; /* it stands with the first of its name */
  for (size_t k = i + 1; !as_list && k < n; k++) more += strcmp(all[k].name, all[i].name) == 0;
  QD_TRY(put(w, as_list ? "- " : ""));
  QD_TRY(put(w, all[i].name));
  if (more == 0) return put_value(w, &all[i], ": ");
  QD_TRY(put(w, ":\n"));
  for (size_t k = i; k < n; k++)
    if (strcmp(all[k].name, all[i].name) == 0) QD_TRY(put_value(w, &all[k], "  - "));
  return QD_OK;
}

qd_status qd_config_print(const qd_given *all, size_t n, char **text) {
  writer w = {0};
  bool as_list = needs_list(all, n);
  qd_status status =
      put(&w, "# qdist quantize --config THIS does this job again; what the command line gives goes before it\n");
  for (size_t i = 0; i < n && status == QD_OK; i++) status = put_item(&w, all, n, i, as_list);
  *text = w.text;
  if (status == QD_OK) return QD_OK;
  qd_heap_free(w.text);
  *text = NULL;
  return status;
}
