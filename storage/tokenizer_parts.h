/* The inside of a tokenizer, by part.  A text goes through them in this order:
 *
 *   added      special tokens written in the text are cut out
 *   normalizer the rest is rewritten (and added tokens that are matched after that are cut out)
 *   splitter   what is left is cut into pieces, which no token crosses
 *   bpe        each piece becomes ids
 *   post       the special tokens that belong around every text
 *
 * and ids through the decoder.  Each part does what the part of that name in Hugging Face's tokenizers 0.22 does: that
 * library's behaviour decides.  Parsing functions take the path of tokenizer.json as `what`, for messages. */
#ifndef QDIST_STORAGE_TOKENIZER_PARTS_H
#define QDIST_STORAGE_TOKENIZER_PARTS_H

#include "storage/json.h"
#include "storage/tokenizer.h"

/* ---- what all parts use --------------------------------------------------------------------------------------------- */

typedef struct qd_buffer { /* bytes that grow; zeroed is empty */
  char  *at;
  size_t n, capacity;
} qd_buffer;
qd_status qd_buffer_add(qd_buffer *buffer, const char *bytes, size_t n) QD_MUST_USE;
void      qd_buffer_release(qd_buffer *buffer);

typedef struct qd_ids { /* token ids that grow */
  int32_t *at;
  size_t   n, capacity;
} qd_ids;
qd_status qd_ids_add(qd_ids *ids, int32_t id) QD_MUST_USE;
void      qd_ids_release(qd_ids *ids);

typedef struct qd_span {
  size_t begin, end;
  bool   matched; /* where a pattern has cut: a match, else what lies between matches */
} qd_span;

typedef struct qd_spans {
  qd_span *at;
  size_t   n, capacity;
} qd_spans;
qd_status qd_spans_add(qd_spans *spans, qd_span span) QD_MUST_USE;

typedef struct qd_pieces { /* a text and the stretches of it that are still in play, in order */
  qd_buffer text;
  qd_spans  spans;
  bool      from_start; /* the first piece begins where the whole input begins */
} qd_pieces;
qd_status qd_pieces_add(qd_pieces *pieces, const char *bytes, size_t n) QD_MUST_USE;
void      qd_pieces_clear(qd_pieces *pieces);
void      qd_pieces_release(qd_pieces *pieces);
void      qd_pieces_swap(qd_pieces *a, qd_pieces *b);

/* The part's "type"; QD_EBADINPUT if it is no object or has none. */
qd_status qd_part_type(const qd_json *part, const char *what, const char *which, const char **type) QD_MUST_USE;
/* A text member that must be there, with its length. */
qd_status qd_part_text(const qd_json *part, const char *what, const char *key, const char **text, size_t *n) QD_MUST_USE;

/* ---- patterns ------------------------------------------------------------------------------------------------------- */

typedef struct qd_regex {
  void *code; /* a compiled PCRE2 pattern, read-only after opening */
} qd_regex;

typedef struct qd_matcher { /* what matching needs; one a thread */
  void    *match, *context, *stack;
  qd_spans spans, cut;
} qd_matcher;

/* Oniguruma's language, in which tokenizers are written, as far as PCRE2 means the same by it; the rest is QD_EUNSUPPORTED. */
qd_status qd_regex_open(const char *pattern, size_t n, const char *what, qd_regex *out) QD_MUST_USE;
/* PCRE2's own language. */
qd_status qd_regex_open_native(const char *pattern, size_t n, const char *what, qd_regex *out) QD_MUST_USE;
qd_status qd_regex_open_literal(const char *text, size_t n, const char *what, qd_regex *out) QD_MUST_USE;
/* {"Regex": ...} or {"String": ...}, as Split and Replace have it. */
qd_status qd_regex_parse(const qd_json *pattern, const char *what, qd_regex *out) QD_MUST_USE;
void      qd_regex_close(qd_regex *regex);

qd_status qd_matcher_open(qd_matcher *matcher) QD_MUST_USE;
void      qd_matcher_close(qd_matcher *matcher);
/* matcher->spans: all matches, and the stretches between them, in order; they cover the text. */
qd_status qd_regex_cover(const qd_regex *regex, qd_matcher *matcher, const char *text, size_t n) QD_MUST_USE;
/* Appends text[span] with `content` in place of each match. */
qd_status qd_regex_replace(const qd_regex *regex, qd_matcher *matcher, qd_span span, const char *text,
                           const qd_buffer *content, qd_buffer *out) QD_MUST_USE;

/* ---- normalizer ----------------------------------------------------------------------------------------------------- */

