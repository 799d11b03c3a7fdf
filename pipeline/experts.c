#include "pipeline/experts.h"

#include "workers/agree.h"
#include "workers/partition.h"

#include <string.h>

/* ---- sizes --------------------------------------------------------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* A whole sequence fits always. */
int64_t qd_experts_window_rows(const qd_experts_shape *s) {
  return most(least(QD_EXPERT_WINDOW, s->all_sequences * s->tokens), s->tokens);
}

/* In a round a token goes to each owner at most once. */
static int64_t travelling_rows(const qd_experts_shape *s) {
  return least(s->ranks * qd_experts_window_rows(s), s->sequences * s->tokens * least(s->model->top_k, s->ranks));
}

static size_t row_bytes(const qd_experts_shape *s) { return (size_t)s->model->hidden * qd_dtype_bytes(s->act); }
static size_t inner_bytes(const qd_experts_shape *s) { return (size_t)s->model->expert_ffn * qd_dtype_bytes(s->act); }

/* One sequence more than there are: what is chosen before it is sorted. */
static size_t list_elements(const qd_experts_shape *s) { return (size_t)((s->sequences + 1) * s->tokens * s->model->top_k); }

size_t qd_experts_bytes(const qd_experts_shape *s) {
  size_t ranks = (size_t)s->ranks, experts = (size_t)s->model->experts, rows = (size_t)qd_experts_window_rows(s);
  if (!qd_model_has_blocks(s->model, true)) return 0;
  return qd_arena_cost(ranks + 1, sizeof(int64_t)) + qd_arena_cost((size_t)(s->all_sequences + 1) * experts, sizeof(int64_t)) +
         qd_arena_cost((size_t)s->sequences * experts, sizeof(int32_t)) + qd_arena_cost(list_elements(s), sizeof(int32_t)) +
         qd_arena_cost(list_elements(s), sizeof(float)) + 2 * qd_arena_cost(ranks, sizeof(int64_t)) +
         2 * qd_arena_cost(ranks, sizeof(size_t)) + qd_arena_cost((size_t)travelling_rows(s), row_bytes(s)) +
         qd_arena_cost(rows, row_bytes(s)) + 2 * qd_arena_cost(rows, inner_bytes(s));
}

static qd_status take_memory(qd_experts *x) {
  const qd_experts_shape *s = &x->shape;
  size_t ranks = (size_t)s->ranks, experts = (size_t)s->model->experts, rows = (size_t)qd_experts_window_rows(s);
  QD_TRY(qd_arena_open(&x->arena, "experts", qd_experts_bytes(s)));
  QD_TRY(qd_arena_new(&x->arena, ranks + 1, sizeof *x->first, &x->first));
  QD_TRY(qd_arena_new(&x->arena, (size_t)(s->all_sequences + 1) * experts, sizeof *x->start, &x->start));
  QD_TRY(qd_arena_new(&x->arena, (size_t)s->sequences * experts, sizeof *x->inside, &x->inside));
  QD_TRY(qd_arena_new(&x->arena, list_elements(s), sizeof *x->list, &x->list));
  QD_TRY(qd_arena_new(&x->arena, list_elements(s), sizeof *x->weight, &x->weight));
  QD_TRY(qd_arena_new(&x->arena, ranks, sizeof *x->low, &x->low));
  QD_TRY(qd_arena_new(&x->arena, ranks, sizeof *x->high, &x->high));
  QD_TRY(qd_arena_new(&x->arena, ranks, sizeof *x->there_bytes, &x->there_bytes));
  QD_TRY(qd_arena_new(&x->arena, ranks, sizeof *x->here_bytes, &x->here_bytes));
  QD_TRY(qd_arena_new(&x->arena, (size_t)travelling_rows(s), row_bytes(s), &x->travelling));
  QD_TRY(qd_arena_new(&x->arena, rows, row_bytes(s), &x->rows));
  for (int i = 0; i < 2; i++) QD_TRY(qd_arena_new(&x->arena, rows, inner_bytes(s), &x->inner[i]));
  return QD_OK;
}

