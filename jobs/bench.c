#include "jobs/bench_case.h"

#include "jobs/yardstick.h"
#include "kernels/base/limits.h"
#include "kernels/base/log.h"
#include "kernels/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qd_bench_group *const groups[QD_BENCH_GROUPS] = {&qd_bench_products, &qd_bench_solvers, &qd_bench_forward,
                                                              &qd_bench_storage};

/* What all operations share; the arenas are rewound after each, so that memory is asked for once. */
typedef struct bench {
  qd_device *device;
  const qd_bench_request *request;
  qd_arena *own, *other; /* of the operation; of what it is compared with */
} bench;

/* Operations are numbered through all groups; NULL behind the last one. */
static const qd_bench_op *op_at(int index) {
  for (int g = 0; g < QD_BENCH_GROUPS; index -= groups[g]->n, g++)
    if (index < groups[g]->n) return &groups[g]->op[index];
  return NULL;
}

/* ---- choosing ------------------------------------------------------------------------------------------------------------ */

const char *qd_bench_names(void) {
  static char names[256];
  const qd_bench_op *op, *last = NULL;
  names[0] = '\0';
  for (int i = 0; (op = op_at(i)) != NULL; last = op, i++)
    if (last == NULL || strcmp(op->name, last->name) != 0)
      snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", op->name);
  return names;
}

bool qd_bench_select(qd_bench_request *request, const char *name) {
  uint64_t found = 0;
  const qd_bench_op *op;
  for (int i = 0; (op = op_at(i)) != NULL; i++)
    if (strcmp(op->name, name) == 0) found |= (uint64_t)1 << i;
  request->selected |= found;
  return found != 0;
}

bool qd_bench_shape(const char *text, int64_t shape[3]) {
  for (int i = 0; i < 3; i++) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || value < 1 || value > 65536) return false;
    for (int j = i; j < 3; j++) shape[j] = value;
    if (*end == '\0') return true;
    if (*end != 'x') return false;
    text = end + 1;
  }
  return false;
}

/* A size that the operation does not have stays 0. */
static int64_t size_of(const qd_bench_request *request, int i, int64_t usual, int64_t large) {
  if (usual == 0) return 0;
  if (request->shape[i] != 0) return request->shape[i];
  return request->selected != 0 && large != 0 ? large : usual;
}

static qd_bench_case case_of(const bench *b, const qd_bench_op *op) {
  const qd_bench_request *request = b->request;
  return (qd_bench_case){.device = b->device,
                         .arena = b->own,
                         .dtype = op->dtype,
                         .scheme = {.bits = op->bits ? op->bits : 4, .group_size = request->group_size, .scale_dtype = QD_F16},
                         .m = size_of(request, 0, op->m, op->large_m),
                         .n = size_of(request, 1, op->n, op->large_n),
                         .k = size_of(request, 2, op->k, op->large_k)};
}

/* ---- clocks and peaks ---------------------------------------------------------------------------------------------------- */

/* With one thread its CPU time, so that whatever else runs on the machine does not count; with more, the clock on the wall. */
static double bench_seconds(const qd_device *device) { return device->threads > 1 ? qd_seconds() : qd_cpu_seconds(); }

static const double least_spent = 0.1, least_timed = 5e-5; /* seconds: an operation is repeated for; a clock can tell */

/* Seconds of one run, by so many in a row that the clock can tell; how many is remembered. */
static qd_status time_calls(qd_bench_case *c, qd_status (*run)(qd_bench_case *c), int64_t *calls, double *seconds) {
  for (;; *calls *= 2) {
    double start = bench_seconds(c->device);
    for (int64_t i = 0; i < *calls; i++) QD_TRY(run(c));
    *seconds = (bench_seconds(c->device) - start) / (double)*calls;
    if (*seconds * (double)*calls >= least_timed) return QD_OK;
  }
}

/* The best rate of a register loop on one core: flops a second, or with bits codes a second. */
static double best_loop(const qd_device *device, qd_dtype dtype, int bits) {
  double best = 0;
  for (int i = 0; i < 5; i++) {
    double start = qd_cpu_seconds();
    double work = bits > 0 ? qd_peak_codes(device, dtype, bits, 20000) : qd_peak_run(device, dtype, 1000000);
    double rate = work / (qd_cpu_seconds() - start);
    best = rate > best ? rate : best;
  }
  return best;
}

/* GFLOP/s. */
static double peak_of(const qd_device *device, qd_dtype dtype) { return best_loop(device, dtype, 0) / 1e9; }

