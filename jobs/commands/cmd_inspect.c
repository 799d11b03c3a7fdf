#include "jobs/command.h"
#include "jobs/store_options.h"
#include "kernels/base/heap.h"
#include "pipeline/job.h"
#include "pipeline/record.h"
#include "pipeline/summary.h"
#include "workers/agree.h"

#include <stdio.h>
#include <string.h>

static qd_store_options wanted;

static void parse_command_line(int argc, char **argv) {
  qd_store_options_parse(
      "What a store holds: the job, bits per weight, size, and of each linear its scheme and errors.\vExample:\n  qdist "
      "inspect OUT --json",
      argc, argv, &wanted);
}

/* ---- for machines -------------------------------------------------------------------------------------------------------- */

static qd_json *tensor_json(const qd_record *record) {
  qd_json *tensor = qd_json_object(), *shape = qd_json_array();
  qd_json_set_text(tensor, "name", record->name);
  qd_json_set_text(tensor, "role", record->role);
  qd_json_set_text(tensor, "scheme", record->scheme);
  for (int i = 0; i < record->rank; i++) qd_json_append_integer(shape, record->dim[i]);
  qd_json_set(tensor, "shape", shape);
  qd_json_set_text(tensor, "dtype", qd_dtype_name(record->dtype));
  const char *key;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(record->facts, i, &key, &value); i++) qd_json_set(tensor, key, qd_json_copy(value));
  return tensor;
}

static void append_entry(qd_json *tensors, const qd_entry *entry) {
  for (int i = 0; i < entry->n_records; i++)
    if (strcmp(entry->record[i].scheme, "statistics") != 0) qd_json_append(tensors, tensor_json(&entry->record[i]));
}

/* What is known of blocks as a whole; a block without is an empty object. */
static qd_json *block_facts(const qd_store *store) {
  qd_json *all = qd_json_array();
  for (int64_t b = 0; b < store->n_blocks; b++)
    qd_json_append(all, store->block[b].facts != NULL ? qd_json_copy(store->block[b].facts) : qd_json_object());
  return all;
}

static qd_status print_json(const qd_store *store, const qd_summary *summary) {
  qd_json *out = qd_json_object(), *tensors = qd_json_array();
  qd_json_set_text(out, "store", wanted.folder);
  qd_json_set_number(out, "bits_per_weight", summary->bits_per_weight);
  qd_json_set_number(out, "bits_per_weight_whole_model", summary->bits_per_weight_whole_model);
  qd_json_set_number(out, "mean_relative_error", summary->mean_relative_error);
  qd_json_set_integer(out, "quantized_weights", summary->quantized_weights);
  qd_json_set_integer(out, "all_weights", summary->all_weights);
  qd_json_set_integer(out, "file_bytes", (int64_t)summary->file_bytes);
  qd_json_set_integer(out, "blocks", store->n_blocks);
  qd_json_set(out, "block_facts", block_facts(store));
  qd_json_set(out, "job", qd_json_copy(store->job));
  for (int64_t b = 0; b < store->n_blocks; b++) append_entry(tensors, &store->block[b]);
  append_entry(tensors, &store->rest);
  qd_json_set(out, "tensors", tensors);
  return qd_print_json(out);
}

/* ---- for people ---------------------------------------------------------------------------------------------------------- */

static bool is_true(const qd_record *record, const char *key) {
  bool value = false;
  return qd_json_take_bool(record->facts, record->name, key, false, &value) == QD_OK && value;
}

/* What a linear has that the method alone would not have given it. */
static const char *exception(const qd_record *record) {
  const char *kept = qd_json_text(qd_json_get(record->facts, "kept"));
  if (kept != NULL && strcmp(kept, qd_fate_name(QD_FATE_IGNORED)) == 0) return "  kept: --ignore";
  if (kept != NULL) return "  kept: no group divides the width (--odd-shape skip)";
  if (is_true(record, "shared_hessian")) return "  (Hessian of all tokens)";
  return is_true(record, "fallback_rtn") ? "  (rounded to nearest)" : "";
}

static void print_record(const qd_record *record) {
  char shape[64] = "";
  for (int i = 0; i < record->rank; i++)
    snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%" PRId64, i ? " x " : "", record->dim[i]);
  if (strcmp(record->scheme, "statistics") == 0) return;
  if (!qd_record_is_quantized(record)) {
    printf("%-52s %16s  %s%s\n", record->name, shape, qd_dtype_name(record->dtype), exception(record));
    return;
  }
  printf("%-52s %16s  %d bits  group %-4d  relative error %-10.4g loss %-11.5g damping %g%s\n", record->name, shape,
         (int)qd_summary_fact(record, "bits"), (int)qd_summary_fact(record, "group_size"),
         qd_summary_fact(record, "relative_error"), qd_summary_fact(record, "loss"), qd_summary_fact(record, "damping"),
         exception(record));
}

static void print_block_facts(const qd_entry *entry) {
  const char *key;
  const qd_json *value;
  if (entry->facts == NULL) return;
  printf("block %" PRId64 ":", entry->block);
  for (size_t i = 0; qd_json_member(entry->facts, i, &key, &value); i++) printf("  %s %.6g", key, qd_json_number(value));
  printf("\n");
}

static qd_status print_text(const qd_store *store, const qd_summary *summary) {
  char *job;
  QD_TRY(qd_json_print(store->job, 2, &job));
  for (int64_t b = 0; b < store->n_blocks; b++)
    for (int i = 0; i < store->block[b].n_records; i++) print_record(&store->block[b].record[i]);
  for (int i = 0; i < store->rest.n_records; i++) print_record(&store->rest.record[i]);
  for (int64_t b = 0; b < store->n_blocks; b++) print_block_facts(&store->block[b]);
  printf("\njob %s\n", job);
  printf("\n%" PRId64 " weights quantized of %" PRId64
         "; %.4f bits a weight, %.4f over the whole model; %.1f MiB on disk; mean relative error %.4g\n",
         summary->quantized_weights, summary->all_weights, summary->bits_per_weight, summary->bits_per_weight_whole_model,
         (double)summary->file_bytes / 1048576, summary->mean_relative_error);
  qd_heap_free(job);
  return QD_OK;
}

static qd_status inspect(void) {
  qd_store store;
  qd_summary summary;
  QD_TRY(qd_store_open(wanted.folder, false, &store));
  qd_summary_of_store(&store, &summary);
  qd_status status = wanted.json ? print_json(&store, &summary) : print_text(&store, &summary);
  qd_store_close(&store);
  return status;
}

static qd_status run(qd_comm *comm) { return qd_agree(comm, comm->rank == 0 ? inspect() : QD_OK); }

const qd_command qd_command_inspect = {
    .name = "inspect", .summary = "what a store holds", .parse = parse_command_line, .run = run};