qd_status qd_experts_open(qd_experts *experts, const qd_experts_shape *shape, qd_comm *comm, qd_decoder *decoder,
                          qd_acts *acts) {
  *experts = (qd_experts){.shape = *shape, .comm = comm, .decoder = decoder, .acts = acts, .loaded_round = -1};
  if (!qd_model_has_blocks(shape->model, true)) return QD_OK;
  QD_TRY_ALL(comm, take_memory(experts));
  return QD_OK;
}

void qd_experts_close(qd_experts *experts) { qd_arena_close(&experts->arena); }

/* ---- the choice ---------------------------------------------------------------------------------------------------------- */

static int64_t list_stride(const qd_experts *x) { return x->shape.tokens * x->shape.model->top_k; }
static int64_t n_experts(const qd_experts *x) { return x->shape.model->experts; }

/* Tokens of one sequence from (T, k) to lists by expert; their numbers go to count. */
static void sort_by_expert(const qd_experts *x, int64_t sequence, const int32_t *index, const float *weight, int64_t *count) {
  int64_t n = list_stride(x), experts = n_experts(x), k = x->shape.model->top_k;
  int32_t *inside = x->inside + sequence * experts, *list = x->list + sequence * n, at = 0;
  memset(count, 0, (size_t)experts * sizeof *count);
  for (int64_t i = 0; i < n; i++) count[index[i]]++;
  for (int64_t e = 0; e < experts; at += (int32_t)count[e], e++) inside[e] = at;
  for (int64_t i = 0; i < n; i++) {
    int32_t place = inside[index[i]]++;
    list[place] = (int32_t)(i / k);
    x->weight[sequence * n + place] = weight[i];
  }
  for (int64_t e = 0; e < experts; e++) inside[e] -= (int32_t)count[e];
}

static qd_status route_window(qd_experts *x, qd_block *block, const qd_acts_window *window) {
  int64_t t = x->shape.tokens, k = x->shape.model->top_k, spare = x->shape.sequences * list_stride(x);
  qd_tensor index = qd_tensor_2d(x->list + spare, QD_I32, t, k), weight = qd_tensor_2d(x->weight + spare, QD_F32, t, k);
  int64_t first = x->first[x->comm->rank] + window->first;
  for (int64_t i = 0; i < window->n; i++) {
    QD_TRY(qd_decoder_route(x->decoder, block, qd_decoder_sparse_mid(x->decoder, qd_tensor_at(window->mid, i).data).x, index,
                            weight));
    sort_by_expert(x, window->first + i, index.data, weight.data, x->start + (first + i + 1) * n_experts(x));
  }
  return QD_OK;
}

static qd_status route_mine(qd_experts *x, qd_block *block) {
  qd_acts_window window;
  qd_acts_begin(x->acts, (qd_acts_use){.mid_in = x->shape.model->hidden});
  for (;;) {
    QD_TRY(qd_acts_next(x->acts, &window));
    if (window.n == 0) return QD_OK;
    QD_TRY(route_window(x, block, &window));
  }
}

static qd_status number_sequences(qd_experts *x) {
  int size = x->comm->size;
  for (int r = 0; r < size; r++) x->here_bytes[r] = sizeof(int64_t);
  QD_TRY(qd_comm_allgatherv(x->comm, &x->acts->shape.sequences, sizeof(int64_t), x->first + 1, x->here_bytes));
  x->first[0] = 0;
  for (int r = 0; r < size; r++) x->first[r + 1] += x->first[r];
  return QD_OK;
}

