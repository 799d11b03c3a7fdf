#include "jobs/command.h"
#include "jobs/model_options.h"
#include "jobs/store_options.h"
#include "jobs/text_options.h"
#include "kernels/base/log.h"
#include "pipeline/generate/generation.h"
#include "workers/agree.h"
#include "workers/interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { KEY_PROMPT_FILE = 0x300, KEY_MAX_NEW, KEY_TEMPERATURE, KEY_TOP_K, KEY_TOP_P, KEY_MIN_P, KEY_SEED, KEY_BOS,
       KEY_STOP, KEY_MAX_HOST };

static struct {
  qd_generation_request request;
  qd_common_options common;
  qd_text_options text;
  qd_model_options models;
  bool json;
} wanted;

static const struct argp_option options_list[] = {
    {"model", 'm', "MODEL", 0, "A store, or an original model: its folder, its GGUF file or its name", 1},
    {"prompt", 'p', "TEXT", 0, "The text to go on from, as it is: no chat template is put around it", 1},
    {"prompt-file", KEY_PROMPT_FILE, "FILE", 0, "The text to go on from: this file, whole", 1},
    {"max-new-tokens", KEY_MAX_NEW, "N", 0, "Tokens at the most (256, or as many as the model has positions for)", 1},
    {"add-bos", KEY_BOS, "auto|yes|no", 0,
     "Special tokens in front of the prompt: as the tokenizer does by default, exactly one BOS, none", 1},
    {"stop", KEY_STOP, "TEXT", 0, "End before this text; may be given several times", 1},
    {"json", 'j', 0, 0, "One JSON object on stdout, nothing else there: text, tokens, tokens a second", 1},
    {0, 0, 0, 0, "Choice of tokens (without a temperature always the likeliest):", 10},
    {"temperature", KEY_TEMPERATURE, "T", 0, "Draw, with logits divided by T (0: never draw)", 10},
    {"top-k", KEY_TOP_K, "K", 0, "Draw among the K likeliest (0: all)", 10},
    {"top-p", KEY_TOP_P, "P", 0, "Among the fewest of them that have the probability P together (1)", 10},
    {"min-p", KEY_MIN_P, "P", 0, "Among those at least P times as likely as the likeliest (0)", 10},
    {"seed", KEY_SEED, "N", 0, "Of the random numbers (0): the same draws the same, on any number of ranks", 10},
    {"max-host-mem", KEY_MAX_HOST, "SIZE", 0, "Memory that all ranks of a node may take together (as much as there is)", 50},
    {0}};

static void settle(struct argp_state *state) {
  qd_generation_request *r = &wanted.request;
  if (r->model == NULL) qd_option_refuse(state, "--model MODEL is needed");
  if (r->prompt == NULL && r->prompt_file == NULL) qd_option_refuse(state, "--prompt TEXT or --prompt-file FILE is needed");
  if (r->prompt != NULL && r->prompt_file != NULL) qd_option_refuse(state, "--prompt and --prompt-file contradict");
  qd_sampling *s = &r->sampling;
  if (s->temperature <= 0 && (s->top_k > 0 || s->top_p < 1 || s->min_p > 0))
    qd_option_refuse(state, "--top-k, --top-p and --min-p mean nothing without --temperature: the likeliest token is taken");
  qd_text_options_settle(state, &wanted.text);
  r->compute = wanted.text.compute, r->readers = wanted.text.readers;
}

static void add_stop(struct argp_state *state, const char *text) {
  qd_generation_request *r = &wanted.request;
  if (r->n_stops == QD_MAX_STOPS) qd_option_refuse(state, "--stop: at most %d texts", QD_MAX_STOPS);
  r->stop[r->n_stops++] = qd_option_text(state, "--stop", text);
}

