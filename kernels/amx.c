#define _GNU_SOURCE
#include "kernels/amx.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* ---- may it be used ---- */

enum {
  CPU_OSXSAVE = 1 << 27,                  /* leaf 1, ecx                                                             */
  CPU_AMX_BF16 = 1 << 22,                 /* leaf 7, edx                                                             */
  CPU_AMX_TILE = 1 << 24,                 /* the same                                                                */
  STATE_TILES = 3 << 17,                  /* XCR0: configuration and data                                            */
  REQUEST_PERMISSION = 0x1023,            /* arch_prctl(ARCH_REQ_XCOMP_PERM), which not every system's headers have  */
  TILE_DATA = 18,
};

static bool cpu_has_tiles(void) {
  unsigned a, b, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & CPU_OSXSAVE) == 0) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (d & CPU_AMX_TILE) != 0 && (d & CPU_AMX_BF16) != 0;
}

__attribute__((target("xsave"))) static bool system_has_tiles(void) { return (_xgetbv(0) & STATE_TILES) == STATE_TILES; }

static bool system_permits_tiles(void) {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

bool qd_amx_is_usable(void) { return cpu_has_tiles() && system_has_tiles() && system_permits_tiles(); }

/* ---- registers ---- */

/* What LDTILECFG reads. */
typedef struct tile_config {
  uint8_t  palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t  rows[16];
} tile_config;

/* A register has at least one row, used or not.  Constants, since compilers do not know that the instruction reads all of it.
 */
#define FIRST(n) ((n) < 16 ? (n) : 16)
#define OTHERS(n) ((n) > 16 ? (n) - 16 : 1)
#define CONFIG(n)                                                                    \
  {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},                      \
   .rows = {FIRST(n), FIRST(n), OTHERS(n), OTHERS(n), FIRST(n), OTHERS(n), 16, 16}}
#define EIGHT(n)                                                                                                   \
  CONFIG(n), CONFIG((n) + 1), CONFIG((n) + 2), CONFIG((n) + 3), CONFIG((n) + 4), CONFIG((n) + 5), CONFIG((n) + 6), \
      CONFIG((n) + 7)
static const tile_config configs[] = {EIGHT(1), EIGHT(9), EIGHT(17), EIGHT(25)};

QD_AMX_TARGET void qd_amx_begin(int rows) { _tile_loadconfig(&configs[rows - 1]); }
QD_AMX_TARGET void qd_amx_end(void) { _tile_release(); }

#else

bool qd_amx_is_usable(void) { return false; }

#endif
