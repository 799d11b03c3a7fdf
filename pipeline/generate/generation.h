/* Text behind a prompt, token by token, from a resident model (resident.h): greedy or drawn (sampling.h), until an end-of-text
 * token, a stop text, or the number asked for. */
#ifndef QDIST_PIPELINE_GENERATE_GENERATION_H
#define QDIST_PIPELINE_GENERATE_GENERATION_H

#include "pipeline/generate/resident.h"
#include "pipeline/generate/sampling.h"
#include "storage/tokenizer.h"

enum { QD_MAX_STOPS = 16, QD_USUAL_NEW_TOKENS = 256 };

typedef struct qd_generation_request {
  const char *model;
  const char *prompt, *prompt_file; /* one of them; the file is rank 0's */
  int64_t     max_new_tokens;       /* 0: QD_USUAL_NEW_TOKENS, or as many as the model has positions for */
  qd_sampling sampling;
  const char *stop[QD_MAX_STOPS];   /* the text ends before the first of them */
  int         n_stops;
  qd_compute  compute;
  qd_add_bos  bos;
  qd_readers  readers;
  int64_t     max_host_bytes;
  qd_status (*emit)(const char *text, size_t n); /* rank 0: what is new of the text; NULL: nobody waits */
} qd_generation_request;

typedef struct qd_generation {
  char    *text;       /* rank 0, from the heap: what was emitted in all */
  int32_t *ids;        /* rank 0, from the heap: prompt and new tokens */
  int64_t  prompt_tokens, new_tokens;
  const char *ended_by; /* "eos", "stop", "length" */
  qd_arithmetic arithmetic;
  double   load_seconds, prompt_seconds, new_seconds; /* the first new token counts to the prompt */
  int64_t  planned_bytes, peak_bytes;                 /* of this rank's memory */
} qd_generation;

/* Collective.  QD_EINVAL: an empty prompt, or more tokens than the model has positions.  QD_ENOMEM before anything is loaded.
 * QD_ESTOPPED: a signal came (workers/interrupt.h); what there was is emitted. */
qd_status qd_generate(const qd_generation_request *request, qd_comm *comm, qd_device *device, qd_generation *out) QD_MUST_USE;
void      qd_generation_release(qd_generation *generation); /* a zeroed one is fine */

#endif
