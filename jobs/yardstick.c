#include "jobs/yardstick.h"

#ifdef QDIST_HAVE_DNNL

#include "kernels/base/heap.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

/* Two generations of oneDNN's C interface: descriptors are structs in 2, handles in 3. */
struct qd_yardstick {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_t product;
  dnnl_memory_t memory[3];
};

static dnnl_cpu_isa_t limit_of(const qd_device *device) {
  switch (device->isa) {
    case QD_ISA_AVX2: return dnnl_cpu_isa_avx2;
    case QD_ISA_AVX512: return dnnl_cpu_isa_avx512_core;
    case QD_ISA_AVX512_VNNI: return dnnl_cpu_isa_avx512_core_vnni;
    case QD_ISA_AVX512_BF16: return dnnl_cpu_isa_avx512_core_bf16;
    case QD_ISA_AMX:
      return device->arithmetic == QD_ARITHMETIC_BF16_AMX ? dnnl_cpu_isa_avx512_core_amx : dnnl_cpu_isa_avx512_core_bf16;
    case QD_ISA_PORTABLE: break;
  }
  return dnnl_cpu_isa_sse41;
}

void qd_yardstick_limit(const qd_device *device) {
  omp_set_num_threads(device->threads);
  (void)dnnl_set_max_cpu_isa(limit_of(device));
}

const char *qd_yardstick_name(void) {
  static char name[64];
  const dnnl_version_t *version = dnnl_version();
  snprintf(name, sizeof name, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
  return name;
}

#define DNNL(call) QD_CHECK((call) == dnnl_success, QD_EUNSUPPORTED, "oneDNN refuses %s", #call)

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t description;
static dnnl_status_t describe(description *d, const dnnl_dims_t dims, dnnl_data_type_t type, const dnnl_dims_t strides) {
  return dnnl_memory_desc_create_with_strides(d, 2, dims, type, strides);
}
static void forget(description *d) { (void)dnnl_memory_desc_destroy(*d); }
#define DESCRIBED(d) (d)
static dnnl_status_t make_product(dnnl_engine_t engine, description *d, dnnl_primitive_desc_t *out) {
  return dnnl_matmul_primitive_desc_create(out, engine, d[0], d[1], NULL, d[2], NULL);
}
#else
typedef dnnl_memory_desc_t description;
static dnnl_status_t describe(description *d, const dnnl_dims_t dims, dnnl_data_type_t type, const dnnl_dims_t strides) {
  return dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides);
}
static void forget(description *d) { (void)d; }
#define DESCRIBED(d) (&(d))
static dnnl_status_t make_product(dnnl_engine_t engine, description *d, dnnl_primitive_desc_t *out) {
  dnnl_matmul_desc_t matmul;
  dnnl_status_t status = dnnl_matmul_desc_init(&matmul, &d[0], &d[1], NULL, &d[2]);
  return status == dnnl_success ? dnnl_primitive_desc_create(out, &matmul, NULL, engine, NULL) : status;
}
#endif

static qd_status prepare(qd_yardstick *y, description *d, qd_tensor x, qd_tensor w, qd_tensor c) {
  int64_t m = x.dim[0], k = x.dim[1], n = w.dim[0];
  dnnl_data_type_t type = x.dtype == QD_BF16 ? dnnl_bf16 : dnnl_f32;
  dnnl_primitive_desc_t chosen;
  DNNL(describe(&d[0], (dnnl_dims_t){m, k}, type, (dnnl_dims_t){k, 1}));
  DNNL(describe(&d[1], (dnnl_dims_t){k, n}, type, (dnnl_dims_t){1, k}));
  DNNL(describe(&d[2], (dnnl_dims_t){m, n}, dnnl_f32, (dnnl_dims_t){n, 1}));
  DNNL(dnnl_engine_create(&y->engine, dnnl_cpu, 0));
  DNNL(dnnl_stream_create(&y->stream, y->engine, dnnl_stream_default_flags));
  DNNL(make_product(y->engine, d, &chosen));
  DNNL(dnnl_primitive_create(&y->product, chosen));
  DNNL(dnnl_primitive_desc_destroy(chosen));
  DNNL(dnnl_memory_create(&y->memory[0], DESCRIBED(d[0]), y->engine, x.data));
  DNNL(dnnl_memory_create(&y->memory[1], DESCRIBED(d[1]), y->engine, w.data));
  DNNL(dnnl_memory_create(&y->memory[2], DESCRIBED(d[2]), y->engine, c.data));
  return QD_OK;
}

qd_status qd_yardstick_open(qd_tensor x, qd_tensor w, qd_tensor c, qd_yardstick **out) {
  description d[3];
  QD_TRY(qd_heap_new(1, sizeof **out, out));
  qd_status status = prepare(*out, d, x, w, c);
  for (int i = 0; status == QD_OK && i < 3; i++) forget(&d[i]);
  if (status != QD_OK) qd_yardstick_close(*out), *out = NULL;
  return status;
}

void qd_yardstick_run(qd_yardstick *y) {
  dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, y->memory[0]}, {DNNL_ARG_WEIGHTS, y->memory[1]}, {DNNL_ARG_DST, y->memory[2]}};
  (void)dnnl_primitive_execute(y->product, y->stream, 3, arguments);
  (void)dnnl_stream_wait(y->stream);
}

void qd_yardstick_close(qd_yardstick *y) {
  if (y == NULL) return;
  for (int i = 0; i < 3; i++)
    if (y->memory[i] != NULL) (void)dnnl_memory_destroy(y->memory[i]);
  if (y->product != NULL) (void)dnnl_primitive_destroy(y->product);
  if (y->stream != NULL) (void)dnnl_stream_destroy(y->stream);
  if (y->engine != NULL) (void)dnnl_engine_destroy(y->engine);
  qd_heap_free(y);
}

#else

const char *qd_yardstick_name(void) { return NULL; }
void qd_yardstick_limit(const qd_device *device) { (void)device; }
qd_status qd_yardstick_open(qd_tensor x, qd_tensor w, qd_tensor c, qd_yardstick **out) {
  (void)x, (void)w, (void)c;
  *out = NULL;
  QD_FAIL(QD_EUNSUPPORTED, "this qdist was built without oneDNN");
}
void qd_yardstick_run(qd_yardstick *yardstick) { (void)yardstick; }
void qd_yardstick_close(qd_yardstick *yardstick) { (void)yardstick; }

#endif
