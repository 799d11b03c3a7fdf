/* THE contract page: every operation, its shapes, the order of every sum, its errors.
 *
 * Arithmetic version 1.  What is stated here fixes each output element to the bit; tile sizes, packing, threads and
 * instruction sets are free.  `ref` is the sentence as a loop, `cpu` equals it by memcmp.  docs/numerics.md has the reasons.
 *
 * Words used below
 *   chain(k)   one chain of fused multiply-adds from zero, k ascending:  s = fma(a_k, b_k, s)
 *   product    sum over chunks of 256 consecutive k (chunk c holds k = 256 c ...), in order, of the chunk's chain:
 *              the first chunk's chain as it is, then c = c + chain.  BF16 operands: denormals in and out are zero, and
 *                bf16-pairs  the chain runs over pairs (k, k + 1), the odd one first, as VDPBF16PS does; a missing odd partner
 *                            is a product of zeros
 *                bf16-amx    the chain is over blocks of 32 consecutive k, as TDPBF16PS does on a tile of zeros:  from zero,
 *                            s = s + (even + odd), even being the chain over the block's even k and odd that over its odd k;
 *                            what the last block lacks of 32 are products of zeros
 *   lanes      sum over a vector: element i goes to lane i mod 16 (lane = lane + x_i, i ascending), then lanes l and l + 8, l
 *              and l + 4, l and l + 2, l and l + 1 are added.  A vector longer than 4096 is cut in runs of 4096; the runs' fp32
 *              totals are added in order in double.  "lanes in double": the same with double lanes and no cut
 *   round      to the output's dtype: none for F32; to nearest even for BF16
 *   act        F32 or BF16: all activations of a call have one dtype
 * Dimension letters: T tokens, C in features, R out features, H heads, K kv heads, D head size, G groups, V vocabulary, U units
 * (sequences).
 *
 * All return QD_ESHAPE or QD_EDTYPE (a caller's mistake, found before anything is written) or QD_ENOMEM (scratch), unless said
 * otherwise.  None is collective. */
#ifndef QDIST_KERNELS_OPS_H
#define QDIST_KERNELS_OPS_H

#include "kernels/device.h"
#include "kernels/panels.h"
#include "kernels/qtensor.h"
#include "kernels/tri.h"

enum {
  QD_ARITHMETIC_VERSION = 1,
  QD_PRODUCT_CHUNK = 256,
  QD_AMX_BLOCK = 32,
  QD_INT8_RUN = 32,
  QD_SUM_RUN = 4096,
  QD_GPTQ_BLOCK = 128,
  QD_LOSS_TILE = 128
};

/* ---- products ------------------------------------------------------------------------------------------------------------ */

/* c = a b, or c = c + a b.   a (M, K), b (K, N): both F32, both BF16 or both F64, any strides;  c (M, N) F32 (F64), unit column
 * stride. Product over K.  accumulate: c = c + chain for every chunk, the first too. */
qd_status qd_matmul(qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c) QD_MUST_USE;

/* y = round(x w^T + bias).   x act (T, C), w (R, C) of x's dtype, bias F32 (R) or NULL, y (T, R) F32 or BF16, unit column
 * stride. Product over C in fp32, then + bias, then rounded. */
qd_status qd_linear(qd_device *device, qd_tensor x, qd_tensor w, const qd_tensor *bias, qd_tensor y) QD_MUST_USE;

/* As qd_linear with the effective weight of `w` (rounded once to bf16 when x is BF16), dequantized while it is packed.  With
 * an order the chain runs over stored positions p, and x is read at column order[p].  Same bits as qd_linear on
 * qd_dequant(w) (and gathered x). */
/* The arithmetic int8 (x and y F32) has a sentence of its own, over stored positions:
 *   runs      of 32 consecutive positions of a token, counted from 0, the last one shorter: top = largest |x|, s_a = top / 127,
 *             a = clamp(rint(x / s_a), -127, 127), true division, half to even; where s_a is 0, a is 0.  A run with a NaN or an
 *             infinity: s_a is NaN, a is 0.
 *   pieces    where runs and weight groups intersect, ascending: dot = sum of code * a, sum = sum of a, both exact;
 *             d = fma(-zero, (float)sum, (float)dot);  acc = fma(d, scale * s_a, acc), scale * s_a rounded, from 0 over all
 *             pieces of the row: no chunks.
 *   outliers  of a row that has some: acc = acc + chain over them, ascending, of (v - w) and x: v the outlier's value,
 *             w = scale * (code - zero) what its code stands for, v - w rounded, x as it is.  (An outlier is kept because it
 *             matters: so it meets its input in full, as in LLM.int8(), arXiv:2208.07339, and the codes stay one stream.)
 * Then + bias.   QD_EBADINPUT: an outlier out of bounds. */
