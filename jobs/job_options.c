#include "jobs/job_options.h"

#include "jobs/job_config.h"
#include "pipeline/report.h"
#include "workers/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  KEY_METHOD = 0x300,
  KEY_SYM,
  KEY_ASYM,
  KEY_MSE,
  KEY_NO_MSE,
  KEY_ACT_ORDER,
  KEY_DESC_ACT,
  KEY_STATIC_GROUPS,
  KEY_SEQUENTIAL,
  KEY_NO_SEQUENTIAL,
  KEY_DAMP,
  KEY_ON_FAILURE,
  KEY_BLOCK,
  KEY_MOE_FALLBACK,
  KEY_MOE_MIN_TOKENS,
  KEY_COMPAT,
  KEY_NSAMPLES,
  KEY_IGNORE,
  KEY_OVERRIDE,
  KEY_HEAD,
  KEY_EMBEDDING,
  KEY_SHARD,
  KEY_RESUME,
  KEY_NO_RESUME,
  KEY_STOP_AFTER,
  KEY_STATUS,
  KEY_HESSIAN_BOUND,
  KEY_MAX_HOST,
  KEY_ODD_SHAPE,
  KEY_SCALE_DTYPE,
  KEY_ACTIVATIONS,
  KEY_KEEP,
  KEY_GPTAQ,
  KEY_GPTAQ_ALPHA,
  KEY_REPORT_KL,
  KEY_KL_POSITIONS,
  KEY_CONFIG,
  KEY_SHOW_PLAN,
  KEY_PERMUTATION
};

/* What the plug-ins say of themselves, a sentence each. */
enum { LIST_BYTES = 4096 };
static char families_text[LIST_BYTES] =
    "The original model: a folder in Hugging Face layout (safetensors), a GGUF file, or a name; of one of these families.";
static char methods_text[LIST_BYTES] = "One of these (gptq).";

