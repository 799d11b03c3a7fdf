#include "jobs/bench.h"
#include "jobs/command.h"
#include "jobs/store_options.h"
#include "jobs/yardstick.h"
#include "workers/agree.h"

#include <stdio.h>
#include <string.h>

static struct {
  qd_common_options common;
  qd_bench_request  request;
  qd_arithmetic arithmetic;
  bool json;
} wanted;

enum { KEY_SHAPE = 0x300, KEY_REPEATS, KEY_GROUP, KEY_ARITHMETIC };

static const struct argp_option options_list[] = {
    {"shape", KEY_SHAPE, "M[xN[xK]]", 0,
     "Of every operation named: tokens x out features x in features; what is left out is the last that is given (M: MxMxM)", 1},
    {"group-size", KEY_GROUP, "N", 0, "Columns that share a scale, of quantized weights (128); -1: a whole row", 1},
    {"arithmetic", KEY_ARITHMETIC, "bf16-pairs|bf16-amx", 0, "The order in which products of bf16 are summed (bf16-pairs)", 1},
    {"repeats", KEY_REPEATS, "N", 0, "Take the best of so many runs (3)", 1},
    {"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 80},
    {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  static const char *const orders[] = {"bf16-pairs", "bf16-amx", NULL};
  qd_bench_request *request = &wanted.request;
  switch (key) {
    case KEY_ARITHMETIC:
      wanted.arithmetic = (qd_arithmetic)(QD_ARITHMETIC_BF16_PAIRS + qd_option_choice(state, "--arithmetic", text, orders));
      return 0;
    case 'j': wanted.json = true; return 0;
    case KEY_REPEATS: request->repeats = (int)qd_option_integer(state, "--repeats", text, 1, 1000); return 0;
    case KEY_GROUP:
      request->group_size = qd_option_integer(state, "--group-size", text, -1, 65536);
      if (request->group_size == 0) qd_option_refuse(state, "--group-size takes -1 or 1 to 65536, got \"%s\"", text);
      return 0;
    case KEY_SHAPE:
      if (!qd_bench_shape(text, request->shape))
        qd_option_refuse(state, "--shape takes M, MxN or MxNxK, each from 1 to 65536, got \"%s\"", text);
      return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted.common; return 0;
    case ARGP_KEY_ARG:
      if (!qd_bench_select(request, text))
        qd_option_refuse(state, "there is no operation \"%s\" in the bench (%s)", text, qd_bench_names());
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_common_argp, 0, "Running:", 90}, {0}};

static char doc[1024];

static void write_doc(void) {
  snprintf(doc, sizeof doc,
           "Rates of the operations on this machine, beside the physical peak of its units and, where oneDNN is built in, its "
           "matrix product of the same precision on the same units. OPERATION is one of %s (all); one that is named is "
           "measured at a larger shape.\v"
           "Examples:\n"
           "  qdist bench\n"
           "  qdist bench gemm --shape 2048x4096x4096 --isa avx512 --json",
           qd_bench_names());
}

static const struct argp argp = {
    .options = options_list, .parser = parse, .args_doc = "[OPERATION...]", .doc = doc, .children = children};

static void parse_command_line(int argc, char **argv) {
  write_doc();
  wanted.common = qd_common_defaults;
  wanted.request.repeats = 3;
  wanted.request.group_size = 128;
  wanted.arithmetic = QD_ARITHMETIC_BF16_PAIRS;
  qd_options_parse(&argp, argc, argv, NULL);
}

/* A share in per cent, or a dash. */
static void print_share(double share, int width) {
  if (share > 0) printf(" %*.0f%%", width - 1, 100 * share);
  else printf(" %*s", width, "-");
}

static void print_times(double times) {
  if (times > 0) printf(" %8.2f", times);
  else printf(" %8s", "-");
}

static void print_row(const qd_bench_row *row) {
  char bits[8] = "";
  if (row->bits) snprintf(bits, sizeof bits, "%d", row->bits);
  printf("%-10s %-5s %4s %-16s %10.6f %9.1f %8.1f", row->op, row->dtype, bits, row->shape, row->seconds, row->gflops,
         row->gbytes_per_second);
  print_share(row->share_of_peak, 8);
  print_share(row->share_of_yardstick, 9);
  print_share(row->share_of_triad, 8);
  print_share(row->share_of_loop, 8);
  print_times(row->times_dense);
  print_times(row->times_f32);
  printf("\n");
}

static void print_text(const qd_bench *bench) {
  const char *yardstick = qd_yardstick_name();
  printf(
      "%s, %s, %s, %d thread(s)\npeak of a core: fp32 %.1f, bf16 %.1f, int8 %.1f GFLOP/s; yardstick %s: fp32 %.1f, bf16 %.1f, "
      "own fp64 %.1f; triad %.1f GB/s\n\n",
      qd_cpu_model(), bench->isa, qd_arithmetic_name(wanted.arithmetic), bench->threads, bench->peak[0], bench->peak[1],
      bench->peak[2],
      yardstick ? yardstick : "none", bench->yardstick[0], bench->yardstick[1], bench->yardstick[2], bench->triad);
  printf("%-10s %-5s %4s %-16s %10s %9s %8s %8s %9s %8s %8s %8s %8s\n", "operation", "dtype", "bits", "shape", "seconds",
         "GFLOP/s", "GB/s", "of peak", "yardstick", "of triad", "of loop", "x dense", "x fp32");
  for (int i = 0; i < bench->n; i++) print_row(&bench->row[i]);
}

static qd_json *row_json(const qd_bench_row *row) {
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "op", row->op);
  qd_json_set_text(out, "shape", row->shape);
  qd_json_set_text(out, "dtype", row->dtype);
  if (row->bits) qd_json_set_integer(out, "bits", row->bits);
  qd_json_set_number(out, "seconds", row->seconds);
  qd_json_set_number(out, "gflops", row->gflops);
  qd_json_set_number(out, "gbytes_per_second", row->gbytes_per_second);
  qd_json_set_number(out, "share_of_peak", row->share_of_peak);
  if (row->share_of_yardstick > 0) qd_json_set_number(out, "share_of_yardstick", row->share_of_yardstick);
  if (row->share_of_triad > 0) qd_json_set_number(out, "share_of_triad", row->share_of_triad);
  if (row->share_of_loop > 0) qd_json_set_number(out, "share_of_loop", row->share_of_loop);
  if (row->times_dense > 0) qd_json_set_number(out, "times_dense", row->times_dense);
  if (row->times_f32 > 0) qd_json_set_number(out, "times_f32", row->times_f32);
  return out;
}

static qd_json *rates_json(const double *rate) {
  qd_json *out = qd_json_object();
  qd_json_set_number(out, "fp32_gflops", rate[0]);
  qd_json_set_number(out, "bf16_gflops", rate[1]);
  return out;
}

static qd_status print_json(const qd_bench *bench) {
  qd_json *out = qd_json_object(), *ops = qd_json_array();
  qd_json_set_text(out, "cpu", qd_cpu_model());
  qd_json_set_text(out, "isa", bench->isa);
  qd_json_set_text(out, "arithmetic", qd_arithmetic_name(wanted.arithmetic));
  qd_json_set_integer(out, "threads", bench->threads);
  qd_json *peak = rates_json(bench->peak);
  qd_json_set_number(peak, "int8_gflops", bench->peak[2]);
  qd_json_set(out, "peak", peak);
  qd_json_set_number(out, "triad_gbytes_per_second", bench->triad);
  if (qd_yardstick_name() != NULL) {
    qd_json *yardstick = rates_json(bench->yardstick);
    qd_json_set_number(yardstick, "fp64_gflops", bench->yardstick[2]);
    qd_json_set_text(yardstick, "name", qd_yardstick_name());
    qd_json_set(out, "yardstick", yardstick);
  }
  for (int i = 0; i < bench->n; i++) qd_json_append(ops, row_json(&bench->row[i]));
  qd_json_set(out, "ops", ops);
  return qd_print_json(out);
}

static qd_status bench_here(void) {
  qd_device device;
  qd_bench bench;
  qd_device_options options = qd_common_device(&wanted.common);
  options.scratch_bytes = 0; /* no plan says how much */
  QD_TRY(qd_device_open(&device, options));
  qd_status status = qd_device_use_arithmetic(&device, wanted.arithmetic);
  if (status == QD_OK) status = qd_bench_run(&device, &wanted.request, &bench);
  if (status == QD_OK) status = wanted.json ? print_json(&bench) : (print_text(&bench), QD_OK);
  qd_device_close(&device);
  return status;
}

static qd_status run(qd_comm *comm) { return qd_agree(comm, comm->rank == 0 ? bench_here() : QD_OK); }

const qd_command qd_command_bench = {
    .name = "bench", .summary = "rates of the operations on this machine", .parse = parse_command_line, .run = run};
