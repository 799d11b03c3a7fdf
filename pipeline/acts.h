/* Activations of this rank's sequences, standing where the last stage left them: the residual stream h, h as the block found it
 * (saved), and mid, the input of the coming stage (decoder.h).
 *
 * One qd_acts is one stream of activations; several stand side by side (the quantized model's, the original's), each with its
 * own h and mid.  They are worked on in passes: a pass goes once over all sequences in order, a window of some consecutive ones
 * at a time, and says beforehand what it reads and what it leaves changed.  Which sequences a window holds is not the caller's
 * business, and no result may depend on it; streams of the same shape are cut alike, so two passes may go side by side.
 *
 *   qd_acts_begin(acts, (qd_acts_use){.reads_h = true, .mid_out = columns});
 *   for (;;) {
 *     QD_TRY(qd_acts_next(acts, &window));
 *     if (window.n == 0) break;
 *     ...
 *   }
 *
 * Nothing here is collective: a failure is this rank's until it is agreed on. */
#ifndef QDIST_PIPELINE_ACTS_H
#define QDIST_PIPELINE_ACTS_H

#include "kernels/base/tensor.h"

typedef struct qd_acts_shape {
  qd_dtype dtype;                     /* of h and mid: bf16 for a bf16 model */
  int64_t  sequences, tokens, hidden; /* sequences of this rank; T of each */
  int64_t  widest;                    /* columns that mid may have */
  bool     saves;                     /* qd_acts_save is used */
  const char *disk;                   /* folder of a file that holds them; NULL: they are in memory */
} qd_acts_shape;

/* What a pass does with the windows.  Columns: of mid when it is read and when it is left; 0: it is not. */
typedef struct qd_acts_use {
  bool    reads_h, writes_h;
  int64_t mid_in, mid_out;
} qd_acts_use;

typedef struct qd_acts_window {
  int64_t   first, n; /* which of this rank's sequences; n 0: the pass is over */
  qd_tensor h;        /* (n, T, hidden) */
  qd_tensor mid;      /* (n, T, mid_in, or mid_out when it is not read); each sequence contiguous, room for `widest` columns */
} qd_acts_window;

typedef struct qd_acts {
  qd_acts_shape  shape;
  unsigned char *h, *saved, *mid; /* of all sequences */
  qd_acts_use    use;             /* of the pass that goes on */
  int64_t        next;            /* its next sequence */
  struct qd_acts_disk *disk;      /* acts_disk.h; NULL: in memory */
} qd_acts;

/* What one sequence takes: of h; of mid, whose room is for the widest, since a stage's output takes the place of its input. */
size_t qd_acts_h_bytes(const qd_acts_shape *shape);
size_t qd_acts_mid_bytes(const qd_acts_shape *shape);

/* What qd_acts_open takes from the arena, and of the disk. */
size_t   qd_acts_bytes(const qd_acts_shape *shape);
uint64_t qd_acts_disk_bytes(const qd_acts_shape *shape);

/* The memory is the arena's.  QD_ENOMEM; on disk QD_ENOTFOUND and QD_EIO. */
qd_status qd_acts_open(qd_acts *acts, const qd_acts_shape *shape, qd_arena *arena) QD_MUST_USE;
void      qd_acts_close(qd_acts *acts); /* a zeroed one is fine */

/* A new pass; one that was left half-way is forgotten.  _next: the next window, whose views live until the call after it; what
 * was written into the one before is kept.  QD_EIO: of the disk, which may tell late that it could not write. */
void      qd_acts_begin(qd_acts *acts, qd_acts_use use);
qd_status qd_acts_next(qd_acts *acts, qd_acts_window *window) QD_MUST_USE;

/* Between passes: remember h as it is, and go back to it. */
void qd_acts_save(qd_acts *acts);
void qd_acts_restore(qd_acts *acts);

double qd_acts_wait_seconds(const qd_acts *acts); /* how long passes waited for the disk, in all */

/* (n, T, columns) over data that has so many bytes for each sequence. */
qd_tensor qd_acts_view(const qd_acts_shape *shape, void *data, size_t sequence_bytes, int64_t n, int64_t columns);

#endif
