/* The validated request: const after parsing. */
#ifndef QDIST_PIPELINE_JOB_H
#define QDIST_PIPELINE_JOB_H

#include "pipeline/method.h"
#include "pipeline/model.h"
#include "storage/pattern.h"
#include "storage/tokens.h"
#include "workers/stream.h"

enum { QD_MAX_RULES = 64 };
#define QD_HESSIAN_BOUND 0x1p62 /* what a column's total may reach before the grid is widened */

/* What a job asks to be computed in: the model's own type, or an arithmetic by name.  INT8 is for who computes with a store,
 * never for who makes one. */
typedef enum qd_compute {
  QD_COMPUTE_MODEL,
  QD_COMPUTE_FP32,
  QD_COMPUTE_BF16,
  QD_COMPUTE_BF16_AMX,
  QD_COMPUTE_INT8
} qd_compute;
typedef enum qd_on_failure { QD_FAILURE_RTN, QD_FAILURE_STOP } qd_on_failure;
typedef enum qd_moe_fallback { QD_MOE_RTN, QD_MOE_SHARED } qd_moe_fallback; /* of experts with few tokens */

/* A linear whose width is no multiple of its group: the last group is shorter, one group a row, or the linear is kept. */
typedef enum qd_odd_shape { QD_ODD_RAGGED, QD_ODD_PER_CHANNEL, QD_ODD_SKIP } qd_odd_shape;

/* --activations: where the activations of the calibration sequences are (acts.h).  AUTO: in memory where the plan fits, else on
 * disk. */
typedef enum qd_acts_place { QD_ACTS_MEMORY, QD_ACTS_DISK, QD_ACTS_AUTO } qd_acts_place;

/* --ignore REGEX (bits 0) and --override REGEX=bits:group, in the order given; the last that finds a name decides. */
typedef struct qd_rule {
  const char *expression;
  qd_pattern *pattern;
  int         bits;
  int64_t     group_size;
} qd_rule;

/* What of a job is known only with its model. */
typedef struct qd_job_settled {
  int64_t       sequence_tokens; /* 0: there is no text */
  qd_arithmetic arithmetic;
} qd_job_settled;

typedef struct qd_job {
  const char      *model, *output;
  const qd_method *method;
  qd_scheme        scheme;
  qd_act_order     act_order;
  bool             true_sequential;
  double           damp;
  bool             damp_auto;     /* of a few dampings the one whose codes err least (sample.h) */
  double           avg_bits;      /* SpQR: bits a weight that the job ends with (budget.h); 0: the threshold is as given */
  double           outlier_threshold;   /* SpQR, relative; INFINITY: no outliers; with avg_bits where the search begins */
  bool             simplified_outliers; /* SpQR: the grids do not make room for them */
  int64_t          block;         /* columns of a GPTQ block */
  qd_on_failure    on_failure;
  qd_moe_fallback  moe_fallback;
  int64_t          moe_min_tokens; /* an expert with fewer calibration tokens takes the fallback */
  qd_odd_shape     odd_shape;
  int              head_bits, embedding_bits; /* 0: kept as it is */
  bool             gptaq;         /* correct for how far inputs have moved from the original model's */
  double           gptaq_alpha;   /* how much of it, 0 .. 1 */
  int64_t          kl_positions;  /* --report-kl: positions of a sequence whose distributions are compared; 0: no report */
  int              n_rules;
  qd_rule          rule[QD_MAX_RULES];
  const char      *dataset;       /* NULL: none; of a mixture the first */
  int              n_texts;       /* of a mixture; else 0 or 1 */
  qd_text_share    text[QD_MAX_TEXTS];
  int64_t          nsamples, sequence_tokens, seed;
  qd_add_bos       bos;
  bool             pack;
  qd_compute       compute;
  int64_t          shard_bytes;
  bool             no_resume;
  bool             show_plan;     /* tell the setting of each linear before any work */
  double           stop_after_seconds; /* 0: no limit */
  int64_t          max_host_bytes; /* --max-host-mem, of a node; 0: as much as there is */
  qd_acts_place    acts_place;
  const char      *acts_folder;    /* NULL: in memory */
  bool             keep_activations;
  qd_readers       readers;
  const char      *status_file;
  qd_status      (*configuration)(const struct qd_job *job, const qd_job_settled *settled, char **text); /* as a file
                                     that does this job again, which is put beside the log; NULL: none.  From the heap. */
  const char      *job_name;      /* of the scheduler, for the lock */
  double           hessian_bound; /* units in which a total overflows the grid; 2^62, lower in tests */
} qd_job;