typedef enum qd_normalizer_kind { QD_NORMALIZE_PREPEND, QD_NORMALIZE_REPLACE, QD_NORMALIZE_UNICODE } qd_normalizer_kind;

typedef struct qd_normalizer_step {
  qd_normalizer_kind kind;
  qd_regex  regex;
  qd_buffer content;        /* what to prepend or to put in */
  bool      compose, compatible; /* NFC: compose; NFKC: both; NFKD: compatible; NFD: neither */
} qd_normalizer_step;

typedef struct qd_normalizer {
  qd_normalizer_step *step;
  size_t n, capacity;
} qd_normalizer;

qd_status qd_normalizer_parse(const qd_json *part, const char *what, qd_normalizer *out) QD_MUST_USE; /* NULL: none */
void      qd_normalizer_release(qd_normalizer *normalizer);
/* Replaces the text in `text`; `spare` is overwritten. */
qd_status qd_normalizer_apply(const qd_normalizer *normalizer, qd_matcher *matcher, qd_buffer *text,
                              qd_buffer *spare) QD_MUST_USE;

/* ---- splitter (pre-tokenizer) --------------------------------------------------------------------------------------- */

typedef enum qd_split_kind {
  QD_SPLIT_CUT,     /* at a pattern                             */
  QD_SPLIT_PREFIX,  /* put a text in front of each piece        */
  QD_SPLIT_SPACES,  /* replace " " by another text              */
  QD_SPLIT_BYTES,   /* each byte becomes a printable character  */
} qd_split_kind;

typedef enum qd_split_behavior {
  QD_CUT_ISOLATED, QD_CUT_REMOVED, QD_CUT_CONTIGUOUS, QD_CUT_WITH_PREVIOUS, QD_CUT_WITH_NEXT
} qd_split_behavior;

typedef struct qd_split_step {
  qd_split_kind     kind;
  qd_regex          regex;
  qd_split_behavior behavior;
  bool              invert;
  bool              first_only; /* prefix: only the piece at the very start of the input */
  qd_buffer         content;
} qd_split_step;

typedef struct qd_splitter {
  qd_split_step *step;
  size_t n, capacity;
} qd_splitter;

qd_status qd_splitter_parse(const qd_json *part, const char *what, qd_splitter *out) QD_MUST_USE; /* NULL: none */
void      qd_splitter_release(qd_splitter *splitter);
qd_status qd_splitter_apply(const qd_splitter *splitter, qd_matcher *matcher, qd_pieces *pieces, qd_pieces *spare) QD_MUST_USE;

/* The printable character of a byte in byte-level vocabularies (GPT-2's bytes_to_unicode), as UTF-8; and back (-1: none). */
size_t qd_byte_character(unsigned char byte, char to[2]);
int    qd_byte_of_character(uint32_t codepoint);

/* ---- vocabulary and BPE --------------------------------------------------------------------------------------------- */

typedef struct qd_vocabulary {
  qd_buffer text;         /* all tokens, one after the other */
  size_t   *begin;        /* by id */
  uint32_t *bytes;        /* by id; 0: no token has this id */
  int64_t   size;         /* largest id + 1 */
  int64_t   tokens;       /* how many the model's own vocabulary has */
  int32_t  *slot;         /* hash of the model's own tokens: id, or -1 */
  size_t    slots;
} qd_vocabulary;

enum { QD_TOKEN_ID_LIMIT = 1 << 24 };

qd_status   qd_vocabulary_parse(const qd_json *vocab, const char *what, qd_vocabulary *out) QD_MUST_USE;
/* A token beside the model's own: found by id only. */
qd_status   qd_vocabulary_append(qd_vocabulary *vocabulary, const char *token, size_t n, int32_t id) QD_MUST_USE;
void        qd_vocabulary_release(qd_vocabulary *vocabulary);
int32_t     qd_vocabulary_find(const qd_vocabulary *vocabulary, const char *token, size_t n); /* -1: not there */
const char *qd_vocabulary_token(const qd_vocabulary *vocabulary, int64_t id, size_t *n); /* NULL: no such id */

typedef struct qd_bpe {
  qd_vocabulary vocabulary;
  uint64_t *pair;         /* hash of merges: left id, right id; ~0: free */
  uint32_t *pair_rank;
  size_t    slots;
  int32_t  *merged;       /* by rank: the id that the pair becomes */
  int32_t   byte_id[256]; /* of "<0x00>" ...; -1 */
  int32_t   unknown;      /* -1: none */
  bool      fuse_unknown, byte_fallback, ignore_merges;
} qd_bpe;