qd_status qd_qlinear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) QD_MUST_USE;

/* A weight in panels (panels.h), for many products with few tokens.  Memory from the arena, as much as qd_panels_bytes says; w
 * and q are not needed afterwards.   dense: w act (R, C), any strides.   quantized: q as for qd_qlinear, with x of dtype act to
 * come. */
qd_status qd_panels_dense(qd_device *device, qd_arena *arena, qd_tensor w, qd_panels *out) QD_MUST_USE;
qd_status qd_panels_quantized(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_dtype act,
                              qd_panels *out) QD_MUST_USE;

/* As qd_linear, or qd_qlinear, with the weight that the panels were made of: same bits, any number of tokens.
 * QD_EINVAL: the panels were made by a device with other units. */
qd_status qd_panels_linear(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y) QD_MUST_USE;

/* ---- the forward of a decoder block -------------------------------------------------------------------------------------- */

/* Here and in "evaluation" the last dimension has unit stride, other strides are free.  QD_EBADINPUT: an index out of its
 * range. */

/* y[t] = table[ids[t]].   table act (V, C), ids I32 (T) within [0, V), y act (T, C). */
qd_status qd_embed(qd_device *device, qd_tensor table, qd_tensor ids, qd_tensor y) QD_MUST_USE;

/* RMSNorm (arXiv:1910.07467), in HF's order.   x act (T, C), w F32 (C), y act (T, C); y may be x.
 * m = (lanes in double over x_i^2) / C;  r = (float)(1 / sqrt(m + eps));  y = round(round(x r) w).  Each row by itself. */
qd_status qd_rmsnorm(qd_device *device, qd_tensor x, qd_tensor w, double eps, qd_tensor y) QD_MUST_USE;

/* Cosines and sines of positions first .. first + T - 1.   frequency F64 (D/2); cosine, sine F32 (T, D/2).
 * angle = position * frequency in double, reduced and evaluated in double (vecmath), times `factor`, rounded once. */
qd_status qd_rope_table(qd_device *device, qd_tensor frequency, int64_t first, double factor, qd_tensor cosine,
                        qd_tensor sine) QD_MUST_USE;

/* Rotary embedding, half-split (arXiv:2104.09864, HF's layout), in place.   x act (T, H, D), unit last stride; cosine, sine F32
 * (T, D/2). a = x[i], b = x[i + D/2]:  x[i] = round(fma(a, cos, -(b sin))),  x[i + D/2] = round(fma(b, cos, a sin)). */
qd_status qd_rope(qd_device *device, qd_tensor x, qd_tensor cosine, qd_tensor sine) QD_MUST_USE;

/* Causal attention of one sequence.   q act (Tq, H, D), k, v act (Tk, K, D), out act (Tq, H, D); query i has absolute position
 * Tk - Tq + i and sees keys j with 0 <= position - j < window (window <= 0: no limit); head h uses kv head h / (H / K).
 * score = (product over D) * scale, in fp32;  top = maximum;  e_j = exp(score - top);  s = sum of e_j over *absolute* j in
 * lanes (runs of 4096 counted from key 0; a key that is not seen adds nothing), rounded to fp32;  P = round(e_j * (1 / s)); out
 * = round((product over absolute j of P_j v_j) + 0), a key that is not seen being a product of zeros: so the numbers of a query
 * do not depend on Tq.  q, k and v are finite.  Never stores more than a tile of queries x Tk a thread. */
typedef struct qd_attention_args {
  qd_tensor q, k, v, out;
  float     scale;
  int64_t   window;
} qd_attention_args;
qd_status qd_attention(qd_device *device, const qd_attention_args *args) QD_MUST_USE;

/* y = round(silu(gate) * up), silu(z) = z / (1 + exp(-z)) in fp32.   all act (T, F); y may be gate or up. */
qd_status qd_swiglu(qd_device *device, qd_tensor gate, qd_tensor up, qd_tensor y) QD_MUST_USE;

