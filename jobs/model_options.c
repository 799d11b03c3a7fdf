#include "jobs/model_options.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
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

/* Rank 0's text on all ranks, from the heap. */
static qd_status share_text(qd_comm *comm, const char *text, char **out) {
  uint64_t n = text != NULL ? strlen(text) + 1 : 0;
  *out = NULL;
  QD_TRY(qd_comm_bcast(comm, &n, sizeof n, 0));
  QD_TRY_ALL(comm, qd_heap_new((size_t)n, 1, out));
  if (comm->rank == 0) memcpy(*out, text, (size_t)n);
  return qd_comm_bcast(comm, *out, (size_t)n, 0);
}

/* On a cluster the cache may lie elsewhere for each node's user: one path for all ranks that ask for the same, while a rank may
 * name a copy of its own. */
static qd_status take_path(const qd_model_options *options, const char *name, const char *name_of_rank_0, char **path) {
  QD_CHECK(name != NULL, QD_EINVAL, "rank 0 was started with the model %s, this rank without", name_of_rank_0);
  if (strcmp(name, name_of_rank_0) == 0) return QD_OK;
  qd_heap_free(*path);
  return find(options, name, path);
}

qd_status qd_model_locate(qd_model_options *options, qd_comm *comm, const char **model) {
  bool asked = *model != NULL;
  QD_TRY(qd_comm_bcast(comm, &asked, sizeof asked, 0));
  if (!asked) return QD_OK;
  QD_ASSERT(options->n_located < QD_MOST_LOCATED);
  char *found = NULL, *name = NULL, **path = &options->located[options->n_located];
  QD_TRY_ALL(comm, comm->rank == 0 ? find(options, *model, &found) : QD_OK);
  qd_status status = share_text(comm, found, path);
  qd_heap_free(found);
  options->n_located++;
  QD_TRY(status);
  status = share_text(comm, *model, &name);
  if (status == QD_OK) status = qd_agree(comm, take_path(options, *model, name, path));
  qd_heap_free(name);
  QD_TRY(status);
  if (strcmp(*path, *model) != 0) qd_log("%s is %s", *model, *path);
  *model = *path;
  return QD_OK;
}

void qd_model_options_close(qd_model_options *options) {
  for (int i = 0; i < options->n_located; i++) qd_heap_free(options->located[i]);
  options->n_located = 0;
}
