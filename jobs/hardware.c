#include "jobs/hardware.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <stdio.h>
#include <string.h>

enum { FILE_LIMIT = 1 << 20 };

static qd_status read_rate(const qd_json *machine, const char *what, const char *key, double *out) {
  QD_CHECK(qd_json_is_number(qd_json_get(machine, key)), QD_EBADINPUT, "%s: \"%s\" is missing or no number", what, key);
  return qd_json_take_number(machine, what, key, 1, 1e24, 0, out);
}

static qd_status read_machine(const qd_json *machine, const char *path, qd_hardware *out) {
  char what[512];
  qd_probe *p = &out->rates;
  const struct {
    const char *key;
    double *rate;
  } rates[] = {{"linear", &p->linear}, {"hessian", &p->hessian}, {"factor", &p->factor}, {"fit", &p->fit},
               {"solve", &p->solve},   {"measure", &p->measure}, {"read", &p->read},     {"wire", &p->wire}};
  snprintf(out->name, sizeof out->name, "%s", qd_json_text(qd_json_get(machine, "name")));
  snprintf(what, sizeof what, "%.300s, machine %s", path, out->name);
  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) QD_TRY(read_rate(machine, what, rates[i].key, rates[i].rate));
  return qd_json_take_integer(machine, what, "memory_bytes", 0, INT64_MAX, 0, &out->memory_bytes);
}

static qd_status choose(const qd_json *document, const char *path, const char *name, qd_hardware *out) {
  const qd_json *list = qd_json_is_object(document) ? qd_json_get(document, "machines") : NULL;
  char names[400] = "";
  size_t n = qd_json_is_array(list) ? qd_json_length(list) : 0;
  QD_CHECK(n > 0, QD_EBADINPUT, "%s: no list \"machines\" in it", path);
  for (size_t i = 0; i < n; i++) {
    const qd_json *machine = qd_json_at(list, i);
    const char *its = qd_json_is_object(machine) ? qd_json_text(qd_json_get(machine, "name")) : NULL;
    QD_CHECK(its != NULL, QD_EBADINPUT, "%s: machine %zu has no name", path, i);
    if (name != NULL ? strcmp(name, its) == 0 : n == 1) return read_machine(machine, path, out);
    snprintf(names + strlen(names), sizeof names - strlen(names), "%s%.60s", i > 0 ? ", " : "", its);
  }
  QD_CHECK(name != NULL, QD_EINVAL, "%s has several machines: %s; choose one by --hardware %s:NAME", path, names, path);
  QD_FAIL(QD_ENOTFOUND, "%s has no machine \"%s\", but %s", path, name, names);
}

qd_status qd_hardware_read(const char *text, qd_hardware *out) {
  char path[1024];
  const char *colon = strrchr(text, ':'), *name = NULL;
  qd_json *document;
  *out = (qd_hardware){.name = ""};
  snprintf(path, sizeof path, "%s", text);
  if (colon != NULL && !qd_file_exists(text) && (size_t)(colon - text) < sizeof path) {
    path[colon - text] = '\0', name = colon + 1;
  }
  QD_TRY(qd_json_read(path, FILE_LIMIT, &document));
  qd_status status = choose(document, path, name, out);
  qd_json_free(document);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