static const struct argp_option options_list[] = {
    {"model", 'm', "MODEL", 0, families_text, 1},
    {"output", 'o', "OUT", 0, "The store to write; the same command typed again goes on with an unfinished one", 1},
    {0, 0, 0, 0, "Method:", 10},
    {"method", KEY_METHOD, "NAME", 0, methods_text, 10},
    {"bits", 'b', "N", 0, "Bits of a code, 2 to 8 (4; of spqr 3)", 10},
    {"wbits", 'b', 0, OPTION_ALIAS, 0, 10},
    {"w-bits", 'b', 0, OPTION_ALIAS, 0, 10},
    {"group-size", 'g', "N", 0, "Columns that share a scale; -1: the whole row (128; of spqr 16)", 10},
    {"groupsize", 'g', 0, OPTION_ALIAS, 0, 10},
    {"w-group-size", 'g', 0, OPTION_ALIAS, 0, 10},
    {"odd-shape", KEY_ODD_SHAPE, "ragged|per-channel|skip", 0,
     "A width that no group divides: the last group is shorter (default), one group a row, or the linear is kept", 10},
    {"asym", KEY_ASYM, 0, 0, "Zero points of their own (default)", 10},
    {"sym", KEY_SYM, 0, 0, "Zero point in the middle", 10},
    {"mse", KEY_MSE, 0, 0, "Search the clipping of each group (default of gptq)", 10},
    {"no-mse", KEY_NO_MSE, 0, 0, "Scales from the smallest and largest weight", 10},
    {"scale-dtype", KEY_SCALE_DTYPE, "f16|f32", 0, "Type of the stored scales (f16)", 10},
    {"act-order", KEY_ACT_ORDER, "none|static|dynamic|group-aware", 0, "gptq: columns by descending activation (static)", 10},
    {"permutation-order", KEY_PERMUTATION, "identity|act_order|spearman", 0,
     "spqr: columns as they are, by descending activation (default), or each beside its likest", 10},
    {"desc-act", KEY_DESC_ACT, 0, 0, "The same as --act-order dynamic", 10},
    {"static-groups", KEY_STATIC_GROUPS, 0, 0, "The same as --act-order static", 10},
    {"true-sequential", KEY_SEQUENTIAL, 0, 0, "Linears of a block see those before them quantized (default)", 10},
    {"no-true-sequential", KEY_NO_SEQUENTIAL, 0, 0, "All linears of a block from the original block's activations", 10},
    {"damp", KEY_DAMP, "X|auto", 0,
     "Share of the mean diagonal that is added to the Hessian (0.01); auto: of 0.01, 0.1 and 1 the best by the loss of a "
     "sample of rows, for each input (default of spqr)", 10},
    {"damp-percent", KEY_DAMP, 0, OPTION_ALIAS, 0, 10},
    {"percdamp", KEY_DAMP, 0, OPTION_ALIAS, 0, 10},
    {"dampening-frac", KEY_DAMP, 0, OPTION_ALIAS, 0, 10},
    {"on-hessian-failure", KEY_ON_FAILURE, "rtn|stop", 0,
     "When no damping (five times tenfold) gives a factor: round to nearest (default), or end the job", 10},
    {"moe-fallback", KEY_MOE_FALLBACK, "rtn|shared-hessian", 0,
     "Experts with few calibration tokens (without experts it is of no effect): round to nearest, or gate and up by the "
     "Hessian of all tokens (default; down is then rounded)", 10},
    {"moe-min-tokens", KEY_MOE_MIN_TOKENS, "N", 0,
     "How many calibration tokens an expert needs for a Hessian of its own (256)", 10},
    {"block-size", KEY_BLOCK, "N", 0, "Columns of a GPTQ block (128)", 10},
    {"gptaq", KEY_GPTAQ, 0, 0,
     "gptq: correct for how far a linear's inputs have moved from the original model's (a second stream of activations)", 10},
    {"gptaq-alpha", KEY_GPTAQ_ALPHA, "X", 0, "How much of that distance is corrected, 0 (plain GPTQ) to 1 (0.25)", 10},
    {"compat", KEY_COMPAT, "reference", 0, "The reference code's formulas, order of steps, fp32 scales and defaults", 10},
    {"ignore", KEY_IGNORE, "REGEX", 0, "Keep the tensors whose name it finds (may be repeated)", 10},
    {"override", KEY_OVERRIDE, "REGEX=BITS:GROUP", 0,
     "Other bits and group for the tensors whose name it finds (may be repeated; the last decides)", 10},
    {"quant-lm-head", KEY_HEAD, "BITS", OPTION_ARG_OPTIONAL,
     "Quantize the head too, by the method, in so many bits (those of --bits); a head that is the embedding becomes one of its "
     "own",
     10},
    {"quant-embeddings", KEY_EMBEDDING, "BITS", OPTION_ARG_OPTIONAL,
     "Round the embedding to nearest, in so many bits (those of --bits); a head that is the embedding keeps its values", 10},
    {"nsamples", KEY_NSAMPLES, "N", 0, "Calibration sequences (128)", 20},
    {"num-calibration-samples", KEY_NSAMPLES, 0, OPTION_ALIAS, 0, 20},
    {"calib-samples", KEY_NSAMPLES, 0, OPTION_ALIAS, 0, 20},
    {"report-kl", KEY_REPORT_KL, 0, 0,
     "After each block, how far the next token's distribution is from the original model's on the calibration text", 20},
    {"kl-positions", KEY_KL_POSITIONS, "N", 0, "Positions of a sequence that --report-kl compares (64)", 20},
    {0, 0, 0, 0, "The job:", 40},
    {"config", KEY_CONFIG, "FILE", 0,
     "Options from FILE, YAML or JSON: names are the long options, what is given here goes before it; each output has its "
     "job in such a file, job.yaml",
     40},
    {"show-plan", KEY_SHOW_PLAN, 0, 0,
     "Tell the setting of each linear (bits, groups, method, fallback; or why it is kept) before any work", 40},
    {"shard-size", KEY_SHARD, "SIZE", 0, "Largest file of a block before compression; cut at linears (4G)", 40},
    {"resume", KEY_RESUME, 0, 0, "Go on with an unfinished output of the same job (default)", 40},
    {"no-resume", KEY_NO_RESUME, 0, 0, "Refuse an output folder that is not empty", 40},
    {"stop-after", KEY_STOP_AFTER, "TIME", 0,
     "Stop cleanly (exit 75) when the next block would pass TIME (90s, 45m, 2h30m, H:MIN:SEC), after one block at the least",
     40},
    {"status-file", KEY_STATUS, "FILE", 0, "Write progress as JSON there after each block", 40},
    {"max-host-mem", KEY_MAX_HOST, "SIZE", 0, "Memory that all ranks of a node may take together (as much as there is)", 50},
    {"activations", KEY_ACTIVATIONS, "memory|disk:DIR|auto:DIR", 0,
     "Where the calibration sequences' activations are: in memory (default), in files without a name in DIR on each node, or "
     "there only when memory is too small for them; results are the same",
     50},
    {"keep-activations", KEY_KEEP, 0, 0,
     "Keep the calibration sequences' activations in the output after each block, so that going on reads them back instead of "
     "running the finished blocks again; results are the same",
     50},
    {"hessian-bound", KEY_HESSIAN_BOUND, "UNITS", OPTION_HIDDEN, "Widen a Hessian's grid at so many units (2^62); for tests",
     40},
    {0}};

