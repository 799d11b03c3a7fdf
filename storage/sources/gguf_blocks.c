#include "storage/sources/gguf_blocks.h"

static float half_at(const unsigned char *at) {
  uint16_t bits;
  memcpy(&bits, at, sizeof bits);
  return qd_f16_to_f32(bits);
}

static uint32_t word_at(const unsigned char *at) {
  uint32_t word;
  memcpy(&word, at, sizeof word);
  return word;
}

/* ---- blocks of 32 -------------------------------------------------------------------------------------------------------- */

static void decode_q4_0(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 18, to += 32) {
    float d = half_at(b);
    for (int j = 0; j < 16; j++) {
      to[j] = d * (float)((b[2 + j] & 15) - 8);
      to[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
  }
}

static void decode_q4_1(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 20, to += 32) {
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
      to[j] = d * (float)(b[4 + j] & 15) + m;
      to[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
  }
}

/* The fifth bit of element j is bit j of a word. */
static void fifth_bits(uint32_t word, const unsigned char *low, int q[32]) {
  for (int j = 0; j < 16; j++) {
    q[j] = (low[j] & 15) | (int)(word >> j & 1) << 4;
    q[j + 16] = low[j] >> 4 | (int)(word >> (j + 16) & 1) << 4;
  }
}

static void decode_q5_0(const unsigned char *b, size_t n, float *to) {
  for (int q[32]; n > 0; n--, b += 22, to += 32) {
    float d = half_at(b);
    fifth_bits(word_at(b + 2), b + 6, q);
    for (int j = 0; j < 32; j++) to[j] = d * (float)(q[j] - 16);
  }
}

static void decode_q5_1(const unsigned char *b, size_t n, float *to) {
  for (int q[32]; n > 0; n--, b += 24, to += 32) {
    float d = half_at(b), m = half_at(b + 2);
    fifth_bits(word_at(b + 4), b + 8, q);
    for (int j = 0; j < 32; j++) to[j] = d * (float)q[j] + m;
  }
}

static void decode_q8_0(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 34, to += 32) {
    float d = half_at(b);
    for (int j = 0; j < 32; j++) to[j] = d * (float)(int8_t)b[2 + j];
  }
}

/* ---- blocks of 256, in sub-blocks with scales of their own --------------------------------------------------------------- */

static void decode_q2_k(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 84) {
    const unsigned char *qs = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int s = 0; s < 16; s++, to += 16) { /* sub-block s: half s / 8, shift s % 8 / 2, 16 of 32 bytes */
      float scale = d * (float)(b[s] & 15), least = dmin * (float)(b[s] >> 4);
      const unsigned char *from = qs + 32 * (s / 8) + 16 * (s % 2);
      for (int l = 0; l < 16; l++) to[l] = scale * (float)(from[l] >> 2 * (s % 8 / 2) & 3) - least;
    }
  }
}

/* Scale s of 16: a low nibble among bytes 0 to 7, two high bits among bytes 8 to 11. */
static int q3_k_scale(const unsigned char *q, int s) {
  int low = q[s % 8] >> (s < 8 ? 0 : 4) & 15, high = q[8 + s % 4] >> 2 * (s / 4) & 3;
  return (low | high << 4) - 32;
}

static void decode_q3_k(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 110) {
    const unsigned char *hmask = b, *qs = b + 32, *scales = b + 96;
    float d = half_at(b + 108);
    for (int s = 0; s < 16; s++, to += 16) {
      float scale = d * (float)q3_k_scale(scales, s);
      const unsigned char *from = qs + 32 * (s / 8) + 16 * (s % 2), *mask = hmask + 16 * (s % 2);
      for (int l = 0; l < 16; l++)
        to[l] = scale * (float)((from[l] >> 2 * (s % 8 / 2) & 3) - ((mask[l] >> s / 2 & 1) ? 0 : 4));
    }
  }
}