/* y = round(a + b).   all act (T, C); y may be a or b. */
qd_status qd_add(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) QD_MUST_USE;

/* Experts of each token.   logits F32 (T, E), E at most QD_MAX_EXPERTS; index I32 (T, k), weight F32 (T, k), 1 <= k <= E.
 * top = maximum; e_j = exp(logit_j - top) in fp32; s = lanes over e_j; p_j = e_j / s.  Chosen are the k largest p, of equals
 * the lower index; renormalise: p_j = p_j / (sum of the chosen p, the largest first, in fp32).  The chosen are listed by
 * ascending index; weight = p rounded to `weights` (F32 or BF16). */
enum { QD_MAX_EXPERTS = 4096 };
typedef struct qd_route_args {
  qd_tensor logits, index, weight;
  bool      renormalise;
  qd_dtype  weights;
} qd_route_args;
qd_status qd_route(qd_device *device, const qd_route_args *args) QD_MUST_USE;

/* x[r_n] = round(fma(weight[n], y[n], x[r_n])), r_n = index[n], or n where index has rank 0.   y act (N, C), x act (T, C),
 * weight F32 or act (N), index I32 (N) strictly ascending within [0, T). */
qd_status qd_scatter_add(qd_device *device, qd_tensor y, qd_tensor weight, qd_tensor index, qd_tensor x) QD_MUST_USE;

/* y = round(1 / (1 + exp(-x))) in fp32.   x F32 (N), y act (N). */
qd_status qd_sigmoid(qd_device *device, qd_tensor x, qd_tensor y) QD_MUST_USE;

/* y = a - b in fp32, not rounded.   a, b act (T, C), y F32 (T, C). */
qd_status qd_subtract(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) QD_MUST_USE;

/* y[t][p] = x[t][order[p]].   x act (T, C), order I32 (C), y act (T, C); no overlap. */
qd_status qd_gather_columns(qd_device *device, qd_tensor x, qd_tensor order, qd_tensor y) QD_MUST_USE;

/* ---- evaluation ---------------------------------------------------------------------------------------------------------- */

/* nll[t] = (log(sum exp(logit - top)) + top) - logit[target], the sum in lanes (exp in fp32), its log and the rest in double.
 * logits F32 (T, V), target I32 (T) within [0, V) or -1 (nll 0), nll F64 (T). */
qd_status qd_nll(qd_device *device, qd_tensor logits, qd_tensor target, qd_tensor nll) QD_MUST_USE;

/* Divergence of q from p, nats: kl[t] = sum_v P_v (log P_v - log Q_v), all in double: log P = (logit - top) - log(sum), sum =
 * lanes in double over exp(logit - top), P = exp(log P), likewise Q; the terms in lanes in double, those with log P <= -16 left
 * out (V = 0: 0). same[t] = 1 where both have their maximum at one index (the first of equals).   p, q F32 (T, V), kl F64 (T),
 * same I32 (T). */
qd_status qd_kl(qd_device *device, qd_tensor p, qd_tensor q, qd_tensor kl, qd_tensor same) QD_MUST_USE;

/* ---- statistics ---------------------------------------------------------------------------------------------------------- */

/* Of each column of one unit, in double, t ascending: row 0 the sum, row 1 the sum of squares (s = fma(x, x, s)), row 2 the
 * largest |x|.   x act (T, C), stats F64 (3, C). */
qd_status qd_colstats(qd_device *device, qd_tensor x, qd_tensor stats) QD_MUST_USE;

/* The fixed-point grid of a Hessian, from the diagonals of all units in global order.   diagonal F64 (U, C), exponent I32 (C).
 * e_j = max(frexp exponent of sqrt(H_jj), largest - 20), H_jj of the first unit that is not all zero, largest over that unit
 * (H_jj = 0 takes largest - 20; no such unit: 0).  Then, while the total (in order, in double) of any column j reaches `bound`
 * units of 2^(2 e_j - 42), all e grow by one.  By algorithm.
 * QD_EINVAL: a bound that is not positive and finite.  QD_ENUMERIC: a diagonal, or a total, that is negative or not finite; the
 * text names unit and column. */
