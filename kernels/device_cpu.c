#include "kernels/ops_table.h"

const qd_ops qd_ops_cpu = {
#define QD_OPS_ROW(name, parameters) .name = qd_cpu_##name,
    QD_OPS_LIST(QD_OPS_ROW)
#undef QD_OPS_ROW
};
