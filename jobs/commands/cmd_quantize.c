#include "jobs/command.h"
#include "jobs/job_options.h"
#include "kernels/base/log.h"
#include "pipeline/run.h"

#include <stdio.h>

static qd_job_options wanted;

static error_t parse(int key, char *text, struct argp_state *state) {
  switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted; return 0;
    case ARGP_KEY_ARG: qd_option_refuse(state, "\"%s\" is no option; see --help", text);
    case ARGP_KEY_END: qd_job_options_settle(state, &wanted, true); return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_job_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .parser = parse,
    .args_doc = "--model MODEL --output OUT",
    .doc = "Calibrate and quantize a model, block by block, over all ranks.\v"
           "Examples:\n"
           "  mpirun -np 16 qdist quantize -m DIR --method gptq -b 4 -g 128 \\\n"
           "      --dataset FILE --nsamples 128 --seqlen 2048 -o OUT\n"
           "  qdist quantize -m DIR --method rtn -b 4 -g 64 -o OUT\n"
           "  mpirun -np 4 qdist quantize -m DIR -b 3 -d c4:c4-train.json.gz \\\n"
           "      --override 'down_proj=4:128' --ignore 'layers\\.0\\.' -o OUT\n\n"
           "SIGUSR1, or SIGTERM to the ranks, finishes the block and exits with 75.",
    .children = children,
};

static void parse_command_line(int argc, char **argv) {
  wanted = qd_job_options_new();
  qd_options_parse(&argp, argc, argv, NULL);
}

static const char *plural(int n) { return n == 1 ? "" : "s"; }

static void introduce(const qd_job *job, const qd_comm *comm, const qd_device *device) {
  char groups[48] = "whole rows";
  if (job->scheme.group_size != QD_PER_CHANNEL) snprintf(groups, sizeof groups, "groups of %" PRId64, job->scheme.group_size);
  qd_log("qdist quantize: %s to %s, %s%s, %d bits, %s, %d rank%s x %d thread%s, %s", job->model, job->output, job->method->name,
         qd_job_is_asymmetric(job) ? " with --gptaq" : "", job->scheme.bits, groups, comm->size, plural(comm->size),
         device->threads, plural(device->threads), qd_isa_name(device->isa));
}

static qd_status run(qd_comm *comm) {
  const qd_job *job = &wanted.job;
  qd_device device;
  qd_status status = qd_job_options_open(&wanted, comm, &device);
  if (status == QD_OK) {
    introduce(job, comm, &device);
    status = qd_run_quantize(job, comm, &device);
    qd_device_close(&device);
  }
  qd_job_options_close(&wanted);
  return status;
}

const qd_command qd_command_quantize = {
    .name = "quantize", .summary = "calibrate and quantize a model", .parse = parse_command_line, .run = run, .stops = true};
