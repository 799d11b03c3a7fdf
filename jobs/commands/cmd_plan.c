#include "jobs/command.h"
#include "jobs/hardware.h"
#include "jobs/job_options.h"
#include "jobs/store_options.h"
#include "kernels/base/log.h"
#include "kernels/base/heap.h"
#include "pipeline/output.h"
#include "pipeline/plan_settings.h"
#include "pipeline/rules.h"
#include "pipeline/setup.h"

#include <stdio.h>
#include <string.h>

enum { KEY_RANKS = 0x400, KEY_ON_NODE, KEY_HARDWARE };

static struct {
  qd_job_options options;
  int  ranks, on_node; /* 0: not given */
  bool json;
  const char *hardware; /* NULL: this machine */
} wanted;

static const struct argp_option options_list[] = {
    {"ranks", KEY_RANKS, "N", 0, "Plan for so many ranks (those that run)", 2},
    {"ranks-per-node", KEY_ON_NODE, "N", 0, "How many of them share a node's memory (all)", 2},
    {"hardware", KEY_HARDWARE, "FILE[:NAME]", 0,
     "Plan for a machine of this table (jobs/hardware.json has some) from the model's config.json alone; no weights are needed",
     2},
    {"json", 'j', 0, 0, "One JSON object on stdout, nothing else there", 80},
    {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  switch (key) {
    case KEY_RANKS: wanted.ranks = (int)qd_option_integer(state, "--ranks", text, 1, 65536); return 0;
    case KEY_ON_NODE: wanted.on_node = (int)qd_option_integer(state, "--ranks-per-node", text, 1, 65536); return 0;
    case KEY_HARDWARE: wanted.hardware = qd_option_text(state, "--hardware", text); return 0;
    case 'j': wanted.json = true; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &wanted.options; return 0;
    case ARGP_KEY_ARG: qd_option_refuse(state, "\"%s\" is no option; see --help", text);
    case ARGP_KEY_END:
      qd_job_options_settle(state, &wanted.options, false);
      if (wanted.hardware != NULL && wanted.options.job.dataset != NULL)
        qd_option_refuse(state, "--hardware plans without the text: --nsamples and --seqlen say how much of it there is");
      return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_job_argp, 0, NULL, 0}, {0}};

static const struct argp argp = {
    .options = options_list,
    .parser = parse,
    .args_doc = "--model MODEL",
    .doc = "What a quantizing job will need: memory of each rank, disk, traffic between ranks, time.\v"
           "Takes the options of quantize (those of a job that runs, --stop-after or --status-file, say nothing here) and "
           "writes nothing.  Exit code 1: the job does not fit here, or --output holds something else.\n\n"
           "Examples:\n"
           "  qdist plan --model DIR --method gptq --ranks 16 --ranks-per-node 4\n"
           "  qdist plan -m DIR --ranks 16 --hardware jobs/hardware.json:h100 --show-plan\n"
           "  qdist plan -m DIR -b 3 --dataset FILE --output OUT --max-host-mem 64G --json",
    .children = children,
};

static void parse_command_line(int argc, char **argv) {
  memset(&wanted, 0, sizeof wanted);
  wanted.options = qd_job_options_new();
  qd_options_parse(&argp, argc, argv, NULL);
}

/* ---- the report ---------------------------------------------------------------------------------------------------------- */

/* A plan, whether it fits, and if not why. */
typedef struct report {
  qd_plan  plan;
  int      on_node;
  qd_probe_time time;
  qd_hardware hardware; /* no name: this machine */
  qd_store_state output;     /* what stands there; fresh without --output */
  int64_t  blocks_done;
  qd_status fit;
  char     why[1024];
} report;

static qd_json *rank_json(const qd_plan_rank *rank) {
  qd_json *out = qd_json_object(), *parts = qd_json_object();
  qd_json_set_integer(out, "host_bytes", (int64_t)rank->host_bytes);
  qd_json_set_integer(out, "device_bytes", (int64_t)rank->device_bytes);
  qd_json_set_integer(out, "scratch_disk_bytes", (int64_t)rank->scratch_disk_bytes);
  qd_json_set_integer(out, "sequences", rank->sequences);
  for (int p = 0; p < QD_N_PLAN_PARTS; p++)
    qd_json_set_integer(parts, qd_plan_part_name((qd_plan_part)p), (int64_t)rank->part[p]);
  qd_json_set(out, "parts", parts);
  return out;
}

static qd_json *unlike_json(const qd_plan *plan) {
  qd_json *out = qd_json_array();
  for (qd_fate fate = QD_FATE_RAGGED; fate < QD_N_FATES; fate++)
    for (qd_role role = 0; role < QD_N_LINEARS; role++) {
      int64_t n = qd_plan_linears(plan, role, fate);
      if (n == 0) continue;
      qd_json *linear = qd_json_object();
      qd_json_set_text(linear, "linear", qd_role_name(role));
      qd_json_set_integer(linear, "columns", qd_model_columns(plan->request.model, role));
      qd_json_set_text(linear, "fate", qd_fate_name(fate));
      qd_json_set_integer(linear, "linears", n);
      qd_json_append(out, linear);
    }
  return out;
}

static qd_json *time_json(const qd_probe_time *t) {
  const struct { const char *name; double seconds; } parts[] = {
      {"forward", t->forward}, {"sums", t->sums},       {"factor", t->factor},  {"codes", t->codes},
      {"wires", t->wires},     {"waiting", t->waiting}, {"reading", t->reading}};
  qd_json *out = qd_json_object();
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) qd_json_set_number(out, parts[i].name, parts[i].seconds);
  return out;
}

