/* The calibration or evaluation set: text -> int32 token ids (rows, sequence_tokens).  Protocols: methods of GPTQ's datautils
 * (windows of WikiText-2, C4, PTB) with Python's Mersenne Twister, see docs/formats.md. */
#ifndef QDIST_STORAGE_TOKENS_H
#define QDIST_STORAGE_TOKENS_H

#include "storage/digest.h"
#include "storage/tokenizer.h"

/* What to make of the file.  From the prefix of --dataset (the name of any kind), else from the name's ending. */
typedef enum qd_text_kind {
  QD_TEXT_PLAIN,     /* FILE: tokenized once as it stands                                        */
  QD_TEXT_WIKITEXT2, /* wikitext2:FILE: rows joined by "\n\n"                                    */
  QD_TEXT_PTB,       /* ptb:FILE: stripped lines joined by "\n\n", GPTQ's first loader (its later one joins with " ") */
  QD_TEXT_C4,        /* c4:FILE, .json.gz or unpacked: random documents, random windows          */
  QD_TEXT_C4_NEW,    /* c4-new:FILE: evaluation on the first 1100 texts joined by " "; calibration as c4 */
  QD_TEXT_JSONL,     /* FILE.jsonl (.jsonl.gz, .json.gz): documents in the field "text"          */
  QD_TEXT_IDS,       /* FILE.i32: rows of sequence_tokens ids, taken as they are                 */
} qd_text_kind;

typedef enum qd_tokens_use { QD_TOKENS_CALIBRATION, QD_TOKENS_EVALUATION } qd_tokens_use;

enum { QD_MAX_TEXTS = 16 };

/* One text of a mixture. */
typedef struct qd_text_share {
  const char *dataset; /* [kind:]FILE */
  double      weight;  /* positive: its part of all rows, beside the others' weights */
} qd_text_share;

typedef struct qd_tokens_request {
  const char   *dataset;         /* as typed: [kind:]FILE; of a mixture the first */
  const qd_text_share *text;     /* n_texts of them where there are several */
  int           n_texts;
  const char   *folder;          /* of the chat template, for jsonl with "messages"; NULL: none */
  qd_tokens_use use;
  int64_t       rows;            /* calibration: how many are wanted; evaluation: at most (0: all); ids: at most, either way */
  int64_t       sequence_tokens;
  int64_t       seed;
  qd_add_bos    bos;
  bool          pack;            /* jsonl: join documents; false: one document a row, shorter ones dropped */
  bool          llama_cpp;       /* plain text as llama.cpp reads it: without its last newline, two windows at least */
  int64_t       vocabulary;      /* ids must lie below; 0: not checked */
} qd_tokens_request;

/* What of a mixture came from one text. */
typedef struct qd_tokens_part {
  qd_text_kind kind;
  qd_digest    text_digest;
  double       weight;
  int64_t      rows, text_tokens, dropped_documents;
} qd_tokens_part;

typedef struct qd_tokens {
  int32_t  *ids;                /* (rows, sequence_tokens), from the heap */
  int64_t   rows, sequence_tokens;
  int64_t   text_tokens;        /* tokens of the whole text; of all documents that were tokenized (C4: those drawn) */
  int64_t   text_rows;          /* WikiText-2, PTB: lines that were joined; else 0 */
  int64_t   distinct_tokens;    /* of those, the ones that lie in some row: fewer than rows times length where rows overlap */
  int64_t   dropped_documents;  /* --no-pack: shorter than a row */
  qd_text_kind kind;
  qd_digest text_digest;        /* of the file's bytes */
  qd_digest chat_digest;        /* of the chat template that spelled messages; "": none was used */
  char     *path;               /* without the prefix, from the heap */
  int       n_parts;            /* of a mixture (kind, text_digest and path are the first text's); 0: one text */
  qd_tokens_part part[QD_MAX_TEXTS];
} qd_tokens;

/* How many of `rows` rows each text of a mixture gives: by largest remainder of rows x (weight / sum of weights), the earlier
 * text where remainders are equal.  QD_EINVAL: a text would give none. */
qd_status qd_tokens_shares(const qd_text_share *text, int n, int64_t rows, int64_t *share) QD_MUST_USE;

/* tokenizer may be NULL for QD_TEXT_IDS.  Lines of jsonl have a text "text", or "messages", which the chat template of `folder`
 * spells (with "tools", if any): its special tokens are the text's only ones, unless exactly one BOS is asked for.
 * A mixture (calibration only) takes each text's share as if it were alone, with the same seed; rows are then dealt so that
 * every beginning of them is mixed as the whole is: next is always the row that has the smallest (2 j + 1) / share, j counting
 * the rows of its text.
 *   QD_ENOTFOUND, QD_EIO, QD_EBADINPUT: too short (tokens there, tokens needed), empty,
 * an id outside the vocabulary (row, position, id, size), not UTF-8, a jsonl line without "text" (line number). */
qd_status qd_tokens_load(const qd_tokenizer *tokenizer, const qd_tokens_request *request, qd_tokens *out) QD_MUST_USE;
void      qd_tokens_release(qd_tokens *tokens);

/* Split "[kind:]FILE".  *path points into `dataset`. */
qd_text_kind qd_tokens_kind(const char *dataset, const char **path);
const char  *qd_text_kind_name(qd_text_kind kind);

#endif
