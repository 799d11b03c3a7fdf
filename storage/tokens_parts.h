/* The inside of qd_tokens_load: what is read (tokens_texts.c), and which windows are taken of it (tokens_windows.c). */
#ifndef QDIST_STORAGE_TOKENS_PARTS_H
#define QDIST_STORAGE_TOKENS_PARTS_H

#include "storage/chat_template.h"
#include "storage/python_random.h"
#include "storage/text_file.h"
#include "storage/tokens.h"

typedef struct qd_token_list { /* ids that grow */
  int32_t *at;
  size_t   n, capacity;
} qd_token_list;

typedef struct qd_tokens_job {
  const qd_tokenizer      *tokenizer;
  const qd_tokens_request *request;
  const char  *path;
  qd_chat_template chat; /* opened for the first messages */
  qd_text_file file;
  qd_tokens   *out;
} qd_tokens_job;

/* The ids of one text, in place of what the list holds or behind it; `where` names the text in messages. */
qd_status qd_tokens_encode(const qd_tokens_job *job, const char *text, size_t n, const char *where,
                           qd_token_list *ids) QD_MUST_USE;

/* The same of a line of jsonl: of its "text", or of its "messages" as the chat template spells them. */
qd_status qd_tokens_encode_line(qd_tokens_job *job, const qd_json *line, const char *where, qd_token_list *ids) QD_MUST_USE;

/* A mixture. */
qd_status qd_tokens_mix(const qd_tokenizer *tokenizer, const qd_tokens_request *request, qd_tokens *out) QD_MUST_USE;

/* One text of rows (WikiText-2, PTB) as the published results join them, from the heap. */
qd_status qd_tokens_join_rows(const qd_tokens_job *job, qd_text_kind kind, char **text, size_t *n) QD_MUST_USE;

/* Each fills job->out->ids, rows and text_tokens. */
qd_status qd_tokens_from_text(qd_tokens_job *job, const char *text, size_t n) QD_MUST_USE;
qd_status qd_tokens_from_packed(qd_tokens_job *job, const qd_jsonl *lines) QD_MUST_USE;
qd_status qd_tokens_from_documents(qd_tokens_job *job, const qd_jsonl *lines) QD_MUST_USE; /* one a row */
qd_status qd_tokens_draw_documents(qd_tokens_job *job, const qd_jsonl *lines) QD_MUST_USE; /* C4 */
qd_status qd_tokens_join_documents(qd_tokens_job *job, const qd_jsonl *lines) QD_MUST_USE; /* C4, new */
qd_status qd_tokens_from_ids(qd_tokens_job *job) QD_MUST_USE;

#endif
