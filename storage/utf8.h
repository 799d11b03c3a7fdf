/* UTF-8, one character at a time; nothing is assumed of the bytes. */
#ifndef QDIST_STORAGE_UTF8_H
#define QDIST_STORAGE_UTF8_H

#include "kernels/base/status.h"

enum { QD_UTF8_MAX = 4 };

/* The bytes of the first character and its code point.  false: not UTF-8; *bytes is then the longest start of a character that
 * is there (at least 1), which a lenient reader replaces by one U+FFFD.  n > 0. */
bool qd_utf8_next(const char *text, size_t n, size_t *bytes, uint32_t *codepoint);

bool   qd_utf8_valid(const char *text, size_t n, size_t *bad_offset); /* *bad_offset: of the first byte that is wrong */
size_t qd_utf8_write(uint32_t codepoint, char to[QD_UTF8_MAX]);        /* how many bytes */
size_t qd_utf8_bytes(char lead);                                      /* of a character in text that is known to be valid */
bool   qd_utf8_is_space(uint32_t codepoint);                          /* Unicode's White_Space */
size_t qd_utf8_length(const char *text, size_t n);                    /* characters of text that is known to be valid */

/* Python's str.strip() of valid text: White_Space and the four separators U+001C to U+001F go.  What is left begins at *begin;
 * returns its bytes. */
size_t qd_utf8_strip(const char *text, size_t n, size_t *begin);

#endif
