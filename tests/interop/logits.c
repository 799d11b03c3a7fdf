/* interop_logits MODEL IDS TOKENS OUT: all logits of a model or a store in fp32 arithmetic, for comparing with other programs.
 * IDS: little-endian int32, windows of TOKENS.  OUT: fp32 (windows, TOKENS, vocabulary), native order, nothing else. */
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/evaluate/subject.h"
#include "storage/bytes.h"
#include "workers/team.h"

#include <stdio.h>
#include <stdlib.h>

static qd_status write_logits(qd_subject *subject, qd_block *rest, int64_t windows, int64_t tokens, FILE *out) {
  qd_tensor logits;
  int64_t vocabulary = subject->model.vocabulary;
  QD_TRY(qd_tensor_new_2d(&subject->device->scratch, QD_F32, tokens, vocabulary, &logits));
  for (int64_t w = 0; w < windows; w++) {
    size_t n = (size_t)(tokens * vocabulary);
    QD_TRY(qd_decoder_logits(&subject->decoder, rest, qd_tensor_at(subject->h, w), logits));
    QD_CHECK(fwrite(logits.data, sizeof(float), n, out) == n, QD_EIO, "the logits could not be written");
  }
  return QD_OK;
}

static qd_status run(qd_subject *subject, qd_tensor ids, FILE *out) {
  qd_block rest;
  QD_TRY(qd_subject_reserve(subject, ids.dim[0], ids.dim[1]));
  QD_TRY(qd_subject_forward(subject, ids, &rest));
  qd_status status = write_logits(subject, &rest, ids.dim[0], ids.dim[1], out);
  qd_subject_forward_done(subject);
  return status;
}

static qd_status read_ids(const char *path, int64_t tokens, qd_tensor *ids) {
  char *data;
  size_t bytes;
  QD_TRY(qd_file_read(path, (size_t)1 << 30, &data, &bytes));
  *ids = qd_tensor_2d(data, QD_I32, (int64_t)(bytes / sizeof(int32_t)) / tokens, tokens);
  return QD_OK;
}

static qd_status open_and_run(char **argv, qd_comm *comm, FILE *out) {
  qd_device device;
  qd_subject subject;
  qd_tensor ids;
  QD_TRY(read_ids(argv[2], strtoll(argv[3], NULL, 10), &ids));
  QD_TRY(qd_device_open(&device, (qd_device_options){.name = "cpu"}));
  QD_TRY(qd_subject_open(&subject, argv[1], QD_COMPUTE_FP32, comm, &device));
  qd_status status = run(&subject, ids, out);
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_heap_free(ids.data);
  return status;
}

int main(int argc, char **argv) {
  qd_comm *comm;
  FILE *out = argc == 5 && strtoll(argv[3], NULL, 10) > 0 ? fopen(argv[4], "wb") : NULL;
  if (out == NULL) return fputs("usage: interop_logits MODEL IDS TOKENS OUT\n", stderr), 2;
  qd_log_level_set(QD_LOG_QUIET);
  qd_status status = qd_team_open(&comm);
  if (status == QD_OK) {
    status = open_and_run(argv, comm, out);
    qd_team_close(comm, false, qd_status_exit_code(status));
  }
  if (fclose(out) != 0 && status == QD_OK) status = QD_EIO;
  if (status != QD_OK) fprintf(stderr, "interop_logits: %s\n", qd_error_text());
  return qd_status_exit_code(status);
}
