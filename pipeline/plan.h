/* The plan of a quantizing job: what each rank's memory, the disk and the wires between ranks must hold, known from shapes
 * alone before any work.  The arenas are opened with these very numbers (setup.c), so a plan that does not hold ends the job
 * and is found by its tests.
 *
 * Every part is an upper bound that the job reaches or nearly reaches; only what libraries take (MPI's buffers, the
 * compressor's, HDF5's) is a reserve, because no bound of it is known. */
#ifndef QDIST_PIPELINE_PLAN_H
#define QDIST_PIPELINE_PLAN_H

#include "kernels/base/limits.h"
#include "pipeline/acts.h"
#include "pipeline/experts.h"
#include "pipeline/job.h"
#include "workers/partition.h"

#define QD_PLAN_PART_LIST(X)                                                                            \
  X(QD_PLAN_PROGRAM,     "program and text")            /* as this process stands when it plans */      \
  X(QD_PLAN_LIBRARIES,   "MPI, compression (reserve)")                                                  \
  X(QD_PLAN_STREAM,      "streamed blocks")             /* two images on rank 0, one on the others */   \
  X(QD_PLAN_BLOCK,       "block in work")               /* what a block is computed with, its codes */  \
  X(QD_PLAN_ACTIVATIONS, "activations")                                                                 \
  X(QD_PLAN_STATISTICS,  "statistics and factor")                                                       \
  X(QD_PLAN_DECODER,     "decoder")                     /* intermediates of one sequence */             \
  X(QD_PLAN_EXPERTS,     "exchange with experts")       /* tokens on their way, and there */               \
  X(QD_PLAN_REPORT,      "report")                      /* head and logits of --report-kl */            \
  X(QD_PLAN_SCRATCH,     "scratch")                     /* packing buffers, rows being quantized */     \
  X(QD_PLAN_WRITER,      "writer")                      /* a finished block on its way to disk */

typedef enum qd_plan_part {
#define QD_PLAN_PART_CODE(code, name) code,
  QD_PLAN_PART_LIST(QD_PLAN_PART_CODE)
#undef QD_PLAN_PART_CODE
  QD_N_PLAN_PARTS
} qd_plan_part;
const char *qd_plan_part_name(qd_plan_part part);

typedef struct qd_plan_rank {
  size_t  part[QD_N_PLAN_PARTS];
  size_t  host_bytes;   /* their sum, or what loading took already if that was more */
  size_t  device_bytes; /* of an accelerator; none is used */
  uint64_t scratch_disk_bytes; /* of --activations disk:DIR */
  int64_t sequences;
} qd_plan_rank;

typedef struct qd_plan_request {
  const qd_job    *job;
  const qd_model  *model;
  const qd_source *source;   /* NULL: all tensors are of the model's dtype */
  const qd_device *device;
  qd_dtype         act;
  int64_t          sequences, tokens; /* 0 sequences: nothing is run, weights alone decide */
  int              ranks;
  int              ranks_on_node;  /* consecutive ones; 0: all; not looked at with first_on_node */
  const int       *first_on_node;  /* of each rank, where it is known (workers/team.h); else NULL */
  bool             acts_on_disk; /* activations lie in job->acts_folder */
  bool             launched; /* this process is one of the ranks: MPI's own memory is in its size already */
} qd_plan_request;

/* One tensor of a block and what becomes of it. */
typedef struct qd_plan_tensor {
  qd_slot   slot;
  qd_dtype  dtype;
  bool      quantized, has_order;
  qd_fate   fate; /* of a linear */
  qd_scheme scheme;
} qd_plan_tensor;

/* Blocks that are alike in dtypes and schemes. */
typedef struct qd_plan_kind {
  int64_t         blocks, first_block; /* QD_REST */
  int             n;
  qd_plan_tensor *tensor;
} qd_plan_kind;

typedef struct qd_plan {
  qd_plan_request request;
  qd_plan_kind   *kind;  /* the last one is the rest: embedding, final norm, head */
  size_t          n_kinds, kind_capacity;
  qd_plan_rank   *rank;
  int64_t disk_bytes; /* of the output at the most: the finished store as if nothing could be compressed, and kept_bytes */
  int64_t         kept_bytes;    /* of --keep-activations: the good ones and those that take their place */
  int64_t         scratch_disk_bytes; /* of all ranks' activations on disk */
  int64_t         read_bytes;    /* of the model's files, by all ranks together */
  int64_t         traffic_bytes; /* received by all ranks together, in the whole job */
} qd_plan;

