#include "pipeline/evaluate/evaluation_plan.h"

#include "kernels/base/log.h"
#include "kernels/scratch.h"
#include "pipeline/plan_parts.h"
#include "pipeline/record.h"
#include "workers/agree.h"
#include "workers/team.h"

static const size_t hidden_bytes_a_rank = (size_t)2 << 30;

static int n_subjects(const qd_evaluation_sizes *sizes) { return sizes->subject[1] != NULL ? 2 : 1; }

/* A quantized head is multiplied as it is stored. */
static size_t head_scratch(const qd_subject *s) {
  const qd_record *head = s->source == NULL ? qd_feed_record(&s->store.rest, QD_HEAD, -1) : NULL;
  if (head == NULL || !qd_record_is_quantized(head)) return 0;
  qd_tensor rows = qd_tensor_2d(NULL, s->act, QD_LOGIT_ROWS, s->model.hidden);
  qd_device device = qd_subject_device(s);
  return qd_scratch_qlinear(&device, rows, s->model.vocabulary, true);
}

size_t qd_evaluation_scratch(const qd_evaluation_sizes *sizes) {
  size_t rows = qd_arena_cost(QD_LOGIT_ROWS, (size_t)sizes->subject[0]->model.vocabulary * sizeof(float));
  size_t most = (size_t)n_subjects(sizes) * rows + qd_arena_cost(2 * QD_LOGIT_ROWS, sizeof(double)) +
                qd_arena_cost(2 * QD_LOGIT_ROWS, sizeof(int32_t)) +
                qd_arena_cost(QD_LOGIT_ROWS, (size_t)sizes->subject[0]->model.hidden * sizeof(float)), head = 0;
  for (int i = 0; i < n_subjects(sizes); i++) head = qd_larger(head, head_scratch(sizes->subject[i]));
  most += head;
  for (int i = 0; i < n_subjects(sizes); i++) {
    qd_experts_shape shape = qd_subject_experts(sizes->subject[i], sizes->windows, sizes->tokens);
    qd_device device = qd_subject_device(sizes->subject[i]);
    most = qd_larger(most, qd_plan_forward_scratch(&device, &shape));
  }
  return most;
}

static size_t largest_item(const qd_subject *subject, size_t *snap) {
  qd_feed feed = qd_subject_feed(subject);
  size_t largest = 1;
  *snap = 0;
  for (int64_t item = 0; item < subject->model.n_blocks + 2; item++) {
    largest = qd_larger(largest, qd_feed_item_bytes(&feed, item));
    *snap = qd_larger(*snap, qd_feed_item_snap(&feed, item));
  }
  return largest;
}

static qd_stream_share share_of(const qd_evaluation_sizes *sizes, const qd_subject *s, int rank) {
  return qd_stream_share_of(s->readers, rank, sizes->ranks, sizes->first_on_node != NULL ? sizes->first_on_node[rank] : 0);
}

void qd_evaluation_plan(const qd_evaluation_sizes *sizes, int rank, qd_plan_rank *out) {
  size_t largest = 0, *part = out->part;
  *out = (qd_plan_rank){.sequences = sizes->windows};
  for (int i = 0; i < n_subjects(sizes); i++) {
    const qd_subject *s = sizes->subject[i];
    size_t snap, item = largest_item(s, &snap);
    largest = qd_larger(largest, item);
    part[QD_PLAN_STREAM] += qd_stream_buffer_bytes(item, snap, share_of(sizes, s, rank));
    part[QD_PLAN_BLOCK] += qd_plan_evaluated_block(&s->model, s->act, rank, sizes->ranks);
    part[QD_PLAN_ACTIVATIONS] += qd_subject_acts_bytes(s, sizes->windows, sizes->tokens);
    qd_experts_shape shape = qd_subject_experts(s, sizes->windows, sizes->tokens);
    part[QD_PLAN_EXPERTS] += qd_experts_bytes(&shape);
    part[QD_PLAN_DECODER] += qd_plan_decoder(&s->model, sizes->tokens, s->act);
  }
  size_t ids = (size_t)(sizes->windows * sizes->tokens) * sizeof(int32_t);
  size_t program = sizes->program_bytes > 0 ? sizes->program_bytes : (size_t)qd_memory_now().resident;
  part[QD_PLAN_PROGRAM] = program + sizes->result_bytes + ids;
  part[QD_PLAN_LIBRARIES] = qd_plan_libraries(largest, largest, sizes->ranks, true);
  part[QD_PLAN_SCRATCH] = qd_evaluation_scratch(sizes) + qd_arena_cost(qd_device_packing_bytes(sizes->device), 1);
  for (int p = 0; p < QD_N_PLAN_PARTS; p++) out->host_bytes += part[p];
  out->host_bytes = qd_larger(out->host_bytes, (size_t)qd_memory_now().peak);
}

/* A rank that is not the first on its node, where there is one: of a node's ranks all but the first are such. */
static int a_follower(const qd_evaluation_sizes *sizes) {
  int rank = sizes->ranks - 1;
  while (rank > 0 && sizes->first_on_node != NULL && sizes->first_on_node[rank] == rank) rank--;
  return rank;
}

qd_status qd_evaluation_check(const qd_evaluation_sizes *sizes, int64_t max_host_bytes, qd_plan_place place) {
  static const char way_out[] = "use more nodes or fewer ranks on each, or a shorter --seqlen";
  qd_plan_rank first, other, own;
  qd_evaluation_plan(sizes, 0, &first);
  qd_evaluation_plan(sizes, a_follower(sizes), &other);
  qd_evaluation_plan(sizes, place.rank, &own);
  qd_memory_need need = {.node = (double)first.host_bytes + (double)(place.ranks_on_node - 1) * (double)other.host_bytes,
                         .address = qd_plan_address_bytes(&own, sizes->device),
                         .max_host_bytes = max_host_bytes};
  return qd_plan_check_need(&need, place, way_out);
}

qd_status qd_evaluation_choose_windows(qd_evaluation_sizes *sizes, int64_t most, int64_t max_host_bytes, qd_comm *comm) {
  int on_node = qd_team_ranks_on_node(comm);
  qd_plan_place place = {.rank = comm->rank, .ranks_on_node = on_node, .running = on_node};
  int64_t fitting = (int64_t)(hidden_bytes_a_rank / qd_subject_window_bytes(sizes->subject[0], sizes->tokens));
  sizes->windows = fitting > most ? most : fitting < 1 ? 1 : fitting;
  for (;; sizes->windows = (sizes->windows + 1) / 2) {
    qd_status fits, status = qd_evaluation_check(sizes, max_host_bytes, place);
    if (sizes->windows == 1) return qd_agree(comm, status);
    QD_TRY(qd_agree_on(comm, status, &fits));
    if (fits == QD_OK) return QD_OK;
  }
}

void qd_evaluation_log(const qd_evaluation_sizes *sizes, const qd_plan_rank *plan) {
  char memory[32];
  qd_size_text((double)plan->host_bytes, memory, sizeof memory);
  qd_log("plan: %s of memory on rank 0, %" PRId64 " window%s at a time on a rank", memory, sizes->windows,
         sizes->windows == 1 ? "" : "s");
}
