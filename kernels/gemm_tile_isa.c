/* Register tiles for each kind of panel.  Sizes: as many sums as there are registers, less those for one step's inputs. */
#include "kernels/gemm_sums.h"
#include "kernels/gemm_vector.h"

#if defined(__AVX512F__)
#define F32_ROWS 14
#define F64_ROWS 8
enum { F32_VECTORS = 2, F64_VECTORS = 3 };
#elif defined(__AVX2__)
#define F32_ROWS 6
#define F64_ROWS 6
enum { F32_VECTORS = 2, F64_VECTORS = 2 };
#else
#define F32_ROWS 8
#define F64_ROWS 8
enum { F32_VECTORS = 2, F64_VECTORS = 2 };
#endif

#define KIND f32
#define ELEMENT float
#define OUTPUT float
#define TARGET
#define LANES F32_LANES
#define VECTORS F32_VECTORS
#define ROWS F32_ROWS
#include "kernels/gemm_tile.h"

#define KIND f64
#define ELEMENT double
#define OUTPUT double
#define TARGET
#define LANES F64_LANES
#define VECTORS F64_VECTORS
#define ROWS F64_ROWS
#include "kernels/gemm_tile.h"

#ifdef QD_HAVE_PAIRS
#define KIND pairs
#define ELEMENT uint32_t
#define OUTPUT float
#define TARGET QD_PAIRS_TARGET
#define LANES PAIRS_LANES
#define VECTORS F32_VECTORS
#define ROWS F32_ROWS
#include "kernels/gemm_tile.h"
#endif

const qd_gemm_unit *QD_ISA(qd_gemm_find_unit)(qd_panel_kind kind) {
  static const qd_gemm_unit f32 = {F32_ROWS, F32_LANES * F32_VECTORS, sizeof(float), QD_ISA(qd_panel_pack_f32), f32_strip,
                                   NULL};
  static const qd_gemm_unit f64 = {F64_ROWS, F64_LANES * F64_VECTORS, sizeof(double), QD_ISA(qd_panel_pack_f64), f64_strip,
                                   NULL};
  static const qd_gemm_unit wide = {F32_ROWS, F32_LANES * F32_VECTORS, sizeof(float), QD_ISA(qd_panel_pack_wide), f32_strip,
                                    NULL};
#ifdef QD_HAVE_PAIRS
  static const qd_gemm_unit pairs = {F32_ROWS, F32_LANES * F32_VECTORS, sizeof(uint32_t), QD_ISA(qd_panel_pack_pairs),
                                     pairs_strip, NULL};
  if (kind == QD_PANEL_PAIRS) return &pairs;
#endif
  return kind == QD_PANEL_F32   ? &f32
         : kind == QD_PANEL_F64  ? &f64
         : kind == QD_PANEL_WIDE ? &wide
                                 : QD_ISA(qd_gemm_find_amx_unit)(kind);
}
