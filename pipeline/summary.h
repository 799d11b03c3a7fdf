/* What a store holds, in figures. */
#ifndef QDIST_PIPELINE_SUMMARY_H
#define QDIST_PIPELINE_SUMMARY_H

#include "storage/store.h"

typedef struct qd_summary {
  int64_t  quantized_weights, all_weights;
  double   bits_per_weight;             /* over quantized weights: codes, scales, zero points, order; SpQR's by its formula */
  double   bits_stored;                 /* the same from the bytes of all parts, before compression */
  int64_t  outliers;
  double   bits_per_weight_whole_model; /* everything else at 16 bits */
  double   mean_relative_error;         /* over quantized linears, but for experts that no calibration token chose */
  uint64_t file_bytes;                  /* of the .h5 files */
} qd_summary;

void qd_summary_of_store(const qd_store *store, qd_summary *out);

/* The number of a record's fact; 0 where there is none. */
double qd_summary_fact(const qd_record *record, const char *key);

#endif
