#include "storage/sources/gguf_tokenizer.h"

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5, MAX_TOKENS = 1 << 24 };

/* Each place to cut a token is tried: one that is longer than any vocabulary's would take for ever. */
enum { MAX_SCORED_BYTES = 1024 };

/* ---- pre-tokenizers by name ---------------------------------------------------------------------------------------------- */

#define BYTE_LEVEL(regex) \
  "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": " regex "}"
#define SEQUENCE(first, second) "{\"type\": \"Sequence\", \"pretokenizers\": [" first ", " second "]}"
#define SPLIT(digits)                                                                                                  \
  "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" \
  digits "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "                       \
  "\"behavior\": \"Isolated\", \"invert\": false}"
#define LLAMA3 SEQUENCE(SPLIT("\\\\p{N}{1,3}"), BYTE_LEVEL("false"))

typedef struct cutting { /* as the tokenizer.json of the models has it whose name it bears */
  const char *name, *pre_tokenizer, *normalizer;
  bool ignores_merges, adds_bos;
} cutting;

static const cutting cuttings[] = {
    {"smollm", SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}", BYTE_LEVEL("true")), "null", false, false},
    {"llama-bpe", LLAMA3, "null", true, true},
    {"llama3", LLAMA3, "null", true, true},
    {"llama-v3", LLAMA3, "null", true, true},
    {"qwen2", SEQUENCE(SPLIT("\\\\p{N}"), BYTE_LEVEL("false")), "{\"type\": \"NFC\"}", false, false},
};

/* Sentencepiece's blank is U+2581. */
#define MARK "\xe2\x96\x81"
#define REPLACE(from, to) "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" from "\"}, \"content\": \"" to "\"}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}"
#define NORMALIZERS(list) "{\"type\": \"Sequence\", \"normalizers\": [" list "]}"
#define DECODERS(strip) \
  "{\"type\": \"Sequence\", \"decoders\": [" REPLACE(MARK, " ") ", {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}" \
  strip "]}"
#define STRIP ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"

/* ---- what the header says ------------------------------------------------------------------------------------------------ */

typedef struct vocabulary {
  const qd_gguf *gguf;
  const cutting *cutting; /* NULL: "llama" */
  qd_gguf_texts  token;
  int32_t       *type;
  float         *score;
  size_t         n_types, n_scores;
  int64_t        bos, eos, unknown, padding; /* -1: none */
  bool           adds_bos, adds_eos, adds_blank;
} vocabulary;

static qd_status find_cutting(const qd_gguf *gguf, const cutting **out) {
  char *name;
  *out = NULL;
  QD_TRY(qd_gguf_text(gguf, "tokenizer.ggml.pre", &name));
  for (size_t i = 0; name != NULL && i < sizeof cuttings / sizeof *cuttings; i++)
    if (strcmp(cuttings[i].name, name) == 0) *out = &cuttings[i];
  qd_status status = QD_OK;
  if (*out == NULL)
    status = qd_fail(QD_EUNSUPPORTED, __FILE__, __LINE__,
                     "%s: the pre-tokenizer \"%.40s\" (tokenizer.ggml.pre) is not supported (smollm, llama-bpe and qwen2 are)",
                     gguf->bytes->name, name ? name : "");
  qd_heap_free(name);
  return status;
}

/* *there: a vocabulary that is read. */
static qd_status find_kind(const qd_gguf *gguf, bool *there, const cutting **out) {
  char *kind;
  *out = NULL;
  QD_TRY(qd_gguf_text(gguf, "tokenizer.ggml.model", &kind));
  *there = kind != NULL && strcmp(kind, "none") != 0 && strcmp(kind, "no_vocab") != 0;
  qd_status status = QD_OK;
  if (*there && strcmp(kind, "gpt2") == 0) status = find_cutting(gguf, out);
  else if (*there && strcmp(kind, "llama") != 0)
    status = qd_fail(QD_EUNSUPPORTED, __FILE__, __LINE__,
                     "%s: a vocabulary of the kind \"%.40s\" (tokenizer.ggml.model) is not supported (llama and gpt2 are)",
                     gguf->bytes->name, kind);
  qd_heap_free(kind);
  return status;
}

