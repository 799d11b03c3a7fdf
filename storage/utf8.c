#include "storage/utf8.h"

/* Unicode, table 3-7: which second bytes a lead byte allows, and how many bytes follow it. */
static size_t following(unsigned char lead, unsigned char *low, unsigned char *high) {
  *low = 0x80, *high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) return 1;
  if (lead == 0xE0) *low = 0xA0;
  if (lead == 0xED) *high = 0x9F;
  if (lead >= 0xE0 && lead <= 0xEF) return 2;
  if (lead == 0xF0) *low = 0x90;
  if (lead == 0xF4) *high = 0x8F;
  return lead >= 0xF0 && lead <= 0xF4 ? 3 : 0;
}

bool qd_utf8_next(const char *text, size_t n, size_t *bytes, uint32_t *codepoint) {
  unsigned char lead = (unsigned char)text[0], low, high;
  *bytes = 1;
  *codepoint = lead;
  if (lead < 0x80) return true;
  size_t more = following(lead, &low, &high);
  if (more == 0) return false;
  *codepoint = lead & (0x3Fu >> more);
  for (size_t i = 1; i <= more; i++) {
    if (i == n) return false;
    unsigned char byte = (unsigned char)text[i];
    if (byte < low || byte > high) return false;
    *codepoint = *codepoint << 6 | (byte & 0x3Fu);
    *bytes = i + 1;
    low = 0x80, high = 0xBF;
  }
  return true;
}

bool qd_utf8_valid(const char *text, size_t n, size_t *bad_offset) {
  size_t bytes;
  uint32_t codepoint;
  for (size_t i = 0; i < n; i += bytes) {
    if (qd_utf8_next(text + i, n - i, &bytes, &codepoint)) continue;
    *bad_offset = i;
    return false;
  }
  return true;
}

size_t qd_utf8_write(uint32_t codepoint, char to[QD_UTF8_MAX]) {
  size_t more = codepoint < 0x80 ? 0 : codepoint < 0x800 ? 1 : codepoint < 0x10000 ? 2 : 3;
  static const unsigned char mark[] = {0x00, 0xC0, 0xE0, 0xF0};
  for (size_t i = more; i > 0; i--, codepoint >>= 6) to[i] = (char)(0x80 | (codepoint & 0x3F));
  to[0] = (char)(mark[more] | codepoint);
  return more + 1;
}

size_t qd_utf8_bytes(char lead) {
  unsigned char byte = (unsigned char)lead;
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

bool qd_utf8_is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t qd_utf8_length(const char *text, size_t n) {
  size_t length = 0;
  for (size_t i = 0; i < n; i++) length += ((unsigned char)text[i] & 0xC0) != 0x80;
  return length;
}

static bool is_stripped(uint32_t c) { return qd_utf8_is_space(c) || (c >= 0x1C && c <= 0x1F); }

size_t qd_utf8_strip(const char *text, size_t n, size_t *begin) {
  size_t bytes, end = 0;
  uint32_t c;
  *begin = 0;
  for (size_t i = 0; i < n; i += bytes) {
    qd_utf8_next(text + i, n - i, &bytes, &c);
    if (is_stripped(c)) continue;
    if (end == 0) *begin = i;
    end = i + bytes;
  }
  return end - *begin;
}
