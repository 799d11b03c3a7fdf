#define _POSIX_C_SOURCE 200809L
#include "tests/support/run.h"
#include "workers/comm_backends.h"
#include "workers/stream.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* A source whose items are their index, repeated; `gate` holds a fetch until the test lets it go on. */
typedef struct context {
  size_t    bytes[8];
  int64_t   failing, gated;
  pthread_t caller;
  pthread_mutex_t lock;
  pthread_cond_t  changed;
  int64_t   n_begun, n_ended; /* fetches, under lock */
  bool      open;
} context;

static size_t bytes_of(void *c, int64_t item) { return ((context *)c)->bytes[item]; }

static qd_status fetch(void *c, int64_t item, size_t first, size_t n, void *to) {
  context *self = c;
  cr_assert(first == 0 && n == self->bytes[item], "one rank reads all");
  cr_assert_not(pthread_equal(pthread_self(), self->caller));
  pthread_mutex_lock(&self->lock);
  self->n_begun++;
  pthread_cond_broadcast(&self->changed);
  while (item == self->gated && !self->open) pthread_cond_wait(&self->changed, &self->lock);
  self->n_ended++;
  pthread_mutex_unlock(&self->lock);
  QD_CHECK(item != self->failing, QD_EBADINPUT, "item %d is damaged", (int)item);
  memset(to, (int)item + 1, self->bytes[item]);
  return QD_OK;
}

static void wait_begun(context *self, int64_t n) {
  pthread_mutex_lock(&self->lock);
  while (self->n_begun < n) pthread_cond_wait(&self->changed, &self->lock);
  pthread_mutex_unlock(&self->lock);
}

static void open_gate(context *self) {
  pthread_mutex_lock(&self->lock);
  self->open = true;
  pthread_cond_broadcast(&self->changed);
  pthread_mutex_unlock(&self->lock);
}

static context new_context(void) {
  return (context){.bytes = {9, 0, 4097, 1, 33}, .failing = -1, .gated = -1, .caller = pthread_self(),
                   .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
}

static qd_stream *open_stream(context *self, int64_t n_items, int64_t first) {
  qd_stream_source source = {self, n_items, bytes_of, NULL, fetch};
  qd_stream *stream = NULL;
  cr_assert_eq(qd_stream_open(qd_comm_self(), &source, QD_READERS_COORDINATOR, first, &stream), QD_OK);
  return stream;
}

static const unsigned char *next(qd_stream *stream) {
  const void *data = NULL;
  cr_assert_eq(qd_stream_next(stream, &data), QD_OK, "%s", qd_error_text());
  cr_assert_not_null(data);
  return data;
}

static bool holds(const context *self, const unsigned char *data, int64_t item) {
  for (size_t i = 0; i < self->bytes[item]; i++)
    if (data[i] != item + 1) return false;
  return true;
}

Test(stream, gives_every_item_in_order) {
  context c = new_context();
  qd_stream *stream = open_stream(&c, 5, 0);
  for (int64_t i = 0; i < 5; i++) cr_assert(holds(&c, next(stream), i));
  cr_assert_geq(qd_stream_wait_seconds(stream), 0.0);
  qd_stream_close(stream);
  cr_assert_eq(c.n_ended, 5);
}

Test(stream, begins_where_it_is_told) {
  context c = new_context();
  qd_stream *stream = open_stream(&c, 5, 3);
  for (int64_t i = 3; i < 5; i++) cr_assert(holds(&c, next(stream), i));
  qd_stream_close(stream);
  cr_assert_eq(c.n_ended, 2);
}

Test(stream, fetches_ahead_and_leaves_the_item_in_use_alone) {
  context c = new_context();
  c.gated = 3;
  qd_stream *stream = open_stream(&c, 5, 2);
  wait_begun(&c, 1); /* before anyone asked */
  const unsigned char *data = next(stream);
  wait_begun(&c, 2); /* item 3 is being fetched while 2 is used */
  cr_assert(holds(&c, data, 2));
  open_gate(&c);
  const unsigned char *later = next(stream);
  cr_assert_neq(later, data);
  cr_assert(holds(&c, later, 3));
  qd_stream_close(stream);
}

Test(stream, may_hold_nothing) {
  context c = new_context();
  qd_stream_close(open_stream(&c, 0, 0));
  qd_stream_close(open_stream(&c, 5, 5));
  qd_stream_close(NULL);
  cr_assert_eq(c.n_begun, 0);
}

Test(stream, does_not_read_beyond_the_end, .signal = SIGABRT) {
  context c = new_context();
  qd_stream *stream = open_stream(&c, 1, 0);
  next(stream);
  const void *data;
  cr_assert_eq(qd_stream_next(stream, &data), QD_OK);
}

static void *opens_gate(void *c) {
  wait_begun(c, 1);
  open_gate(c);
  return NULL;
}

Test(stream, closes_in_the_middle_of_a_fetch) {
  context c = new_context();
  c.gated = 0;
  qd_stream *stream = open_stream(&c, 5, 0);
  wait_begun(&c, 1);
  pthread_t opener;
  cr_assert_eq(pthread_create(&opener, NULL, opens_gate, &c), 0);
  qd_stream_close(stream);
  cr_assert_eq(c.n_ended, 1, "the reader must be joined before its buffers go");
  pthread_join(opener, NULL);
}

Test(stream, carries_the_readers_words_over) {
  context c = new_context();
  c.failing = 1;
  qd_stream *stream = open_stream(&c, 5, 0);
  const void *data = next(stream);
  cr_assert_eq(qd_stream_next(stream, &data), QD_EBADINPUT);
  cr_assert_null(data);
  cr_assert_str_eq(qd_error_text(), "item 1 is damaged");
  cr_assert_eq(qd_stream_next(stream, &data), QD_EIO, "it stays broken");
  qd_stream_close(stream);
}

Test(stream, refuses_an_item_beyond_memory) {
  context c = new_context();
  c.bytes[1] = SIZE_MAX - 5;
  qd_stream_source source = {&c, 5, bytes_of, NULL, fetch};
  qd_stream *stream;
  cr_assert_eq(qd_stream_open(qd_comm_self(), &source, QD_READERS_COORDINATOR, 0, &stream), QD_ENOMEM);
  cr_assert_null(stream);
}

static void check_readers(int n_ranks, const char *readers, const char *per_node, const char *first, const char *failing,
                          const char *expected) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_stream", readers, first, failing, NULL}, *const environment[] = {
                                                                                                        per_node, NULL};
  qd_run run = qd_run_ranks(n_ranks, argv, environment, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  for (int r = 0; r < n_ranks; r++) {
    char line[200];
    snprintf(line, sizeof line, "<%d %s>", r, expected);
    cr_assert(strstr(run.out.text, line) != NULL, "no %s in %s", line, run.out.text);
  }
  qd_run_close(&run);
}