qd_status qd_gguf_tokenizer_is_there(const qd_gguf *gguf, bool *out) {
  const cutting *found;
  QD_TRY(find_kind(gguf, out, &found));
  return QD_OK;
}

static qd_status read_special(const vocabulary *v, const char *key, int64_t *out) {
  return qd_gguf_integer(v->gguf, key, 0, (int64_t)v->token.n - 1, -1, out);
}

/* llama.cpp's defaults where a file does not say. */
static qd_status read_flags(vocabulary *v) {
  bool spm = v->cutting == NULL, removes;
  QD_TRY(read_special(v, "tokenizer.ggml.bos_token_id", &v->bos));
  QD_TRY(read_special(v, "tokenizer.ggml.eos_token_id", &v->eos));
  QD_TRY(read_special(v, "tokenizer.ggml.unknown_token_id", &v->unknown));
  QD_TRY(read_special(v, "tokenizer.ggml.padding_token_id", &v->padding));
  QD_TRY(qd_gguf_bool(v->gguf, "tokenizer.ggml.add_bos_token", spm || v->cutting->adds_bos, &v->adds_bos));
  QD_TRY(qd_gguf_bool(v->gguf, "tokenizer.ggml.add_eos_token", false, &v->adds_eos));
  QD_TRY(qd_gguf_bool(v->gguf, "tokenizer.ggml.add_space_prefix", true, &v->adds_blank));
  QD_TRY(qd_gguf_bool(v->gguf, "tokenizer.ggml.remove_extra_whitespaces", false, &removes));
  QD_CHECK(!spm || !removes, QD_EUNSUPPORTED, "%s: tokenizer.ggml.remove_extra_whitespaces is not supported",
           v->gguf->bytes->name);
  QD_CHECK(!v->adds_bos || v->bos >= 0, QD_EBADINPUT, "%s: tokenizer.ggml.add_bos_token without tokenizer.ggml.bos_token_id",
           v->gguf->bytes->name);
  QD_CHECK(!v->adds_eos || v->eos >= 0, QD_EBADINPUT, "%s: tokenizer.ggml.add_eos_token without tokenizer.ggml.eos_token_id",
           v->gguf->bytes->name);
  return QD_OK;
}

static qd_status read_vocabulary(vocabulary *v) {
  bool there;
  QD_TRY(find_kind(v->gguf, &there, &v->cutting));
  QD_TRY(qd_gguf_read_texts(v->gguf, "tokenizer.ggml.tokens", &v->token));
  QD_CHECK(v->token.n > 0 && v->token.n <= MAX_TOKENS, QD_EBADINPUT,
           "%s: tokenizer.ggml.tokens has %zu tokens, 1 to %d are expected", v->gguf->bytes->name, v->token.n, MAX_TOKENS);
  QD_TRY(qd_gguf_read_ints(v->gguf, "tokenizer.ggml.token_type", &v->type, &v->n_types));
  QD_CHECK(v->n_types == 0 || v->n_types == v->token.n, QD_EBADINPUT,
           "%s: tokenizer.ggml.token_type has %zu elements, there are %zu tokens", v->gguf->bytes->name, v->n_types,
           v->token.n);
  QD_TRY(qd_gguf_read_floats(v->gguf, "tokenizer.ggml.scores", &v->score, &v->n_scores));
  QD_CHECK(v->cutting != NULL || v->n_scores == v->token.n, QD_EBADINPUT,
           "%s: tokenizer.ggml.scores has %zu elements, there are %zu tokens", v->gguf->bytes->name, v->n_scores, v->token.n);
  return read_flags(v);
}

static void release(vocabulary *v) {
  qd_gguf_texts_release(&v->token);
  qd_heap_free(v->type);
  qd_heap_free(v->score);
}

static int type_of(const vocabulary *v, size_t id) { return v->n_types > 0 ? v->type[id] : TYPE_NORMAL; }
static const char *token_of(const vocabulary *v, int64_t id) { return id >= 0 ? v->token.text[id] : NULL; }