qd_status qd_hessian_grid(qd_device *device, qd_tensor diagonal, double bound, qd_tensor exponent) QD_MUST_USE;

/* total += sum over units of X_u^T X_u on the grid.   x act (U, T, C), exponent I32 (C), total I64 triangle.
 * Each unit's element (i, j) is a product over T in fp32, times 2^(42 - e_i - e_j) in double, clamped to +-2^62 (a NaN counts
 * as 2^62), rounded to nearest even, added as int64 modulo 2^64: exact, so that no order of units can show.
 * Here and below QD_EINVAL: an exponent beyond +-400, which no grid of fp32 data reaches. */
qd_status qd_hessian(qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total) QD_MUST_USE;

/* h = total as numbers: (double)total * 2^(e_i + e_j - 42), rounded to h's dtype (F32 or F64).  h may lie over total (F64). */
qd_status qd_hessian_values(qd_device *device, qd_tri total, qd_tensor exponent, qd_tri h) QD_MUST_USE;

/* Rows [first, first + R) of total += sum over units of (O_u - X_u)^T X_u on a grid, exactly as qd_hessian: how far the
 * original model's input O lies from the quantized model's X, against X (GPTAQ, arXiv:2504.02692: dXX^T).
 * original, x act (U, T, C), unit last stride; row_exponent, column_exponent I32 (C); total I64 (R, C), unit last stride.  d =
 * o - x in fp32; each unit's element (i, j) is a product over T in fp32 (bf16 widened) of d_i and x_j, times 2^(42 - f_i - e_j)
 * in double, then as there. f is the grid of the diagonal of (O - X)^T (O - X), e that of X^T X, both of qd_hessian_grid with
 * one bound: since |sum d_i x_j| <= sqrt(D_ii H_jj), no total overflows.  QD_EINVAL: an exponent beyond +-400, rows beyond C.
 */
typedef struct qd_cross_args {
  qd_tensor original, x;
  qd_tensor row_exponent, column_exponent;
  int64_t   first;
  qd_tensor total;
} qd_cross_args;
qd_status qd_cross(qd_device *device, const qd_cross_args *args) QD_MUST_USE;

/* values = total as numbers: (double)total * 2^(f_i + e_j - 42), rounded to fp32.   total I64 (R, C), row_exponent I32 (R),
 * column_exponent I32 (C), values F32 (R, C); unit last strides. */
qd_status qd_cross_values(qd_device *device, qd_tensor total, qd_tensor row_exponent, qd_tensor column_exponent,
                          qd_tensor values) QD_MUST_USE;

/* value[r] = x_r H x_r^T.   x F32 (R, C), h F32 triangle of C, value F64 (R).
 * p_i = product, in fp32, over the j up to the end of i's tile row (j < 256 (i / 256 + 1): its chunks are that row's tiles) of
 * x_j H_ij, with H_ij = 0 where j >= i; then in double, from 0, i ascending: v = v + x_i * (2 p_i + H_ii x_i). */
qd_status qd_sqerror(qd_device *device, qd_tensor x, qd_tri h, qd_tensor value) QD_MUST_USE;

/* ---- solvers ------------------------------------------------------------------------------------------------------------- */

/* u from a damped Hessian: H^-1 = U^T U, U upper (GPTQ, arXiv:2210.17323), by one Cholesky factor of the matrix in reversed
 * order and one triangular inverse (U = (J L J)^-1, J the reversal).   h F32 triangle, in natural order, undamped;  order I32
 * (C) or rank 0: position p of u is column order[p] of h;  add F64 (C), by column: what is added to the diagonal first (a dead
 * column's H_jj is 0: its `add` makes it positive);  work F64 triangle (overwritten);  u F32 triangle: holds U transposed, u(j,
 * c) = U[c][j], j >= c. fp64, width 256: an element is a; for each 256 consecutive k: a = a - chain; inside the diagonal block
 * one k at a time a = fma(-l_ik, l_jk, a).  Diagonal l = sqrt(a), below a / l.  Inverse X of L by blocks alike (its sentence
 * stands in factor.h). *pivot = -1, or the column of h whose pivot was not positive (or not finite): u is then unspecified and
 * QD_OK is returned. QD_EINVAL: order is not a permutation. */
typedef struct qd_factor_args {
  qd_tri    h;
  qd_tensor order, add;
  qd_tri    work, u;
} qd_factor_args;
qd_status qd_factor(qd_device *device, const qd_factor_args *args, int64_t *pivot) QD_MUST_USE;