static qd_json *settings_json(const qd_plan *plan) {
  qd_plan_setting setting;
  char text[QD_SETTING_BYTES];
  qd_json *out = qd_json_array();
  for (size_t i = 0; qd_plan_setting_at(plan, i, &setting); i++) {
    qd_plan_setting_text(plan, &setting, text);
    qd_json_append_text(out, text);
  }
  return out;
}

static qd_status print_json(const report *r) {
  static const char *const states[] = {[QD_STORE_FRESH] = "fresh", [QD_STORE_UNFINISHED] = "unfinished",
                                       [QD_STORE_FINISHED] = "finished", [QD_STORE_FOREIGN] = "foreign"};
  qd_json *out = qd_json_object(), *ranks = qd_json_array();
  for (int i = 0; i < r->plan.request.ranks; i++) qd_json_append(ranks, rank_json(&r->plan.rank[i]));
  qd_json_set(out, "ranks", ranks);
  qd_json_set_integer(out, "ranks_per_node", r->on_node);
  qd_json_set_integer(out, "disk_bytes", r->plan.disk_bytes);
  qd_json_set_integer(out, "kept_bytes", r->plan.kept_bytes);
  qd_json_set_integer(out, "scratch_disk_bytes", r->plan.scratch_disk_bytes);
  qd_json_set_text(out, "activations", r->plan.request.acts_on_disk ? "disk" : "memory");
  qd_json_set_text(out, "readers", qd_readers_name(r->plan.request.job->readers));
  qd_json_set_integer(out, "read_bytes", r->plan.read_bytes);
  qd_json_set_integer(out, "traffic_bytes", r->plan.traffic_bytes);
  qd_json_set(out, "unlike", unlike_json(&r->plan));
  qd_json_set_number(out, "seconds", r->time.total);
  qd_json_set(out, "time", time_json(&r->time));
  if (wanted.options.job.show_plan) qd_json_set(out, "settings", settings_json(&r->plan));
  qd_json_set_text(out, "output", states[r->output]);
  qd_json_set_integer(out, "blocks_done", r->blocks_done);
  qd_json_set_bool(out, "fits", r->fit == QD_OK);
  if (r->fit != QD_OK) qd_json_set_text(out, "why", r->why);
  return qd_print_json(out);
}

/* Rank 0 beside the most that any other rank takes. */
static void print_row(const char *name, size_t first, size_t others, int ranks) {
  char text[2][32];
  qd_size_text((double)first, text[0], sizeof text[0]);
  qd_size_text((double)others, text[1], sizeof text[1]);
  if (ranks == 1) printf("  %-28s %12s\n", name, text[0]);
  else printf("  %-28s %12s %12s\n", name, text[0], text[1]);
}

