#include "jobs/command.h"
#include "jobs/evaluation_options.h"
#include "jobs/store_options.h"
#include "workers/agree.h"

enum { KEY_REFERENCE = 0x300, KEY_TASKS_OUTPUT };

static qd_evaluation_options wanted;

static const struct argp_option options_list[] = {
    {"model", 'm', "MODEL", 0, "A store, or an original model: its folder, its GGUF file or its name", 1},
    {"reference", KEY_REFERENCE, "MODEL", 0, "Compare with this model: KL divergence and top-1 agreement", 1},
    {"kl-reference", KEY_REFERENCE, 0, OPTION_ALIAS, 0, 1},
    {"tasks-output", KEY_TASKS_OUTPUT, "FILE", 0, "Each document's log-likelihoods as a line of JSON", 25},
    {0}};

static void settle(struct argp_state *state) {
  qd_evaluation_options_settle(state, &wanted);
  if (wanted.request.model == NULL) qd_option_refuse(state, "--model MODEL is needed");
  if (wanted.request.reference != NULL && wanted.request.dataset == NULL)
    qd_option_refuse(state, "--reference compares on a text: --dataset FILE is needed");
  if (wanted.request.tasks.output != NULL && wanted.request.tasks.tasks == NULL)
    qd_option_refuse(state, "--tasks-output is for --tasks");
}

static error_t parse(int key, char *text, struct argp_state *state) {
  switch (key) {
    case 'm': wanted.request.model = qd_option_text(state, "--model", text); return 0;
    case KEY_REFERENCE: wanted.request.reference = qd_option_text(state, "--reference", text); return 0;
    case KEY_TASKS_OUTPUT: wanted.request.tasks.output = qd_option_text(state, "--tasks-output", text); return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted; return 0;
    case ARGP_KEY_ARG: qd_option_refuse(state, "\"%s\" is no option; see --help", text);
    case ARGP_KEY_END: settle(state); return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_evaluation_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .args_doc = "--model MODEL --dataset FILE\n--model MODEL --tasks TASK,...",
    .doc = "Perplexity and multiple-choice tasks of a store or of an original model, over ranks, blocks streamed. "
           "docs/evaluation.md says each convention.\v"
           "Examples:\n"
           "  mpirun -np 16 qdist evaluate -m OUT -d wikitext2:wiki.test.raw\n"
           "  mpirun -np 16 qdist evaluate -m OUT -d wiki.test.raw --ppl-style llama.cpp\n"
           "  mpirun -np 16 qdist evaluate -m OUT --tasks piqa,mmlu --tasks-path DIR --limit 100\n"
           "  mpirun -np 4 qdist evaluate -m OUT --reference DIR -d FILE --json",
    .children = children,
};

static void parse_command_line(int argc, char **argv) {
  qd_evaluation_options_begin(&wanted);
  qd_options_parse(&argp, argc, argv, &wanted);
}

static qd_status print_json(const qd_evaluation *result) {
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "model", wanted.request.model);
  if (wanted.request.reference != NULL) qd_json_set_text(out, "reference", wanted.request.reference);
  qd_evaluation_set_json(out, &wanted.request, result);
  return qd_print_json(out);
}

static qd_status print(const qd_evaluation *result) {
  if (wanted.json) return print_json(result);
  qd_evaluation_print(&wanted.request, result);
  return QD_OK;
}

static qd_status evaluate(qd_comm *comm) {
  qd_device device;
  qd_evaluation result;
  QD_TRY(qd_agree(comm, qd_device_open(&device, qd_common_device(&wanted.common))));
  qd_status status = qd_evaluate(&wanted.request, comm, &device, &result);
  if (status == QD_OK && comm->rank == 0) status = print(&result);
  qd_device_close(&device);
  qd_evaluation_release(&result);
  return status;
}

static qd_status run(qd_comm *comm) {
  qd_status status = qd_model_locate(&wanted.models, comm, &wanted.request.model);
  if (status == QD_OK) status = qd_model_locate(&wanted.models, comm, &wanted.request.reference);
  if (status == QD_OK) status = evaluate(comm);
  qd_model_options_close(&wanted.models);
  return status;
}

const qd_command qd_command_evaluate = {
    .name = "evaluate", .summary = "perplexity, divergence and tasks of a store or a model", .parse = parse_command_line,
    .run = run};