/* ---- parts of tokenizer.json --------------------------------------------------------------------------------------------- */

/* A text of this file that is JSON. */
static qd_status set_literal(qd_json *object, const char *key, const char *text) {
  qd_json *value = NULL;
  if (strcmp(text, "null") != 0) QD_TRY(qd_json_parse(text, strlen(text), key, &value));
  qd_json_set(object, key, value);
  return QD_OK;
}

/* Tokens that fill up the embedding's rows are no part of it. */
static qd_status list_tokens(const vocabulary *v, qd_json *vocab) {
  for (size_t id = 0; id < v->token.n; id++) {
    const char *text = v->token.text[id];
    const qd_json *there = qd_json_get(vocab, text);
    if (type_of(v, id) == TYPE_UNUSED) continue;
    QD_CHECK(text[0] != '\0', QD_EBADINPUT, "%s: token %zu is empty", v->gguf->bytes->name, id);
    QD_CHECK(there == NULL, QD_EBADINPUT, "%s: the tokens %" PRId64 " and %zu are both \"%.80s\"", v->gguf->bytes->name,
             qd_json_integer(there), id, text);
    qd_json_set_integer(vocab, text, (int64_t)id);
  }
  return QD_OK;
}

static qd_json *added_token(const vocabulary *v, size_t id, bool special) {
  static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
  qd_json *token = qd_json_object();
  qd_json_set_integer(token, "id", (int64_t)id);
  qd_json_set_text(token, "content", v->token.text[id]);
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) qd_json_set_bool(token, flags[i], false);
  qd_json_set_bool(token, "special", special);
  return token;
}

/* Without types, the tokens that the file names are special. */
static bool is_special(const vocabulary *v, size_t id) {
  int type = type_of(v, id);
  if (v->n_types > 0) return type == TYPE_CONTROL || type == TYPE_UNKNOWN;
  return (int64_t)id == v->bos || (int64_t)id == v->eos || (int64_t)id == v->unknown;
}

static qd_json *list_added(const vocabulary *v) {
  qd_json *list = qd_json_array();
  for (size_t id = 0; id < v->token.n; id++)
    if (is_special(v, id) || type_of(v, id) == TYPE_USER) qd_json_append(list, added_token(v, id, is_special(v, id)));
  return list;
}

static void append_special(qd_json *single, qd_json *known, const char *token, int64_t id) {
  qd_json *piece = qd_json_object(), *inner = qd_json_object(), *facts = qd_json_object(), *ids = qd_json_array(),
          *tokens = qd_json_array();
  qd_json_set_text(inner, "id", token);
  qd_json_set_integer(inner, "type_id", 0);
  qd_json_set(piece, "SpecialToken", inner);
  qd_json_append(single, piece);
  qd_json_append_integer(ids, id);
  qd_json_append_text(tokens, token);
  qd_json_set_text(facts, "id", token);
  qd_json_set(facts, "ids", ids);
  qd_json_set(facts, "tokens", tokens);
  qd_json_set(known, token, facts);
}

static qd_json *sequence_of(const char *id, int64_t type) {
  qd_json *piece = qd_json_object(), *inner = qd_json_object();
  qd_json_set_text(inner, "id", id);
  qd_json_set_integer(inner, "type_id", type);
  qd_json_set(piece, "Sequence", inner);
  return piece;
}

/* The tokens around every text; NULL: none. */
static qd_json *template_of(const vocabulary *v) {
  if (!v->adds_bos && !v->adds_eos) return NULL;
  qd_json *post = qd_json_object(), *single = qd_json_array(), *known = qd_json_object();
  if (v->adds_bos) append_special(single, known, token_of(v, v->bos), v->bos);
  qd_json_append(single, sequence_of("A", 0));
  if (v->adds_eos) append_special(single, known, token_of(v, v->eos), v->eos);
  qd_json *pair = qd_json_copy(single);
  qd_json_append(pair, sequence_of("B", 1));
  qd_json_set_text(post, "type", "TemplateProcessing");
  qd_json_set(post, "single", single);
  qd_json_set(post, "pair", pair);
  qd_json_set(post, "special_tokens", known);
  return post;
}

