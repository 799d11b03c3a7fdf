#include "jobs/store_options.h"

#include "kernels/base/heap.h"

#include <stdio.h>

static const struct argp_option options_list[] = {
    {"model", 'm', "OUT", 0, "The store's folder, which may stand there without the option as well", 0},
    {"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 0},
    {0}};

static void set_folder(struct argp_state *state, qd_store_options *options, const char *text) {
  if (options->folder != NULL) qd_option_refuse(state, "one store only; \"%s\" is the second", text);
  options->folder = qd_option_text(state, "OUT", text);
}

static error_t parse(int key, char *text, struct argp_state *state) {
  qd_store_options *options = state->input;
  switch (key) {
    case 'j': options->json = true; return 0;
    case 'm':
    case ARGP_KEY_ARG: set_folder(state, options, text); return 0;
    case ARGP_KEY_END:
      if (options->folder == NULL) qd_option_refuse(state, "the folder of a store is needed");
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

void qd_store_options_parse(const char *doc, int argc, char **argv, qd_store_options *options) {
  const struct argp argp = {.options = options_list, .parser = parse, .args_doc = "OUT", .doc = doc};
  qd_options_parse(&argp, argc, argv, options);
}

qd_status qd_print_json(qd_json *document) {
  char *text;
  qd_status status = qd_json_print(document, 2, &text);
  qd_json_free(document);
  QD_TRY(status);
  int written = printf("%s\n", text);
  qd_heap_free(text);
  QD_CHECK(written >= 0 && fflush(stdout) == 0, QD_EIO, "standard output cannot be written");
  return QD_OK;
}
