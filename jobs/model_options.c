#include "jobs/model_options.h"

#include "kernels/base/heap.h"
#include "workers/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MODEL_PATH = 0x500 };

static const struct argp_option options_list[] = {
    {"model-path", KEY_MODEL_PATH, "DIR[:DIR...]", 0,
     "Where models are looked up by name, before QDIST_MODELS and the Hugging Face cache (qdist models lists them)", 1},
    {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  qd_model_options *options = state->input;
  if (key != KEY_MODEL_PATH) return ARGP_ERR_UNKNOWN;
  options->model_path = qd_option_text(state, "--model-path", text);
  return 0;
}

const struct argp qd_model_argp = {.options = options_list, .parser = parse};

/* ---- places -------------------------------------------------------------------------------------------------------------- */

/* What Hugging Face's tools take, in their order; the first variable that is set decides. */
static const struct { const char *variable, *below; } hubs[] = {
    {"HF_HUB_CACHE", ""}, {"HUGGINGFACE_HUB_CACHE", ""}, {"HF_HOME", "/hub"}, {"XDG_CACHE_HOME", "/huggingface/hub"},
    {"HOME", "/.cache/huggingface/hub"}};

static qd_status add_hub(qd_model_places *out) {
  char path[4096];
  for (size_t i = 0; i < sizeof hubs / sizeof *hubs; i++) {
    const char *value = getenv(hubs[i].variable);
    if (value == NULL || value[0] == '\0') continue;
    snprintf(path, sizeof path, "%s%s", value, hubs[i].below);
    return qd_model_places_add(out, path, "the Hugging Face cache", true);
  }
  return QD_OK;
}

qd_status qd_model_options_places(const qd_model_options *options, qd_model_places *out) {
  *out = (qd_model_places){0};
  qd_status status = qd_model_places_add(out, options->model_path, "--model-path", false);
  if (status == QD_OK) status = qd_model_places_add(out, getenv("QDIST_MODELS"), "QDIST_MODELS", false);
  if (status == QD_OK) status = add_hub(out);
  if (status == QD_OK) return QD_OK;
  qd_model_places_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

/* ---- locating ------------------------------------------------------------------------------------------------------------ */

static qd_status find(const qd_model_options *options, const char *name, char **path) {
  qd_model_places places;
  *path = NULL;
  QD_TRY(qd_model_options_places(options, &places));
  qd_status status = qd_model_find(&places, name, path);
  qd_model_places_release(&places);
  return status;
}

/* On a cluster the cache may lie elsewhere for each node's user: one path for all ranks. */
qd_status qd_model_locate(qd_model_options *options, qd_comm *comm, const char **model) {
  if (*model == NULL) return QD_OK;
  QD_ASSERT(options->n_located < QD_MOST_LOCATED);
  char *path = NULL;
  QD_TRY_ALL(comm, comm->rank == 0 ? find(options, *model, &path) : QD_OK);
  uint64_t n = path != NULL ? strlen(path) + 1 : 0;
  QD_TRY(qd_comm_bcast(comm, &n, sizeof n, 0));
  QD_TRY_ALL(comm, comm->rank != 0 ? qd_heap_new((size_t)n, 1, &path) : QD_OK);
  options->located[options->n_located++] = path;
  QD_TRY(qd_comm_bcast(comm, path, (size_t)n, 0));
  *model = path;
  return QD_OK;
}

void qd_model_options_close(qd_model_options *options) {
  for (int i = 0; i < options->n_located; i++) qd_heap_free(options->located[i]);
  options->n_located = 0;
}