static void print_memory(const qd_plan *plan) {
  int ranks = plan->request.ranks;
  size_t host = 0;
  if (ranks == 1) printf("  %-28s %12s\n", "memory", "rank 0");
  else printf("  %-28s %12s %12s\n", "memory", "rank 0", "any other");
  for (int p = 0; p < QD_N_PLAN_PARTS; p++) {
    size_t most = 0;
    for (int i = 1; i < ranks; i++) most = plan->rank[i].part[p] > most ? plan->rank[i].part[p] : most;
    if (plan->rank[0].part[p] + most > 0) print_row(qd_plan_part_name((qd_plan_part)p), plan->rank[0].part[p], most, ranks);
  }
  for (int i = 1; i < ranks; i++) host = plan->rank[i].host_bytes > host ? plan->rank[i].host_bytes : host;
  print_row("together", plan->rank[0].host_bytes, host, ranks);
}

static void print_sequences(const qd_plan *plan) {
  int ranks = plan->request.ranks, busy = 0;
  if (plan->request.sequences == 0) return;
  while (busy < ranks && plan->rank[busy].sequences > 0) busy++;
  printf("%" PRId64 " sequences of %" PRId64 " tokens, at most %" PRId64 " a rank\n", plan->request.sequences,
         plan->request.tokens, plan->rank[0].sequences);
  if (busy < ranks) printf("ranks %d to %d have no sequence to run: they only quantize rows\n", busy, ranks - 1);
}

static void print_line(const char *line) { puts(line); }

static void print_scratch(const qd_plan *plan) {
  char all[32], most[32];
  if (plan->scratch_disk_bytes == 0) return;
  qd_size_text((double)plan->scratch_disk_bytes, all, sizeof all);
  qd_size_text((double)plan->rank[0].scratch_disk_bytes, most, sizeof most);
  printf("activations on disk: %s in %s, at most %s a rank\n", all, plan->request.job->acts_folder, most);
}

static void print_settings(const qd_plan *plan) {
  qd_plan_setting setting;
  char text[QD_SETTING_BYTES];
  for (size_t i = 0; wanted.options.job.show_plan && qd_plan_setting_at(plan, i, &setting); i++) {
    qd_plan_setting_text(plan, &setting, text);
    printf("%s\n", text);
  }
}

static void print_time(const report *r) {
  const qd_probe_time *t = &r->time;
  char link[32];
  int ranks = r->plan.request.ranks;
  const struct { const char *name; double seconds; } parts[] = {
      {"forward", t->forward}, {"exact sums", t->sums}, {"factors (one rank works)", t->factor}, {"codes", t->codes},
      {"wires", t->wires},     {"waiting for the reader", t->waiting}};
  if (*r->hardware.name == '\0') printf("time: about %.0f s, by a short probe of this machine\n", t->total);
  else printf("time: about %.*f s on %d x %s\n", t->total < 10 ? 1 : 0, t->total, ranks, r->hardware.name);
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    printf("  %-28s %10.*f s %5.1f %%\n", parts[i].name, parts[i].seconds < 10 ? 3 : 1, parts[i].seconds,
           t->total > 0 ? 100 * parts[i].seconds / t->total : 0);
  qd_size_text(ranks > 1 ? (double)r->plan.traffic_bytes / (ranks - 1) : 0, link, sizeof link);
  printf("reading takes %.*f s behind the work; each rank but the first receives %s\n", t->reading < 10 ? 3 : 1,
         t->reading, link);
}

static void print_output(const report *r) {
  const char *output = r->plan.request.job->output;
  if (output == NULL || r->fit != QD_OK) return;
  if (r->output == QD_STORE_FINISHED) printf("%s is finished\n", output);
  if (r->output == QD_STORE_UNFINISHED)
    printf("%s is unfinished: %" PRId64 " of %" PRId64 " blocks are there, the job goes on with it\n", output, r->blocks_done,
           r->plan.request.model->n_blocks);
}

