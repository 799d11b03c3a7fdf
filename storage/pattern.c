#define PCRE2_CODE_UNIT_WIDTH 8
#include "storage/pattern.h"

#include <pcre2.h>
#include <string.h>

static pcre2_code *code_of(const qd_pattern *pattern) {
  union { const qd_pattern *pattern; pcre2_code *code; } view = {.pattern = pattern};
  return view.code;
}

qd_status qd_pattern_open(const char *expression, const char *option, qd_pattern **out) {
  int error;
  PCRE2_SIZE place;
  *out = NULL;
  pcre2_code *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &place, NULL);
  if (code == NULL) {
    PCRE2_UCHAR reason[160];
    pcre2_get_error_message(error, reason, sizeof reason);
    QD_FAIL(QD_EUSAGE, "%s \"%s\" is no regular expression: %s at character %zu", option, expression, (const char *)reason,
            (size_t)place);
  }
  *out = (qd_pattern *)(void *)code;
  return QD_OK;
}

void qd_pattern_close(qd_pattern *pattern) {
  if (pattern != NULL) pcre2_code_free(code_of(pattern));
}

bool qd_pattern_finds(const qd_pattern *pattern, const char *text) {
  pcre2_match_data *match = pcre2_match_data_create_from_pattern(code_of(pattern), NULL);
  if (match == NULL) return false;
  int found = pcre2_match(code_of(pattern), (PCRE2_SPTR)text, strlen(text), 0, 0, match, NULL);
  pcre2_match_data_free(match);
  return found >= 0;
}