static void check_ranks(int n_ranks, const char *first, const char *failing, const char *expected) {
  check_readers(n_ranks, "coordinator", QD_RANKS_PER_NODE, first, failing, expected);
}

#define DAMAGED(item) "QD_EBADINPUT item " item " is damaged"

Test(stream, reaches_2_ranks) { check_ranks(2, "0", "-1", "QD_OK "); }
Test(stream, reaches_3_ranks_from_the_middle) { check_ranks(3, "4", "-1", "QD_OK "); }
Test(stream, reaches_8_ranks) { check_ranks(8, "0", "-1", "QD_OK "); }
Test(stream, a_failed_fetch_is_everyones) { check_ranks(3, "0", "4", DAMAGED("4")); }
Test(stream, a_failed_first_fetch_is_everyones) { check_ranks(2, "2", "2", DAMAGED("2")); }

Test(stream, one_rank_of_each_node_reads) {
  check_readers(5, "node", QD_RANKS_PER_NODE "=2", "0", "-1", "QD_OK ");
  check_readers(3, "node", QD_RANKS_PER_NODE "=1", "2", "-1", "QD_OK ");
  check_readers(3, "node", QD_RANKS_PER_NODE "=3", "0", "-1", "QD_OK ");
}
Test(stream, every_rank_reads_its_part) {
  check_readers(2, "all", QD_RANKS_PER_NODE, "0", "-1", "QD_OK ");
  check_readers(3, "all", QD_RANKS_PER_NODE, "4", "-1", "QD_OK ");
  check_readers(8, "all", QD_RANKS_PER_NODE, "0", "-1", "QD_OK ");
}
/* The last reader fails: all must come to know. */
Test(stream, a_failed_fetch_of_any_reader_is_everyones) {
  check_readers(4, "node", QD_RANKS_PER_NODE "=2", "0", "5", "QD_EBADINPUT rank 2: item 5 is damaged");
  check_readers(3, "all", QD_RANKS_PER_NODE, "0", "5", "QD_EBADINPUT rank 2: item 5 is damaged");
}

Test(stream, buffers_are_as_large_as_who_reads_needs) {
  cr_expect_eq(qd_stream_buffer_bytes(1000, 0, qd_stream_share_of(QD_READERS_COORDINATOR, 0, 4, 0)), 2 * 1024);
  cr_expect_eq(qd_stream_buffer_bytes(1000, 0, qd_stream_share_of(QD_READERS_COORDINATOR, 2, 4, 2)), 1024);
  cr_expect_eq(qd_stream_buffer_bytes(1000, 0, qd_stream_share_of(QD_READERS_NODE, 2, 4, 2)), 2 * 1024);
  cr_expect_eq(qd_stream_buffer_bytes(1000, 0, qd_stream_share_of(QD_READERS_NODE, 3, 4, 2)), 1024);
  cr_expect_eq(qd_stream_buffer_bytes(1000, 0, qd_stream_share_of(QD_READERS_ALL, 3, 4, 2)), 1024 + 2 * 256);
  cr_expect_eq(qd_stream_buffer_bytes(1000, 64, qd_stream_share_of(QD_READERS_ALL, 3, 4, 2)), 1024 + 2 * 320);
  cr_expect_eq(qd_stream_buffer_bytes(1000, 0, qd_stream_share_of(QD_READERS_ALL, 0, 1, 0)), 2 * 1024);
}
