/* Models by name: --model-path, QDIST_MODELS and the Hugging Face cache (storage/find_model.h). */
#ifndef QDIST_JOBS_MODEL_OPTIONS_H
#define QDIST_JOBS_MODEL_OPTIONS_H

#include "jobs/options.h"
#include "storage/find_model.h"
#include "workers/comm.h"

enum { QD_MOST_LOCATED = 72 };

typedef struct qd_model_options { /* zeroed is fine */
  const char *model_path;
  char       *located[QD_MOST_LOCATED];
  int         n_located;
} qd_model_options;

extern const struct argp qd_model_argp; /* a child parser; its input is a qd_model_options */

/* --model-path, then QDIST_MODELS, then the cache: HF_HUB_CACHE, HF_HOME/hub, else in the user's folder. */
qd_status qd_model_options_places(const qd_model_options *options, qd_model_places *out) QD_MUST_USE;

/* *model (NULL is left alone): a name becomes the path that rank 0 finds, on all ranks that ask for the same name; a rank with
 * another one finds it by itself.  It lives until _close.  Collective. */
qd_status qd_model_locate(qd_model_options *options, qd_comm *comm, const char **model) QD_MUST_USE;
void      qd_model_options_close(qd_model_options *options);

#endif