const char *qd_act_order_name(qd_act_order order);
bool        qd_act_order_find(const char *name, qd_act_order *out);

/* The arithmetic, and the dtype that activations have in it: F32 or BF16. */
qd_arithmetic qd_compute_arithmetic(qd_compute compute, qd_dtype model);
qd_dtype      qd_arithmetic_act(qd_arithmetic arithmetic);

/* GPTAQ with an alpha of 0 is GPTQ. */
static inline bool qd_job_is_asymmetric(const qd_job *job) { return job->gptaq && job->gptaq_alpha > 0; }

/* Whether the original model's activations are kept beside the quantized one's. */
static inline bool qd_job_keeps_original(const qd_job *job) { return qd_job_is_asymmetric(job) || job->kl_positions > 0; }

/* Whether some rows are quantized before all are, to choose by (sample.h). */
static inline bool qd_job_samples(const qd_job *job) { return job->damp_auto || job->avg_bits > 0; }

/* What becomes of a linear: quantized (in groups that divide its width, with a last group that is shorter, by whole rows
 * because no group divides it), or kept as it is because --ignore finds it or by --odd-shape skip. */
typedef enum qd_fate {
  QD_FATE_PLAIN,
  QD_FATE_RAGGED,
  QD_FATE_WHOLE_ROWS,
  QD_FATE_IGNORED,
  QD_FATE_SKIPPED,
  QD_N_FATES
} qd_fate;
const char *qd_fate_name(qd_fate fate); /* "plain", "ragged", "per-channel", "ignore", "odd-shape" */
static inline bool qd_fate_is_quantized(qd_fate fate) { return fate <= QD_FATE_WHOLE_ROWS; }
const char *qd_odd_shape_name(qd_odd_shape odd_shape);

/* The scheme of the linear tensor_name, `columns` wide. */
qd_fate qd_job_scheme(const qd_job *job, const char *tensor_name, int64_t columns, qd_scheme *out);

/* The same of head and embedding, which no rule reaches: theirs is the job's scheme with bits of their own. */
qd_fate qd_job_rest_scheme(const qd_job *job, qd_role role, int64_t columns, qd_scheme *out);
bool    qd_job_quantizes(const qd_job *job, qd_role role, const qd_model *model); /* QD_HEAD or QD_EMBEDDING */

/* The model that the store describes: head and embedding lie there one each when either was quantized. */
static inline bool qd_job_unties(const qd_job *job, const qd_model *model) {
  return model->tied && (qd_job_quantizes(job, QD_HEAD, model) || qd_job_quantizes(job, QD_EMBEDDING, model));
}

/* Whether linears of one input have one factor, by their group sizes: always, unless a group-aware order follows those, or an
 * order the weights. */
static inline bool qd_job_shares_factor(const qd_job *job, int64_t a, int64_t b) {
  return job->act_order != QD_ORDER_SPEARMAN && (job->act_order != QD_ORDER_GROUP || a == b);
}

/* Everything that determines the bits of the store (no path, host, time, ranks, threads, version), for the manifest and for
 * resuming. */
qd_json *qd_job_describe(const qd_job *job, const qd_model *model, const qd_tokens *tokens, const qd_digest *config,
                         const qd_digest *tokenizer);

/* QD_OK if the two descriptions are equal; else QD_EEXIST: "OUT holds another job: KEY (OPTION) was A there, now it is B". */
qd_status qd_job_compare(const qd_json *stored, const qd_json *wanted, const char *output) QD_MUST_USE;

#endif
