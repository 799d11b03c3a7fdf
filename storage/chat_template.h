/* How a model's conversations are spelled: the chat template of its folder, as Hugging Face's apply_chat_template uses it. */
#ifndef QDIST_STORAGE_CHAT_TEMPLATE_H
#define QDIST_STORAGE_CHAT_TEMPLATE_H

#include "storage/digest.h"
#include "storage/jinja.h"

typedef struct qd_chat_template {
  qd_jinja *jinja;
  qd_json *special; /* bos_token, eos_token ...: what the template may ask for */
  qd_digest digest; /* of the template and the special tokens */
} qd_chat_template;

/* `folder`: a model's, a store's, or a GGUF file.  Its chat_template.jinja, else "chat_template" of chat_template.json or of
 * tokenizer_config.json (a text, or a list with one that is named "default").  QD_ENOTFOUND: there is none; otherwise as
 * jinja.h. */
qd_status qd_chat_template_open(const char *folder, qd_chat_template *out) QD_MUST_USE;
void qd_chat_template_close(qd_chat_template *chat); /* a zeroed one is fine */

/* The text of `document`'s "messages" (with its "tools", if any), special tokens written out, no prompt for an answer behind
 * it; from the heap. */
qd_status qd_chat_template_render(const qd_chat_template *chat, const qd_json *document, char **text, size_t *n) QD_MUST_USE;

#endif
