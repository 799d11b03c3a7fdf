#include "storage/config_file.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"

enum { FILE_LIMIT = 1 << 20, MOST_ITEMS = 4096 };

typedef struct reader {
  yaml_parser_t parser;
  yaml_event_t event;
  const char *path;
  qd_config_file *out;
} reader;

static size_t line_of(const reader *r) { return r->event.start_mark.line + 1; }

static qd_status next(reader *r) {
  yaml_event_delete(&r->event);
  if (yaml_parser_parse(&r->parser, &r->event)) return QD_OK;
  QD_FAIL(QD_EBADINPUT, "%s, line %zu: %s", r->path, r->parser.problem_mark.line + 1,
          r->parser.problem ? r->parser.problem : "no YAML");
}

static bool is_null(const yaml_event_t *event) {
  const char *text = (const char *)event->data.scalar.value;
  bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  return plain && (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static qd_status text_of(const reader *r, char **out) {
  QD_CHECK(strlen((const char *)r->event.data.scalar.value) == r->event.data.scalar.length, QD_EBADINPUT,
           "%s, line %zu: a NUL in a text", r->path, line_of(r));
  return qd_heap_text((const char *)r->event.data.scalar.value, r->event.data.scalar.length, out);
}

/* One value of `key`; the event is its scalar. */
static qd_status add_item(reader *r, const char *key) {
  QD_CHECK(r->event.type == YAML_SCALAR_EVENT, QD_EBADINPUT, "%s, line %zu: \"%s\" takes a value or a list of values", r->path,
           line_of(r), key);
  QD_CHECK(r->out->n < MOST_ITEMS, QD_EBADINPUT, "%s, line %zu: more than %d values are there", r->path, line_of(r),
           MOST_ITEMS);
  QD_TRY(qd_heap_grow(&r->out->item, &r->out->capacity, r->out->n + 1, sizeof *r->out->item));
  qd_config_item *item = &r->out->item[r->out->n++];
  *item = (qd_config_item){.line = line_of(r)};
  QD_TRY(qd_heap_text(key, strlen(key), &item->key));
  return is_null(&r->event) ? QD_OK : text_of(r, &item->value);
}

static qd_status read_value(reader *r, const char *key) {
  QD_TRY(next(r));
  if (r->event.type != YAML_SEQUENCE_START_EVENT) return add_item(r, key);
  for (;;) {
    QD_TRY(next(r));
    if (r->event.type == YAML_SEQUENCE_END_EVENT) return QD_OK;
    QD_TRY(add_item(r, key));
  }
}

static qd_status read_member(reader *r, size_t first, bool *more) {
  char *key;
  QD_TRY(next(r));
  *more = r->event.type != YAML_MAPPING_END_EVENT;
  if (!*more) return QD_OK;
  QD_CHECK(r->event.type == YAML_SCALAR_EVENT, QD_EBADINPUT, "%s, line %zu: the name of an option is expected", r->path,
           line_of(r));
  QD_TRY(text_of(r, &key));
  for (char *c = key; *c != '\0'; c++)
    if (*c == '_') *c = '-';
  qd_status status = QD_OK;
  for (size_t i = first; i < r->out->n && status == QD_OK; i++)
    if (strcmp(r->out->item[i].key, key) == 0)
      status = qd_fail(QD_EBADINPUT, __FILE__, __LINE__, "%s, line %zu: \"%.80s\" is there twice", r->path, line_of(r), key);
  if (status == QD_OK) status = read_value(r, key);
  qd_heap_free(key);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_mapping(reader *r) {
  QD_CHECK(r->event.type == YAML_MAPPING_START_EVENT, QD_EBADINPUT,
           "%s, line %zu: a mapping of options to values is expected (bits: 4)", r->path, line_of(r));
  size_t first = r->out->n;
  for (bool more = true; more;) QD_TRY(read_member(r, first, &more));
  return QD_OK;
}

static qd_status read_document(reader *r) {
  do QD_TRY(next(r));
  while (r->event.type == YAML_STREAM_START_EVENT || r->event.type == YAML_DOCUMENT_START_EVENT);
  if (r->event.type == YAML_STREAM_END_EVENT) return QD_OK; /* an empty file sets nothing */
  if (r->event.type == YAML_SEQUENCE_START_EVENT) {
    QD_TRY(next(r));
    for (; r->event.type != YAML_SEQUENCE_END_EVENT;) {
      QD_TRY(read_mapping(r));
      QD_TRY(next(r));
    }
  } else {
    QD_TRY(read_mapping(r));
  }
  do QD_TRY(next(r));
  while (r->event.type == YAML_DOCUMENT_END_EVENT);
  QD_CHECK(r->event.type == YAML_STREAM_END_EVENT, QD_EBADINPUT, "%s, line %zu: a second document", r->path, line_of(r));
  return QD_OK;
}

qd_status qd_config_file_read(const char *path, qd_config_file *out) {
  char *text;
  size_t n;
  reader r = {.path = path, .out = out};
  *out = (qd_config_file){0};
  QD_TRY(qd_file_read(path, FILE_LIMIT, &text, &n));
  qd_status status = QD_OK;
  if (!yaml_parser_initialize(&r.parser))
    status = qd_fail(QD_ENOMEM, __FILE__, __LINE__, "no memory left to read %s", path);
  else {
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    status = read_document(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
  }
  qd_heap_free(text);
  if (status == QD_OK) return QD_OK;
  qd_config_file_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_config_file_release(qd_config_file *file) {
  for (size_t i = 0; i < file->n; i++) {
    qd_heap_free(file->item[i].key);
    qd_heap_free(file->item[i].value);
  }
  qd_heap_free(file->item);
  *file = (qd_config_file){0};
}

qd_status qd_config_quote(const char *text, char **out) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  size_t n = strlen(text);
  bool is_plain = n > 0 && strspn(text, plain) == n && text[0] != '.' &&
                  (text[0] != '-' || (n > 1 && strspn(text + 1, "0123456789") > 0)) && strcmp(text, "null") != 0;
  if (is_plain) return qd_heap_text(text, n, out);
  QD_TRY(qd_heap_new(4 * n + 3, 1, out));
  char *to = *out;
  *to++ = '"';
  for (; *text != '\0'; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\')
      *to++ = '\\', *to++ = *text;
    else if (c < 0x20 || c == 0x7F)
      to += sprintf(to, "\\x%02x", c);
    else
      *to++ = *text;
  }
  *to = '"';
  return QD_OK;
}
