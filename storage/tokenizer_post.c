#include <string.h>

#include "storage/tokenizer_parts.h"

typedef struct template_reader {
  const qd_json *tokens; /* "special_tokens": name -> ids */
  const char    *what;
  int64_t        vocabulary_size;
} template_reader;

/* The ids of a named special token. */
static qd_status add_special(const template_reader *reader, const qd_json *piece, qd_ids *out) {
  const char *name;
  QD_TRY(qd_json_need_text(piece, reader->what, "id", &name));
  const qd_json *list = qd_json_get(qd_json_get(reader->tokens, name), "ids");
  QD_CHECK(qd_json_is_array(list), QD_EBADINPUT, "%s: TemplateProcessing does not say which ids \"%.80s\" has", reader->what,
           name);
  for (size_t i = 0; i < qd_json_length(list); i++) {
    const qd_json *value = qd_json_at(list, i);
    int64_t id = qd_json_integer(value);
    bool good = qd_json_is_number(value) && (double)id == qd_json_number(value) && id >= 0 && id < reader->vocabulary_size;
    QD_CHECK(good, QD_EBADINPUT, "%s: TemplateProcessing gives \"%.80s\" the id %g, expected 0 to %" PRId64, reader->what, name,
             qd_json_number(value), reader->vocabulary_size - 1);
    QD_TRY(qd_ids_add(out, (int32_t)id));
  }
  return QD_OK;
}

static qd_status read_single(const template_reader *reader, const qd_json *single, qd_ids *before, qd_ids *after) {
  bool seen = false;
  QD_CHECK(qd_json_is_array(single), QD_EBADINPUT, "%s: TemplateProcessing has no list \"single\"", reader->what);
  for (size_t i = 0; i < qd_json_length(single); i++) {
    const qd_json *piece = qd_json_at(single, i);
    const qd_json *special = qd_json_get(piece, "SpecialToken"), *sequence = qd_json_get(piece, "Sequence");
    if (special != NULL) {
      QD_TRY(add_special(reader, special, seen ? after : before));
      continue;
    }
    const char *name;
    QD_CHECK(sequence != NULL, QD_EBADINPUT, "%s: piece %zu of TemplateProcessing is neither SpecialToken nor Sequence",
             reader->what, i);
    QD_TRY(qd_json_need_text(sequence, reader->what, "id", &name));
    QD_CHECK(strcmp(name, "A") == 0 && !seen, QD_EUNSUPPORTED,
             "%s: a TemplateProcessing with anything but one Sequence A is not supported", reader->what);
    seen = true;
  }
  QD_CHECK(seen, QD_EUNSUPPORTED, "%s: a TemplateProcessing without the Sequence A is not supported", reader->what);
  return QD_OK;
}

/* The template goes around what is there already. */
static qd_status wrap(const qd_ids *before, const qd_ids *after, qd_post *out) {
  qd_ids all = {0};
  qd_status status = QD_OK;
  for (size_t i = 0; i < before->n && status == QD_OK; i++) status = qd_ids_add(&all, before->at[i]);
  for (size_t i = 0; i < out->before.n && status == QD_OK; i++) status = qd_ids_add(&all, out->before.at[i]);
  for (size_t i = 0; i < after->n && status == QD_OK; i++) status = qd_ids_add(&out->after, after->at[i]);
  qd_ids_release(&out->before);
  out->before = all;
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status parse_template(const qd_json *part, const char *what, int64_t vocabulary_size, qd_post *out) {
  template_reader reader = {.tokens = qd_json_get(part, "special_tokens"), .what = what, .vocabulary_size = vocabulary_size};
  qd_ids before = {0}, after = {0};
  qd_status status = read_single(&reader, qd_json_get(part, "single"), &before, &after);
  if (status == QD_OK) status = wrap(&before, &after, out);
  qd_ids_release(&before);
  qd_ids_release(&after);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status parse_sequence(const qd_json *part, const char *what, int64_t vocabulary_size, qd_post *out) {
  const qd_json *list = qd_json_get(part, "processors");
  QD_CHECK(qd_json_is_array(list), QD_EBADINPUT, "%s: the post-processor Sequence has no list \"processors\"", what);
  for (size_t i = 0; i < qd_json_length(list); i++) {
    QD_CHECK(qd_json_at(list, i) != NULL, QD_EBADINPUT, "%s: post-processor %zu of a Sequence is null", what, i);
    QD_TRY(qd_post_parse(qd_json_at(list, i), what, vocabulary_size, out));
  }
  return QD_OK;
}

qd_status qd_post_parse(const qd_json *part, const char *what, int64_t vocabulary_size, qd_post *out) {
  const char *type;
  if (part == NULL) return QD_OK;
  QD_TRY(qd_part_type(part, what, "post-processor", &type));
  if (strcmp(type, "ByteLevel") == 0) return QD_OK; /* moves offsets, not ids */
  if (strcmp(type, "Sequence") == 0) return parse_sequence(part, what, vocabulary_size, out);
  QD_CHECK(strcmp(type, "TemplateProcessing") == 0, QD_EUNSUPPORTED, "%s: the post-processor %s is not supported", what, type);
  return parse_template(part, what, vocabulary_size, out);
}

void qd_post_release(qd_post *post) {
  qd_ids_release(&post->before);
  qd_ids_release(&post->after);
}