static void add_ignore(struct argp_state *state, qd_job *job, const char *text) {
  if (job->n_rules == QD_MAX_RULES) qd_option_refuse(state, "at most %d --ignore and --override", QD_MAX_RULES);
  job->rule[job->n_rules++] = (qd_rule){.expression = text};
}

/* REGEX=BITS:GROUP; the last '=' counts, a regular expression may hold others. */
static void add_override(struct argp_state *state, qd_job *job, char *text) {
  char *equals = strrchr(text, '='), *colon = equals ? strchr(equals, ':') : NULL;
  if (colon == NULL) qd_option_refuse(state, "--override takes REGEX=BITS:GROUP, got \"%s\"", text);
  add_ignore(state, job, text);
  *equals = '\0', *colon = '\0';
  qd_rule *rule = &job->rule[job->n_rules - 1];
  rule->bits = (int)qd_option_integer(state, "--override's bits", equals + 1, QD_MIN_BITS, QD_MAX_BITS);
  rule->group_size = qd_option_integer(state, "--override's group", colon + 1, -1, INT32_MAX);
  if (rule->group_size == 0) qd_option_refuse(state, "--override's group is -1 or at least 1");
}

/* memory, disk:DIR or auto:DIR. */
static void set_activations(struct argp_state *state, qd_job *job, const char *text) {
  static const struct { const char *prefix; qd_acts_place place; } with_folder[] = {{"disk:", QD_ACTS_DISK},
                                                                                    {"auto:", QD_ACTS_AUTO}};
  job->acts_place = QD_ACTS_MEMORY, job->acts_folder = NULL;
  if (strcmp(text, "memory") == 0) return;
  for (size_t i = 0; i < sizeof with_folder / sizeof *with_folder; i++) {
    size_t n = strlen(with_folder[i].prefix);
    if (strncmp(text, with_folder[i].prefix, n) != 0 || text[n] == '\0') continue;
    job->acts_place = with_folder[i].place, job->acts_folder = text + n;
    return;
  }
  qd_option_refuse(state, "--activations takes memory, disk:DIR or auto:DIR, got \"%s\"", text);
}

