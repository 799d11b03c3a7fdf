#include "jobs/spqr_options.h"

#include "pipeline/budget.h"
#include "pipeline/outliers.h"

#include <math.h>
#include <string.h>

enum {
  KEY_PRESET = 0x500,
  KEY_AVG_BITS,
  KEY_THRESHOLD,
  KEY_SIMPLIFIED,
  KEY_SCALE_BITS,
  KEY_ZERO_BITS,
  KEY_STAT_GROUP,
  KEY_ROUND_ZERO
};

static const struct argp_option options_list[] = {
    {"preset", KEY_PRESET, "spqr-4bit|spqr-3bit|reference", 0,
     "3 bits in groups of 16, 3.99 bits a weight in all (default); 2 bits in groups of 32, 3.07; or what the authors of SpQR "
     "recommend: 3 bits in groups of 16, threshold 0.2, damping 1", 1},
    {"avg-bits", KEY_AVG_BITS, "X", 0,
     "Bits a weight with statistics and outliers that the job ends with, within 0.02: the threshold of outliers follows "
     "(3.99). Where --bits or --group-size is not given, the best setting that fits is taken", 1},
    {"outlier-threshold", KEY_THRESHOLD, "X|none", 0,
     "Keep a weight whose error is worth more than X of its linear's mean; smaller X, more outliers", 1},
    {"simplified-outliers", KEY_SIMPLIFIED, 0, 0, "Fit the grids as if there were no outliers", 1},
    {"scale-bits", KEY_SCALE_BITS, "N", 0, "Bits of a group's scale; 0: not quantized (3)", 1},
    {"qq-scale-bits", KEY_SCALE_BITS, 0, OPTION_ALIAS, 0, 1},
    {"zero-bits", KEY_ZERO_BITS, "N", 0, "Bits of a group's zero point; 0: not quantized (3)", 1},
    {"qq-zero-bits", KEY_ZERO_BITS, 0, OPTION_ALIAS, 0, 1},
    {"stat-group", KEY_STAT_GROUP, "N", 0, "Rows whose scales and zero points are quantized together (16)", 1},
    {"qq-groupsize", KEY_STAT_GROUP, 0, OPTION_ALIAS, 0, 1},
    {"round-zero", KEY_ROUND_ZERO, 0, 0, "Whole zero points", 1},
    {0}};

const qd_spqr_options qd_spqr_defaults = {.preset = -1, .avg_bits = -1, .threshold = -1, .scale_bits = -1, .zero_bits = -1};

typedef struct preset {
  const char  *name;
  int          bits;
  int64_t      group_size;
  double       avg_bits, threshold, damp; /* avg_bits 0: the threshold stands; damp 0: auto */
} preset;

enum { PRESET_REFERENCE = 2, N_PRESETS };

static const preset presets[N_PRESETS] = {{"spqr-4bit", 3, 16, 3.99, QD_FIRST_THRESHOLD, 0},
                                          {"spqr-3bit", 2, 32, 3.07, QD_FIRST_THRESHOLD, 0},
                                          {"reference", 3, 16, 0, QD_FIRST_THRESHOLD, 1}};

static int find_preset(struct argp_state *state, const char *text) {
  const char *names[N_PRESETS + 1] = {0};
  for (int i = 0; i < N_PRESETS; i++) names[i] = presets[i].name;
  return qd_option_choice(state, "--preset", text, names);
}

static double threshold_of(struct argp_state *state, const char *text) {
  return strcmp(text, "none") == 0 ? INFINITY
                                   : qd_option_number_or(state, "--outlier-threshold", text, (qd_option_range){0, 1e9, "none"});
}

/* 0, or what can be packed. */
static int statistic_bits(struct argp_state *state, const char *option, const char *text) {
  int bits = (int)qd_option_integer(state, option, text, 0, QD_MAX_BITS);
  if (bits != 0 && bits < QD_MIN_BITS)
    qd_option_refuse(state, "%s takes 0 (not quantized) or %d to %d bits, got \"%s\"", option, QD_MIN_BITS, QD_MAX_BITS, text);
  return bits;
}