/* P = alpha triu(D U^T, strictly) U, D = cross in processing order (GPTAQ, arXiv:2504.02692): how an input's distance from the
 * original's moves the columns to come.   cross F32 (C, C), in natural order, unit last stride;  order I32 (C) or rank 0:
 * position p is column order[p] of cross;  u F32 triangle of qd_factor in that order;  p F32 triangle: holds P transposed,
 * p(j, a) = P[a][j], j > a, zeros elsewhere.  In fp64, tiles of 256 counted from 0: for k > a, T[a][k] = sum over tiles of b,
 * in order from k's own, of the tile's chain of D[a][b] U[k][b] (U[k][b] = 0 for b < k), the first tile's as it is;
 * P[a][j] = alpha times the sum over tiles of k, from a's own to j's, of the tile's chain of T[a][k] U[k][j] (T[a][k] = 0 for
 * k <= a, U[k][j] = 0 for j < k), the first as it is;  rounded once.  QD_EINVAL: order is not a permutation. */
typedef struct qd_asymmetry_args {
  qd_tensor cross, order;
  qd_tri    u;
  double    alpha;
  qd_tri    p;
} qd_asymmetry_args;
qd_status qd_asymmetry(qd_device *device, const qd_asymmetry_args *args) QD_MUST_USE;

/* The grid of each row and group (arXiv:2210.17323, the quantizer of its code).   w F32 (R, C), scale F32 (R, G), zero U8 (R,
 * G); unit last strides, G as qd_scheme_groups says. In fp32: lo = min(0, min w), hi = max(0, max w); symmetric: hi = max(-lo,
 * hi), lo = -hi (compat: lo stays 0 when nothing is negative); lo = hi = 0: lo = -1, hi = 1.  s = (hi - lo) / max_code, rounded
 * to scale_dtype; a positive s never to 0: it takes the smallest positive fp16, 2^-24 (F32: the smallest normal, 2^-126).  z =
 * 2^(b-1) or clamp(rint(-lo / s), 0, max_code), from the rounded s. mse: candidate i = 0..79 has p = 1 - i / 100 (in double,
 * rounded once), lo_i = p lo, hi_i = p hi, s and z from them as above; error = lanes over |s (q - z) - w|^2.4 (no fma;
 * vecmath's pow24, 0 for 0) with q the code below; the first least wins. A NaN in w is passed over by min and max.  ref64:
 * QD_F32 keeps s in double, QD_F16 rounds it to fp16. QD_ENUMERIC: s of the whole range (p = 1) is infinite in scale_dtype; the
 * text names row and group, the first in row order. */
qd_status qd_rtn_fit(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero) QD_MUST_USE;

/* code = clamp(rint(w / s) + z, 0, max_code), true division, half to even; a NaN gives 0.
 * w F32 (R, C), scale F32 (R, G), zero U8 (R, G), code U8 (R, C); unit last strides. */
qd_status qd_rtn_quantize(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero,
                          qd_tensor code) QD_MUST_USE;

/* GPTQ's loop (arXiv:2210.17323, algorithm 1) over the columns in processing order.
 * w F32 (R, C): columns in processing order, dead ones zeroed; overwritten.
 * u F32 triangle of qd_factor in the same order.
 * stored I32 (C): stored position of each processing position, a permutation; the group of a column is stored / group size.
 * fit: groups are fitted when the loop reaches their first column (dynamic); false: scale and zero hold the grid already
 * (static, per channel).  A group's columns must be consecutive in processing order when it is fitted. code U8 (R, C) by stored
 * position; scale F32 (R, G); zero U8 (R, G); loss F64 (R).   All unit last strides. Blocks of `block` columns (at least 1; 128
 * by default), each starting where the last one ended, the last one shorter.  With fit and without compat a block also ends
 * before a group that begins inside it (after its first column) and does not end inside it. One column c at a time, in fp32:
 *   fit, and c is the first of its group: the grid by qd_rtn_fit's sentence, elements in processing order, from the values that
 * the group's columns have now (compat: had when c's block began) code = clamp(rint(w_c / s) + z, 0, max_code);  e_c = (w_c - s
 * (code - z)) / U_cc;  loss = loss + (double)e_c e_c / 2, from 0 w_j = fma(-e_c, U_cj, w_j) for the later columns j of the
 * block and at the block's end, for every column j beyond it: for each 256 consecutive columns of the block, counted from its
 * first, w_j = w_j - chain over them of e_c U_cj.
 * p (GPTAQ, arXiv:2504.02692): F32 triangle of qd_asymmetry in the same order; of 0 columns: plain GPTQ.  With w_c as it was
 * when column c got its code, each w_j = fma(-e_c, U_cj, w_j) is then followed by w_j = fma(w_c, P_cj, w_j), and beyond the
 * block the chunks of e by those of w: w_j = w_j + chain over them of w_c P_cj.
 * Rows do not know each other.  A NaN or an infinity in w or u ends up in the row's loss. QD_EINVAL: stored is no permutation,
 * or a fitted group is scattered.  QD_ENUMERIC: as qd_rtn_fit; the text names the first row and its first such group in
 * processing order; the outputs are then unspecified. */