/* Counts of all sequences become the numbers of tokens before each. */
static qd_status share_counts(qd_experts *x) {
  int64_t experts = n_experts(x), *counts = x->start + experts;
  size_t row = (size_t)experts * sizeof *counts;
  for (int r = 0; r < x->comm->size; r++) x->here_bytes[r] = (size_t)(x->first[r + 1] - x->first[r]) * row;
  int me = x->comm->rank;
  QD_TRY(qd_comm_allgatherv(x->comm, counts + x->first[me] * experts, x->here_bytes[me], counts, x->here_bytes));
  memset(x->start, 0, row);
  for (int64_t i = 0; i < x->first[x->comm->size] * experts; i++) counts[i] += x->start[i];
  return QD_OK;
}

qd_status qd_experts_route(qd_experts *x, qd_block *block) {
  x->loaded_round = -1;
  QD_TRY(number_sequences(x));
  QD_TRY_ALL(x->comm, route_mine(x, block));
  return share_counts(x);
}

int64_t qd_experts_tokens(const qd_experts *x, int64_t expert) {
  return x->start[x->first[x->comm->size] * n_experts(x) + expert];
}

/* ---- rounds and windows -------------------------------------------------------------------------------------------------- */

static int64_t expert_of(const qd_experts *x, int64_t round, int rank) {
  return qd_partition_expert_of(n_experts(x), round, rank, x->comm->size);
}

int64_t qd_experts_windows(const qd_experts *x, int64_t round) {
  int64_t windows = 0;
  for (int r = 0; r < x->comm->size; r++) {
    int64_t e = expert_of(x, round, r);
    if (e >= 0) windows = most(windows, (qd_experts_tokens(x, e) + QD_EXPERT_WINDOW - 1) / QD_EXPERT_WINDOW);
  }
  return windows;
}

/* Tokens of the window of rank `owner`'s expert in sequences [first, end): a part [*low, *low + n) of the expert's list. */
static int64_t part_of(const qd_experts *x, int64_t round, int owner, int64_t first, int64_t end, int64_t *low) {
  int64_t e = expert_of(x, round, owner);
  if (e < 0) return 0;
  *low = most(x->low[owner], x->start[first * n_experts(x) + e]);
  return most(0, least(x->high[owner], x->start[end * n_experts(x) + e]) - *low);
}

static void measure_messages(qd_experts *x, int64_t round) {
  int me = x->comm->rank;
  int64_t low;
  for (int r = 0; r < x->comm->size; r++) {
    x->there_bytes[r] = (size_t)part_of(x, round, r, x->first[me], x->first[me + 1], &low) * row_bytes(&x->shape);
    x->here_bytes[r] = (size_t)part_of(x, round, me, x->first[r], x->first[r + 1], &low) * row_bytes(&x->shape);
  }
}

/* What one sequence has for one owner: where in its list, how many, and where among the travelling rows. */
typedef struct slice {
  int64_t at, n;
  unsigned char *rows;
} slice;

/* before: bytes of travelling rows of other owners. */
static slice slice_of(const qd_experts *x, int64_t round, int owner, int64_t sequence, size_t before) {
  int64_t e = expert_of(x, round, owner), first = x->first[x->comm->rank], low = 0, mine = 0;
  slice s = {.n = part_of(x, round, owner, first + sequence, first + sequence + 1, &low)};
  if (s.n == 0) return s;
  part_of(x, round, owner, first, first + x->acts->shape.sequences, &mine);
  s.at = sequence * list_stride(x) + x->inside[sequence * n_experts(x) + e] + low -
         x->start[(first + sequence) * n_experts(x) + e];
  s.rows = x->travelling + before + (size_t)(low - mine) * row_bytes(&x->shape);
  return s;
}

typedef qd_status (*slice_visitor)(qd_experts *x, slice s, qd_tensor y, qd_sparse_mid mid);