qd_status qd_plan_make(const qd_plan_request *request, qd_plan *out) QD_MUST_USE;
void      qd_plan_release(qd_plan *plan); /* a zeroed one is fine */

/* Shares of a linear are cut at multiples of so many rows: two of the solver's row units.  Errors are kept a row and summed
 * when all are there, so that results do not depend on it. */
enum { QD_SHARE_ROWS = 32 };

/* How many rows of a linear with so many columns are quantized at a time: whole tiles of QD_LOSS_TILE.  Scratch holds these and
 * no more, however large the share of a rank is. */
int64_t qd_plan_piece_rows(const qd_device *device, int64_t columns);

/* ---- does it fit? -------------------------------------------------------------------------------------------------------- */

/* Where the ranks are: how many share a node, and how many of these run already (their present size is no new need). */
typedef struct qd_plan_place {
  int rank, ranks_on_node, running;
} qd_plan_place;

/* QD_ENOMEM names the bound and by how much it is passed: control group, MemAvailable, RLIMIT_AS, --max-host-mem; shared by the
 * node's ranks. */
qd_status qd_plan_check_memory(const qd_plan *plan, qd_plan_place place) QD_MUST_USE;

/* The same of any job: its ranks on a node together, with what they have already; and what a rank's address space needs beyond
 * that. `way_out` ends the message: what a person can do. */
typedef struct qd_memory_need {
  double  node, address;
  int64_t max_host_bytes; /* --max-host-mem, of a node; 0: none */
} qd_memory_need;
qd_status qd_plan_check_need(const qd_memory_need *need, qd_plan_place place, const char *way_out) QD_MUST_USE;

/* A rank's address space beyond what it has: its arenas, and for each thread a stack and an arena of malloc's. */
double qd_plan_address_bytes(const qd_plan_rank *rank, const qd_device *device);

/* QD_EIO: what is still to be written is more than the output's file system or a quota leaves.  Without --output nothing is
 * checked. */
qd_status qd_plan_check_disk(const qd_plan *plan) QD_MUST_USE;

/* QD_EIO, QD_ENOTFOUND: the activations of this node's ranks do not fit --activations disk:DIR; with what the output still
 * needs, where that lies on the same file system. */
qd_status qd_plan_check_scratch(const qd_plan *plan, qd_plan_place place) QD_MUST_USE;

/* The same for people: lines in the log. */
void qd_plan_log(const qd_plan *plan, int ranks_on_node);

/* Linears of one role whose fate it is, in all blocks; and a line for each role that is not simply cut into groups. */
int64_t qd_plan_linears(const qd_plan *plan, qd_role role, qd_fate fate);
void    qd_plan_tell_unlike(const qd_plan *plan, void (*say)(const char *line));

/* "1.5 GiB" */
void qd_size_text(double bytes, char *text, size_t size);

/* How a rank with so many sequences holds its activations; and those of the original stream, where the job keeps it. */
qd_acts_shape qd_plan_acts_shape(const qd_plan_request *request, int64_t sequences);
qd_acts_shape qd_plan_original_shape(const qd_plan_request *request, int64_t sequences);

/* How a rank meets its experts. */
qd_experts_shape qd_plan_experts(const qd_plan *plan, int rank);

/* ---- sizes that evaluation shares ---------------------------------------------------------------------------------------- */

/* What libraries take: of the compressor for tensors of so many bytes, of MPI for the longest message; launched as in the
 * request. */
size_t qd_plan_libraries(size_t tensor_bytes, size_t message_bytes, int ranks, bool launched);

/* The decoder's arena. */
size_t qd_plan_decoder(const qd_model *model, int64_t tokens, qd_dtype act);

/* Activations of n sequences: `residuals` copies of the residual stream, `mids` inputs of a stage. */
size_t qd_plan_activations(const qd_model *model, qd_dtype act, int64_t tokens, int64_t residuals, int64_t mids);

/* Scratch of a forward: the widest attention, and gathered inputs of linears that are stored in processing order. */
size_t qd_plan_forward_scratch(const qd_device *device, const qd_experts_shape *shape);

/* An evaluated model's block arena: everything as it is computed with, of an original or of a store whose weights are expanded;
 * experts of this rank alone. */
size_t qd_plan_evaluated_block(const qd_model *model, qd_dtype act, int rank, int ranks);

#endif
