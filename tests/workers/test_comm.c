#include "kernels/base/log.h"
#include "workers/comm.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>

static int n_calls;

static qd_status no_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  (void)comm, (void)data, (void)bytes, (void)root;
  n_calls++;
  return QD_ECOMM;
}

static qd_status no_reduce(qd_comm *comm, int64_t *data, size_t n, int root) {
  (void)comm, (void)data, (void)n, (void)root;
  n_calls++;
  return QD_ECOMM;
}

static qd_status no_gather(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) {
  (void)comm, (void)mine, (void)bytes, (void)all, (void)bytes_of_rank;
  n_calls++;
  return QD_ECOMM;
}

static const qd_comm_ops ops = {.bcast = no_bcast, .reduce_i64 = no_reduce, .allgatherv = no_gather};
static qd_comm broken = {.ops = &ops, .rank = 1, .size = 3, .name = "broken"};

Test(comm, hands_on_what_the_backend_says) {
  int64_t data[2] = {1, 2};
  size_t bytes[3] = {0, 4, 0};
  cr_assert_eq(qd_comm_bcast(&broken, data, 4, 2), QD_ECOMM);
  cr_assert_eq(qd_comm_reduce_i64(&broken, data, 2, 0), QD_ECOMM);
  cr_assert_eq(qd_comm_allgatherv(&broken, data, 4, data, bytes), QD_ECOMM);
  cr_assert_eq(n_calls, 3);
}

Test(comm, sends_nothing_when_there_is_nothing) {
  cr_assert_eq(qd_comm_bcast(&broken, NULL, 0, 2), QD_OK);
  cr_assert_eq(qd_comm_reduce_i64(&broken, NULL, 0, 0), QD_OK);
  cr_assert_eq(n_calls, 0);
}

Test(comm, root_must_be_a_rank, .signal = SIGABRT) {
  int64_t data = 0;
  cr_assert_eq(qd_comm_bcast(&broken, &data, sizeof data, 3), QD_OK);
}

Test(comm, gather_must_give_what_it_promised, .signal = SIGABRT) {
  size_t bytes[3] = {0, 4, 0};
  int64_t data = 0;
  cr_assert_eq(qd_comm_allgatherv(&broken, &data, 5, &data, bytes), QD_OK);
}

/* ---- the clock ---------------------------------------------------------------------------------------------------------- */

static int n_settled;

static qd_status slow_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  (void)comm, (void)data, (void)bytes, (void)root;
  for (double start = qd_seconds(); qd_seconds() - start < 0.002;) continue;
  return QD_OK;
}

static qd_status quick_reduce(qd_comm *comm, int64_t *data, size_t n, int root) {
  (void)comm, (void)data, (void)n, (void)root;
  return QD_OK;
}

/* Some other rank was inside for a millisecond, or for no time where this one was there for less; and it had worked half a
 * millisecond more before. */
static qd_status least_of_all(qd_comm *comm, int64_t *data, size_t n) {
  (void)comm;
  for (size_t i = 0; i < n / 2; i++) data[i] = data[i] > 1000000 ? 1000000 : 0;
  for (size_t i = n / 2; i < n; i++) data[i] -= 500000;
  n_settled++;
  return QD_OK;
}

static const qd_comm_ops timed_ops = {.bcast = slow_bcast, .reduce_i64 = quick_reduce, .least_i64 = least_of_all};

static bool near(double a, double b) { return fabs(a - b) < 1e-5; }

Test(comm, waits_for_what_the_quickest_rank_did_not_need) {
  qd_comm comm = {.ops = &timed_ops, .size = 3, .name = "timed"};
  qd_comm_clock *clock = &comm.clock;
  char data[4];
  cr_assert_eq(qd_comm_bcast(&comm, data, 4, 0), QD_OK);
  clock->use = QD_COMM_STREAM;
  cr_assert_eq(qd_comm_bcast(&comm, data, 4, 0), QD_OK);
  cr_assert_eq(qd_comm_bcast(&comm, data, 4, 0), QD_OK);
  cr_assert_eq(n_settled, 0); /* nothing is sent for the clock's sake */
  cr_assert_eq(qd_comm_settle(&comm), QD_OK);
  cr_expect(near(clock->copy_seconds[QD_COMM_WORK], 0.001) && near(clock->copy_seconds[QD_COMM_STREAM], 0.002));
  cr_expect_geq(clock->wait_seconds, 0.003);
  cr_expect(near(clock->wait_seconds + 0.003, clock->inside_seconds));
  cr_assert_eq(qd_comm_settle(&comm), QD_OK);
  cr_assert_eq(n_settled, 1); /* nothing new */
}

static void compute(double seconds) {
  for (double start = qd_cpu_seconds(); qd_cpu_seconds() - start < seconds;) continue;
}

/* What it did before the first collective is the start of the program: it counts for nobody. */
Test(comm, tells_uneven_work_from_a_machine_without_cores) {
  qd_comm comm = {.ops = &timed_ops, .size = 3, .name = "timed"};
  int64_t data = 0;
  compute(0.003);
  cr_assert_eq(qd_comm_reduce_i64(&comm, &data, 1, 0), QD_OK);
  for (int i = 0; i < 2; i++) {
    compute(0.002);
    cr_assert_eq(qd_comm_reduce_i64(&comm, &data, 1, 0), QD_OK);
  }
  double mine = qd_cpu_seconds();
  cr_assert_eq(qd_comm_settle(&comm), QD_OK);
  cr_expect(comm.clock.work_cpu_seconds >= 0.004 && comm.clock.work_cpu_seconds < mine - 0.003);
  cr_expect(near(comm.clock.uneven_seconds, 3 * 0.0005), "%g", comm.clock.uneven_seconds);
}

Test(comm, settles_by_itself_before_its_memory_is_full) {
  qd_comm comm = {.ops = &timed_ops, .size = 2, .name = "timed"};
  int64_t data = 0;
  for (int i = 0; i < 2 * QD_COMM_TIMES + 1; i++) cr_assert_eq(qd_comm_reduce_i64(&comm, &data, 1, 0), QD_OK);
  cr_expect_eq(n_settled, 2);
  cr_expect_eq(comm.clock.n, 1);
}

Test(comm, one_rank_waits_for_nobody) {
  qd_comm comm = {.ops = &timed_ops, .size = 1, .name = "timed"};
  int64_t data = 0;
  for (int i = 0; i < 2 * QD_COMM_TIMES; i++) cr_assert_eq(qd_comm_reduce_i64(&comm, &data, 1, 0), QD_OK);
  cr_expect_eq(qd_comm_settle(&comm), QD_OK);
  cr_expect_eq(n_settled, 0);
  cr_expect_eq(comm.clock.inside_seconds, 0);
}