/* ---- merges from scores -------------------------------------------------------------------------------------------------- */

typedef struct merge {
  float   score;
  size_t  token, cut; /* token[0, cut) and the rest */
  int32_t left, right;
  size_t  left_characters, right_characters, order; /* order: in which they were found */
} merge;

typedef struct merge_list {
  merge *at;
  size_t n, capacity;
} merge_list;

/* Within a token by the ids of the halves. */
static int by_halves(const void *a, const void *b) {
  const merge *x = a, *y = b;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

/* generate_merges of convert_slow_tokenizer.py: score, then characters of the left half, then of the right, all descending. */
static int by_rank(const void *a, const void *b) {
  const merge *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  if (x->left_characters != y->left_characters) return x->left_characters > y->left_characters ? -1 : 1;
  if (x->right_characters != y->right_characters) return x->right_characters > y->right_characters ? -1 : 1;
  return (x->order > y->order) - (x->order < y->order);
}

static size_t characters(const char *text, size_t n) {
  size_t count = 0;
  for (size_t at = 0; at < n; at += qd_utf8_bytes(text[at])) count++;
  return count;
}

static qd_status find_cuts(const vocabulary *v, const qd_vocabulary *known, size_t id, merge_list *out) {
  const char *text = v->token.text[id];
  size_t n = v->token.bytes[id], first = out->n, left = 0, all = characters(text, n);
  for (size_t cut = 0; cut < n;) {
    cut += qd_utf8_bytes(text[cut]), left++;
    if (cut == n) break;
    int32_t a = qd_vocabulary_find(known, text, cut), b = a < 0 ? -1 : qd_vocabulary_find(known, text + cut, n - cut);
    if (b < 0) continue;
    QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + 1, sizeof *out->at));
    out->at[out->n++] = (merge){.score = v->score[id], .token = id, .cut = cut, .left = a, .right = b, .left_characters = left,
                                .right_characters = all - left};
  }
  if (out->n > first) qsort(out->at + first, out->n - first, sizeof *out->at, by_halves);
  return QD_OK;
}

static qd_status find_merges(const vocabulary *v, const qd_vocabulary *known, merge_list *out) {
  for (size_t id = 0; id < v->token.n; id++) {
    QD_CHECK(v->score[id] == v->score[id], QD_EBADINPUT, "%s: the score of token %zu is NaN", v->gguf->bytes->name, id);
    if (type_of(v, id) == TYPE_UNUSED) continue;
    QD_CHECK(v->token.bytes[id] <= MAX_SCORED_BYTES, QD_EBADINPUT, "%s: token %zu has %zu bytes, at most %d are read",
             v->gguf->bytes->name, id, v->token.bytes[id], MAX_SCORED_BYTES);
    QD_TRY(find_cuts(v, known, id, out));
  }
  for (size_t i = 0; i < out->n; i++) out->at[i].order = i;
  if (out->n > 0) qsort(out->at, out->n, sizeof *out->at, by_rank);
  return QD_OK;
}

/* Pairs: a token may hold a blank. */
static qd_json *pairs_of(const vocabulary *v, const merge_list *list) {
  qd_json *pairs = qd_json_array();
  for (size_t i = 0; i < list->n; i++) {
    qd_json *pair = qd_json_array();
    qd_json_append_text(pair, v->token.text[list->at[i].left]);
    qd_json_append_text(pair, v->token.text[list->at[i].right]);
    qd_json_append(pairs, pair);
  }
  return pairs;
}