/* Six bits each of scale and minimum j of 8, in 12 bytes. */
static void q4_k_scale(const unsigned char *q, int j, int *scale, int *least) {
  if (j < 4) {
    *scale = q[j] & 63, *least = q[j + 4] & 63;
  } else {
    *scale = (q[j + 4] & 15) | (q[j - 4] >> 6) << 4;
    *least = q[j + 4] >> 4 | (q[j] >> 6) << 4;
  }
}

static void decode_q4_k(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 144) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0, sc, m; j < 8; j++, to += 32) {
      q4_k_scale(b + 4, j, &sc, &m);
      float scale = d * (float)sc, least = dmin * (float)m;
      const unsigned char *from = b + 16 + 32 * (j / 2);
      for (int l = 0; l < 32; l++) to[l] = scale * (float)(from[l] >> 4 * (j % 2) & 15) - least;
    }
  }
}

static void decode_q5_k(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 176) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0, sc, m; j < 8; j++, to += 32) {
      q4_k_scale(b + 4, j, &sc, &m);
      float scale = d * (float)sc, least = dmin * (float)m;
      const unsigned char *high = b + 16, *from = b + 48 + 32 * (j / 2);
      for (int l = 0; l < 32; l++)
        to[l] = scale * (float)((from[l] >> 4 * (j % 2) & 15) | (high[l] >> j & 1) << 4) - least;
    }
  }
}

static void decode_q6_k(const unsigned char *b, size_t n, float *to) {
  for (; n > 0; n--, b += 210) {
    float d = half_at(b + 208);
    for (int s = 0; s < 16; s++, to += 16) { /* half s / 8, quarter p = s % 8 / 2 of its 128, 16 of 32 */
      int p = s % 8 / 2;
      const unsigned char *low = b + 64 * (s / 8) + 32 * (p % 2) + 16 * (s % 2), *high = b + 128 + 32 * (s / 8) + 16 * (s % 2);
      float scale = d * (float)(int8_t)b[192 + s];
      for (int l = 0; l < 16; l++)
        to[l] = scale * (float)(((low[l] >> 4 * (p / 2) & 15) | (high[l] >> 2 * p & 3) << 4) - 32);
    }
  }
}

/* ---- the table ----------------------------------------------------------------------------------------------------------- */

static const qd_gguf_block blocks[] = {
    {0, "F32", 1, 4, QD_F32, NULL},
    {1, "F16", 1, 2, QD_F16, NULL},
    {30, "BF16", 1, 2, QD_BF16, NULL},
    {2, "Q4_0", 32, 18, QD_F32, decode_q4_0},
    {3, "Q4_1", 32, 20, QD_F32, decode_q4_1},
    {6, "Q5_0", 32, 22, QD_F32, decode_q5_0},
    {7, "Q5_1", 32, 24, QD_F32, decode_q5_1},
    {8, "Q8_0", 32, 34, QD_F32, decode_q8_0},
    {10, "Q2_K", 256, 84, QD_F32, decode_q2_k},
    {11, "Q3_K", 256, 110, QD_F32, decode_q3_k},
    {12, "Q4_K", 256, 144, QD_F32, decode_q4_k},
    {13, "Q5_K", 256, 176, QD_F32, decode_q5_k},
    {14, "Q6_K", 256, 210, QD_F32, decode_q6_k},
};
enum { N_BLOCKS = sizeof blocks / sizeof *blocks };

static const struct { uint32_t type; const char *name; } others[] = {
    {9, "Q8_1"},     {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"},
    {21, "IQ3_S"},   {22, "IQ2_S"}, {23, "IQ4_XS"},  {24, "I8"},     {25, "I16"},     {26, "I32"},   {27, "I64"},
    {28, "F64"},     {29, "IQ1_M"}, {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"},   {40, "NVFP4"},
};

const qd_gguf_block *qd_gguf_block_of(uint32_t type) {
  for (int i = 0; i < N_BLOCKS; i++)
    if (blocks[i].type == type) return &blocks[i];
  return NULL;
}

const char *qd_gguf_type_name(uint32_t type) {
  const qd_gguf_block *block = qd_gguf_block_of(type);
  if (block != NULL) return block->name;
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (others[i].type == type) return others[i].name;
  return NULL;
}

const char *qd_gguf_type_names(void) { return "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K"; }
