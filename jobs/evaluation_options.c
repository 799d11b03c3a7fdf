#include "jobs/evaluation_options.h"

#include <stdlib.h>

enum { KEY_MAX_WINDOWS = 0x400, KEY_STYLE, KEY_MAX_HOST, KEY_TASKS, KEY_TASKS_PATH, KEY_SHOTS, KEY_LIMIT };

static const struct argp_option options_list[] = {
    {"max-windows", KEY_MAX_WINDOWS, "N", 0, "The first N windows only", 20},
    {"ppl-style", KEY_STYLE, "gptq|llama.cpp", 0,
     "All predictions of each window (default), or llama.cpp's second halves of windows of 512 that begin with BOS", 20},
    {0, 0, 0, 0, "Tasks:", 25},
    {"tasks", KEY_TASKS, "TASK|[TASK:]FILE[+SHOTS],...", 0,
     "Multiple-choice tasks: piqa, arc_easy, arc_challenge, boolq, hellaswag, winogrande, lambada, mmlu; FILE of JSON lines, "
     "SHOTS another file to draw few-shot examples from", 25},
    {"tasks-path", KEY_TASKS_PATH, "DIR", 0, "Where the file of a TASK is (QDIST_TASKS)", 25},
    {"num-fewshot", KEY_SHOTS, "N", 0, "Examples in front of each question (0, but for mmlu 5)", 25},
    {"limit", KEY_LIMIT, "N", 0, "The first N documents of each task, of mmlu of each subject", 25},
    {"max-host-mem", KEY_MAX_HOST, "SIZE", 0, "Memory that all ranks of a node may take together (as much as there is)", 50},
    {"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 1},
    {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  static const char *const styles[] = {"gptq", "llama.cpp", NULL};
  qd_evaluation_options *options = state->input;
  qd_evaluation_request *request = &options->request;
  switch (key) {
    case KEY_MAX_WINDOWS: request->max_windows = qd_option_integer(state, "--max-windows", text, 1, 1 << 30); return 0;
    case KEY_STYLE: request->style = (qd_ppl_style)qd_option_choice(state, "--ppl-style", text, styles); return 0;
    case KEY_MAX_HOST: request->max_host_bytes = qd_option_bytes(state, "--max-host-mem", text); return 0;
    case KEY_TASKS: request->tasks.tasks = qd_option_text(state, "--tasks", text); return 0;
    case KEY_TASKS_PATH: request->tasks.folder = qd_option_text(state, "--tasks-path", text); return 0;
    case KEY_SHOTS: request->tasks.shots = qd_option_integer(state, "--num-fewshot", text, 0, 1000); return 0;
    case KEY_LIMIT: request->tasks.limit = qd_option_integer(state, "--limit", text, 1, 1 << 30); return 0;
    case 'j': options->json = true; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &options->text, state->child_inputs[1] = &options->common,
      state->child_inputs[2] = &options->models;
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {
    {&qd_text_argp, 0, NULL, 0}, {&qd_common_argp, 0, "Running:", 90}, {&qd_model_argp, 0, NULL, 0}, {0}};

const struct argp qd_evaluation_argp = {.options = options_list, .parser = parse, .children = children};

void qd_evaluation_options_begin(qd_evaluation_options *options) {
  *options = (qd_evaluation_options){.common = qd_common_defaults, .text = qd_text_defaults};
  options->request.tasks.shots = QD_USUAL_SHOTS;
}

void qd_evaluation_options_settle(struct argp_state *state, qd_evaluation_options *options) {
  qd_evaluation_request *request = &options->request;
  const qd_text_options *text = &options->text;
  qd_text_options_settle(state, &options->text);
  if (text->dataset == NULL && request->tasks.tasks == NULL)
    qd_option_refuse(state, "nothing is to be measured: --dataset FILE or --tasks TASK is needed");
  if (text->n_texts > 1) qd_option_refuse(state, "evaluate takes one --dataset: evaluate the texts one by one");
  if (request->tasks.tasks == NULL && (request->tasks.limit > 0 || request->tasks.shots != QD_USUAL_SHOTS))
    qd_option_refuse(state, "--limit and --num-fewshot are for --tasks");
  if (text->dataset == NULL && (request->max_windows > 0 || text->sequence_tokens > 0))
    qd_option_refuse(state, "--max-windows and --seqlen are for --dataset");
  if (request->tasks.folder == NULL) request->tasks.folder = getenv("QDIST_TASKS");
  request->dataset = text->dataset, request->sequence_tokens = text->sequence_tokens;
  request->compute = text->compute, request->reference_compute = text->reference_compute, request->bos = text->bos;
  request->readers = text->readers, request->seed = text->seed, request->pack = text->pack;
}
