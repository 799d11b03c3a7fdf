/* A tile of rows inside one block of SpQR's loop. */
#ifndef QDIST_KERNELS_SPQR_CPU_H
#define QDIST_KERNELS_SPQR_CPU_H

#include "kernels/isa.h"
#include "kernels/ops.h"

typedef struct qd_spqr_tile {
  const qd_spqr_args *args;
  int64_t  row, rows;    /* whole runs of rows that share statistics, the last one may be short */
  int64_t  begin, end;   /* the block */
  int64_t  width;        /* columns of a block at most */
  float   *u;            /* U[begin + i][begin + j] at i * width + j */
  float   *e;            /* (rows, width): errors of the block */
  float   *scale, *zero; /* (rows): of the group at hand */
  float   *values;       /* (group size) */
  int64_t  beyond_row, beyond_group; /* of the run, and the group, whose grids are beyond what stores them; -1: none */
} qd_spqr_tile;

/* The block of all rows, run by run; ends at the first run that fails. */
QD_ISA_DECLARE(void, qd_spqr_solve_block, (qd_spqr_tile *tile));

#endif