static void set_method(struct argp_state *state, qd_job *job, const char *name) {
  const char *names[16];
  int n = 0;
  for (; qd_method_at(n) != NULL; n++) names[n] = qd_method_at(n)->name;
  names[n] = NULL;
  job->method = qd_method_at(qd_option_choice(state, "--method", name, names));
}

/* An option and its opposite on one line: nobody can know which was meant. */
static void set_once(struct argp_state *state, int *setting, int value, const char *options) {
  if (*setting >= 0 && *setting != value) qd_option_refuse(state, "%s contradict each other: give one of them", options);
  *setting = value;
}

static int find_act_order(struct argp_state *state, const char *text) {
  static const char *const orders[] = {"none", "static", "dynamic", "group-aware", NULL};
  return qd_option_choice(state, "--act-order", text, orders);
}

static const char *const permutations[] = {"identity", "act_order", "spearman", NULL};
static const qd_act_order permutation_orders[] = {QD_ORDER_NONE, QD_ORDER_DYNAMIC, QD_ORDER_SPEARMAN};

static int find_permutation(struct argp_state *state, const char *text) {
  return (int)permutation_orders[qd_option_choice(state, "--permutation-order", text, permutations)];
}

const char *qd_permutation_name(qd_act_order order) {
  int i = 0;
  while (permutations[i + 1] != NULL && permutation_orders[i] != order) i++;
  return permutations[i];
}

/* What needs the original model's activations beside the others. */
static void settle_original(struct argp_state *state, qd_job_options *options, bool writes) {
  qd_job *job = &options->job;
  if (job->gptaq && strcmp(job->method->name, "gptq") != 0)
    qd_option_refuse(state, "--gptaq belongs to --method gptq, it means nothing to --method %s", job->method->name);
  if (options->gptaq_alpha >= 0 && !job->gptaq) qd_option_refuse(state, "--gptaq-alpha means nothing without --gptaq");
  if (options->kl_positions > 0 && !options->report_kl)
    qd_option_refuse(state, "--kl-positions means nothing without --report-kl");
  if (writes && options->report_kl && options->text.dataset == NULL)
    qd_option_refuse(state, "--report-kl compares on the calibration text: --dataset FILE");
  job->gptaq_alpha = options->gptaq_alpha >= 0 ? options->gptaq_alpha : 0.25;
  if (job->head_bits < 0) job->head_bits = job->scheme.bits;
  if (job->embedding_bits < 0) job->embedding_bits = job->scheme.bits;
  if (options->report_kl) job->kl_positions = options->kl_positions > 0 ? options->kl_positions : QD_KL_POSITIONS;
}

/* What only one method has. */
static void settle_method(struct argp_state *state, qd_job_options *options) {
  qd_job *job = &options->job;
  bool order = options->order >= 0;
  qd_spqr_shared given = {.bits = options->bits, .group = options->group, .order = order, .damp = options->damp};
  if (job->damp_auto && (!job->method->needs_factor || job->gptaq))
    qd_option_refuse(state, "--damp auto means nothing to %s", job->gptaq ? "--gptaq" : "a method without a Hessian");
  if (job->act_order == QD_ORDER_SPEARMAN && !job->method->has_outliers)
    qd_option_refuse(state, "--permutation-order spearman belongs to --method spqr, it means nothing to --method %s",
                     job->method->name);
  if (job->method->has_outliers && job->embedding_bits != 0)
    qd_option_refuse(state, "--quant-embeddings rounds to a grid that --method %s does not have", job->method->name);
  if (job->method->has_outliers && options->mse == 1)
    qd_option_refuse(state, "--mse means nothing to --method %s", job->method->name);
  qd_spqr_options_settle(state, &options->spqr, given, job);
}