static qd_status triad_of(qd_device *device, qd_arena *arena, double *rate) {
  enum { N = 12 << 20, RUNS = 6 }; /* 48 MB each */
  float *data;
  *rate = 0;
  QD_TRY(qd_arena_new(arena, 3 * (size_t)N, sizeof *data, &data));
  memset(data, 0, 3 * (size_t)N * sizeof *data);
  for (int i = 0; i < RUNS; i++) {
    double start = bench_seconds(device);
    qd_peak_triad(device, data, data + N, data + 2 * (size_t)N, N);
    double here = 3.0 * N * sizeof *data / (bench_seconds(device) - start) / 1e9;
    if (i > 0 && here > *rate) *rate = here;
  }
  qd_arena_rewind(arena, 0);
  return QD_OK;
}

/* ---- beside -------------------------------------------------------------------------------------------------------------- */

/* What an operation is compared with, run in turns with it. */
typedef struct beside {
  qd_bench_case c;
  qd_status (*run)(qd_bench_case *c); /* NULL: nothing */
  int64_t calls;
  double best, spent; /* GFLOP/s; seconds */
} beside;

static qd_status run_yardstick(qd_bench_case *c) {
  qd_yardstick_run(c->state);
  return QD_OK;
}

static qd_status prepare_beside(beside *b, const qd_bench_op *op) {
  if (op->beside == QD_BESIDE_DENSE) {
    b->run = qd_bench_run_panels;
    return qd_bench_dense_panels(&b->c);
  }
  if (op->beside == QD_BESIDE_F32) {
    b->run = qd_bench_run_panels;
    return qd_bench_code_panels(&b->c);
  }
  QD_TRY(qd_bench_product(&b->c));
  qd_yardstick *yardstick;
  if (op->dtype == QD_F64) {
    b->run = qd_bench_run_product;
  } else if (qd_yardstick_open(b->c.x, b->c.w, b->c.y, &yardstick) == QD_OK) { /* an older CPU may have no bf16 product there */
    b->run = run_yardstick;
    b->c.state = yardstick;
  }
  return QD_OK;
}

static qd_status open_beside(beside *b, qd_arena *arena, const qd_bench_op *op, const qd_bench_case *c) {
  *b = (beside){
      .calls = 1,
      .c = {.device = c->device, .arena = arena, .dtype = c->dtype, .scheme = c->scheme, .m = c->m, .n = c->n, .k = c->k}};
  if (op->beside == QD_BESIDE_NOTHING) return QD_OK;
  if (op->beside == QD_BESIDE_SQUARE) b->c.m = b->c.n = b->c.k = op->dtype == QD_F64 ? 1024 : 2048;
  return prepare_beside(b, op);
}

/* The i-th time: once to warm up, `repeats` times at least, and no longer than the shortest runs are repeated for. */
static qd_status run_beside(beside *b, int i, int repeats) {
  double seconds;
  if (b->run == NULL || (i > repeats && b->spent > least_spent)) return QD_OK;
  QD_TRY(time_calls(&b->c, b->run, &b->calls, &seconds));
  b->spent += seconds * (double)b->calls;
  double rate = b->c.flops / seconds / 1e9;
  if (i > 0 && rate > b->best) b->best = rate;
  return QD_OK;
}

static void close_beside(beside *b) {
  qd_yardstick_close(b->c.state);
  qd_arena_rewind(b->c.arena, 0);
}

/* ---- measuring ----------------------------------------------------------------------------------------------------------- */

/* Once to warm up; then `repeats` times at least, and for a while where a run is short. */
static qd_status time_case(qd_bench_case *c, const qd_bench_op *op, beside *b, int repeats, double *seconds) {
  double spent = 0, here;
  int64_t calls = 1;
  *seconds = 1e300;
  for (int i = 0; i <= repeats || spent < least_spent; i++) {
    QD_TRY(run_beside(b, i, repeats));
    QD_TRY(time_calls(c, op->run, &calls, &here));
    if (i > 0 && here < *seconds) *seconds = here;
    spent += here * (double)calls;
  }
  return QD_OK;
}

static void shape_text(const qd_bench_case *c, char *text, size_t size) {
  text[0] = '\0';
  int64_t here[3] = {c->m, c->n, c->k};
  for (int i = 0; i < 3; i++)
    if (here[i]) snprintf(text + strlen(text), size - strlen(text), "%s%" PRId64, text[0] ? "x" : "", here[i]);
}

static int dtype_index(qd_dtype dtype) { return dtype == QD_F64 ? 2 : dtype == QD_BF16; }
static int peak_index(qd_dtype dtype) { return dtype == QD_U8 ? 2 : dtype == QD_BF16; }

