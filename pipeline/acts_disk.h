/* Activations in a file on the node's disk: the backing of acts.h for more of them than memory holds.
 *
 * Memory is two windows: while one is worked on, one task writes back the window before it and reads the one after it, both in
 * the other's place.  The file has no name, so nothing is left whatever ends the process. */
#ifndef QDIST_PIPELINE_ACTS_DISK_H
#define QDIST_PIPELINE_ACTS_DISK_H

#include "pipeline/acts.h"

typedef struct qd_acts_disk qd_acts_disk;

/* Sequences of a window: a pass over the statistics' triangle serves that many, while memory does not grow with their number.
 */
int64_t qd_acts_disk_window(const qd_acts_shape *shape);

size_t   qd_acts_disk_host_bytes(const qd_acts_shape *shape); /* of the arena */
uint64_t qd_acts_disk_file_bytes(const qd_acts_shape *shape);

/* As the functions of acts.h. */
qd_status qd_acts_disk_open(const qd_acts_shape *shape, qd_arena *arena, qd_acts_disk **out) QD_MUST_USE;
void      qd_acts_disk_close(qd_acts_disk *disk); /* NULL is fine */
void      qd_acts_disk_begin(qd_acts_disk *disk, qd_acts_use use);
qd_status qd_acts_disk_next(qd_acts_disk *disk, qd_acts_window *window) QD_MUST_USE;
void      qd_acts_disk_save(qd_acts_disk *disk);
void      qd_acts_disk_restore(qd_acts_disk *disk);
double    qd_acts_disk_wait_seconds(const qd_acts_disk *disk);

#endif