static error_t parse(int key, char *text, struct argp_state *state) {
  static const char *const bos[] = {"auto", "yes", "no", NULL};
  qd_generation_request *r = &wanted.request;
  switch (key) {
    case 'm': r->model = qd_option_text(state, "--model", text); return 0;
    case 'p': r->prompt = text; return 0;
    case KEY_PROMPT_FILE: r->prompt_file = qd_option_text(state, "--prompt-file", text); return 0;
    case KEY_MAX_NEW: r->max_new_tokens = qd_option_integer(state, "--max-new-tokens", text, 1, 1 << 24); return 0;
    case KEY_BOS: r->bos = (qd_add_bos)qd_option_choice(state, "--add-bos", text, bos); return 0;
    case KEY_SEED: r->sampling.seed = (uint64_t)qd_option_integer(state, "--seed", text, 0, INT64_MAX); return 0;
    case KEY_STOP: add_stop(state, text); return 0;
    case KEY_TEMPERATURE: r->sampling.temperature = qd_option_number(state, "--temperature", text, 0, 100); return 0;
    case KEY_TOP_K: r->sampling.top_k = qd_option_integer(state, "--top-k", text, 0, 1 << 24); return 0;
    case KEY_TOP_P: r->sampling.top_p = qd_option_number(state, "--top-p", text, 0, 1); return 0;
    case KEY_MIN_P: r->sampling.min_p = qd_option_number(state, "--min-p", text, 0, 1); return 0;
    case KEY_MAX_HOST: r->max_host_bytes = qd_option_bytes(state, "--max-host-mem", text); return 0;
    case 'j': wanted.json = true; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted.text, state->child_inputs[1] = &wanted.common,
      state->child_inputs[2] = &wanted.models;
      return 0;
    case ARGP_KEY_ARG: qd_option_refuse(state, "\"%s\" is no option; see --help", text);
    case ARGP_KEY_END: settle(state); return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {
    {&qd_computing_argp, 0, NULL, 0}, {&qd_common_argp, 0, "Running:", 90}, {&qd_model_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .args_doc = "--model MODEL --prompt TEXT",
    .doc = "Text behind a prompt: blocks and their cache over ranks, weights in memory as they are stored.\v"
           "Examples:\n"
           "  mpirun -np 4 qdist generate -m OUT -p 'Once upon a time'\n"
           "  qdist generate -m OUT -p 'Dear reader,' --temperature 0.8 --top-p 0.95 --seed 7",
    .children = children,
};

static void parse_command_line(int argc, char **argv) {
  wanted.common = qd_common_defaults, wanted.text = qd_text_defaults;
  wanted.request.sampling.top_p = 1;
  qd_options_parse(&argp, argc, argv, &wanted);
  qd_interrupt_install_ctrl_c();
}

/* A pipe that was closed is told at the next text, not by a signal's death of one rank. */
static qd_status print_new(const char *text, size_t n) {
  bool fine = fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0;
  QD_CHECK(fine, QD_EIO, "standard output: %s", strerror(errno));
  return QD_OK;
}

static double per_second(int64_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

static qd_json *ids_of(const int32_t *ids, int64_t n) {
  qd_json *array = qd_json_array();
  for (int64_t i = 0; i < n; i++) qd_json_append_integer(array, ids[i]);
  return array;
}

static qd_status print_json(const qd_generation *g) {
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "model", wanted.request.model);
  qd_json_set_text(out, "text", g->text != NULL ? g->text : "");
  qd_json_set_text(out, "ended_by", g->ended_by);
  qd_json_set_integer(out, "prompt_tokens", g->prompt_tokens);
  qd_json_set_integer(out, "new_tokens", g->new_tokens);
  qd_json_set(out, "prompt_ids", ids_of(g->ids, g->prompt_tokens));
  qd_json_set(out, "new_ids", ids_of(g->ids + g->prompt_tokens, g->new_tokens));
  qd_json_set_text(out, "arithmetic", qd_arithmetic_name(g->arithmetic));
  qd_json_set_number(out, "prompt_tokens_per_second", per_second(g->prompt_tokens, g->prompt_seconds));
  qd_json_set_number(out, "new_tokens_per_second", per_second(g->new_tokens - 1, g->new_seconds));
  qd_json_set_number(out, "load_seconds", g->load_seconds);
  qd_json_set_number(out, "prompt_seconds", g->prompt_seconds);
  qd_json_set_number(out, "new_seconds", g->new_seconds);
  qd_json_set_integer(out, "planned_host_bytes", g->planned_bytes);
  qd_json_set_integer(out, "peak_host_bytes", g->peak_bytes);
  return qd_print_json(out);
}

static qd_status tell(const qd_generation *g) {
  if (wanted.json) return print_json(g);
  QD_TRY(print_new("\n", 1));
  qd_log("%" PRId64 " prompt tokens at %.1f/s, %" PRId64 " new ones at %.1f/s (arithmetic %s), ended by %s", g->prompt_tokens,
         per_second(g->prompt_tokens, g->prompt_seconds), g->new_tokens, per_second(g->new_tokens - 1, g->new_seconds),
         qd_arithmetic_name(g->arithmetic), g->ended_by);
  return QD_OK;
}

static qd_status generate(qd_comm *comm) {
  qd_device device;
  qd_generation result;
  if (!wanted.json) wanted.request.emit = print_new;
  QD_TRY(qd_agree(comm, qd_device_open(&device, qd_common_device(&wanted.common))));
  qd_status status = qd_generate(&wanted.request, comm, &device, &result);
  qd_device_close(&device);
  if (status == QD_OK) status = qd_agree(comm, comm->rank == 0 ? tell(&result) : QD_OK);
  qd_generation_release(&result);
  return status;
}

static qd_status run(qd_comm *comm) {
  qd_status status = qd_model_locate(&wanted.models, comm, &wanted.request.model);
  if (status == QD_OK) status = generate(comm);
  qd_model_options_close(&wanted.models);
  return status;
}

const qd_command qd_command_generate = {.name = "generate",
                                        .summary = "text behind a prompt, from a store or a model",
                                        .parse = parse_command_line,
                                        .run = run,
                                        .stops = true};
