#include "pipeline/arch.h"

#include <stdio.h>
#include <string.h>

static const qd_arch *const archs[] = {
#define QD_ARCH(name) &qd_arch_##name,
#include "pipeline/archs.def"
#undef QD_ARCH
};

const char *qd_role_name(qd_role role) {
  static const char *const names[] = {
#define QD_ROLE_TEXT(code, name, linear) name,
      QD_ROLE_LIST(QD_ROLE_TEXT)
#undef QD_ROLE_TEXT
  };
  QD_ASSERT(role < QD_N_ROLES);
  return names[role];
}

bool qd_role_find(const char *name, qd_role *out) {
  for (qd_role role = 0; role < QD_N_ROLES; role++)
    if (strcmp(name, qd_role_name(role)) == 0) return *out = role, true;
  return false;
}

const qd_arch *qd_arch_find(const char *model_type) {
  for (int i = 0; i < QD_COUNT_OF(archs); i++)
    if (strcmp(model_type, archs[i]->name) == 0) return archs[i];
  return NULL;
}

const qd_arch *qd_arch_at(int index) { return index < QD_COUNT_OF(archs) ? archs[index] : NULL; }

const char *qd_arch_names(void) {
  static char names[256];
  size_t used = 0;
  for (int i = 0; i < QD_COUNT_OF(archs) && used < sizeof names; i++)
    used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", archs[i]->name);
  return names;
}
