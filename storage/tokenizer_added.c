/* Tokens that are found as they are written, before any model sees the text: the leftmost, of those the longest. */
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

enum { TOKEN_BYTES_LIMIT = 1024 }; /* finding takes at most this many steps a byte of text */

/* ---- trie ----------------------------------------------------------------------------------------------------------- */

static int32_t find_child(const qd_trie *trie, int32_t parent, char byte) {
  int32_t at = trie->node[parent].first_child;
  while (at >= 0 && trie->node[at].byte != byte) at = trie->node[at].sibling;
  return at;
}

static qd_status add_node(qd_trie *trie, int32_t parent, char byte, int32_t *at) {
  QD_CHECK(trie->n < INT32_MAX, QD_EBADINPUT, "more added tokens than can be numbered");
  QD_TRY(qd_heap_grow(&trie->node, &trie->capacity, trie->n + 1, sizeof *trie->node));
  *at = (int32_t)trie->n++;
  trie->node[*at] = (qd_trie_node){.first_child = -1, .sibling = -1, .token = -1, .byte = byte};
  if (parent < 0) return QD_OK;
  trie->node[*at].sibling = trie->node[parent].first_child;
  trie->node[parent].first_child = *at;
  return QD_OK;
}

/* Of two that are spelt alike the first counts. */
static qd_status add_word(qd_trie *trie, const char *word, size_t n, int32_t token) {
  int32_t at = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t child = find_child(trie, at, word[i]);
    if (child < 0) QD_TRY(add_node(trie, at, word[i], &child));
    at = child;
  }
  if (trie->node[at].token < 0) trie->node[at].token = token;
  return QD_OK;
}

/* The longest token at the start of the text, or -1. */
static int32_t longest(const qd_trie *trie, const char *text, size_t n, size_t *bytes) {
  int32_t token = -1;
  int32_t at = 0;
  for (size_t i = 0; i < n; i++) {
    at = find_child(trie, at, text[i]);
    if (at < 0) break;
    if (trie->node[at].token < 0) continue;
    token = trie->node[at].token;
    *bytes = i + 1;
  }
  return token;
}

/* ---- parsing -------------------------------------------------------------------------------------------------------- */

static qd_status read_token(const qd_json *part, const char *what, qd_added_token *out) {
  const char *content;
  size_t n;
  int64_t id;
  QD_CHECK(qd_json_is_object(part), QD_EBADINPUT, "%s: an added token is not an object", what);
  QD_TRY(qd_part_text(part, what, "content", &content, &n));
  QD_TRY(qd_json_need_integer(part, what, "id", 0, QD_TOKEN_ID_LIMIT - 1, &id));
  QD_CHECK(n > 0, QD_EBADINPUT, "%s: the added token of id %" PRId64 " is empty", what, id);
  QD_CHECK(n <= TOKEN_BYTES_LIMIT, QD_EUNSUPPORTED,
           "%s: the added token of id %" PRId64 " has %zu bytes, at most %d are supported", what, id, n, TOKEN_BYTES_LIMIT);
  out->id = (int32_t)id;
  QD_TRY(qd_json_take_bool(part, what, "single_word", false, &out->single_word));
  QD_TRY(qd_json_take_bool(part, what, "lstrip", false, &out->strip_left));
  QD_TRY(qd_json_take_bool(part, what, "rstrip", false, &out->strip_right));
  QD_TRY(qd_json_take_bool(part, what, "special", false, &out->special));
  QD_TRY(qd_json_take_bool(part, what, "normalized", !out->special, &out->normalized));
  QD_TRY(qd_buffer_add(&out->content, content, n));
  return QD_OK;
}

/* The library does not read the id but counts on: a file where the two differ would get other ids there. */
static qd_status check_id(const qd_added_token *token, int64_t largest_added, const char *what, qd_vocabulary *vocabulary) {
  int32_t own = qd_vocabulary_find(vocabulary, token->content.at, token->content.n);
  int64_t next = largest_added >= vocabulary->tokens ? largest_added + 1 : vocabulary->tokens;
  int64_t expected = own >= 0 ? own : next;
  QD_CHECK(token->id == expected, QD_EBADINPUT,
           "%s: the added token \"%.80s\" has the id %" PRId32 ", its place gives it %" PRId64, what, token->content.at,
           token->id, expected);
  size_t n;
  const char *there = qd_vocabulary_token(vocabulary, token->id, &n);
  QD_CHECK(own >= 0 || there == NULL, QD_EBADINPUT,
           "%s: the added token \"%.80s\" has the id %" PRId32 " of the token \"%.*s\"", what, token->content.at, token->id,
           (int)(n < 80 ? n : 80), there);
  if (own < 0) QD_TRY(qd_vocabulary_append(vocabulary, token->content.at, token->content.n, token->id));
  return QD_OK;
}

static qd_status read_all(const qd_json *list, const char *what, qd_vocabulary *vocabulary, qd_added *out) {
  int64_t largest = -1;
  for (size_t i = 0; i < qd_json_length(list); i++) {
    QD_TRY(qd_heap_grow(&out->token, &out->capacity, out->n + 1, sizeof *out->token));
    qd_added_token *token = &out->token[out->n++];
    *token = (qd_added_token){0};
    QD_TRY(read_token(qd_json_at(list, i), what, token));
    QD_TRY(qd_buffer_add(&token->content, "", 1)); /* for messages */
    token->content.n--;
    QD_TRY(check_id(token, largest, what, vocabulary));
    if (token->id > largest) largest = token->id;
  }
  return QD_OK;
}