static void print_text(const report *r) {
  const qd_plan *plan = &r->plan;
  char disk[32], read[32], traffic[32];
  print_memory(plan);
  print_sequences(plan);
  qd_plan_tell_unlike(plan, print_line);
  print_settings(plan);
  print_scratch(plan);
  qd_size_text((double)plan->disk_bytes, disk, sizeof disk);
  qd_size_text((double)plan->read_bytes, read, sizeof read);
  qd_size_text((double)plan->traffic_bytes, traffic, sizeof traffic);
  printf("device memory: none is used\ndisk: at most %s\nread of the model: %s (readers: %s)\nbetween ranks: %s\n", disk, read,
         qd_readers_name(plan->request.job->readers), traffic);
  print_time(r);
  print_output(r);
  if (r->fit == QD_OK) puts(r->output == QD_STORE_FINISHED ? "there is nothing to do" : "it fits");
}

static qd_status print_report(const report *r) {
  if (wanted.json) return print_json(r);
  print_text(r);
  return QD_OK;
}

/* ---- the command --------------------------------------------------------------------------------------------------------- */

/* Without text the sequences asked for are planned; with it they are those that it gives. */
static qd_plan_request request_of(const qd_run *run) {
  const qd_job *job = run->job;
  enum { USUAL_TOKENS = 2048 };
  qd_plan_request r = {.job = job, .model = &run->model, .source = run->source, .device = run->device, .act = run->act,
                       .ranks = wanted.ranks > 0 ? wanted.ranks : run->comm->size, .launched = run->comm->size > 1,
                       .sequences = run->tokens.rows, .tokens = run->tokens.sequence_tokens,
                       .ranks_on_node = wanted.on_node, .acts_on_disk = job->acts_place == QD_ACTS_DISK};
  if (job->dataset != NULL || !job->method->needs_factor) return r;
  int64_t usual = run->model.max_positions < USUAL_TOKENS ? run->model.max_positions : USUAL_TOKENS;
  r.sequences = job->nsamples, r.tokens = job->sequence_tokens > 0 ? job->sequence_tokens : usual;
  return r;
}

static qd_plan_place place_of(const report *r, const qd_comm *comm) {
  return (qd_plan_place){.rank = 0, .ranks_on_node = r->on_node, .running = comm->size < r->on_node ? comm->size : r->on_node};
}

/* A machine of the table has so much memory for a rank. */
static qd_status check_hardware(const report *r) {
  char need[32], there[32];
  if (r->hardware.memory_bytes == 0) return QD_OK;
  for (int i = 0; i < r->plan.request.ranks; i++) {
    double bytes = (double)r->plan.rank[i].host_bytes;
    qd_size_text(bytes, need, sizeof need), qd_size_text((double)r->hardware.memory_bytes, there, sizeof there);
    QD_CHECK(bytes <= (double)r->hardware.memory_bytes, QD_ENOMEM, "rank %d needs %s of memory, but %s has %s; use more ranks, "
             "fewer --nsamples or a shorter --seqlen", i, need, r->hardware.name, there);
  }
  return QD_OK;
}

/* Of an output that the job would go on with. */
static qd_status look_at_output(const qd_run *run, report *r) {
  if (run->comm->rank != 0) return QD_OK;
  QD_TRY(qd_output_foresee(run, &r->output));
  return r->output == QD_STORE_FRESH ? QD_OK : qd_output_blocks(run, &r->blocks_done);
}

static qd_status check(report *r, const qd_run *run) {
  const qd_comm *comm = run->comm;
  if (*r->hardware.name != '\0') {
    r->fit = check_hardware(r);
    if (r->fit != QD_OK) snprintf(r->why, sizeof r->why, "%s", qd_error_text());
    return QD_OK;
  }
  r->fit = look_at_output(run, r);
  if (r->fit == QD_OK) r->fit = qd_plan_check_memory(&r->plan, place_of(r, comm));
  if (r->fit == QD_OK) r->fit = qd_plan_check_disk(&r->plan);
  if (r->fit == QD_OK) r->fit = qd_plan_check_scratch(&r->plan, place_of(r, comm));
  if (r->fit != QD_OK) snprintf(r->why, sizeof r->why, "%s", qd_error_text());
  return QD_OK;
}

