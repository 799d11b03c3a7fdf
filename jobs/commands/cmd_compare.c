#include "jobs/command.h"
#include "jobs/evaluation_options.h"
#include "jobs/store_options.h"
#include "kernels/base/log.h"
#include "pipeline/summary.h"
#include "storage/source.h"
#include "workers/agree.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KEY_REFERENCE = 0x300, MAX_MODELS = 64, CELL_BYTES = 32 };

static struct {
  qd_evaluation_options evaluation;
  const char           *reference, *model[MAX_MODELS];
  int                   n;
} wanted;

static const struct argp_option options_list[] = {
    {"reference", KEY_REFERENCE, "MODEL", 0, "The model that all are compared with: KL divergence and top-1 agreement", 1},
    {0}};

static void add_model(struct argp_state *state, const char *text) {
  if (wanted.n == MAX_MODELS) qd_option_refuse(state, "more than %d models at a time", MAX_MODELS);
  wanted.model[wanted.n++] = qd_option_text(state, "OUT", text);
}

static error_t parse(int key, char *text, struct argp_state *state) {
  switch (key) {
    case KEY_REFERENCE: wanted.reference = qd_option_text(state, "--reference", text); return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted.evaluation; return 0;
    case ARGP_KEY_ARG: add_model(state, text); return 0;
    case ARGP_KEY_END:
      if (wanted.n == 0) qd_option_refuse(state, "the folder of a store or a model is needed");
      qd_evaluation_options_settle(state, &wanted.evaluation);
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_evaluation_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .args_doc = "OUT... --reference MODEL --dataset FILE",
    .doc = "One table of several stores or models: bits, size, perplexity, divergence from the reference, tasks. Each is "
           "evaluated as `qdist evaluate` does it, over all ranks.\v"
           "Example:\n"
           "  mpirun -np 16 qdist compare OUT1 OUT2 --reference DIR -d wikitext2:wiki.test.raw --tasks piqa --tasks-path TASKS",
    .children = children,
};

static void parse_command_line(int argc, char **argv) {
  qd_evaluation_options_begin(&wanted.evaluation);
  qd_options_parse(&argp, argc, argv, &wanted);
}

/* ---- what a model is ----------------------------------------------------------------------------------------------------- */

typedef struct row {
  const char   *path;
  bool          is_reference;
  char          method[CELL_BYTES];
  double        bits, whole_bits; /* of quantized weights (0: none are); of all */
  double        bytes;
  qd_evaluation result;
} row;

static qd_status describe_store(row *out) {
  qd_store store;
  qd_summary summary;
  QD_TRY(qd_store_open(out->path, false, &store));
  qd_summary_of_store(&store, &summary);
  const char *method = qd_json_text(qd_json_get(store.job, "method"));
  int64_t bits = qd_json_integer(qd_json_get(store.job, "bits"));
  snprintf(out->method, sizeof out->method, "%.20s %" PRId64, method != NULL ? method : "-", bits);
  out->bits = summary.bits_per_weight, out->whole_bits = summary.bits_per_weight_whole_model;
  out->bytes = (double)summary.file_bytes;
  qd_store_close(&store);
  return QD_OK;
}

static qd_status describe_original(row *out) {
  qd_source *source;
  double elements = 0;
  bool packed = false;
  QD_TRY(qd_source_open(out->path, &source));
  for (size_t i = 0; i < qd_source_tensors(source); i++) {
    const qd_source_tensor *tensor = qd_source_tensor_at(source, i);
    double n = 1;
    for (int d = 0; d < tensor->rank; d++) n *= (double)tensor->dim[d];
    elements += n, out->bytes += (double)tensor->bytes, packed = packed || tensor->stored != NULL;
  }
  if (packed) { /* GGUF's blocks are larger as they are read */
    out->bytes = 0;
    for (size_t i = 0; i < qd_source_files(source); i++) out->bytes += (double)qd_source_file_identity(source, i).size;
  }
  out->whole_bits = elements > 0 ? 8 * out->bytes / elements : 0;
  snprintf(out->method, sizeof out->method, "original");
  qd_source_close(source);
  return QD_OK;
}

static qd_status describe(row *out) {
  return qd_subject_is_store(out->path) ? describe_store(out) : describe_original(out);
}

/* ---- the table ----------------------------------------------------------------------------------------------------------- */

/* A number, or "-" where there is none. */
static void print_cell(int width, int digits, double value) {
  if (isnan(value)) printf(" %*s", width, "-");
  else printf(" %*.*f", width, digits, value);
}

static const char *name_of(const row *r) {
  const char *slash = strrchr(r->path, '/');
  return slash != NULL && slash[1] != '\0' ? slash + 1 : r->path;
}

/* Of the first column: names are whole. */
static int width_of(const row *rows, int n) {
  int width = 24;
  for (int i = 0; i < n; i++) width = (int)strlen(name_of(&rows[i])) > width ? (int)strlen(name_of(&rows[i])) : width;
  return width;
}

static void print_head(const row *rows, int width) {
  const qd_task_scores *tasks = &rows[0].result.tasks;
  printf("%-*s %-12s %7s %7s %10s", width, "model", "method", "bits/w", "all", "MiB");
  if (rows[0].result.has_text) printf(" %11s %10s %10s %8s", "perplexity", "KL (nats)", "KL 99.9 %", "top-1 %");
  for (size_t i = 0; i < tasks->n; i++) printf(" %13s", tasks->at[i].task->name);
  printf(" %8s\n", "seconds");
}

static void print_task(const qd_task_score *score) {
  char text[CELL_BYTES];
  if (score->task->metric == QD_TASK_ACC_AND_NORM)
    snprintf(text, sizeof text, "%.2f/%.2f", 100 * score->acc.value, 100 * score->acc_norm.value);
  else snprintf(text, sizeof text, "%.2f", 100 * score->acc.value);
  printf(" %13s", text);
}

static void print_row(const row *r, int width) {
  const qd_evaluation *e = &r->result;
  double none = (double)NAN;
  printf("%-*s %-12.12s", width, name_of(r), r->method);
  print_cell(7, 3, r->bits > 0 ? r->bits : none);
  print_cell(7, 3, r->whole_bits);
  print_cell(10, 2, r->bytes / 1048576);
  if (e->has_text) {
    print_cell(11, 4, e->perplexity);
    print_cell(10, 6, e->has_reference ? e->divergence.kl.value : none);
    print_cell(10, 6, e->has_reference ? e->divergence.kl_99_9 : none);
    print_cell(8, 2, e->has_reference ? 100 * e->divergence.top1.value : none);
  }
  for (size_t i = 0; i < e->tasks.n; i++) print_task(&e->tasks.at[i]);
  print_cell(8, 1, e->seconds);
  printf("\n");
}

static void print_text(const row *rows, int n) {
  const qd_evaluation_request *request = &wanted.evaluation.request;
  const qd_evaluation *e = &rows[0].result;
  int width = width_of(rows, n);
  print_head(rows, width);
  for (int i = 0; i < n; i++) print_row(&rows[i], width);
  printf("\nbits/w: of the quantized weights, scales and zeros included; all: of all weights; seconds: this evaluation.\n");
  if (e->has_text)
    printf("%s: %s style, %" PRId64 " windows of %" PRId64 " from %" PRId64 " tokens.\n", request->dataset,
           qd_ppl_style_name(request->style), e->windows, e->sequence_tokens, e->text_tokens);
  if (request->compute == QD_COMPUTE_INT8)
    printf("Arithmetic int8%s%s.\n", rows[0].is_reference ? ", the reference's " : "",
           rows[0].is_reference ? qd_arithmetic_name(e->arithmetic) : "");
  if (e->tasks.n > 0) printf("Tasks: acc, or acc/acc_norm, in %%.\n");
}

static qd_json *row_json(const row *r) {
  qd_evaluation_request request = wanted.evaluation.request;
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "model", r->path);
  qd_json_set_text(out, "method", r->method);
  if (r->bits > 0) qd_json_set_number(out, "bits_per_weight", r->bits);
  qd_json_set_number(out, "bits_per_weight_whole_model", r->whole_bits);
  qd_json_set_integer(out, "file_bytes", (int64_t)r->bytes);
  qd_evaluation_set_json(out, &request, &r->result);
  return out;
}

