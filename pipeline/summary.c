#include "pipeline/summary.h"

#include "pipeline/record.h"

#include <string.h>

double qd_summary_fact(const qd_record *record, const char *key) {
  const qd_json *value = qd_json_get(record->facts, key);
  return value != NULL ? qd_json_number(value) : 0;
}

typedef struct totals {
  double bits, stored_bits, error;
  int64_t linears;
  bool calibrated;
} totals;

static double stored_bits(const qd_record *record) {
  double bits = 0;
  for (int i = 0; i < record->n_parts; i++) {
    double elements = 1;
    for (int d = 0; d < record->part[i].rank; d++) elements *= (double)record->part[i].dim[d];
    bits += 8 * elements * (double)qd_dtype_bytes(record->part[i].dtype);
  }
  return bits;
}

static void add_record(const qd_record *record, qd_summary *out, totals *sum) {
  int64_t weights = 1;
  if (strcmp(record->scheme, "statistics") == 0) return;
  for (int i = 0; i < record->rank; i++) weights *= record->dim[i];
  out->all_weights += weights;
  if (!qd_record_is_quantized(record)) return;
  out->quantized_weights += weights;
  out->outliers += qd_record_outliers(record);
  sum->stored_bits += stored_bits(record);
  sum->bits += (double)weights * qd_summary_fact(record, "bits_per_weight");
  if (sum->calibrated && qd_summary_fact(record, "tokens") == 0) return; /* an expert that no token chose */
  sum->error += qd_summary_fact(record, "relative_error");
  sum->linears++;
}

static void add_entry(const qd_entry *entry, qd_summary *out, totals *sum) {
  for (int i = 0; i < entry->n_records; i++) add_record(&entry->record[i], out, sum);
  for (int i = 0; i < entry->n_files; i++) out->file_bytes += entry->file[i].bytes;
}

void qd_summary_of_store(const qd_store *store, qd_summary *out) {
  totals sum = {.calibrated = qd_json_get(store->job, "dataset") != NULL};
  *out = (qd_summary){0};
  for (int64_t b = 0; b < store->n_blocks; b++) add_entry(&store->block[b], out, &sum);
  if (store->has_rest) add_entry(&store->rest, out, &sum);
  double others = 16.0 * (double)(out->all_weights - out->quantized_weights);
  if (out->quantized_weights > 0) {
    out->bits_per_weight = sum.bits / (double)out->quantized_weights;
    out->bits_stored = sum.stored_bits / (double)out->quantized_weights;
  }
  if (out->all_weights > 0) out->bits_per_weight_whole_model = (sum.bits + others) / (double)out->all_weights;
  if (sum.linears > 0) out->mean_relative_error = sum.error / (double)sum.linears;
}
