#include "jobs/command.h"
#include "jobs/options.h"
#include "kernels/base/heap.h"
#include "storage/json.h"
#include "storage/store.h"
#include "workers/agree.h"

#include <stdio.h>

static struct {
  const char *folder;
  bool json;
} wanted;

static const struct argp_option options_list[] = {{"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 0}, {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  switch (key) {
    case 'j': wanted.json = true; return 0;
    case ARGP_KEY_ARG:
      if (wanted.folder != NULL) qd_option_refuse(state, "one store only; \"%s\" is the second", text);
      wanted.folder = text;
      return 0;
    case ARGP_KEY_NO_ARGS: qd_option_refuse(state, "the folder of a store is needed");
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .args_doc = "OUT",
    .doc = "Check every byte of every file of a store. Exit code 0: sound, 3: damaged.\vExample:\n  qdist verify OUT",
};

static void parse_command_line(int argc, char **argv) { qd_options_parse(&argp, argc, argv, NULL); }

static void say(void *context, const char *text) {
  if (context != NULL) qd_json_append_text(context, text);
  else printf("%s\n", text);
}

static qd_status print_json(qd_json *damage, bool sound) {
  char *text;
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "store", wanted.folder);
  qd_json_set_bool(out, "sound", sound);
  qd_json_set(out, "damage", damage);
  qd_status status = qd_json_print(out, 2, &text);
  qd_json_free(out);
  QD_TRY(status);
  printf("%s\n", text);
  qd_heap_free(text);
  return QD_OK;
}

static qd_status verify(void) {
  qd_json *damage = wanted.json ? qd_json_array() : NULL;
  qd_status status = qd_store_verify(wanted.folder, say, damage);
  if (status != QD_OK && status != QD_ECORRUPT) {
    qd_json_free(damage);
    return status;
  }
  if (wanted.json) QD_TRY(print_json(damage, status == QD_OK));
  else if (status == QD_OK) printf("%s: every byte is as it was written\n", wanted.folder);
  return status;
}

static qd_status run(qd_comm *comm) { return qd_agree(comm, comm->rank == 0 ? verify() : QD_OK); }

const qd_command qd_command_verify = {
    .name = "verify", .summary = "check every byte of a store", .parse = parse_command_line, .run = run};