typedef struct qd_symbol {
  int32_t id, previous, next; /* next -1: the last */
  bool    gone;
} qd_symbol;

typedef struct qd_known_piece { /* a piece that was seen before, and its ids */
  size_t   key, ids;
  uint32_t key_bytes, n_ids;
} qd_known_piece;

typedef struct qd_bpe_work { /* one a thread */
  qd_symbol *symbol;
  size_t     symbols, symbol_capacity;
  uint64_t  *heap;        /* rank << 32 | position of the left symbol: the smallest is merged next */
  size_t     heaped, heap_capacity;
  bool       remember;
  qd_known_piece *known;  /* hash */
  size_t     n_known;
  qd_buffer  known_text;
  qd_ids     known_ids;
} qd_bpe_work;

qd_status qd_bpe_parse(const qd_json *model, const char *what, qd_bpe *out) QD_MUST_USE;
void      qd_bpe_release(qd_bpe *bpe);
qd_status qd_bpe_work_open(qd_bpe_work *work, bool remember) QD_MUST_USE;
void      qd_bpe_work_close(qd_bpe_work *work);
/* Appends. */
qd_status qd_bpe_encode(const qd_bpe *bpe, qd_bpe_work *work, const char *piece, size_t n, qd_ids *ids) QD_MUST_USE;

/* ---- added tokens --------------------------------------------------------------------------------------------------- */

typedef struct qd_added_token {
  qd_buffer content;
  int32_t   id;
  bool      single_word, strip_left, strip_right, normalized, special;
} qd_added_token;

typedef struct qd_trie_node {
  int32_t first_child, sibling, token; /* token: its index, or -1 */
  char    byte;
} qd_trie_node;

typedef struct qd_trie {
  qd_trie_node *node;
  size_t n, capacity;
} qd_trie;

typedef struct qd_added {
  qd_added_token *token;
  size_t   n, capacity;
  qd_trie  raw, normalized; /* tokens looked for before and after the normalizer */
  qd_regex word;            /* one character that belongs to a word */
} qd_added;

typedef struct qd_found {   /* a stretch of text: an added token, or (id -1) text */
  size_t  begin, end;
  int32_t id;
} qd_found;

typedef struct qd_found_list {
  qd_found *at;
  size_t    n, capacity;
} qd_found_list;

/* Ids of tokens outside the model's vocabulary are entered into it (qd_vocabulary_append). */
qd_status qd_added_parse(const qd_json *list, const char *what, const qd_normalizer *normalizer, qd_vocabulary *vocabulary,
                         qd_added *out) QD_MUST_USE;
void      qd_added_release(qd_added *added);
qd_status qd_added_find(const qd_added *added, const qd_trie *trie, qd_matcher *matcher, qd_span in, const char *text,
                        qd_found_list *found) QD_MUST_USE; /* found: set anew; offsets count from in.begin */

/* ---- around the text, and back -------------------------------------------------------------------------------------- */

typedef struct qd_post {
  qd_ids before, after;
} qd_post;

/* part NULL: none. */
qd_status qd_post_parse(const qd_json *part, const char *what, int64_t vocabulary_size, qd_post *out) QD_MUST_USE;
void      qd_post_release(qd_post *post);

typedef enum qd_decoder_kind {
  QD_DECODE_REPLACE, QD_DECODE_BYTE_FALLBACK, QD_DECODE_FUSE, QD_DECODE_STRIP, QD_DECODE_BYTE_LEVEL, QD_DECODE_METASPACE
} qd_decoder_kind;

typedef struct qd_decoder_step {
  qd_decoder_kind kind;
  qd_regex  regex;
  qd_buffer content;     /* replace: what to put in; strip: the character; metaspace: the replacement */
  int64_t   start, stop; /* strip: how many at most */
  bool      drop_first;  /* metaspace: the first token's marks are dropped */
} qd_decoder_step;

typedef struct qd_decoder {
  bool given; /* without a decoder tokens are joined by spaces */
  qd_decoder_step *step;
  size_t n, capacity;
} qd_decoder;

qd_status qd_decoder_parse(const qd_json *part, const char *what, qd_decoder *out) QD_MUST_USE; /* NULL: none */
void      qd_decoder_release(qd_decoder *decoder);
/* tokens: one piece a token; afterwards the pieces are to be joined. */
qd_status qd_decoder_apply(const qd_decoder *decoder, qd_matcher *matcher, qd_pieces *tokens, qd_pieces *spare) QD_MUST_USE;

#endif
