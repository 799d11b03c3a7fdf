#include "kernels/ref_real.h"

#ifdef QD_REAL64
const qd_ops qd_ops_ref64 = {
#else
const qd_ops qd_ops_ref = {
#endif
#define QD_OPS_ROW(name, parameters) .name = QD_REF(name),
    QD_OPS_LIST(QD_OPS_ROW)
#undef QD_OPS_ROW
};
