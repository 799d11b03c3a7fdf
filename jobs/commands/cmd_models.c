#include "jobs/command.h"
#include "jobs/model_options.h"
#include "jobs/store_options.h"
#include "kernels/base/heap.h"
#include "pipeline/model.h"
#include "storage/store.h"
#include "workers/agree.h"

#include <stdio.h>
#include <string.h>

static struct {
  qd_model_options models;
  bool json;
} wanted;

static const struct argp_option options_list[] = {{"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 0}, {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  switch (key) {
    case 'j': wanted.json = true; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted.models; return 0;
    case ARGP_KEY_ARG: qd_option_refuse(state, "\"%s\" is no option; see --help", text);
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_model_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .doc = "The models that --model finds by name: architecture, parameters, type, size, and whether they can be quantized.\v"
           "Looked up in --model-path, then in QDIST_MODELS, then in the Hugging Face cache.\n\n"
           "Examples:\n"
           "  qdist models\n"
           "  qdist models --model-path /shared/models --json",
    .children = children,
};

static void parse_command_line(int argc, char **argv) { qd_options_parse(&argp, argc, argv, NULL); }

/* ---- one model ----------------------------------------------------------------------------------------------------------- */

typedef struct facts {
  char     architecture[64], why[512]; /* why it cannot be quantized; empty: it can */
  const char *dtype, *format;
  const char *stored;        /* the type of most weights in the files */
  int64_t  parameters;
  uint64_t bytes;
} facts;

static int64_t elements_of(const qd_source_tensor *t) { return (int64_t)(t->bytes / qd_dtype_bytes(t->dtype)); }
static const char *type_of(const qd_source_tensor *t) { return t->stored != NULL ? t->stored : qd_dtype_name(t->dtype); }

enum { MOST_TYPES = 32 };
typedef struct tally {
  const char *type;
  int64_t weights;
} tally;

static tally *tally_of(tally types[MOST_TYPES], const char *type) {
  int i = 0;
  while (types[i].type != NULL && strcmp(types[i].type, type) != 0 && i + 1 < MOST_TYPES) i++;
  types[i].type = type;
  return &types[i];
}

static void count(const qd_source *source, facts *out) {
  tally types[MOST_TYPES] = {{0}};
  int64_t most = 0;
  for (size_t i = 0; i < qd_source_tensors(source); i++) {
    const qd_source_tensor *t = qd_source_tensor_at(source, i);
    tally *of_type = tally_of(types, type_of(t));
    of_type->weights += elements_of(t);
    out->parameters += elements_of(t);
    if (of_type->weights > most) most = of_type->weights, out->stored = of_type->type;
  }
  for (size_t i = 0; i < qd_source_files(source); i++) out->bytes += qd_source_file_identity(source, i).size;
}

static void refuse(facts *out) { snprintf(out->why, sizeof out->why, "%.*s", (int)sizeof out->why - 1, qd_error_text()); }

static void look_at_source(const qd_source *source, qd_model *model, facts *out) {
  const char *type = qd_json_text(qd_json_get(qd_source_config(source), "model_type"));
  snprintf(out->architecture, sizeof out->architecture, "%s", type ? type : "");
  out->format = qd_source_format_name(source);
  count(source, out);
  if (qd_model_from_source(source, model) != QD_OK) refuse(out);
  else out->dtype = qd_dtype_name(model->dtype);
}

static qd_status look(const qd_model_entry *entry, facts *out) {
  qd_source *source;
  qd_model *model;
  *out = (facts){.dtype = "", .format = "", .stored = ""};
  if (entry->path == NULL) {
    snprintf(out->why, sizeof out->why, "%s", entry->why);
    return QD_OK;
  }
  qd_store_state state;
  char *foreign = NULL;
  bool is_store = qd_store_look(entry->path, &state, &foreign) == QD_OK && state != QD_STORE_FOREIGN && state != QD_STORE_FRESH;
  qd_heap_free(foreign);
  if (is_store) {
    out->format = "store";
    snprintf(out->why, sizeof out->why, "it is quantized already (qdist inspect tells how)");
    return QD_OK;
  }
  if (qd_source_open(entry->path, &source) != QD_OK) {
    refuse(out);
    return QD_OK;
  }
  qd_status status = qd_heap_new(1, sizeof *model, &model);
  if (status == QD_OK) look_at_source(source, model, out);
  qd_heap_free(model);
  qd_source_close(source);
  return status;
}

/* ---- telling ------------------------------------------------------------------------------------------------------------- */

static qd_json *entry_json(const qd_model_entry *entry, const facts *f) {
  qd_json *json = qd_json_object();
  qd_json_set_text(json, "name", entry->name);
  qd_json_set_text(json, "path", entry->path);
  qd_json_set_text(json, "place", entry->place->path);
  qd_json_set_text(json, "format", f->format);
  qd_json_set_text(json, "architecture", f->architecture);
  qd_json_set_integer(json, "parameters", f->parameters);
  qd_json_set_text(json, "dtype", f->dtype);
  qd_json_set_text(json, "stored_dtype", f->stored);
  qd_json_set_integer(json, "bytes", (int64_t)f->bytes);
  qd_json_set_bool(json, "quantizable", f->why[0] == '\0');
  if (f->why[0] != '\0') qd_json_set_text(json, "why", f->why);
  return json;
}

static const char *in_words(double n, char text[32]) {
  static const char *const units[] = {"", "K", "M", "B", "T"};
  int unit = 0;
  for (; n >= 1000 && unit < 4; unit++) n /= 1000;
  snprintf(text, 32, unit > 0 ? "%.3g%s" : "%.0f%s", n, units[unit]);
  return text;
}

static void print_entry(const qd_model_entry *entry, const facts *f) {
  char name[512], parameters[32], size[32];
  snprintf(name, sizeof name, "%s", entry->name);
  qd_remove_controls(name);
  snprintf(size, sizeof size, "%.1f MiB", (double)f->bytes / 1048576);
  printf("%-44s %-11s %-10s %8s %-5s %12s  %s%s\n", name, f->format[0] ? f->format : "-",
         f->architecture[0] ? f->architecture : "-", f->parameters > 0 ? in_words((double)f->parameters, parameters) : "-",
         f->stored[0] ? f->stored : "-", f->bytes > 0 ? size : "-", f->why[0] ? "no: " : "yes", f->why);
}

static qd_json *places_json(const qd_model_places *places) {
  qd_json *list = qd_json_array();
  for (size_t i = 0; i < places->n; i++) {
    qd_json *place = qd_json_object();
    qd_json_set_text(place, "path", places->at[i].path);
    qd_json_set_text(place, "origin", places->at[i].origin);
    qd_json_append(list, place);
  }
  return list;
}

static void print_head(const qd_model_places *places, const qd_model_entries *all) {
  if (all->n > 0) {
    printf("%-44s %-11s %-10s %8s %-5s %12s  %s\n", "name", "format", "family", "weights", "type", "size", "quantizable");
    return;
  }
  printf("no models; looked in");
  for (size_t i = 0; i < places->n; i++)
    printf("%s %s (%s%s)", i ? "," : "", places->at[i].path, places->at[i].origin,
           qd_folder_exists(places->at[i].path) ? "" : ": no such folder");
  printf("%s\n", places->n == 0 ? " no place: --model-path and QDIST_MODELS name some" : "");
}

static qd_status tell(const qd_model_places *places, const qd_model_entries *all) {
  qd_json *models = qd_json_array(), *out = qd_json_object();
  qd_status status = QD_OK;
  if (!wanted.json) print_head(places, all);
  for (size_t i = 0; i < all->n && status == QD_OK; i++) {
    facts f;
    status = look(&all->at[i], &f);
    if (status != QD_OK) break;
    if (wanted.json) qd_json_append(models, entry_json(&all->at[i], &f));
    else print_entry(&all->at[i], &f);
  }
  qd_json_set(out, "places", places_json(places));
  qd_json_set(out, "models", models);
  if (status == QD_OK && wanted.json) return qd_print_json(out);
  qd_json_free(out);
  return status;
}

static qd_status list(void) {
  qd_model_places places;
  qd_model_entries all = {0};
  QD_TRY(qd_model_options_places(&wanted.models, &places));
  qd_status status = qd_model_entries_read(&places, &all);
  if (status == QD_OK) status = tell(&places, &all);
  qd_model_entries_release(&all);
  qd_model_places_release(&places);
  return status;
}

static qd_status run(qd_comm *comm) { return qd_agree(comm, comm->rank == 0 ? list() : QD_OK); }

const qd_command qd_command_models = {
    .name = "models", .summary = "the models that are found by name", .parse = parse_command_line, .run = run};
