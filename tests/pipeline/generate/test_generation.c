#include "pipeline/generate/generation.h"

#include "tests/pipeline/job_support.h"

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";
static const char prompt[] = "The package is";

static char emitted[4096];
static size_t n_emitted;

static qd_status collect(const char *text, size_t n) {
  memcpy(emitted + n_emitted, text, n);
  emitted[n_emitted += n] = '\0';
  return QD_OK;
}

static qd_status generate(qd_generation_request request, qd_generation *out) {
  qd_comm *comm = open_team();
  qd_device device = open_device((place){"cpu", NULL, 1});
  n_emitted = 0, emitted[0] = '\0';
  request.emit = collect;
  qd_status status = qd_generate(&request, comm, &device, out);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return status;
}

static qd_generation_request asked(int64_t n) {
  return (qd_generation_request){.model = demo, .prompt = prompt, .max_new_tokens = n, .sampling = {.top_p = 1}};
}

static int32_t argmax(const float *row, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++) best = row[i] > row[best] ? i : best;
  return (int32_t)best;
}

Test(generation, greedy_tokens_are_the_argmax_of_the_full_forward) {
  qd_generation g;
  MUST(generate(asked(20), &g));
  cr_expect_eq(g.new_tokens, 20);
  cr_expect_str_eq(g.ended_by, "length");
  cr_expect_str_eq(g.text, emitted);
  int64_t n = g.prompt_tokens + g.new_tokens;
  logits l = run_model(demo, QD_COMPUTE_MODEL, (place){"cpu", NULL, 1}, g.ids, 1, n);
  for (int64_t t = g.prompt_tokens; t < n; t++)
    cr_expect_eq(g.ids[t], argmax(l.value + (t - 1) * l.vocabulary, l.vocabulary), "token %d", (int)t);
  cr_expect_geq(g.planned_bytes, 1 << 20);
  qd_heap_free(l.value);
  qd_generation_release(&g);
}

Test(generation, draws_by_its_seed) {
  qd_generation a, b, c;
  qd_generation_request r = asked(16);
  r.sampling.temperature = 1.5;
  MUST(generate(r, &a));
  MUST(generate(r, &b));
  r.sampling.seed = 1;
  MUST(generate(r, &c));
  cr_expect_str_eq(a.text, b.text);
  cr_expect_str_neq(a.text, c.text);
  qd_generation_release(&a);
  qd_generation_release(&b);
  qd_generation_release(&c);
}

Test(generation, ends_at_a_stop_text) {
  qd_generation whole, cut;
  qd_generation_request r = asked(20);
  MUST(generate(r, &whole));
  char stop[4] = {0};
  memcpy(stop, whole.text + 9, 3);
  r.stop[r.n_stops++] = stop;
  MUST(generate(r, &cut));
  cr_expect_str_eq(cut.ended_by, "stop");
  cr_expect_eq((ptrdiff_t)strlen(cut.text), strstr(whole.text, stop) - whole.text);
  cr_expect_str_eq(cut.text, emitted);
  cr_expect_lt(cut.new_tokens, whole.new_tokens);
  qd_generation_release(&whole);
  qd_generation_release(&cut);
}

/* A copy of the model whose end-of-text token is the third one that it would write. */
static void make_ending_model(qd_temporary_folder *folder, int32_t eos) {
  static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"};
  char text[128];
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    char path[PATH_BYTES], *bytes;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", demo, files[i]);
    if (!qd_file_exists(path)) continue;
    MUST(qd_file_read(path, (size_t)1 << 30, &bytes, &n));
    qd_temporary_write(folder, files[i], bytes, n);
    qd_heap_free(bytes);
  }
  snprintf(text, sizeof text, "{\"eos_token_id\": [%d, 1000000]}", (int)eos);
  qd_temporary_write_text(folder, "generation_config.json", text);
}

Test(generation, ends_at_the_end_of_text) {
  qd_temporary_folder folder;
  qd_generation whole, cut;
  qd_generation_request r = asked(8);
  MUST(generate(r, &whole));
  int32_t eos = whole.ids[whole.prompt_tokens + 2];
  int64_t first = 0;
  while (whole.ids[whole.prompt_tokens + first] != eos) first++;
  qd_temporary_folder_open(&folder);
  make_ending_model(&folder, eos);
  char model[PATH_BYTES];
  snprintf(model, sizeof model, "%s", qd_temporary_path(&folder, "."));
  r.model = model;
  MUST(generate(r, &cut));
  cr_expect_str_eq(cut.ended_by, "eos");
  cr_expect_eq(cut.new_tokens, first + 1);
  cr_expect(strncmp(whole.text, cut.text, strlen(cut.text)) == 0 && strlen(cut.text) < strlen(whole.text));
  qd_temporary_folder_close(&folder);
  qd_generation_release(&whole);
  qd_generation_release(&cut);
}

Test(generation, refuses_what_does_not_fit) {
  qd_generation g;
  qd_generation_request r = asked(1 << 20);
  cr_expect_eq(generate(r, &g), QD_EINVAL);
  cr_expect(strstr(qd_error_text(), "--max-new-tokens 1048576 behind a prompt of") != NULL, "%s", qd_error_text());
  qd_generation_release(&g);
  r = asked(4), r.prompt = "", r.bos = QD_BOS_NO;
  cr_expect_eq(generate(r, &g), QD_EINVAL);
  cr_expect(strstr(qd_error_text(), "has no tokens") != NULL, "%s", qd_error_text());
  qd_generation_release(&g);
  r = asked(4), r.max_host_bytes = 1 << 20;
  cr_expect_eq(generate(r, &g), QD_ENOMEM);
  cr_expect(strstr(qd_error_text(), "--max-host-mem") != NULL, "%s", qd_error_text());
  qd_generation_release(&g);
}