/* A normalized token is looked for as the normalizer spells it. */
static qd_status enter_token(qd_added *added, int32_t index, const qd_normalizer *normalizer, qd_matcher *matcher,
                             const char *what) {
  const qd_added_token *token = &added->token[index];
  if (!token->normalized) return add_word(&added->raw, token->content.at, token->content.n, index);
  qd_buffer text = {0}, spare = {0};
  qd_status status = qd_buffer_add(&text, token->content.at, token->content.n);
  if (status == QD_OK) status = qd_normalizer_apply(normalizer, matcher, &text, &spare);
  bool empty = text.n == 0;
  if (status == QD_OK && !empty) status = add_word(&added->normalized, text.at, text.n, index);
  qd_buffer_release(&text);
  qd_buffer_release(&spare);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  QD_CHECK(!empty, QD_EUNSUPPORTED, "%s: the normalizer leaves nothing of the added token \"%.80s\"", what, token->content.at);
  return QD_OK;
}

static qd_status enter_all(qd_added *added, const qd_normalizer *normalizer, qd_matcher *matcher, const char *what) {
  for (int special = 1; special >= 0; special--) {
    for (size_t i = 0; i < added->n; i++) {
      if (added->token[i].special == (special == 1)) QD_TRY(enter_token(added, (int32_t)i, normalizer, matcher, what));
    }
  }
  return QD_OK;
}

qd_status qd_added_parse(const qd_json *list, const char *what, const qd_normalizer *normalizer, qd_vocabulary *vocabulary,
                         qd_added *out) {
  int32_t root = 0;
  QD_CHECK(list == NULL || qd_json_is_array(list), QD_EBADINPUT, "%s: \"added_tokens\" is not a list", what);
  QD_TRY(add_node(&out->raw, -1, '\0', &root));
  QD_TRY(add_node(&out->normalized, -1, '\0', &root));
  static const char word[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]"; /* UTS #18, annex C: \w */
  QD_TRY(qd_regex_open_native(word, sizeof word - 1, what, &out->word));
  QD_TRY(read_all(list, what, vocabulary, out));
  qd_matcher matcher;
  QD_TRY(qd_matcher_open(&matcher));
  qd_status status = enter_all(out, normalizer, &matcher, what);
  qd_matcher_close(&matcher);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

void qd_added_release(qd_added *added) {
  for (size_t i = 0; i < added->n; i++) qd_buffer_release(&added->token[i].content);
  qd_heap_free(added->token);
  qd_heap_free(added->raw.node);
  qd_heap_free(added->normalized.node);
  qd_regex_close(&added->word);
  *added = (qd_added){0};
}

/* ---- finding -------------------------------------------------------------------------------------------------------- */

static qd_status is_word(const qd_added *added, qd_matcher *matcher, const char *character, size_t n, bool *yes) {
  QD_TRY(qd_regex_cover(&added->word, matcher, character, n));
  *yes = matcher->spans.n > 0 && matcher->spans.at[0].matched;
  return QD_OK;
}

static size_t character_before(const char *text, size_t at) {
  size_t begin = at - 1;
  while (begin > 0 && ((unsigned char)text[begin] & 0xC0) == 0x80) begin--;
  return begin;
}

static qd_status stands_alone(const qd_added *added, qd_matcher *matcher, const char *text, size_t n, qd_span match,
                              bool *alone) {
  bool before = false, after = false;
  if (match.begin > 0) {
    size_t at = character_before(text, match.begin);
    QD_TRY(is_word(added, matcher, text + at, match.begin - at, &before));
  }
  if (match.end < n) QD_TRY(is_word(added, matcher, text + match.end, qd_utf8_bytes(text[match.end]), &after));
  *alone = !before && !after;
  return QD_OK;
}

static size_t spaces_before(const char *text, size_t at, size_t limit) {
  while (at > limit) {
    size_t begin = character_before(text, at), bytes;
    uint32_t c;
    qd_utf8_next(text + begin, at - begin, &bytes, &c);
    if (begin < limit || !qd_utf8_is_space(c)) break;
    at = begin;
  }
  return at;
}

static size_t spaces_after(const char *text, size_t at, size_t n) {
  while (at < n) {
    size_t bytes;
    uint32_t c;
    qd_utf8_next(text + at, n - at, &bytes, &c);
    if (!qd_utf8_is_space(c)) break;
    at += bytes;
  }
  return at;
}

static qd_status add_found(qd_found_list *found, size_t begin, size_t end, int32_t id) {
  QD_TRY(qd_heap_grow(&found->at, &found->capacity, found->n + 1, sizeof *found->at));
  found->at[found->n++] = (qd_found){.begin = begin, .end = end, .id = id};
  return QD_OK;
}

qd_status qd_added_find(const qd_added *added, const qd_trie *trie, qd_matcher *matcher, qd_span in, const char *text,
                        qd_found_list *found) {
  size_t n = in.end - in.begin, done = 0, bytes = 0;
  bool any = trie->node[0].first_child >= 0;
  text += in.begin;
  found->n = 0;
  for (size_t i = 0; any && i < n; i += bytes) {
    int32_t index = longest(trie, text + i, n - i, &bytes);
    if (index < 0) {
      bytes = 1;
      continue;
    }
    const qd_added_token *token = &added->token[index];
    qd_span match = {.begin = i, .end = i + bytes};
    bool alone = true;
    if (token->single_word) QD_TRY(stands_alone(added, matcher, text, n, match, &alone));
    if (!alone) continue;
    if (token->strip_left) match.begin = spaces_before(text, match.begin, done);
    if (token->strip_right) match.end = spaces_after(text, match.end, n);
    if (match.begin > done) QD_TRY(add_found(found, done, match.begin, -1));
    QD_TRY(add_found(found, match.begin, match.end, token->id));
    done = match.end;
  }
  if (done < n) QD_TRY(add_found(found, done, n, -1));
  return QD_OK;
}
