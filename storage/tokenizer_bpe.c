/* Byte pair encoding (Sennrich et al., arXiv:1508.07909): of all neighbouring symbols of a piece that may merge, the pair of
 * lowest rank merges first, the leftmost of them, until none is left.  A heap of candidates over a linked list of symbols: n
 * log n for a piece of n symbols, which is a whole text where no pre-tokenizer cuts it. */
#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

/* ---- merges --------------------------------------------------------------------------------------------------------- */

static const uint64_t FREE_PAIR = UINT64_MAX;

static uint64_t pair_key(int32_t left, int32_t right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }

static size_t pair_slot(const qd_bpe *bpe, uint64_t key) {
  uint64_t h = key * 0x9E3779B97F4A7C15u; /* Knuth's multiplicative hash, by the golden ratio */
  size_t at = (size_t)(h ^ h >> 32) & (bpe->slots - 1);
  while (bpe->pair[at] != key && bpe->pair[at] != FREE_PAIR) at = (at + 1) & (bpe->slots - 1);
  return at;
}

static bool find_merge(const qd_bpe *bpe, int32_t left, int32_t right, uint32_t *rank) {
  uint64_t key = pair_key(left, right);
  size_t at = pair_slot(bpe, key);
  *rank = bpe->pair_rank[at];
  return bpe->pair[at] == key;
}

typedef struct halves {
  const char *left, *right;
  size_t left_bytes, right_bytes;
} halves;

