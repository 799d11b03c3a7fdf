#include "jobs/version.h"

#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipeline/arch.h"
#include "pipeline/method.h"
#include "storage/libraries.h"
#include "workers/team.h"

void qd_version_print(FILE *to) {
  fprintf(to, "qdist %s\n", QDIST_VERSION);
  fprintf(to, "arithmetic version %d, store format version %d\n", QD_ARITHMETIC_VERSION, qd_storage_format_version());
  fprintf(to, "CPU: %s; best units: %s\n", qd_cpu_model(), qd_isa_name(qd_isa_best()));
  fprintf(to, "methods: %s\n", qd_method_names());
  fprintf(to, "architectures: %s\n", qd_arch_names());
  fprintf(to, "MPI: %s\n", qd_team_library());
  fprintf(to, "libraries: %s\n", qd_storage_libraries());
}