/* --activations auto: what the first rank sees of its memory decides. */
static qd_status make_plan(qd_run *run, report *r) {
  qd_plan_request request = request_of(run);
  r->on_node = wanted.on_node > 0 ? wanted.on_node : request.ranks;
  QD_TRY(qd_agree(run->comm, qd_plan_make(&request, &r->plan)));
  if (run->job->acts_place != QD_ACTS_AUTO) return QD_OK;
  request.acts_on_disk = qd_plan_check_memory(&r->plan, place_of(r, run->comm)) != QD_OK;
  QD_TRY(qd_comm_bcast(run->comm, &request.acts_on_disk, sizeof request.acts_on_disk, 0));
  qd_plan_release(&r->plan);
  return qd_agree(run->comm, qd_plan_make(&request, &r->plan));
}

static qd_status plan_and_print(qd_run *run, report *r) {
  qd_probe probe = r->hardware.rates;
  QD_TRY(make_plan(run, r));
  if (*r->hardware.name == '\0') QD_TRY(qd_probe_run(&r->plan, run->comm, run->device, &probe));
  r->time = qd_probe_seconds(&r->plan, &probe);
  QD_TRY(check(r, run));
  qd_status status = run->comm->rank == 0 ? print_report(r) : QD_OK;
  if (status == QD_OK)
    status = run->comm->rank == 0 && r->fit != QD_OK ? qd_fail(r->fit, __FILE__, __LINE__, "%s", r->why) : QD_OK;
  return qd_agree(run->comm, status);
}

static qd_dtype dtype_of(const qd_json *config) {
  const char *name = qd_json_text(qd_json_get(config, "torch_dtype"));
  if (name == NULL) name = qd_json_text(qd_json_get(config, "dtype"));
  if (name != NULL && strcmp(name, "float32") == 0) return QD_F32;
  return name != NULL && strcmp(name, "float16") == 0 ? QD_F16 : QD_BF16;
}

/* From config.json alone. */
static qd_status load_config(qd_run *run) {
  char *path = NULL;
  qd_json *config = NULL;
  qd_status status = qd_side_file_json(run->job->model, "config.json", 1 << 24, &path, &config);
  if (status == QD_OK) status = qd_model_from_config(config, path, &run->model);
  if (status == QD_OK) run->model.dtype = dtype_of(config);
  qd_json_free(config);
  qd_heap_free(path);
  QD_TRY(status);
  QD_TRY(qd_rules_check(run->job, &run->model));
  run->stored_model = run->model;
  run->stored_model.tied = run->model.tied && !qd_job_unties(run->job, &run->model);
  qd_arithmetic arithmetic = qd_compute_arithmetic(run->job->compute, run->model.dtype);
  run->act = qd_arithmetic_act(arithmetic);
  return qd_device_use_arithmetic(run->device, arithmetic);
}

static qd_status load(qd_run *run, report *r) {
  if (wanted.hardware == NULL) {
    QD_TRY(qd_setup_load_model(run));
    return qd_setup_load_text(run);
  }
  QD_TRY(qd_agree(run->comm, qd_hardware_read(wanted.hardware, &r->hardware)));
  return qd_agree(run->comm, load_config(run));
}

static qd_status run_plan(qd_comm *comm, qd_device *device) {
  qd_run run = {.job = &wanted.options.job, .comm = comm, .device = device};
  report r = {0};
  qd_status status = load(&run, &r);
  if (status == QD_OK) status = plan_and_print(&run, &r);
  qd_plan_release(&r.plan);
  qd_setup_close(&run);
  return status;
}

static qd_status run(qd_comm *comm) {
  qd_device device;
  qd_status status = qd_job_options_open(&wanted.options, comm, &device);
  if (status == QD_OK) {
    status = run_plan(comm, &device);
    qd_device_close(&device);
  }
  qd_job_options_close(&wanted.options);
  return status;
}

const qd_command qd_command_plan = {.name = "plan",
                                    .summary = "memory, disk, traffic and time of a quantizing job, before it is run",
                                    .parse = parse_command_line,
                                    .run = run};