/* Every slice of a sequence, by ascending expert. */
static qd_status visit_sequence(qd_experts *x, int64_t round, int64_t sequence, void *mid, slice_visitor visit) {
  size_t before = 0;
  qd_sparse_mid parts = qd_decoder_sparse_mid(x->decoder, mid);
  for (int r = 0; r < x->comm->size; before += x->there_bytes[r], r++) {
    slice s = slice_of(x, round, r, sequence, before);
    if (s.n > 0) QD_TRY(visit(x, s, qd_tensor_2d(s.rows, x->shape.act, s.n, x->shape.model->hidden), parts));
  }
  return QD_OK;
}

static qd_status visit_slices(qd_experts *x, int64_t round, qd_acts_use use, slice_visitor visit) {
  qd_acts_window window;
  qd_acts_begin(x->acts, use);
  for (;;) {
    QD_TRY(qd_acts_next(x->acts, &window));
    if (window.n == 0) return QD_OK;
    for (int64_t i = 0; i < window.n; i++)
      QD_TRY(visit_sequence(x, round, window.first + i, qd_tensor_at(window.mid, i).data, visit));
  }
}

/* ---- there --------------------------------------------------------------------------------------------------------------- */

static qd_status gather_slice(qd_experts *x, slice s, qd_tensor y, qd_sparse_mid mid) {
  return qd_embed(x->decoder->device, mid.x, qd_tensor_1d(x->list + s.at, QD_I32, s.n), y);
}

static qd_tensor my_rows(const qd_experts *x) {
  int me = x->comm->rank;
  return qd_tensor_2d(x->rows, x->shape.act, x->high[me] - x->low[me], x->shape.model->hidden);
}

/* mid's columns while it is only read, from the front. */
static qd_status send_there(qd_experts *x, int64_t round, int64_t held) {
  measure_messages(x, round);
  QD_TRY_ALL(x->comm, visit_slices(x, round, (qd_acts_use){.mid_in = held}, gather_slice));
  return qd_comm_alltoallv(x->comm, x->travelling, x->there_bytes, x->rows, x->here_bytes);
}

static void set_window(qd_experts *x, int64_t round, int64_t window) {
  for (int r = 0; r < x->comm->size; r++) {
    int64_t e = expert_of(x, round, r), tokens = e < 0 ? 0 : qd_experts_tokens(x, e);
    x->low[r] = least(tokens, window * QD_EXPERT_WINDOW);
    x->high[r] = least(tokens, (window + 1) * QD_EXPERT_WINDOW);
  }
}

qd_status qd_experts_fetch(qd_experts *x, int64_t round, int64_t window, qd_tensor *rows) {
  set_window(x, round, window);
  if (x->loaded_round != round || x->loaded_window != window) QD_TRY(send_there(x, round, x->shape.model->hidden));
  x->loaded_round = round, x->loaded_window = window;
  *rows = my_rows(x);
  return QD_OK;
}

/* ---- the forward --------------------------------------------------------------------------------------------------------- */

qd_status qd_experts_inner(qd_experts *x, qd_block *block, int64_t expert, qd_tensor rows, qd_tensor *inner) {
  qd_tensor gate = qd_tensor_2d(x->inner[0], x->shape.act, rows.dim[0], x->shape.model->expert_ffn), up = gate;
  up.data = x->inner[1];
  QD_TRY(qd_decoder_linear(x->decoder, qd_block_find_expert(block, QD_EXPERT_GATE_PROJ, expert), NULL, rows, gate));
  QD_TRY(qd_decoder_linear(x->decoder, qd_block_find_expert(block, QD_EXPERT_UP_PROJ, expert), NULL, rows, up));
  *inner = gate;
  return qd_swiglu(x->decoder->device, gate, up, gate);
}

/* The outputs take the place of the inputs. */
static qd_status run_expert(qd_experts *x, qd_block *block, int64_t expert) {
  qd_tensor rows = my_rows(x), inner;
  if (rows.dim[0] == 0) return QD_OK;
  QD_TRY(qd_experts_inner(x, block, expert, rows, &inner));
  return qd_decoder_linear(x->decoder, qd_block_find_expert(block, QD_EXPERT_DOWN_PROJ, expert), NULL, inner, rows);
}