void qd_job_options_settle(struct argp_state *state, qd_job_options *options, bool writes) {
  qd_job *job = &options->job;
  qd_text_options_settle(state, &options->text);
  if (options->text.compute == QD_COMPUTE_INT8)
    qd_option_refuse(state, "--arithmetic int8 is for evaluate, compare and generate: no store is made in it");
  if (job->method == NULL) job->method = qd_method_find("gptq");
  bool compat = job->scheme.compat;
  job->scheme.symmetric = options->symmetric == 1;
  job->true_sequential = options->sequential != 0;
  job->no_resume = options->resume == 0;
  job->scheme.mse = options->mse >= 0 ? options->mse == 1 : job->method->default_mse && !compat;
  if (options->order >= 0) job->act_order = (qd_act_order)options->order;
  else job->act_order = compat ? QD_ORDER_NONE : job->method->default_act_order;
  if (!job->method->needs_factor && options->order > QD_ORDER_NONE)
    qd_option_refuse(state, "--act-order %s means nothing to --method %s", qd_act_order_name(job->act_order),
                     job->method->name);
  settle_method(state, options);
  settle_original(state, options, writes);
  job->scheme.scale_dtype = (options->scale >= 0 ? options->scale == 1 : compat) ? QD_F32 : QD_F16;
  if (job->model == NULL) qd_option_refuse(state, "--model MODEL is needed");
  if (writes && job->output == NULL) qd_option_refuse(state, "--output OUT is needed");
  if (writes && job->method->needs_factor && options->text.dataset == NULL)
    qd_option_refuse(state, "--method %s needs calibration text: --dataset FILE", job->method->name);
  if (job->scheme.group_size == 0) qd_option_refuse(state, "--group-size is -1 (per channel) or at least 1");
  job->n_texts = options->text.n_texts;
  memcpy(job->text, options->text.text, sizeof job->text);
  job->dataset = options->text.dataset, job->sequence_tokens = options->text.sequence_tokens, job->seed = options->text.seed;
  job->readers = options->text.readers, job->bos = options->text.bos, job->pack = options->text.pack,
  job->compute = options->text.compute;
}

/* Of an option whose number may be left out: -1.  It may also stand by itself behind the option. */
static int bits_or_none(struct argp_state *state, const char *option, const char *text) {
  bool more = text == NULL && state->next < state->argc;
  const char *next = more ? state->argv[state->next] : "";
  if (*next >= '0' && *next <= '9') text = next, state->next++;
  return text == NULL ? -1 : (int)qd_option_integer(state, option, text, QD_MIN_BITS, QD_MAX_BITS);
}

