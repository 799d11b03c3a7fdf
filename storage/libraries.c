#define PCRE2_CODE_UNIT_WIDTH 8
#include "storage/libraries.h"

#include "storage/h5.h"
#include "storage/json.h"
#include "storage/store.h"

#include <pcre2.h>
#include <stdio.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

int qd_storage_format_version(void) { return QD_STORE_FORMAT_VERSION; }

const char *qd_storage_libraries(void) {
  static char text[256];
  char pcre2[64] = "?";
  if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) < (int)sizeof pcre2) pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
  unsigned xxhash = XXH_versionNumber();
  snprintf(text, sizeof text, "HDF5 %s, zstd %s, zlib %s, jansson %s, PCRE2 %s, utf8proc %s, xxHash %u.%u.%u",
           qd_h5_library_version(), ZSTD_versionString(), zlibVersion(), qd_json_library_version(), pcre2, utf8proc_version(),
           xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
  return text;
}
