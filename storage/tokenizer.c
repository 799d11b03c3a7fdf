#include "storage/tokenizer.h"

#include <string.h>

#include "kernels/base/heap.h"
#include "storage/source.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

struct qd_tokenizer {
  qd_normalizer normalizer;
  qd_splitter   splitter;
  qd_bpe        bpe;
  qd_added      added;
  qd_post       post;
  qd_decoder    decoder;
  int32_t       bos;
};

/* ---- opening -------------------------------------------------------------------------------------------------------- */

enum { FILE_LIMIT = 1 << 30 };

static int32_t find_token(const qd_tokenizer *t, const char *text) {
  if (text == NULL) return -1;
  for (size_t i = 0; i < t->added.n; i++)
    if (strcmp(t->added.token[i].content.at, text) == 0) return t->added.token[i].id;
  return qd_vocabulary_find(&t->bpe.vocabulary, text, strlen(text));
}

/* "bos_token" is a text, or an object with the text in "content". */
static qd_status bos_of_config(const char *folder, qd_tokenizer *t) {
  char *path;
  qd_json *config;
  qd_status status = qd_side_file_json(folder, "tokenizer_config.json", FILE_LIMIT, &path, &config);
  if (status == QD_ENOTFOUND) status = QD_OK;
  if (config != NULL) {
    const qd_json *token = qd_json_get(config, "bos_token");
    t->bos = find_token(t, qd_json_text(qd_json_is_object(token) ? qd_json_get(token, "content") : token));
  }
  qd_json_free(config);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* From tokenizer_config.json, else what the post-processor puts first, else an added token of a usual name. */
static qd_status find_bos(const char *folder, qd_tokenizer *t) {
  static const char *const usual[] = {"<s>", "<|begin_of_text|>", "<bos>"};
  t->bos = -1;
  QD_TRY(bos_of_config(folder, t));
  if (t->bos < 0 && t->post.before.n > 0) t->bos = t->post.before.at[0];
  for (size_t k = 0; k < sizeof usual / sizeof *usual && t->bos < 0; k++) {
    for (size_t i = 0; i < t->added.n && t->bos < 0; i++)
      if (strcmp(t->added.token[i].content.at, usual[k]) == 0) t->bos = t->added.token[i].id;
  }
  return QD_OK;
}

static qd_status parse(const qd_json *root, const char *what, qd_tokenizer *t) {
  QD_CHECK(qd_json_is_object(root), QD_EBADINPUT, "%s: not an object", what);
  const char *version = qd_json_text(qd_json_get(root, "version"));
  QD_CHECK(version == NULL || strcmp(version, "1.0") == 0, QD_EUNSUPPORTED, "%s: version %s is not supported, only 1.0", what,
           version);
  QD_TRY(qd_bpe_parse(qd_json_get(root, "model"), what, &t->bpe));
  QD_TRY(qd_normalizer_parse(qd_json_get(root, "normalizer"), what, &t->normalizer));
  QD_TRY(qd_splitter_parse(qd_json_get(root, "pre_tokenizer"), what, &t->splitter));
  QD_TRY(qd_added_parse(qd_json_get(root, "added_tokens"), what, &t->normalizer, &t->bpe.vocabulary, &t->added));
  QD_TRY(qd_post_parse(qd_json_get(root, "post_processor"), what, t->bpe.vocabulary.size, &t->post));
  QD_TRY(qd_decoder_parse(qd_json_get(root, "decoder"), what, &t->decoder));
  return QD_OK;
}

static qd_status read_file(const char *folder, qd_tokenizer *t) {
  char *path;
  qd_json *root;
  qd_status status = qd_side_file_json(folder, "tokenizer.json", FILE_LIMIT, &path, &root);
  if (status == QD_OK) status = parse(root, path, t);
  qd_json_free(root);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_tokenizer_open(const char *folder, qd_tokenizer **out) {
  *out = NULL;
  qd_tokenizer *t = NULL;
  QD_TRY(qd_heap_new(1, sizeof *t, &t));
  qd_status status = read_file(folder, t);
  if (status == QD_OK) status = find_bos(folder, t);
  if (status != QD_OK) {
    qd_tokenizer_close(t);
    return qd_forward(status, __FILE__, __LINE__);
  }
  *out = t;
  return QD_OK;
}

void qd_tokenizer_close(qd_tokenizer *tokenizer) {
  if (tokenizer == NULL) return;
  qd_normalizer_release(&tokenizer->normalizer);
  qd_splitter_release(&tokenizer->splitter);
  qd_bpe_release(&tokenizer->bpe);
  qd_added_release(&tokenizer->added);
  qd_post_release(&tokenizer->post);
  qd_decoder_release(&tokenizer->decoder);
  qd_heap_free(tokenizer);
}

int64_t qd_tokenizer_size(const qd_tokenizer *tokenizer) { return tokenizer->bpe.vocabulary.size; }
int32_t qd_tokenizer_bos(const qd_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t qd_tokenizer_unknown(const qd_tokenizer *tokenizer) { return tokenizer->bpe.unknown; }

bool qd_tokenizer_adds_bos(const qd_tokenizer *tokenizer) {
  return tokenizer->bos >= 0 && tokenizer->post.before.n > 0 && tokenizer->post.before.at[0] == tokenizer->bos;
}

/* ---- encoding ------------------------------------------------------------------------------------------------------- */

typedef struct encoder { /* what one call works with */
  const qd_tokenizer *tokenizer;
  qd_matcher    matcher;
  qd_bpe_work   bpe;
  qd_buffer     text, spare_text;
  qd_pieces     pieces, spare_pieces;
  qd_found_list raw, normalized;
  qd_ids        ids;
} encoder;

static void encoder_release(encoder *e) {
  qd_matcher_close(&e->matcher);
  qd_bpe_work_close(&e->bpe);
  qd_buffer_release(&e->text);
  qd_buffer_release(&e->spare_text);
  qd_pieces_release(&e->pieces);
  qd_pieces_release(&e->spare_pieces);
  qd_heap_free(e->raw.at);
  qd_heap_free(e->normalized.at);
  qd_ids_release(&e->ids);
}

static qd_status encode_stretch(encoder *e, const char *text, size_t n, bool from_start) {
  const qd_tokenizer *t = e->tokenizer;
  qd_pieces_clear(&e->pieces);
  e->pieces.from_start = from_start;
  QD_TRY(qd_pieces_add(&e->pieces, text, n));
  QD_TRY(qd_splitter_apply(&t->splitter, &e->matcher, &e->pieces, &e->spare_pieces));
  for (size_t i = 0; i < e->pieces.spans.n; i++) {
    qd_span span = e->pieces.spans.at[i];
    QD_TRY(qd_bpe_encode(&t->bpe, &e->bpe, e->pieces.text.at + span.begin, span.end - span.begin, &e->ids));
  }
  return QD_OK;
}

/* What lies between two added tokens that were found in the text as it is. */
static qd_status encode_between(encoder *e, const char *text, size_t n, bool from_start) {
  const qd_tokenizer *t = e->tokenizer;
  e->text.n = 0;
  QD_TRY(qd_buffer_add(&e->text, text, n));
  QD_TRY(qd_normalizer_apply(&t->normalizer, &e->matcher, &e->text, &e->spare_text));
  QD_TRY(qd_added_find(&t->added, &t->added.normalized, &e->matcher, (qd_span){.end = e->text.n}, e->text.at, &e->normalized));
  for (size_t i = 0; i < e->normalized.n; i++) {
    qd_found found = e->normalized.at[i];
    if (found.id >= 0) QD_TRY(qd_ids_add(&e->ids, found.id));
    else QD_TRY(encode_stretch(e, e->text.at + found.begin, found.end - found.begin, from_start && found.begin == 0));
  }
  return QD_OK;
}

static qd_status encode_text(encoder *e, const char *text, size_t n) {
  const qd_tokenizer *t = e->tokenizer;
  enum { WORTH_REMEMBERING = 4096 };
  QD_TRY(qd_matcher_open(&e->matcher));
  QD_TRY(qd_bpe_work_open(&e->bpe, n >= WORTH_REMEMBERING));
  QD_TRY(qd_added_find(&t->added, &t->added.raw, &e->matcher, (qd_span){.end = n}, text, &e->raw));
  for (size_t i = 0; i < e->raw.n; i++) {
    qd_found found = e->raw.at[i];
    if (found.id >= 0) QD_TRY(qd_ids_add(&e->ids, found.id));
    else QD_TRY(encode_between(e, text + found.begin, found.end - found.begin, found.begin == 0));
  }
  return QD_OK;
}

/* Exactly one BOS; the default's other tokens follow it. */
static qd_status add_before(const qd_tokenizer *t, qd_add_bos bos, const qd_ids *text, qd_ids *out) {
  size_t first = 0;
  if (bos == QD_BOS_NO) return QD_OK;
  if (bos == QD_BOS_YES) {
    QD_CHECK(t->bos >= 0, QD_EINVAL, "a BOS token is to be added, but the tokenizer names none");
    while (first < t->post.before.n && t->post.before.at[first] == t->bos) first++;
    bool there = first == t->post.before.n && text->n > 0 && text->at[0] == t->bos;
    if (!there) QD_TRY(qd_ids_add(out, t->bos));
  }
  for (size_t i = first; i < t->post.before.n; i++) QD_TRY(qd_ids_add(out, t->post.before.at[i]));
  return QD_OK;
}

static qd_status add_around(const qd_tokenizer *t, qd_add_bos bos, const qd_ids *text, qd_ids *out) {
  QD_TRY(add_before(t, bos, text, out));
  QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + text->n + 1, sizeof *out->at)); /* never NULL */
  if (text->n > 0) memcpy(out->at + out->n, text->at, text->n * sizeof *out->at);
  out->n += text->n;
  for (size_t i = 0; bos != QD_BOS_NO && i < t->post.after.n; i++) QD_TRY(qd_ids_add(out, t->post.after.at[i]));
  return QD_OK;
}

qd_status qd_tokenizer_encode(const qd_tokenizer *tokenizer, const char *text, size_t n, qd_add_bos bos, int32_t **ids,
                              size_t *n_ids) {
  size_t bad = 0;
  *ids = NULL;
  *n_ids = 0;
  QD_CHECK(qd_utf8_valid(text, n, &bad), QD_EBADINPUT, "the text is not UTF-8: byte 0x%02X at offset %zu",
           (unsigned char)text[bad], bad);
  encoder e = {.tokenizer = tokenizer};
  qd_ids all = {0};
  qd_status status = encode_text(&e, text, n);
  if (status == QD_OK) status = add_around(tokenizer, bos, &e.ids, &all);
  encoder_release(&e);
  if (status != QD_OK) {
    qd_ids_release(&all);
    return qd_forward(status, __FILE__, __LINE__);
  }
  *ids = all.at;
  *n_ids = all.n;
  return QD_OK;
}

/* ---- decoding ------------------------------------------------------------------------------------------------------- */

static qd_status gather_tokens(const qd_tokenizer *t, const int32_t *ids, size_t n_ids, qd_pieces *out) {
  for (size_t i = 0; i < n_ids; i++) {
    size_t n;
    QD_CHECK(ids[i] >= 0, QD_EBADINPUT, "token %zu has the id %" PRId32, i, ids[i]);
    const char *token = qd_vocabulary_token(&t->bpe.vocabulary, ids[i], &n);
    if (token != NULL) QD_TRY(qd_pieces_add(out, token, n));
  }
  return QD_OK;
}

qd_status qd_tokenizer_decode(const qd_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, char **text) {
  *text = NULL;
  qd_matcher matcher;
  qd_pieces tokens = {0}, spare = {0};
  QD_TRY(qd_matcher_open(&matcher));
  qd_status status = gather_tokens(tokenizer, ids, n_ids, &tokens);
  if (status == QD_OK) status = qd_decoder_apply(&tokenizer->decoder, &matcher, &tokens, &spare);
  if (status == QD_OK) status = qd_heap_text(tokens.text.n ? tokens.text.at : "", tokens.text.n, text);
  qd_matcher_close(&matcher);
  qd_pieces_release(&tokens);
  qd_pieces_release(&spare);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