static qd_status print_json(const row *rows, int n) {
  qd_json *out = qd_json_object(), *all = qd_json_array();
  if (wanted.reference != NULL) qd_json_set_text(out, "reference", wanted.reference);
  for (int i = 0; i < n; i++) qd_json_append(all, row_json(&rows[i]));
  qd_json_set(out, "models", all);
  return qd_print_json(out);
}

/* ---- running ------------------------------------------------------------------------------------------------------------- */

static qd_status evaluate_row(row *r, const char *reference, qd_comm *comm, qd_device *device) {
  qd_evaluation_request request = wanted.evaluation.request;
  request.model = r->path, request.reference = reference;
  if (r->is_reference && request.compute == QD_COMPUTE_INT8) request.compute = request.reference_compute;
  qd_log("%s", r->path);
  QD_TRY_ALL(comm, comm->rank == 0 ? describe(r) : QD_OK);
  return qd_evaluate(&request, comm, device, &r->result);
}

/* The reference comes first, evaluated like the others but against nothing. */
static qd_status evaluate_rows(row *rows, int *n, qd_comm *comm, qd_device *device) {
  if (wanted.reference != NULL) {
    rows[*n].path = wanted.reference, rows[*n].is_reference = true;
    QD_TRY(evaluate_row(&rows[(*n)++], NULL, comm, device));
  }
  for (int i = 0; i < wanted.n; i++) {
    rows[*n].path = wanted.model[i];
    QD_TRY(evaluate_row(&rows[(*n)++], wanted.evaluation.request.dataset != NULL ? wanted.reference : NULL, comm, device));
  }
  return QD_OK;
}

static qd_status compare(qd_comm *comm) {
  static row rows[MAX_MODELS + 1];
  qd_device device;
  int n = 0;
  QD_TRY(qd_agree(comm, qd_device_open(&device, qd_common_device(&wanted.evaluation.common))));
  qd_status status = evaluate_rows(rows, &n, comm, &device);
  qd_device_close(&device);
  if (status == QD_OK && comm->rank == 0) {
    if (wanted.evaluation.json) status = print_json(rows, n);
    else print_text(rows, n);
  }
  for (int i = 0; i < n; i++) qd_evaluation_release(&rows[i].result);
  return status;
}

static qd_status locate(qd_comm *comm) {
  qd_model_options *models = &wanted.evaluation.models;
  QD_TRY(qd_model_locate(models, comm, &wanted.reference));
  for (int i = 0; i < wanted.n; i++) QD_TRY(qd_model_locate(models, comm, &wanted.model[i]));
  return QD_OK;
}

static qd_status run(qd_comm *comm) {
  qd_status status = locate(comm);
  if (status == QD_OK) status = compare(comm);
  qd_model_options_close(&wanted.evaluation.models);
  return status;
}

const qd_command qd_command_compare = {
    .name = "compare", .summary = "several stores or models in one table", .parse = parse_command_line, .run = run};
