/* For tests that need a quantized model: small jobs on the golden models, calibrated with token ids. */
#ifndef QDIST_TESTS_PIPELINE_JOB_SUPPORT_H
#define QDIST_TESTS_PIPELINE_JOB_SUPPORT_H

#include "pipeline/run.h"
#include "tests/pipeline/logits_support.h"
#include "tests/support/temporary_folder.h"

enum { JOB_SEQUENCES = 5, JOB_TOKENS = 24 };

/* Ids below 72, the golden models' vocabulary. */
static inline const char *write_ids(qd_temporary_folder *folder, const char *name, int64_t n) {
  int32_t *ids = must_new((size_t)n, sizeof *ids);
  uint64_t state = 1;
  for (int64_t i = 0; i < n; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    ids[i] = (int32_t)((state >> 33) % 72);
  }
  const char *path = qd_temporary_write(folder, name, ids, (size_t)n * sizeof *ids);
  qd_heap_free(ids);
  return path;
}

/* RTN at 4 bits in groups of 16, without text; what differs is set by the test. */
static inline qd_job small_job(const char *model, const char *output) {
  return (qd_job){.model = model,
                  .output = output,
                  .method = &qd_method_rtn,
                  .scheme = {.bits = 4, .group_size = 16, .scale_dtype = QD_F16},
                  .true_sequential = true,
                  .damp = 0.01,
                  .block = QD_GPTQ_BLOCK,
                  .nsamples = JOB_SEQUENCES,
                  .sequence_tokens = JOB_TOKENS,
                  .pack = true,
                  .shard_bytes = (int64_t)1 << 30,
                  .hessian_bound = 0x1p62};
}

static inline void gptq_job(qd_job *job, const char *ids, qd_act_order act_order) {
  job->method = &qd_method_gptq, job->dataset = ids, job->act_order = act_order, job->scheme.mse = true;
}

/* The dense grid of 16 x 16 and enough outliers for every linear to have some. */
static inline void spqr_job(qd_job *job, const char *ids, qd_act_order act_order) {
  job->method = &qd_method_spqr, job->dataset = ids, job->act_order = act_order, job->outlier_threshold = 0.05;
  job->scheme = (qd_scheme){.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true,
                            .scale_bits = 3, .zero_bits = 3, .stat_group = 16};
}

static inline qd_status run_job(const qd_job *job) {
  qd_comm *comm = open_team();
  qd_device device = open_device((place){"cpu", NULL, 1});
  qd_status status = qd_run_quantize(job, comm, &device);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return status;
}

static inline const char *golden_path(const char *name) {
  static char path[PATH_BYTES];
  snprintf(path, sizeof path, "%s/tests/golden/archs/%s", QDIST_SOURCE_DIR, name);
  return path;
}

#endif
