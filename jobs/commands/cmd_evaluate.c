#include "jobs/command.h"
#include "jobs/model_options.h"
#include "jobs/store_options.h"
#include "jobs/text_options.h"
#include "kernels/base/log.h"
#include "pipeline/evaluate/perplexity.h"
#include "workers/agree.h"

#include <stdio.h>

enum { KEY_REFERENCE = 0x300, KEY_MAX_WINDOWS, KEY_STYLE, KEY_MAX_HOST };

static struct {
  qd_evaluation_request request;
  qd_common_options common;
  qd_text_options text;
  qd_model_options models;
  bool json;
} wanted;

static const struct argp_option options_list[] = {
    {"model", 'm', "MODEL", 0, "A store, or an original model: its folder, its GGUF file or its name", 1},
    {"reference", KEY_REFERENCE, "MODEL", 0, "Compare with this model: KL divergence and top-1 agreement", 1},
    {"max-windows", KEY_MAX_WINDOWS, "N", 0, "The first N windows only", 20},
    {"ppl-style", KEY_STYLE, "gptq|llama.cpp", 0, "All predictions of each window (default), or llama.cpp's second halves", 20},
    {"max-host-mem", KEY_MAX_HOST, "SIZE", 0, "Memory that all ranks of a node may take together (as much as there is)", 50},
    {"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 1},
    {0}};

static void settle(struct argp_state *state) {
  qd_text_options_settle(state, &wanted.text);
  if (wanted.request.model == NULL) qd_option_refuse(state, "--model MODEL is needed");
  if (wanted.text.dataset == NULL) qd_option_refuse(state, "--dataset FILE is needed");
  wanted.request.dataset = wanted.text.dataset, wanted.request.sequence_tokens = wanted.text.sequence_tokens;
  wanted.request.compute = wanted.text.compute, wanted.request.bos = wanted.text.bos;
  wanted.request.readers = wanted.text.readers, wanted.request.seed = wanted.text.seed, wanted.request.pack = wanted.text.pack;
}

static error_t parse(int key, char *text, struct argp_state *state) {
  static const char *const styles[] = {"gptq", "llama.cpp", NULL};
  switch (key) {
    case 'm': wanted.request.model = qd_option_text(state, "--model", text); return 0;
    case KEY_REFERENCE: wanted.request.reference = qd_option_text(state, "--reference", text); return 0;
    case KEY_MAX_WINDOWS: wanted.request.max_windows = qd_option_integer(state, "--max-windows", text, 1, 1 << 30); return 0;
    case KEY_STYLE: wanted.request.style = (qd_ppl_style)qd_option_choice(state, "--ppl-style", text, styles); return 0;
    case KEY_MAX_HOST: wanted.request.max_host_bytes = qd_option_bytes(state, "--max-host-mem", text); return 0;
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
    {&qd_text_argp, 0, NULL, 0}, {&qd_common_argp, 0, "Running:", 90}, {&qd_model_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .args_doc = "--model MODEL --dataset FILE",
    .doc = "Perplexity of a store or of an original model, windows over ranks, blocks streamed.\v"
           "Examples:\n"
           "  mpirun -np 16 qdist evaluate -m OUT -d wikitext2:wiki.test.raw\n"
           "  mpirun -np 4 qdist evaluate -m OUT --reference DIR -d FILE --json",
    .children = children,
};

static void parse_command_line(int argc, char **argv) {
  wanted.common = qd_common_defaults, wanted.text = qd_text_defaults;
  qd_options_parse(&argp, argc, argv, &wanted);
}

static void print_text(const qd_evaluation *e) {
  printf("perplexity %.4f +/- %.4f  (%s style, %" PRId64 " windows, %" PRId64 " predictions, arithmetic %s, %.1f s)\n",
         e->perplexity, e->standard_error, qd_ppl_style_name(wanted.request.style), e->windows, e->tokens,
         qd_arithmetic_name(e->arithmetic), e->seconds);
  if (e->has_reference)
    printf("against %s: KL divergence %.6f nats, top-1 agreement %.2f %%, mean NLL there %.6f, here %.6f\n",
           wanted.request.reference, e->kl_mean, 100 * e->top1_agreement, e->reference_mean_nll, e->mean_nll);
}

static qd_status print_json(const qd_evaluation *e) {
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "model", wanted.request.model);
  qd_json_set_number(out, "perplexity", e->perplexity);
  qd_json_set_number(out, "mean_nll", e->mean_nll);
  qd_json_set_number(out, "standard_error", e->standard_error);
  qd_json_set_integer(out, "windows", e->windows);
  qd_json_set_integer(out, "tokens", e->tokens);
  qd_json_set_text(out, "ppl_style", qd_ppl_style_name(wanted.request.style));
  qd_json_set_text(out, "arithmetic", qd_arithmetic_name(e->arithmetic));
  if (e->has_reference) {
    qd_json_set_text(out, "reference", wanted.request.reference);
    qd_json_set_number(out, "kl_mean", e->kl_mean);
    qd_json_set_number(out, "top1_agreement", e->top1_agreement);
    qd_json_set_number(out, "reference_mean_nll", e->reference_mean_nll);
  }
  qd_json_set_integer(out, "planned_host_bytes", e->planned_bytes);
  qd_json_set_integer(out, "peak_host_bytes", e->peak_bytes);
  qd_json_set_number(out, "seconds", e->seconds);
  return qd_print_json(out);
}

static qd_status evaluate(qd_comm *comm) {
  qd_device device;
  qd_evaluation result;
  qd_device_options machine = qd_common_device(&wanted.common);
  machine.scratch_bytes = QD_SCRATCH_LATER;
  QD_TRY(qd_agree(comm, qd_device_open(&device, machine)));
  qd_status status = qd_evaluate(&wanted.request, comm, &device, &result);
  qd_device_close(&device);
  QD_TRY(status);
  if (comm->rank != 0) return QD_OK;
  if (wanted.json) return print_json(&result);
  print_text(&result);
  return QD_OK;
}

static qd_status run(qd_comm *comm) {
  qd_status status = qd_model_locate(&wanted.models, comm, &wanted.request.model);
  if (status == QD_OK) status = qd_model_locate(&wanted.models, comm, &wanted.request.reference);
  if (status == QD_OK) status = evaluate(comm);
  qd_model_options_close(&wanted.models);
  return status;
}

const qd_command qd_command_evaluate = {
    .name = "evaluate", .summary = "perplexity and divergence of a store or a model", .parse = parse_command_line, .run = run};