static qd_status set_scored_merges(const vocabulary *v, qd_json *model) {
  qd_vocabulary known = {0};
  merge_list list = {0};
  qd_status status = qd_vocabulary_parse(qd_json_get(model, "vocab"), v->gguf->bytes->name, &known);
  if (status == QD_OK) status = find_merges(v, &known, &list);
  if (status == QD_OK) qd_json_set(model, "merges", pairs_of(v, &list));
  qd_heap_free(list.at);
  qd_vocabulary_release(&known);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status set_listed_merges(const vocabulary *v, qd_json *model) {
  qd_gguf_texts list;
  qd_json *merges = qd_json_array();
  qd_json_set(model, "merges", merges);
  QD_TRY(qd_gguf_read_texts(v->gguf, "tokenizer.ggml.merges", &list));
  for (size_t i = 0; i < list.n; i++) qd_json_append_text(merges, list.text[i]);
  qd_gguf_texts_release(&list);
  return QD_OK;
}

/* ---- the documents ------------------------------------------------------------------------------------------------------- */

static qd_status set_model(const vocabulary *v, qd_json *tokenizer) {
  bool spm = v->cutting == NULL;
  qd_json *model = qd_json_object(), *vocab = qd_json_object();
  qd_json_set(tokenizer, "model", model);
  qd_json_set_text(model, "type", "BPE");
  qd_json_set(model, "dropout", NULL);
  qd_json_set_text(model, "unk_token", spm ? token_of(v, v->unknown) : NULL);
  qd_json_set(model, "continuing_subword_prefix", NULL);
  qd_json_set(model, "end_of_word_suffix", NULL);
  qd_json_set_bool(model, "fuse_unk", spm);
  qd_json_set_bool(model, "byte_fallback", spm);
  qd_json_set_bool(model, "ignore_merges", !spm && v->cutting->ignores_merges);
  qd_json_set(model, "vocab", vocab);
  QD_TRY(list_tokens(v, vocab));
  return spm ? set_scored_merges(v, model) : set_listed_merges(v, model);
}

static qd_status fill_tokenizer(const vocabulary *v, qd_json *out) {
  bool spm = v->cutting == NULL;
  const char *marked = v->adds_blank ? NORMALIZERS(PREPEND ", " REPLACE(" ", MARK)) : NORMALIZERS(REPLACE(" ", MARK));
  const char *unmarked = v->adds_blank ? DECODERS(STRIP) : DECODERS("");
  qd_json_set_text(out, "version", "1.0");
  qd_json_set(out, "truncation", NULL);
  qd_json_set(out, "padding", NULL);
  qd_json_set(out, "added_tokens", list_added(v));
  QD_TRY(set_literal(out, "normalizer", spm ? marked : v->cutting->normalizer));
  QD_TRY(set_literal(out, "pre_tokenizer", spm ? "null" : v->cutting->pre_tokenizer));
  qd_json_set(out, "post_processor", template_of(v));
  QD_TRY(set_literal(out, "decoder", spm ? unmarked : BYTE_LEVEL("true")));
  return set_model(v, out);
}

static qd_status fill_config(const vocabulary *v, qd_json *out) {
  char *chat;
  QD_TRY(qd_gguf_text(v->gguf, "tokenizer.chat_template", &chat));
  qd_json_set_text(out, "tokenizer_class", "PreTrainedTokenizerFast");
  qd_json_set_bool(out, "clean_up_tokenization_spaces", false);
  qd_json_set_text(out, "bos_token", token_of(v, v->bos));
  qd_json_set_text(out, "eos_token", token_of(v, v->eos));
  qd_json_set_text(out, "unk_token", token_of(v, v->unknown));
  qd_json_set_text(out, "pad_token", token_of(v, v->padding));
  if (chat != NULL) qd_json_set_text(out, "chat_template", chat);
  qd_heap_free(chat);
  return QD_OK;
}

static qd_status make(const qd_gguf *gguf, qd_status fill(const vocabulary *, qd_json *), qd_json **out) {
  vocabulary v = {.gguf = gguf};
  *out = qd_json_object();
  qd_status status = read_vocabulary(&v);
  if (status == QD_OK) status = fill(&v, *out);
  release(&v);
  if (status == QD_OK) return QD_OK;
  qd_json_free(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_gguf_tokenizer(const qd_gguf *gguf, qd_json **out) { return make(gguf, fill_tokenizer, out); }
qd_status qd_gguf_tokenizer_config(const qd_gguf *gguf, qd_json **out) { return make(gguf, fill_config, out); }