/* Head and embedding; bits that are left out are filled in when all options are known. */
static error_t parse_rest(int key, char *text, struct argp_state *state) {
  qd_job *job = &((qd_job_options *)state->input)->job;
  switch (key) {
    case KEY_HEAD: job->head_bits = bits_or_none(state, "--quant-lm-head", text); return 0;
    case KEY_EMBEDDING: job->embedding_bits = bits_or_none(state, "--quant-embeddings", text); return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static error_t parse_method(int key, char *text, struct argp_state *state) {
  static const char *const failures[] = {"rtn", "stop", NULL}, *const compats[] = {"reference", NULL},
                    *const shapes[] = {"ragged", "per-channel", "skip", NULL}, *const scales[] = {"f16", "f32", NULL},
                    *const fallbacks[] = {"rtn", "shared-hessian", NULL};
  qd_job_options *options = state->input;
  qd_job *job = &options->job;
  switch (key) {
    case 'b':
      job->scheme.bits = (int)qd_option_integer(state, "--bits", text, QD_MIN_BITS, QD_MAX_BITS), options->bits = true;
      return 0;
    case 'g':
      job->scheme.group_size = qd_option_integer(state, "--group-size", text, -1, INT32_MAX), options->group = true;
      return 0;
    case KEY_SCALE_DTYPE: options->scale = qd_option_choice(state, "--scale-dtype", text, scales); return 0;
    case KEY_ODD_SHAPE: job->odd_shape = (qd_odd_shape)qd_option_choice(state, "--odd-shape", text, shapes); return 0;
    case KEY_DAMP:
      options->damp = true, job->damp_auto = strcmp(text, "auto") == 0;
      if (!job->damp_auto) job->damp = qd_option_number_or(state, "--damp", text, (qd_option_range){0, 1e6, "auto"});
      return 0;
    case KEY_ON_FAILURE:
      job->on_failure = (qd_on_failure)qd_option_choice(state, "--on-hessian-failure", text, failures);
      return 0;
    case KEY_MOE_FALLBACK:
      job->moe_fallback = (qd_moe_fallback)qd_option_choice(state, "--moe-fallback", text, fallbacks);
      return 0;
    case KEY_MOE_MIN_TOKENS: job->moe_min_tokens = qd_option_integer(state, "--moe-min-tokens", text, 0, INT64_MAX); return 0;
    case KEY_GPTAQ: job->gptaq = true; return 0;
    case KEY_GPTAQ_ALPHA: options->gptaq_alpha = qd_option_number(state, "--gptaq-alpha", text, 0, 1); return 0;
    case KEY_REPORT_KL: options->report_kl = true; return 0;
    case KEY_KL_POSITIONS: options->kl_positions = qd_option_integer(state, "--kl-positions", text, 1, INT32_MAX); return 0;
    case KEY_BLOCK: job->block = qd_option_integer(state, "--block-size", text, 1, QD_PRODUCT_CHUNK); return 0;
    case KEY_COMPAT: qd_option_choice(state, "--compat", text, compats); job->scheme.compat = true; return 0;
    case KEY_IGNORE: add_ignore(state, job, text); return 0;
    case KEY_OVERRIDE: add_override(state, job, text); return 0;
    case KEY_METHOD: set_method(state, job, text); return 0;
    default: return parse_rest(key, text, state);
  }
}

/* Options that have an opposite. */
static error_t parse_pairs(int key, char *text, struct argp_state *state) {
  static const char symmetry[] = "--sym and --asym", clipping[] = "--mse and --no-mse",
                    order[] = "--act-order, --permutation-order, --desc-act and --static-groups",
                    sequence[] = "--true-sequential and --no-true-sequential", resuming[] = "--resume and --no-resume";
  qd_job_options *options = state->input;
  switch (key) {
    case KEY_SYM: set_once(state, &options->symmetric, 1, symmetry); return 0;
    case KEY_ASYM: set_once(state, &options->symmetric, 0, symmetry); return 0;
    case KEY_MSE: set_once(state, &options->mse, 1, clipping); return 0;
    case KEY_NO_MSE: set_once(state, &options->mse, 0, clipping); return 0;
    case KEY_ACT_ORDER: set_once(state, &options->order, find_act_order(state, text), order); return 0;
    case KEY_PERMUTATION: set_once(state, &options->order, find_permutation(state, text), order); return 0;
    case KEY_DESC_ACT: set_once(state, &options->order, QD_ORDER_DYNAMIC, order); return 0;
    case KEY_STATIC_GROUPS: set_once(state, &options->order, QD_ORDER_STATIC, order); return 0;
    case KEY_SEQUENTIAL: set_once(state, &options->sequential, 1, sequence); return 0;
    case KEY_NO_SEQUENTIAL: set_once(state, &options->sequential, 0, sequence); return 0;
    case KEY_RESUME: set_once(state, &options->resume, 1, resuming); return 0;
    case KEY_NO_RESUME: set_once(state, &options->resume, 0, resuming); return 0;
    default: return parse_method(key, text, state);
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  qd_job_options *options = state->input;
  qd_job *job = &options->job;
  switch (key) {
    case 'm': job->model = qd_option_text(state, "--model", text); return 0;
    case 'o': job->output = qd_option_text(state, "--output", text); return 0;
    case KEY_NSAMPLES: job->nsamples = qd_option_integer(state, "--nsamples", text, 1, 1 << 24); return 0;
    case KEY_SHARD: job->shard_bytes = qd_option_bytes(state, "--shard-size", text); return 0;
    case KEY_STOP_AFTER: job->stop_after_seconds = qd_option_seconds(state, "--stop-after", text); return 0;
    case KEY_STATUS: job->status_file = qd_option_text(state, "--status-file", text); return 0;
    case KEY_HESSIAN_BOUND:
      job->hessian_bound = qd_option_number(state, "--hessian-bound", text, 1, QD_HESSIAN_BOUND);
      return 0;
    case KEY_ACTIVATIONS: set_activations(state, job, text); return 0;
    case KEY_KEEP: job->keep_activations = true; return 0;
    case KEY_CONFIG: return 0; /* its options stand on the command line by now */
    case KEY_SHOW_PLAN: job->show_plan = true; return 0;
    case KEY_MAX_HOST: job->max_host_bytes = qd_option_bytes(state, "--max-host-mem", text); return 0;
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &options->spqr, state->child_inputs[1] = &options->text;
      state->child_inputs[2] = &options->common, state->child_inputs[3] = &options->models;
      return 0;
    default: return parse_pairs(key, text, state);
  }
}

static const struct argp_child children[] = {
    {&qd_spqr_argp, 0, "SpQR:", 15}, {&qd_text_argp, 0, NULL, 0}, {&qd_common_argp, 0, "Running:", 90},
    {&qd_model_argp, 0, NULL, 0}, {0}};

const struct argp qd_job_argp = {.options = options_list, .parser = parse, .children = children};

static void add_to_list(char *list, const char *name, const char *summary) {
  size_t n = strlen(list);
  snprintf(list + n, LIST_BYTES - n, " %s: %s.", name, summary);
}

static void list_plug_ins(void) {
  static bool listed;
  if (listed) return;
  for (int i = 0; qd_arch_at(i) != NULL; i++) add_to_list(families_text, qd_arch_at(i)->name, qd_arch_at(i)->summary);
  for (int i = 0; qd_method_at(i) != NULL; i++) add_to_list(methods_text, qd_method_at(i)->name, qd_method_at(i)->summary);
  listed = true;
}

qd_job_options qd_job_options_new(void) {
  list_plug_ins();
  return (qd_job_options){.job = {.scheme = {.bits = 4, .group_size = 128},
                                  .damp = 0.01,
                                  .block = QD_GPTQ_BLOCK,
                                  .moe_fallback = QD_MOE_SHARED,
                                  .moe_min_tokens = 256,
                                  .nsamples = 128,
                                  .shard_bytes = (int64_t)4 << 30,
                                  .job_name = getenv("SLURM_JOB_ID"),
                                  .configuration = qd_job_config_print,
                                  .hessian_bound = QD_HESSIAN_BOUND},
                          .common = qd_common_defaults,
                          .text = qd_text_defaults,
                          .spqr = qd_spqr_defaults,
                          .symmetric = -1,
                          .mse = -1,
                          .order = -1,
                          .gptaq_alpha = -1,
                          .sequential = -1,
                          .resume = -1,
                          .scale = -1};
}

static qd_status open_rules(qd_job *job) {
  for (int i = 0; i < job->n_rules; i++)
    QD_TRY(qd_pattern_open(job->rule[i].expression, job->rule[i].bits ? "--override" : "--ignore", &job->rule[i].pattern));
  return QD_OK;
}

qd_status qd_job_options_open(qd_job_options *options, qd_comm *comm, qd_device *device) {
  QD_TRY(qd_model_locate(&options->models, comm, &options->job.model));
  QD_TRY(qd_agree(comm, open_rules(&options->job)));
  return qd_agree(comm, qd_device_open(device, qd_common_device(&options->common)));
}

void qd_job_options_close(qd_job_options *options) {
  qd_model_options_close(&options->models);
  for (int i = 0; i < options->job.n_rules; i++) qd_pattern_close(options->job.rule[i].pattern);
}