/* "a b" or ["a", "b"]. */
static qd_status read_halves(const qd_json *merge, size_t index, const char *what, halves *out) {
  const qd_json *left = qd_json_at(merge, 0), *right = qd_json_at(merge, 1);
  if (qd_json_is_array(merge) && qd_json_length(merge) == 2 && qd_json_is_text(left) && qd_json_is_text(right)) {
    *out = (halves){qd_json_text(left), qd_json_text(right), qd_json_text_bytes(left), qd_json_text_bytes(right)};
    return QD_OK;
  }
  QD_CHECK(qd_json_is_text(merge), QD_EBADINPUT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", what, index);
  const char *text = qd_json_text(merge);
  size_t n = qd_json_text_bytes(merge);
  const char *space = memchr(text, ' ', n);
  bool two = space != NULL && memchr(space + 1, ' ', n - (size_t)(space + 1 - text)) == NULL;
  QD_CHECK(two, QD_EBADINPUT, "%s: merge %zu, \"%.80s\", is not two tokens with one space between them", what, index, text);
  *out = (halves){text, space + 1, (size_t)(space - text), n - (size_t)(space + 1 - text)};
  return QD_OK;
}

static qd_status find_part(const qd_bpe *bpe, const char *token, size_t n, size_t index, const char *what, int32_t *id) {
  *id = qd_vocabulary_find(&bpe->vocabulary, token, n);
  QD_CHECK(*id >= 0, QD_EBADINPUT, "%s: merge %zu names the token \"%.*s\", which is not in the vocabulary", what, index,
           (int)(n < 80 ? n : 80), token);
  return QD_OK;
}

/* A pair that comes twice keeps its last rank, as in the library. */
static qd_status add_merge(qd_bpe *bpe, const qd_json *merge, size_t index, const char *what, qd_buffer *joined) {
  halves h = {0};
  int32_t left = 0, right = 0;
  QD_TRY(read_halves(merge, index, what, &h));
  QD_TRY(find_part(bpe, h.left, h.left_bytes, index, what, &left));
  QD_TRY(find_part(bpe, h.right, h.right_bytes, index, what, &right));
  joined->n = 0;
  QD_TRY(qd_buffer_add(joined, h.left, h.left_bytes));
  QD_TRY(qd_buffer_add(joined, h.right, h.right_bytes));
  QD_TRY(find_part(bpe, joined->at, joined->n, index, what, &bpe->merged[index]));
  uint64_t key = pair_key(left, right);
  size_t at = pair_slot(bpe, key);
  bpe->pair[at] = key;
  bpe->pair_rank[at] = (uint32_t)index;
  return QD_OK;
}

static qd_status parse_merges(const qd_json *merges, const char *what, qd_bpe *out) {
  QD_CHECK(qd_json_is_array(merges), QD_EBADINPUT, "%s: the model's \"merges\" is not a list", what);
  size_t n = qd_json_length(merges), slots = 16;
  QD_CHECK(n < UINT32_MAX, QD_EBADINPUT, "%s: %zu merges are more than can be numbered", what, n);
  while (slots < 2 * n) slots *= 2;
  QD_TRY(qd_heap_new(n, sizeof *out->merged, &out->merged));
  QD_TRY(qd_heap_new(slots, sizeof *out->pair_rank, &out->pair_rank));
  QD_TRY(qd_heap_new(slots, sizeof *out->pair, &out->pair));
  memset(out->pair, 0xFF, slots * sizeof *out->pair);
  out->slots = slots;
  qd_buffer joined = {0};
  qd_status status = QD_OK;
  for (size_t i = 0; i < n && status == QD_OK; i++) status = add_merge(out, qd_json_at(merges, i), i, what, &joined);
  qd_buffer_release(&joined);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- the model's other facts ---------------------------------------------------------------------------------------- */

static qd_status refuse_text(const qd_json *model, const char *what, const char *key) {
  const qd_json *value = qd_json_get(model, key);
  bool empty = value == NULL || (qd_json_is_text(value) && qd_json_text_bytes(value) == 0);
  QD_CHECK(empty, QD_EUNSUPPORTED, "%s: a BPE model with %s is not supported", what, key);
  return QD_OK;
}

/* Old files have no type; merges then tell BPE. */
static qd_status check_kind(const qd_json *model, const char *what) {
  double dropout;
  const char *type = "BPE";
  QD_CHECK(qd_json_is_object(model), QD_EBADINPUT, "%s: \"model\" is not an object", what);
  if (qd_json_get(model, "type") != NULL || qd_json_get(model, "merges") == NULL)
    QD_TRY(qd_json_need_text(model, what, "type", &type));
  QD_CHECK(strcmp(type, "BPE") == 0, QD_EUNSUPPORTED, "%s: the model type %s is not supported, only BPE", what, type);
  QD_TRY(qd_json_take_number(model, what, "dropout", 0, 1, 0, &dropout));
  QD_CHECK(dropout == 0, QD_EUNSUPPORTED, "%s: a BPE model with dropout %g is not supported", what, dropout);
  QD_TRY(refuse_text(model, what, "continuing_subword_prefix"));
  QD_TRY(refuse_text(model, what, "end_of_word_suffix"));
  return QD_OK;
}

static qd_status parse_unknown(const qd_json *model, const char *what, qd_bpe *out) {
  const char *token;
  size_t n;
  out->unknown = -1;
  if (qd_json_get(model, "unk_token") == NULL) return QD_OK;
  QD_TRY(qd_part_text(model, what, "unk_token", &token, &n));
  out->unknown = qd_vocabulary_find(&out->vocabulary, token, n);
  QD_CHECK(out->unknown >= 0, QD_EBADINPUT, "%s: the unknown token \"%.80s\" is not in the vocabulary", what, token);
  return QD_OK;
}

static void find_byte_tokens(qd_bpe *bpe) {
  char token[8];
  for (unsigned byte = 0; byte < 256; byte++) {
    int n = snprintf(token, sizeof token, "<0x%02X>", byte);
    bpe->byte_id[byte] = qd_vocabulary_find(&bpe->vocabulary, token, (size_t)n);
  }
}

qd_status qd_bpe_parse(const qd_json *model, const char *what, qd_bpe *out) {
  QD_TRY(check_kind(model, what));
  QD_TRY(qd_json_take_bool(model, what, "fuse_unk", false, &out->fuse_unknown));
  QD_TRY(qd_json_take_bool(model, what, "byte_fallback", false, &out->byte_fallback));
  QD_TRY(qd_json_take_bool(model, what, "ignore_merges", false, &out->ignore_merges));
  QD_TRY(qd_vocabulary_parse(qd_json_get(model, "vocab"), what, &out->vocabulary));
  QD_TRY(parse_unknown(model, what, out));
  find_byte_tokens(out);
  QD_TRY(parse_merges(qd_json_get(model, "merges"), what, out));
  return QD_OK;
}

void qd_bpe_release(qd_bpe *bpe) {
  qd_vocabulary_release(&bpe->vocabulary);
  qd_heap_free(bpe->pair);
  qd_heap_free(bpe->pair_rank);
  qd_heap_free(bpe->merged);
  *bpe = (qd_bpe){.unknown = -1};
}

/* ---- a piece's first symbols ---------------------------------------------------------------------------------------- */

static qd_status add_symbol(qd_bpe_work *work, int32_t id) {
  QD_CHECK(work->symbols < INT32_MAX, QD_EUNSUPPORTED, "a text of more than %d characters without a cut is not supported",
           INT32_MAX);
  QD_TRY(qd_heap_grow(&work->symbol, &work->symbol_capacity, work->symbols + 1, sizeof *work->symbol));
  int32_t at = (int32_t)work->symbols++;
  work->symbol[at] = (qd_symbol){.id = id, .previous = at - 1, .next = at + 1};
  return QD_OK;
}

/* *spelt false: a byte has no token. */
static qd_status add_byte_symbols(const qd_bpe *bpe, qd_bpe_work *work, const char *character, size_t n, bool *spelt) {
  *spelt = false;
  for (size_t i = 0; i < n; i++)
    if (bpe->byte_id[(unsigned char)character[i]] < 0) return QD_OK;
  for (size_t i = 0; i < n; i++) QD_TRY(add_symbol(work, bpe->byte_id[(unsigned char)character[i]]));
  *spelt = true;
  return QD_OK;
}

static qd_status cannot_spell(const char *character, size_t n) {
  size_t bytes;
  uint32_t c;
  qd_utf8_next(character, n, &bytes, &c);
  QD_FAIL(QD_EBADINPUT, "the tokenizer has no token for the character U+%04" PRIX32 ", no byte tokens and no unknown token", c);
}

/* An unknown token waits until the next known character: fused ones are one token; and where a byte fallback comes in between,
 * it goes first, as in the library. */
static qd_status first_symbols(const qd_bpe *bpe, qd_bpe_work *work, const char *piece, size_t n) {
  bool waiting = false;
  work->symbols = 0;
  for (size_t i = 0, bytes; i < n; i += bytes) {
    bytes = qd_utf8_bytes(piece[i]);
    int32_t id = qd_vocabulary_find(&bpe->vocabulary, piece + i, bytes);
    if (id >= 0) {
      if (waiting) QD_TRY(add_symbol(work, bpe->unknown));
      waiting = false;
      QD_TRY(add_symbol(work, id));
      continue;
    }
    bool spelt = false;
    if (bpe->byte_fallback) QD_TRY(add_byte_symbols(bpe, work, piece + i, bytes, &spelt));
    if (spelt) continue;
    if (bpe->unknown < 0) return cannot_spell(piece + i, bytes);
    if (waiting && !bpe->fuse_unknown) QD_TRY(add_symbol(work, bpe->unknown));
    waiting = true;
  }
  if (waiting) QD_TRY(add_symbol(work, bpe->unknown));
  if (work->symbols > 0) work->symbol[work->symbols - 1].next = -1;
  return QD_OK;
}

/* ---- merging -------------------------------------------------------------------------------------------------------- */

static void sift_down(uint64_t *heap, size_t n, size_t at) {
  uint64_t value = heap[at];
  for (size_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && heap[child + 1] < heap[child]) child++;
    if (heap[child] >= value) break;
    heap[at] = heap[child];
  }
  heap[at] = value;
}

static uint64_t pop(qd_bpe_work *work) {
  uint64_t top = work->heap[0];
  work->heap[0] = work->heap[--work->heaped];
  if (work->heaped > 1) sift_down(work->heap, work->heaped, 0);
  return top;
}

static void sift_up(uint64_t *heap, size_t at) {
  uint64_t value = heap[at];
  for (; at > 0 && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = value;
}

/* If the symbol at `left` and its next one may merge, note it.  `ordered`: keep the heap a heap. */
static qd_status add_candidate(const qd_bpe *bpe, qd_bpe_work *work, int32_t left, bool ordered) {
  uint32_t rank;
  int32_t right = work->symbol[left].next;
  if (right < 0 || !find_merge(bpe, work->symbol[left].id, work->symbol[right].id, &rank)) return QD_OK;
  QD_TRY(qd_heap_grow(&work->heap, &work->heap_capacity, work->heaped + 1, sizeof *work->heap));
  work->heap[work->heaped++] = (uint64_t)rank << 32 | (uint32_t)left;
  if (ordered) sift_up(work->heap, work->heaped - 1);
  return QD_OK;
}

static qd_status merge_at(const qd_bpe *bpe, qd_bpe_work *work, int32_t left, int32_t id) {
  qd_symbol *s = work->symbol;
  int32_t right = s[left].next;
  s[right].gone = true;
  s[left].id = id;
  s[left].next = s[right].next;
  if (s[left].next >= 0) s[s[left].next].previous = left;
  if (s[left].previous >= 0) QD_TRY(add_candidate(bpe, work, s[left].previous, true));
  QD_TRY(add_candidate(bpe, work, left, true));
  return QD_OK;
}

static qd_status merge_symbols(const qd_bpe *bpe, qd_bpe_work *work) {
  work->heaped = 0;
  for (size_t i = 0; i + 1 < work->symbols; i++) QD_TRY(add_candidate(bpe, work, (int32_t)i, false));
  for (size_t i = work->heaped / 2; i-- > 0;) sift_down(work->heap, work->heaped, i);
  while (work->heaped > 0) {
    uint64_t top = pop(work);
    int32_t left = (int32_t)(uint32_t)top, id = bpe->merged[top >> 32];
    uint32_t rank;
    qd_symbol symbol = work->symbol[left];
    if (symbol.gone || symbol.next < 0) continue;
    /* Outdated unless the two still become the same token, be it by another merge: the library asks no more than that. */
    if (!find_merge(bpe, symbol.id, work->symbol[symbol.next].id, &rank) || bpe->merged[rank] != id) continue;
    QD_TRY(merge_at(bpe, work, left, id));
  }
  return QD_OK;
}

/* ---- pieces seen before --------------------------------------------------------------------------------------------- */

enum { KNOWN_SLOTS = 1 << 16, KNOWN_BYTES = 64 };

qd_status qd_bpe_work_open(qd_bpe_work *work, bool remember) {
  *work = (qd_bpe_work){.remember = remember};
  if (remember) QD_TRY(qd_heap_new(KNOWN_SLOTS, sizeof *work->known, &work->known));
  return QD_OK;
}

void qd_bpe_work_close(qd_bpe_work *work) {
  qd_heap_free(work->symbol);
  qd_heap_free(work->heap);
  qd_heap_free(work->known);
  qd_buffer_release(&work->known_text);
  qd_ids_release(&work->known_ids);
  *work = (qd_bpe_work){0};
}

/* The slot of the piece, or the free one (no key) where it would go. */
static qd_known_piece *known_slot(const qd_bpe_work *work, const char *piece, size_t n) {
  uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)piece[i]) * 0x100000001B3u;
  size_t at = (size_t)(h ^ h >> 32) & (KNOWN_SLOTS - 1);
  for (;; at = (at + 1) & (KNOWN_SLOTS - 1)) {
    qd_known_piece *known = &work->known[at];
    if (known->key_bytes == 0) return known;
    if (known->key_bytes == n && memcmp(work->known_text.at + known->key, piece, n) == 0) return known;
  }
}

