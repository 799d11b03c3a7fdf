#include "storage/chat_template.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/source.h"

enum { TEMPLATE_LIMIT = 1 << 20, CONFIG_LIMIT = 1 << 26 };

typedef struct found { /* where a template lies, until it is parsed */
  char *file, *path;
  qd_json *document;
  const char *text;
  size_t n;
} found;

static void release(found *f) {
  qd_heap_free(f->file);
  qd_heap_free(f->path);
  qd_json_free(f->document);
  *f = (found){0};
}

/* Of a folder, or of a GGUF file, whose header has them; none is fine. */
static qd_status read_document(const char *folder, const char *name, char **path, qd_json **out) {
  qd_status status = qd_side_file_json(folder, name, CONFIG_LIMIT, path, out);
  if (status == QD_ENOTFOUND) return qd_error_clear(), QD_OK;
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_file(const char *folder, found *f) {
  QD_TRY(qd_path_join(folder, "chat_template.jinja", &f->path));
  qd_status status = qd_side_file_read(folder, "chat_template.jinja", TEMPLATE_LIMIT, &f->file, &f->n);
  if (status == QD_ENOTFOUND) return qd_error_clear(), QD_OK;
  QD_TRY(status);
  f->text = f->file;
  return QD_OK;
}

/* The one of several that is named "default". */
static const qd_json *choose(const qd_json *member) {
  if (!qd_json_is_array(member)) return member;
  for (size_t i = 0; i < qd_json_length(member); i++) {
    const qd_json *item = qd_json_at(member, i);
    const char *name = qd_json_is_object(item) ? qd_json_text(qd_json_get(item, "name")) : NULL;
    if (name != NULL && strcmp(name, "default") == 0) return qd_json_get(item, "template");
  }
  return NULL;
}

static qd_status read_member(const char *folder, const char *name, found *f) {
  QD_TRY(read_document(folder, name, &f->path, &f->document));
  if (!qd_json_is_object(f->document) || qd_json_get(f->document, "chat_template") == NULL) return QD_OK;
  const qd_json *text = choose(qd_json_get(f->document, "chat_template"));
  QD_CHECK(qd_json_is_text(text), QD_EBADINPUT, "%s: \"chat_template\" is neither a text nor a list with one named \"default\"",
           f->path);
  f->text = qd_json_text(text), f->n = qd_json_text_bytes(text);
  return QD_OK;
}

static qd_status find_template(const char *folder, found *f) {
  static const char *const documents[] = {"chat_template.json", "tokenizer_config.json"};
  QD_TRY(read_file(folder, f));
  for (size_t i = 0; i < sizeof documents / sizeof *documents && f->text == NULL; i++) {
    release(f);
    QD_TRY(read_member(folder, documents[i], f));
  }
  QD_CHECK(f->text != NULL, QD_ENOTFOUND,
           "%s has no chat template (chat_template.jinja, or \"chat_template\" in tokenizer_config.json), which messages need",
           folder);
  return QD_OK;
}

/* Names and texts of the special tokens; one is a text, or an object with the text in "content". */
static qd_status read_special(const char *folder, qd_json *out) {
  static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                      "pad_token", "cls_token", "mask_token"};
  char *path = NULL;
  qd_json *config = NULL;
  qd_status status = read_document(folder, "tokenizer_config.json", &path, &config);
  for (size_t i = 0; i < sizeof names / sizeof *names && qd_json_is_object(config); i++) {
    const qd_json *token = qd_json_get(config, names[i]);
    const char *text = qd_json_text(qd_json_is_object(token) ? qd_json_get(token, "content") : token);
    if (text != NULL) qd_json_set_text(out, names[i], text);
  }
  qd_json_free(config);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* Two digests side by side have one: nothing else decides what messages become. */
static qd_status digest_all(const found *f, const qd_json *special, qd_digest *out) {
  qd_digest part[2];
  char *text, both[2 * sizeof part[0].hex];
  QD_TRY(qd_json_print(special, 0, &text));
  qd_digest_of(f->text, f->n, &part[0]);
  qd_digest_of(text, strlen(text), &part[1]);
  qd_heap_free(text);
  int n = snprintf(both, sizeof both, "%s%s", part[0].hex, part[1].hex);
  qd_digest_of(both, (size_t)n, out);
  return QD_OK;
}

static qd_status open_found(const char *folder, const found *f, qd_chat_template *out) {
  out->special = qd_json_object();
  QD_TRY(read_special(folder, out->special));
  QD_TRY(digest_all(f, out->special, &out->digest));
  return qd_jinja_open(f->text, f->n, f->path, &out->jinja);
}

qd_status qd_chat_template_open(const char *folder, qd_chat_template *out) {
  found f = {0};
  *out = (qd_chat_template){0};
  qd_status status = find_template(folder, &f);
  if (status == QD_OK) status = open_found(folder, &f, out);
  release(&f);
  if (status == QD_OK) return QD_OK;
  qd_chat_template_close(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_chat_template_close(qd_chat_template *chat) {
  qd_jinja_close(chat->jinja);
  qd_json_free(chat->special);
  *chat = (qd_chat_template){0};
}

static qd_json *copy_or_null(const qd_json *document, const char *name) {
  const qd_json *member = qd_json_get(document, name);
  return member != NULL ? qd_json_copy(member) : NULL;
}

/* What apply_chat_template gives a template: what is not there is none, not undefined. */
qd_status qd_chat_template_render(const qd_chat_template *chat, const qd_json *document, char **text, size_t *n) {
  static const char *const members[] = {"messages", "tools", "documents"};
  qd_json *variables = qd_json_copy(chat->special);
  for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
    qd_json *member = copy_or_null(document, members[i]);
    if (member != NULL)
      qd_json_set(variables, members[i], member);
    else
      qd_json_set_text(variables, members[i], NULL);
  }
  qd_json_set_bool(variables, "add_generation_prompt", false);
  qd_status status = qd_jinja_render(chat->jinja, variables, text, n);
  qd_json_free(variables);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