static qd_status add_slice(qd_experts *x, slice s, qd_tensor y, qd_sparse_mid mid) {
  return qd_scatter_add(x->decoder->device, y, qd_tensor_1d(x->weight + s.at, QD_F32, s.n),
                        qd_tensor_1d(x->list + s.at, QD_I32, s.n), mid.sum);
}

static qd_status send_back(qd_experts *x, int64_t round, int64_t held) {
  QD_TRY(qd_comm_alltoallv(x->comm, x->rows, x->here_bytes, x->travelling, x->there_bytes));
  QD_TRY_ALL(x->comm, visit_slices(x, round, (qd_acts_use){.mid_in = held, .mid_out = held}, add_slice));
  return QD_OK;
}

/* Here a window is of whole sequences, so that all outputs of a token in a round come back together. */
static int64_t next_sequences(qd_experts *x, int64_t round, int64_t first) {
  int64_t rows = qd_experts_window_rows(&x->shape), end = first + 1, experts = n_experts(x), all = x->first[x->comm->size];
  bool fits = end < all;
  while (fits) {
    for (int r = 0; fits && r < x->comm->size; r++) {
      int64_t e = expert_of(x, round, r);
      fits = e < 0 || x->start[(end + 1) * experts + e] - x->start[first * experts + e] <= rows;
    }
    end += fits;
    fits = fits && end < all;
  }
  for (int r = 0; r < x->comm->size; r++) {
    int64_t e = expert_of(x, round, r);
    x->low[r] = e < 0 ? 0 : x->start[first * experts + e];
    x->high[r] = e < 0 ? 0 : x->start[end * experts + e];
  }
  return end;
}

/* A pass over mid alone, or over mid and h. */
static qd_status visit_mids(qd_experts *x, qd_acts_use use, qd_status (*visit)(qd_decoder *, qd_tensor h, void *mid)) {
  qd_acts_window window;
  qd_acts_begin(x->acts, use);
  for (;;) {
    QD_TRY(qd_acts_next(x->acts, &window));
    if (window.n == 0) return QD_OK;
    for (int64_t i = 0; i < window.n; i++)
      QD_TRY(visit(x->decoder, qd_tensor_at(window.h, i), qd_tensor_at(window.mid, i).data));
  }
}

static qd_status clear_sum(qd_decoder *decoder, qd_tensor h, void *mid) {
  (void)h;
  qd_tensor sum = qd_decoder_sparse_mid(decoder, mid).sum;
  memset(sum.data, 0, qd_tensor_bytes(sum));
  return QD_OK;
}

qd_status qd_experts_advance(qd_experts *x, qd_block *block) {
  const qd_model *model = x->shape.model;
  int64_t held = qd_decoder_mid_held(model, block->index, QD_STAGE_SHARED_GATE_UP);
  x->loaded_round = -1;
  QD_TRY_ALL(x->comm, visit_mids(x, (qd_acts_use){.mid_in = model->hidden, .mid_out = held}, clear_sum));
  for (int64_t round = 0; round < qd_partition_expert_rounds(n_experts(x), x->comm->size); round++)
    for (int64_t first = 0; first < x->first[x->comm->size];) {
      first = next_sequences(x, round, first);
      QD_TRY(send_there(x, round, held));
      QD_TRY_ALL(x->comm, run_expert(x, block, expert_of(x, round, x->comm->rank)));
      QD_TRY(send_back(x, round, held));
    }
  if (!qd_decoder_touches_residual(model, block->index, QD_STAGE_EXPERT_DOWN)) return QD_OK;
  QD_TRY_ALL(x->comm,
             visit_mids(x, (qd_acts_use){.reads_h = true, .writes_h = true, .mid_in = held}, qd_decoder_add_sum));
  return QD_OK;
}