static error_t parse(int key, char *text, struct argp_state *state) {
  qd_spqr_options *o = state->input;
  switch (key) {
    case KEY_PRESET: o->preset = find_preset(state, text), o->given = "--preset"; return 0;
    case KEY_AVG_BITS: o->avg_bits = qd_option_number(state, "--avg-bits", text, 1, 32), o->given = "--avg-bits"; return 0;
    case KEY_THRESHOLD: o->threshold = threshold_of(state, text), o->given = "--outlier-threshold"; return 0;
    case KEY_SIMPLIFIED: o->simplified = true, o->given = "--simplified-outliers"; return 0;
    case KEY_SCALE_BITS: o->scale_bits = statistic_bits(state, "--scale-bits", text), o->given = "--scale-bits"; return 0;
    case KEY_ZERO_BITS: o->zero_bits = statistic_bits(state, "--zero-bits", text), o->given = "--zero-bits"; return 0;
    case KEY_STAT_GROUP:
      o->stat_group = qd_option_integer(state, "--stat-group", text, 1, INT32_MAX), o->given = "--stat-group";
      return 0;
    case KEY_ROUND_ZERO: o->round_zero = true, o->given = "--round-zero"; return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

const struct argp qd_spqr_argp = {.options = options_list, .parser = parse};

/* ---- what is meant ------------------------------------------------------------------------------------------------------- */

static void settle_scheme(const qd_spqr_options *o, qd_scheme *scheme) {
  scheme->spqr = true;
  scheme->scale_bits = o->scale_bits >= 0 ? o->scale_bits : 3;
  scheme->zero_bits = o->zero_bits >= 0 ? o->zero_bits : 3;
  scheme->stat_group = o->stat_group > 0 ? o->stat_group : 16;
  scheme->round_zero = o->round_zero;
}

/* Bits and groups that nobody gave: those of a preset that was asked for where they leave something for an outlier, else the
 * best that the average pays for. */
static void settle_bits(struct argp_state *state, const qd_spqr_options *o, const preset *p, qd_spqr_shared given,
                        qd_job *job) {
  bool asked = o->preset >= 0 || job->scheme.compat;
  qd_scheme usual = job->scheme, open = job->scheme;
  double low, high;
  if (!given.bits) usual.bits = p->bits, open.bits = 0;
  if (!given.group) usual.group_size = p->group_size, open.group_size = 0;
  if (job->avg_bits == 0 || (asked && qd_budget_choose(&usual, job->avg_bits, &low, &high))) {
    job->scheme = usual;
    return;
  }
  if (!qd_budget_choose(&open, job->avg_bits, &low, &high))
    qd_option_refuse(state, "--avg-bits %g%s cannot be reached%s: %.4f to %.4f can", job->avg_bits,
                     o->avg_bits >= 0 ? "" : ", which is taken where none is given,",
                     given.bits || given.group ? " with this --bits and --group-size" : "", ceil(1e4 * low) / 1e4,
                     floor(1e4 * high) / 1e4);
  job->scheme = open;
}

static void settle_threshold(struct argp_state *state, const qd_spqr_options *o, const preset *p, qd_job *job) {
  if (o->avg_bits >= 0 && o->threshold >= 0)
    qd_option_refuse(state, "--avg-bits and --outlier-threshold contradict each other: give one of them");
  job->outlier_threshold = o->threshold >= 0 ? o->threshold : p->threshold;
  job->avg_bits = o->threshold >= 0 ? 0 : o->avg_bits >= 0 ? o->avg_bits : p->avg_bits;
  job->simplified_outliers = o->simplified;
}

void qd_spqr_options_settle(struct argp_state *state, const qd_spqr_options *o, qd_spqr_shared given, qd_job *job) {
  if (!job->method->has_outliers) {
    if (o->given != NULL)
      qd_option_refuse(state, "%s belongs to --method spqr, it means nothing to --method %s", o->given, job->method->name);
    return;
  }
  const preset *p = &presets[o->preset >= 0 ? o->preset : job->scheme.compat ? PRESET_REFERENCE : 0];
  if (given.order && (job->act_order == QD_ORDER_STATIC || job->act_order == QD_ORDER_GROUP))
    qd_option_refuse(state, "--act-order %s means nothing to --method spqr, which takes --permutation-order",
                     qd_act_order_name(job->act_order));
  if (!given.order) job->act_order = QD_ORDER_DYNAMIC;
  if (!given.damp) job->damp_auto = p->damp == 0, job->damp = p->damp;
  settle_scheme(o, &job->scheme);
  settle_threshold(state, o, p, job);
  settle_bits(state, o, p, given, job);
}
