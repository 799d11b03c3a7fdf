#include "jobs/text_options.h"

#include <stdlib.h>
#include <string.h>

const qd_text_options qd_text_defaults = {.pack = true, .arithmetic = -1};

enum { KEY_SEQLEN = 0x200, KEY_SEED, KEY_BOS, KEY_NO_PACK, KEY_COMPUTE, KEY_ARITHMETIC, KEY_READERS };

static const struct argp_option options_list[] = {
    {0, 0, 0, 0, "Text:", 20},
    {"dataset", 'd', "[KIND:]FILE[:WEIGHT]", 0,
     "Text: plain FILE, FILE.jsonl with a \"text\" or with \"messages\" (spelled by the model's chat template) on each line, "
     "FILE.i32 of token ids; KIND is plain, wikitext2, ptb, c4, c4-new, jsonl or ids.  For calibration it may be repeated: "
     "sequences are mixed by WEIGHT (1)",
     20},
    {"seqlen", KEY_SEQLEN, "N", 0, "Tokens of a sequence (2048, or the model's positions if they are fewer)", 20},
    {"max-seq-length", KEY_SEQLEN, 0, OPTION_ALIAS, 0, 20},
    {"seed", KEY_SEED, "N", 0, "Seed of the choice of windows (0)", 20},
    {"add-bos", KEY_BOS, "auto|yes|no", 0,
     "Special tokens in front of a text: as the tokenizer does by default, exactly one BOS, none", 20},
    {"no-pack", KEY_NO_PACK, 0, 0, "jsonl: one document a row; shorter ones are dropped and counted", 20},
    {0}};

static const struct argp_option computing_list[] = {
    {0, 0, 0, 0, "Arithmetic (part of the job, never of the machine):", 30},
    {"compute-dtype", KEY_COMPUTE, "model|fp32|bf16", 0, "What is computed in: the model's own type, fp32 or bf16", 30},
    {"arithmetic", KEY_ARITHMETIC, "f32|bf16-pairs|bf16-amx|int8", 0,
     "The same by the order in which products are summed; bf16-amx is that of Intel's tile unit, emulated where it is missing; "
     "int8, not for quantize and plan, rounds to 8 bits what quantized weights are multiplied with",
     30},
    {0, 0, 0, 0, "Reading and memory:", 50},
    {"readers", KEY_READERS, "coordinator|node|all", 0,
     "Who reads the model's files: rank 0 (default), one rank of each node, or every rank its part; results are the same", 50},
    {0}};

/* [KIND:]FILE[:WEIGHT]; what stands behind the last colon is a weight if it is a number, unless the colon ends the kind. */
static void add_text(struct argp_state *state, qd_text_options *options, char *text) {
  const char *path;
  double weight = 1;
  if (options->n_texts == QD_MAX_TEXTS) qd_option_refuse(state, "at most %d --dataset", QD_MAX_TEXTS);
  qd_option_text(state, "--dataset", text);
  qd_tokens_kind(text, &path);
  char *colon = strrchr(text, ':'), *end;
  if (colon != NULL && colon > path && colon[1] != '\0') {
    double number = strtod(colon + 1, &end);
    if (*end == '\0') {
      weight = number, *colon = '\0';
      if (!(weight > 0 && weight <= 1e6))
        qd_option_refuse(state, "--dataset %s has the weight %s, expected a number above 0 and up to 1e6", text, colon + 1);
    }
  }
  options->text[options->n_texts++] = (qd_text_share){.dataset = text, .weight = weight};
  options->dataset = options->text[0].dataset;
}

static error_t parse(int key, char *text, struct argp_state *state) {
  static const char *const bos[] = {"auto", "yes", "no", NULL}, *const compute[] = {"model", "fp32", "bf16", NULL};
  static const char *const readers[] = {"coordinator", "node", "all", NULL};
  static const char *const arithmetic[] = {"f32", "bf16-pairs", "bf16-amx", "int8", NULL};
  qd_text_options *options = state->input;
  switch (key) {
    case 'd': add_text(state, options, text); return 0;
    case KEY_SEQLEN: options->sequence_tokens = qd_option_integer(state, "--seqlen", text, 1, 1 << 24); return 0;
    case KEY_SEED: options->seed = qd_option_integer(state, "--seed", text, 0, INT64_MAX); return 0;
    case KEY_BOS: options->bos = (qd_add_bos)qd_option_choice(state, "--add-bos", text, bos); return 0;
    case KEY_NO_PACK: options->pack = false; return 0;
    case KEY_COMPUTE: options->compute = (qd_compute)qd_option_choice(state, "--compute-dtype", text, compute); return 0;
    case KEY_ARITHMETIC: options->arithmetic = qd_option_choice(state, "--arithmetic", text, arithmetic); return 0;
    case KEY_READERS: options->readers = (qd_readers)qd_option_choice(state, "--readers", text, readers); return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

const struct argp qd_computing_argp = {.options = computing_list, .parser = parse};

/* The child's options are for the same input. */
static error_t parse_with_child(int key, char *text, struct argp_state *state) {
  if (key == ARGP_KEY_INIT) return state->child_inputs[0] = state->input, 0;
  return parse(key, text, state);
}

static const struct argp_child computing[] = {{&qd_computing_argp, 0, NULL, 0}, {0}};
const struct argp qd_text_argp = {.options = options_list, .parser = parse_with_child, .children = computing};

void qd_text_options_settle(struct argp_state *state, qd_text_options *options) {
  static const qd_compute asked_by_name[] = {QD_COMPUTE_FP32, QD_COMPUTE_BF16, QD_COMPUTE_BF16_AMX, QD_COMPUTE_INT8};
  options->reference_compute = options->compute;
  if (options->arithmetic < 0) return;
  qd_arithmetic arithmetic = (qd_arithmetic)options->arithmetic;
  bool is_fp32 = qd_arithmetic_act(arithmetic) == QD_F32;
  if (options->compute != QD_COMPUTE_MODEL && (options->compute == QD_COMPUTE_FP32) != is_fp32)
    qd_option_refuse(state, "--arithmetic %s contradicts --compute-dtype %s", qd_arithmetic_name(arithmetic),
                     is_fp32 ? "bf16" : "fp32");
  options->compute = asked_by_name[arithmetic];
}
