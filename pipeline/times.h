/* Where the time of each rank went, for people: nothing depends on it.
 *
 * The columns up to "other" add up to the total.  Work is timed without what passes inside collectives and in waiting for the
 * rank's own threads.  Inside collectives a rank *waits* for as long as it stays beyond the rank that stays for the shortest
 * time (workers/comm.h); the rest is what the messages cost.  The idle share is the waiting for other ranks over the total.
 * The uneven share is the part of it that no machine could mend: what a rank would wait if each had its cores to itself, from
 * the CPU time between collectives.  What comes behind "other" is done by threads beside that. */
#ifndef QDIST_PIPELINE_TIMES_H
#define QDIST_PIPELINE_TIMES_H

#include "storage/json.h"

#define QD_TIME_LIST(X)                                                                                      \
  X(QD_TIME_PREPARE,   "prepare")   /* a block's weights are checked and converted                        */ \
  X(QD_TIME_CALIBRATE, "calibrate") /* diagonals, grid, exact sum                                         */ \
  X(QD_TIME_FACTOR,    "factor")                                                                             \
  X(QD_TIME_LOOP,      "loop")      /* grids and codes of rows, and their errors                          */ \
  X(QD_TIME_ADVANCE,   "advance")                                                                            \
  X(QD_TIME_REPORT,    "report")    /* --report-kl: both streams through the head                         */ \
  X(QD_TIME_STORE,     "store")     /* a block is handed to the writer; the journal                       */ \
  X(QD_TIME_STREAM,    "stream")    /* blocks from the coordinator, as messages                           */ \
  X(QD_TIME_EXCHANGE,  "exchange")  /* sums, factors, codes, agreements, as messages                      */ \
  X(QD_TIME_THREADS,   "threads")   /* waiting for the own reader and writer, and the activations' disk     */ \
  X(QD_TIME_IDLE,      "idle")      /* waiting for other ranks                                            */ \
  X(QD_TIME_OTHER,     "other")     /* text, plan, embedding and head, the end                            */ \
  X(QD_TIME_READ,      "+read")     /* the reader's thread                                                */ \
  X(QD_TIME_COMPRESS,  "+compress") /* the writer's thread                                                */ \
  X(QD_TIME_WRITE,     "+write")

typedef enum qd_time {
#define QD_TIME_CODE(code, name) code,
  QD_TIME_LIST(QD_TIME_CODE)
#undef QD_TIME_CODE
  QD_N_TIMES
} qd_time;
const char *qd_time_name(qd_time time);

enum { QD_N_WORK_TIMES = QD_TIME_STREAM }; /* those of the rank's own work come first */

typedef struct qd_times {
  double seconds[QD_N_TIMES], total;
  double cpu[QD_N_WORK_TIMES];     /* CPU time of the rank's first thread */
  double uneven, uneven_share;     /* CPU seconds less than the busiest rank's; over what that has */
} qd_times;

struct qd_run;

/* The total begins here; on all ranks at the same place, as what they waited before is forgotten. */
void qd_times_start(struct qd_run *run);

/* A piece of work: its seconds without waiting and messages are added to run->times. */
typedef struct qd_moment {
  double at, apart, cpu;
} qd_moment;
qd_moment qd_times_begin(const struct qd_run *run);
void      qd_times_end(struct qd_run *run, qd_moment begin, qd_time what);

/* Those of all ranks so far, on every rank; `all` has room for one of each.  Collective. */
qd_status qd_times_gather(struct qd_run *run, qd_times *all) QD_MUST_USE;

double qd_times_idle(const qd_times *times); /* the idle share, 0 .. 1 */

/* A table for the log file and a line for the terminal; the same as an array of objects, a rank each. */
void     qd_times_log(const qd_times *all, int ranks);
qd_json *qd_times_json(const qd_times *all, int ranks);

#endif