typedef struct qd_gptq_args {
  qd_tensor w;
  qd_tri    u;
  qd_tensor stored;
  qd_scheme scheme;
  bool      fit;
  int64_t   block;
  qd_tensor code, scale, zero, loss;
  qd_tri    p;
} qd_gptq_args;
qd_status qd_gptq(qd_device *device, const qd_gptq_args *args) QD_MUST_USE;

/* SpQR's loop (arXiv:2306.03078, algorithm 1 with the reference code's details): GPTQ's, on a grid of its own, with outliers.
 * w F32 (R, C), u F32: as for qd_gptq, whose blocks, updates and order of arithmetic these are; groups are consecutive in
 * processing order, positions are stored positions, and a block ends before a group that it would cut. tau: of squared errors;
 * INFINITY: no outliers.  code U8 (R, C); scale_code, zero_code U8 (R, G); second F16 (ceil(R / stat_group), G, 4); scale, zero
 * F32 (R, G): as they are used (from codes and second, where they are quantized); all of these but second are filled in any
 * case.  outlier U8 (R, C): 1 where w, rounded to fp16, is kept in `value` F16 (R, C).  loss F64 (R): sum of e_c e_c / 2.
 * Rows know each other only within runs of stat_group.  QD_ENUMERIC names row and group: a scale or zero point, or its second
 * level, is beyond what stores it. */
typedef struct qd_spqr_args {
  qd_tensor w;
  qd_tri    u;
  qd_scheme scheme;
  double    tau;
  bool      simplified;
  int64_t   block;
  qd_tensor code, scale_code, zero_code, second, scale, zero, outlier, value, loss;
} qd_spqr_args;
enum { QD_SPQR_MOST_GROUP = 1024 }; /* a larger group is fitted without looking for outliers first */
qd_status qd_spqr(qd_device *device, const qd_spqr_args *args) QD_MUST_USE;

/* Columns by the likeness of their ranks: each column of w is replaced by the ranks of its values over the rows (average ranks
 * of equals), centred, of length 1 (a constant one is 0); from column 0 on the next is the one with the largest cosine, which
 * takes the place behind the last one of the chain; the first of equals in the order as it is then.  w F32 (R, C), order I32
 * (C). */
qd_status qd_spearman_order(qd_device *device, qd_tensor w, qd_tensor order) QD_MUST_USE;

/* ---- codes --------------------------------------------------------------------------------------------------------------- */

/* code U8 (R, C), each below 2^bits  <->  packed U8 (R, qd_packed_row_bytes): little-endian bit stream a row, last byte padded
 * with 0. */
qd_status qd_pack(qd_device *device, qd_tensor code, int bits, qd_tensor packed) QD_MUST_USE;
qd_status qd_unpack(qd_device *device, qd_tensor packed, int bits, qd_tensor code) QD_MUST_USE;

/* The effective weight by stored position: w[r][p] = round(s * (float)(code - zero)).   w act (R, C). */
qd_status qd_dequant(qd_device *device, const qd_qtensor *q, qd_tensor w) QD_MUST_USE;

/* *index = the first element (row-major) that is NaN or infinite, or -1.   x F32, F16 or BF16, contiguous. */
qd_status qd_find_nonfinite(qd_device *device, qd_tensor x, int64_t *index) QD_MUST_USE;

#endif
