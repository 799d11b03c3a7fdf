#include "jobs/command.h"
#include "jobs/store_options.h"
#include "storage/store.h"
#include "workers/agree.h"

#include <stdio.h>

static qd_store_options wanted;

static void parse_command_line(int argc, char **argv) {
  qd_store_options_parse(
      "Check every byte of every file of a store. Exit code 0: sound, 3: damaged.\vExample:\n  qdist verify OUT", argc, argv,
      &wanted);
}

static void say(void *context, const char *text) {
  if (context != NULL) qd_json_append_text(context, text);
  else printf("%s\n", text);
}

static qd_status print_json(qd_json *damage, bool sound) {
  qd_json *out = qd_json_object();
  qd_json_set_text(out, "store", wanted.folder);
  qd_json_set_bool(out, "sound", sound);
  qd_json_set(out, "damage", damage);
  return qd_print_json(out);
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
  fflush(stdout); /* before the sentence on standard error, which may be the same file */
  return status;
}

static qd_status run(qd_comm *comm) { return qd_agree(comm, comm->rank == 0 ? verify() : QD_OK); }

const qd_command qd_command_verify = {
    .name = "verify", .summary = "check every byte of a store", .parse = parse_command_line, .run = run};