static qd_status know(qd_bpe_work *work, qd_known_piece *slot, const char *piece, size_t n, const qd_ids *ids, size_t first) {
  if (work->n_known >= KNOWN_SLOTS / 2) return QD_OK;
  size_t key = work->known_text.n, begin = work->known_ids.n;
  QD_TRY(qd_buffer_add(&work->known_text, piece, n));
  for (size_t i = first; i < ids->n; i++) QD_TRY(qd_ids_add(&work->known_ids, ids->at[i]));
  *slot = (qd_known_piece){.key = key, .ids = begin, .key_bytes = (uint32_t)n, .n_ids = (uint32_t)(ids->n - first)};
  work->n_known++;
  return QD_OK;
}

static qd_status encode_anew(const qd_bpe *bpe, qd_bpe_work *work, const char *piece, size_t n, qd_ids *ids) {
  QD_TRY(first_symbols(bpe, work, piece, n));
  QD_TRY(merge_symbols(bpe, work));
  for (size_t i = 0; i < work->symbols; i++) {
    if (!work->symbol[i].gone) QD_TRY(qd_ids_add(ids, work->symbol[i].id));
  }
  return QD_OK;
}

qd_status qd_bpe_encode(const qd_bpe *bpe, qd_bpe_work *work, const char *piece, size_t n, qd_ids *ids) {
  int32_t whole = bpe->ignore_merges ? qd_vocabulary_find(&bpe->vocabulary, piece, n) : -1;
  if (whole >= 0) return qd_ids_add(ids, whole);
  if (!work->remember || n > KNOWN_BYTES || n == 0) return encode_anew(bpe, work, piece, n, ids);
  qd_known_piece *slot = known_slot(work, piece, n);
  if (slot->key_bytes > 0) {
    for (uint32_t i = 0; i < slot->n_ids; i++) QD_TRY(qd_ids_add(ids, work->known_ids.at[slot->ids + i]));
    return QD_OK;
  }
  size_t first = ids->n;
  QD_TRY(encode_anew(bpe, work, piece, n, ids));
  QD_TRY(know(work, slot, piece, n, ids, first));
  return QD_OK;
}