static void fill_row(const qd_bench_op *op, const qd_bench_case *c, const beside *b, qd_bench *out, qd_bench_row *row) {
  double threads = c->device->threads, *yardstick = &out->yardstick[dtype_index(op->dtype)];
  shape_text(c, row->shape, sizeof row->shape);
  row->gflops = c->flops / row->seconds / 1e9, row->gbytes_per_second = c->bytes / row->seconds / 1e9;
  if (c->flops > 0)
    row->share_of_peak =
        row->gflops / threads / (op->dtype == QD_F64 ? peak_of(c->device, QD_F64) : out->peak[peak_index(op->dtype)]);
  if (op->beside == QD_BESIDE_F32) {
    row->times_f32 = row->gflops / b->best;
    if (c->m == 1) row->share_of_triad = row->gbytes_per_second / out->triad;
  } else if (op->beside == QD_BESIDE_DENSE) {
    row->times_dense = row->gflops / b->best;
    if (c->m > 1) return;
    row->share_of_triad = row->gbytes_per_second / out->triad;
    row->share_of_loop = (double)(c->n * c->k) / row->seconds / threads / best_loop(c->device, op->dtype, op->bits);
  } else if (b->best > 0) {
    row->share_of_yardstick = row->gflops / b->best;
    if (op->beside == QD_BESIDE_SQUARE && b->best > *yardstick) *yardstick = b->best;
  }
}

static qd_status measure(const bench *of, const qd_bench_op *op, qd_bench *out) {
  qd_bench_case c = case_of(of, op);
  beside b;
  qd_bench_row *row = &out->row[out->n++];
  *row = (qd_bench_row){.op = op->name, .dtype = op->dtype == QD_U8 ? "I8" : qd_dtype_name(op->dtype), .bits = op->bits};
  qd_status status = op->prepare(&c);
  if (status == QD_OK) {
    status = open_beside(&b, of->other, op, &c);
    if (status == QD_OK) status = time_case(&c, op, &b, of->request->repeats, &row->seconds);
    if (status == QD_OK) fill_row(op, &c, &b, out, row);
    close_beside(&b);
  }
  if (op->finish) op->finish(&c);
  qd_arena_rewind(of->own, 0);
  return status;
}

/* The yardstick alone, so that it is known whatever is asked for (all operations together meet each of its rates anyway). */
static qd_status measure_yardstick(const bench *of, qd_dtype dtype, double *rate) {
  qd_bench_op op = {.name = "yardstick", .dtype = dtype, .beside = QD_BESIDE_SQUARE};
  qd_bench_case c = {.device = of->device, .dtype = dtype};
  beside b;
  qd_status status = open_beside(&b, of->other, &op, &c);
  for (int i = 0; status == QD_OK && i <= of->request->repeats; i++) status = run_beside(&b, i, of->request->repeats);
  *rate = b.best;
  close_beside(&b);
  return status;
}

/* With --shape an operation that has several shapes of its own has one. */
static bool is_repeated(const bench *b, int index) {
  const qd_bench_op *op = op_at(index);
  qd_bench_case c = case_of(b, op);
  for (int i = 0; i < index; i++) {
    const qd_bench_op *other = op_at(i);
    qd_bench_case d = case_of(b, other);
    bool like = strcmp(op->name, other->name) == 0 && op->dtype == other->dtype && op->bits == other->bits;
    if (like && c.m == d.m && c.n == d.n && c.k == d.k) return true;
  }
  return false;
}

static bool is_wanted(const bench *b, int index) {
  uint64_t selected = b->request->selected;
  return (selected == 0 || (selected >> index & 1u)) && !is_repeated(b, index);
}

static qd_status measure_all(const bench *b, qd_bench *out) {
  QD_TRY(triad_of(b->device, b->own, &out->triad));
  for (int i = 0; i < 3 && b->request->selected != 0; i++)
    QD_TRY(measure_yardstick(b, (qd_dtype[]){QD_F32, QD_BF16, QD_F64}[i], &out->yardstick[i]));
  const qd_bench_op *op;
  for (int i = 0; (op = op_at(i)) != NULL; i++)
    if (is_wanted(b, i)) QD_TRY(measure(b, op, out));
  return QD_OK;
}

/* Of the two arenas, so that both full leave something to the machine. */
static size_t memory_for_each(void) {
  qd_room memory, address;
  qd_memory_room("", &memory);
  qd_address_room(&address);
  int64_t room = memory.bytes < address.bytes ? memory.bytes : address.bytes, most = (int64_t)64 << 30;
  room = room / 5 * 2;
  return (size_t)(room < 0 ? 0 : room > most ? most : room);
}

qd_status qd_bench_run(qd_device *device, const qd_bench_request *request, qd_bench *out) {
  qd_arena own = {0}, other = {0};
  bench b = {.device = device, .request = request, .own = &own, .other = &other};
  qd_status status = QD_OK;
  *out = (qd_bench){.isa = qd_isa_name(device->isa), .threads = device->threads};
  qd_yardstick_limit(device);
  out->peak[0] = peak_of(device, QD_F32), out->peak[1] = peak_of(device, QD_BF16);
  out->peak[2] = peak_of(device, QD_U8);
  QD_TRY_GOTO(status, done, qd_arena_open(&own, "bench", memory_for_each()));
  QD_TRY_GOTO(status, done, qd_arena_open(&other, "bench", memory_for_each()));
  status = measure_all(&b, out);
done:
  qd_arena_close(&own);
  qd_arena_close(&other);
  return status;
}
