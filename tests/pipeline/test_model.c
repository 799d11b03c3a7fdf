#include "pipeline/model.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/store.h"
#include "tests/pipeline/slots_support.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static const char base[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8, \"intermediate_size\": 12, "
    "\"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"head_dim\": 6, \"vocab_size\": 10, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5,"
    " \"hidden_act\": \"silu\"}";

static qd_json *parse(const char *text) {
  qd_json *json;
  MUST(qd_json_parse(text, strlen(text), "test", &json));
  return json;
}

/* The base with some members set: an object of them. */
static qd_json *config_with(const char *changes) {
  qd_json *config = parse(base), *members = parse(changes);
  const char *key;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(members, i, &key, &value); i++) {
    if (value == NULL) qd_json_set_text(config, key, NULL);
    else qd_json_set(config, key, qd_json_copy(value));
  }
  qd_json_free(members);
  return config;
}

static qd_model accept(const char *changes) {
  qd_json *config = config_with(changes);
  qd_model model;
  cr_assert_eq(qd_model_from_config(config, "F/config.json", &model), QD_OK, "%s: %s", changes, qd_error_text());
  qd_json_free(config);
  return model;
}

static void refuse(const char *changes, qd_status expected, const char *key) {
  qd_json *config = config_with(changes);
  qd_model model;
  qd_status got = qd_model_from_config(config, "F/config.json", &model);
  cr_expect_eq(got, expected, "%s: %s instead of %s", changes, qd_status_name(got), qd_status_name(expected));
  cr_expect(strstr(qd_error_text(), "F/config.json") != NULL, "%s: no file in \"%s\"", changes, qd_error_text());
  cr_expect(strstr(qd_error_text(), key) != NULL, "%s: no %s in \"%s\"", changes, key, qd_error_text());
  cr_expect(strchr(qd_error_text(), '\n') == NULL);
  qd_json_free(config);
}

/* ---- widths ----------------------------------------------------------------------------------------------------------- */

Test(model, reads_widths) {
  qd_model m = accept("{}");
  cr_expect_str_eq(m.arch->name, "llama");
  cr_expect_eq(m.n_blocks, 2);
  cr_expect_eq(m.hidden, 8);
  cr_expect_eq(m.ffn, 12);
  cr_expect_eq(m.heads, 4);
  cr_expect_eq(m.kv_heads, 2);
  cr_expect_eq(m.head_dim, 6);
  cr_expect_eq(m.vocabulary, 10);
  cr_expect_eq(m.max_positions, 64);
  cr_expect_eq(m.norm_eps, 1e-5);
  cr_expect(!m.tied && !m.attention_bias && !m.mlp_bias);
  cr_expect_eq(m.window, 0);
  cr_expect_eq(m.rope_factor, 1);
}

Test(model, takes_usual_values_for_what_is_null) {
  qd_model m = accept(
      "{\"num_key_value_heads\": null, \"head_dim\": null, \"max_position_embeddings\": null, \"rms_norm_eps\": null,"
      " \"hidden_act\": null, \"tie_word_embeddings\": null, \"rope_scaling\": null, \"rope_theta\": null}");
  cr_expect_eq(m.kv_heads, 4);
  cr_expect_eq(m.head_dim, 2);
  cr_expect_eq(m.max_positions, 2048);
  cr_expect_eq(m.norm_eps, 1e-6);
}

Test(model, names_the_key_that_is_missing) {
  static const char *const keys[] = {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                                     "vocab_size"};
  char changes[64];
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    snprintf(changes, sizeof changes, "{\"%s\": null}", keys[i]);
    refuse(changes, QD_EBADINPUT, keys[i]);
  }
  refuse("{\"model_type\": null}", QD_EBADINPUT, "model_type");
}

Test(model, names_the_key_of_an_absurd_value) {
  static const char *const integers[] = {
      "num_hidden_layers", "hidden_size",         "intermediate_size", "num_attention_heads",
      "vocab_size",        "num_key_value_heads", "head_dim",          "max_position_embeddings"};
  static const char *const values[] = {"0", "-1", "4.5", "\"4\"", "[4]", "{}", "true", "9223372036854775807", "1e30",
                                       "123456789012345678901234567890"};
  char changes[128];
  for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
      snprintf(changes, sizeof changes, "{\"%s\": %s}", integers[i], values[k]);
      refuse(changes, QD_EBADINPUT, integers[i]);
    }
  refuse("{\"rms_norm_eps\": -1e-6}", QD_EBADINPUT, "rms_norm_eps");
  refuse("{\"rms_norm_eps\": \"1e-6\"}", QD_EBADINPUT, "rms_norm_eps");
  refuse("{\"tie_word_embeddings\": 1}", QD_EBADINPUT, "tie_word_embeddings");
  refuse("{\"attention_bias\": \"false\"}", QD_EBADINPUT, "attention_bias");
  refuse("{\"mlp_bias\": []}", QD_EBADINPUT, "mlp_bias");
  refuse("{\"model_type\": 3}", QD_EBADINPUT, "model_type");
}

Test(model, refuses_widths_that_do_not_fit) {
  refuse("{\"num_key_value_heads\": 3}", QD_EBADINPUT, "num_key_value_heads");
  refuse("{\"num_key_value_heads\": 8}", QD_EBADINPUT, "num_key_value_heads");
  refuse("{\"head_dim\": 7}", QD_EBADINPUT, "head_dim");
  refuse("{\"head_dim\": null, \"num_attention_heads\": 3, \"num_key_value_heads\": 3}", QD_EBADINPUT, "num_attention_heads");
  refuse("{\"head_dim\": null, \"hidden_size\": 12}", QD_EBADINPUT, "head_dim");
  refuse("{\"head_dim\": null, \"hidden_size\": 16384}", QD_EBADINPUT, "head_dim");
}

Test(model, refuses_what_it_does_not_know) {
  refuse("{\"model_type\": \"gpt2\"}", QD_EUNSUPPORTED, "gpt2");
  refuse("{\"model_type\": \"gpt2\"}", QD_EUNSUPPORTED, "llama, mistral, mixtral, qwen2, qwen2_moe, qwen3, qwen3_moe");
  refuse("{\"model_type\": \"\"}", QD_EUNSUPPORTED, "model_type");
  refuse("{\"model_type\": \"LLAMA\"}", QD_EUNSUPPORTED, "model_type");
  refuse("{\"hidden_act\": \"gelu\"}", QD_EUNSUPPORTED, "hidden_act");
  refuse("{\"hidden_act\": 3}", QD_EUNSUPPORTED, "hidden_act");
  refuse("{\"quantization_config\": {\"bits\": 4}}", QD_EUNSUPPORTED, "quantization_config");
  qd_json *array = parse("[]");
  qd_model model;
  cr_expect_eq(qd_model_from_config(array, "F/config.json", &model), QD_EBADINPUT);
  cr_expect(strstr(qd_error_text(), "F/config.json") != NULL);
  qd_json_free(array);
}

/* ---- rope ------------------------------------------------------------------------------------------------------------- */

static void expect_frequencies(const char *changes, const double *expected) {
  qd_model m = accept(changes);
  for (int i = 0; i < m.head_dim / 2; i++)
    cr_expect(fabs(m.frequency[i] - expected[i]) <= 1e-15 * expected[i], "%s: frequency %d is %.17g, not %.17g", changes, i,
              m.frequency[i], expected[i]);
}

Test(model, reads_both_generations_of_rope_keys) {
  const double plain[] = {1, pow(10000, -1.0 / 3), pow(10000, -2.0 / 3)}, other[] = {1, 0.01, 0.0001};
  expect_frequencies("{}", plain);
  expect_frequencies("{\"rope_theta\": 1e6}", other);
  expect_frequencies("{\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1000000}}", other);
  expect_frequencies("{\"rope_theta\": 1e6, \"rope_parameters\": {\"rope_type\": \"default\"}}", other);
  expect_frequencies("{\"rope_theta\": 5, \"rope_parameters\": {\"rope_theta\": 1e6}}", other);
  expect_frequencies("{\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"default\"}}", other);
  expect_frequencies("{\"rope_theta\": 1e6, \"rope_scaling\": {}}", other);
  const char both[] = "{\"rope_theta\": 1e6, \"rope_scaling\": {\"factor\": 2}, \"rope_parameters\": {\"factor\": 2}}";
  expect_frequencies(both, other);
}

Test(model, scales_linearly) {
  const double expected[] = {1 / 4.0, 0.01 / 4, 0.0001 / 4};
  expect_frequencies("{\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}}", expected);
  expect_frequencies("{\"rope_theta\": 1e6, \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4}}", expected);
  expect_frequencies("{\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"linear\", \"factor\": 4}}", expected);
}

/* Wavelengths 2 pi, 200 pi and 20000 pi against 1000 / 4 and 1000 / 1: kept, blended, divided. */
Test(model, scales_as_llama3_does) {
  const double pi = 3.14159265358979323846, smooth = (1000 / (200 * pi) - 1) / (4 - 1);
  const double expected[] = {1, (1 - smooth) * 0.01 / 8 + smooth * 0.01, 0.0001 / 8};
  cr_assert(smooth > 0 && smooth < 1);
  const char *old = "{\"rope_theta\": 1e6, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
                    " \"high_freq_factor\": 4, \"original_max_position_embeddings\": 1000}}";
  const char *new =
      "{\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
      " \"high_freq_factor\": 4, \"original_max_position_embeddings\": 1000}}";
  expect_frequencies(old, expected);
  expect_frequencies(new, expected);
}

Test(model, refuses_ropes_it_does_not_know) {
  refuse("{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", QD_EUNSUPPORTED, "rope_type \"dynamic\"");
  refuse("{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2}}", QD_EUNSUPPORTED, "rope_type \"yarn\"");
  refuse("{\"rope_scaling\": {\"rope_type\": 3}}", QD_EBADINPUT, "rope_type");
  refuse("{\"rope_scaling\": [1]}", QD_EBADINPUT, "rope_scaling");
  refuse("{\"rope_parameters\": \"linear\"}", QD_EBADINPUT, "rope_parameters");
  refuse("{\"partial_rotary_factor\": 0.5}", QD_EUNSUPPORTED, "partial_rotary_factor");
  refuse("{\"rope_parameters\": {\"partial_rotary_factor\": 0.25}}", QD_EUNSUPPORTED, "partial_rotary_factor");
  refuse("{\"rope_parameters\": {\"rope_theta\": 1}, \"rope_scaling\": {\"rope_theta\": 2}}", QD_EBADINPUT, "rope_parameters");
}

Test(model, refuses_absurd_ropes) {
  static const char *const values[] = {"0", "-1", "\"1\"", "1e300", "[]"};
  static const char *const keys[] = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"};
  char changes[256];
  refuse("{\"rope_theta\": 0.5}", QD_EBADINPUT, "rope_theta");
  refuse("{\"rope_parameters\": {\"rope_theta\": \"10000\"}}", QD_EBADINPUT, "rope_theta");
  refuse("{\"rope_scaling\": {\"type\": \"linear\"}}", QD_EBADINPUT, "\"factor\"");
  refuse("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}}", QD_EBADINPUT, "\"factor\"");
  for (size_t k = 0; k < 4; k++) {
    qd_json *scaling = parse("{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4,"
                             " \"original_max_position_embeddings\": 64}");
    char *text;
    for (size_t v = 0; v < 6; v++) {
      qd_json *value = parse(v < 5 ? values[v] : "null");
      qd_json_set(scaling, keys[k], value);
      MUST(qd_json_print(scaling, 0, &text));
      snprintf(changes, sizeof changes, "{\"rope_scaling\": %s}", text);
      refuse(changes, QD_EBADINPUT, keys[k]);
      qd_heap_free(text);
    }
    qd_json_free(scaling);
  }
  refuse("{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4,"
         " \"original_max_position_embeddings\": 64}}", QD_EBADINPUT, "high_freq_factor");
}

/* ---- windows ---------------------------------------------------------------------------------------------------------- */

static void expect_window(const char *changes, int64_t first, int64_t second) {
  qd_model m = accept(changes);
  cr_expect_eq(qd_model_window(&m, 0), first, "%s", changes);
  cr_expect_eq(qd_model_window(&m, 1), second, "%s", changes);
}

Test(model, knows_where_windows_hold) {
  expect_window("{\"sliding_window\": 8}", 0, 0); /* Llama has none */
  expect_window("{\"model_type\": \"mistral\", \"sliding_window\": 8}", 8, 8);
  expect_window("{\"model_type\": \"mistral\", \"sliding_window\": null}", 0, 0);
  expect_window("{\"model_type\": \"mistral\"}", 4096, 4096);
  const char *const families[] = {"qwen2", "qwen3"};
  char changes[256];
  for (int i = 0; i < 2; i++) {
#define WINDOW(rest, first, second)                                                       \
  snprintf(changes, sizeof changes, "{\"model_type\": \"%s\"" rest "}", families[i]);     \
  expect_window(changes, first, second)
#define WIDE ", \"sliding_window\": 8, \"use_sliding_window\": "
#define FULL "\"full_attention\""
#define SLIDING "\"sliding_attention\""
    WINDOW(", \"sliding_window\": 8", 0, 0);
    WINDOW(WIDE "false, \"max_window_layers\": 0", 0, 0);
    WINDOW(WIDE "true", 0, 0);
    WINDOW(WIDE "true, \"max_window_layers\": 1", 0, 8);
    WINDOW(WIDE "true, \"max_window_layers\": 0", 8, 8);
    WINDOW(", \"sliding_window\": null, \"use_sliding_window\": true, \"max_window_layers\": 0", 0, 0);
    WINDOW(", \"use_sliding_window\": true, \"max_window_layers\": 1", 0, 4096);
    WINDOW(WIDE "true, \"layer_types\": [" FULL ", " FULL "]", 0, 0);
    WINDOW(WIDE "true, \"layer_types\": [" FULL ", " SLIDING "]", 0, 8);
    WINDOW(WIDE "true, \"layer_types\": [" SLIDING ", " SLIDING "]", 8, 8);
    WINDOW(WIDE "true, \"max_window_layers\": 0, \"layer_types\": [" FULL ", " SLIDING "]", 0, 8); /* the list decides */
#undef WINDOW
#undef WIDE
#undef FULL
#undef SLIDING
  }
}

Test(model, reads_experts_and_refuses_what_is_none) {
#define EXPERTS(members) \
  "{\"model_type\": \"qwen3_moe\", \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 4, " members "}"
#define SOME "\"num_experts\": 4"
  qd_model m = accept(EXPERTS("\"num_local_experts\": 4, \"mlp_only_layers\": null"));
  cr_expect(m.experts == 4 && m.top_k == 2 && m.expert_ffn == 4 && m.shared_ffn == 0 && qd_model_is_sparse(&m, 0));
  cr_expect(!qd_model_is_sparse(&m, QD_REST));
  m = accept(EXPERTS(SOME ", \"mlp_only_layers\": [0, 1]"));
  cr_expect(!qd_model_has_blocks(&m, true));
  cr_expect_eq(qd_model_n_slots(&m, 1), 9 + 2); /* the norms of q and k */
  cr_expect_eq(qd_model_columns(&m, QD_EXPERT_DOWN_PROJ), 0);
  refuse(EXPERTS("\"num_experts\": 1"), QD_EBADINPUT, "num_experts_per_tok");
  refuse(EXPERTS("\"num_experts\": 0"), QD_EBADINPUT, "num_experts");
  refuse(EXPERTS("\"num_experts\": 5000"), QD_EBADINPUT, "num_experts");
  refuse(EXPERTS("\"hidden_act\": \"silu\""), QD_EBADINPUT, "num_local_experts");
  refuse("{\"model_type\": \"qwen3_moe\", \"num_experts_per_tok\": 2, " SOME "}", QD_EBADINPUT, "moe_intermediate_size");
  refuse(EXPERTS(SOME ", \"decoder_sparse_step\": 0"), QD_EBADINPUT, "decoder_sparse_step");
  refuse(EXPERTS(SOME ", \"norm_topk_prob\": 1"), QD_EBADINPUT, "norm_topk_prob");
  refuse(EXPERTS(SOME ", \"mlp_only_layers\": 1"), QD_EBADINPUT, "mlp_only_layers");
  refuse(EXPERTS(SOME ", \"mlp_only_layers\": [0.5]"), QD_EBADINPUT, "mlp_only_layers");
  refuse(EXPERTS(SOME ", \"mlp_only_layers\": [-1]"), QD_EBADINPUT, "mlp_only_layers");
  refuse("{\"model_type\": \"qwen2_moe\", \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 4, " SOME "}", QD_EBADINPUT,
         "shared_expert_intermediate_size");
  refuse("{\"model_type\": \"qwen2_moe\", \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 4, " SOME
         ", \"shared_expert_intermediate_size\": 4, \"use_sliding_window\": true}", QD_EUNSUPPORTED, "use_sliding_window");
#undef EXPERTS
#undef SOME
}

Test(model, refuses_windows_it_cannot_follow) {
#define QWEN "{\"model_type\": \"qwen2\", \"use_sliding_window\": true, "
  refuse("{\"model_type\": \"mistral\", \"sliding_window\": 0}", QD_EBADINPUT, "sliding_window");
  refuse("{\"model_type\": \"mistral\", \"sliding_window\": \"8\"}", QD_EBADINPUT, "sliding_window");
  refuse(QWEN "\"sliding_window\": -1}", QD_EBADINPUT, "sliding_window");
  refuse(QWEN "\"max_window_layers\": -1}", QD_EBADINPUT, "max_window_layers");
  refuse("{\"model_type\": \"qwen2\", \"use_sliding_window\": 1}", QD_EBADINPUT, "use_sliding_window");
  refuse(QWEN "\"layer_types\": {}}", QD_EBADINPUT, "layer_types");
  refuse(QWEN "\"layer_types\": [\"full_attention\"]}", QD_EBADINPUT, "layer_types");
  refuse(QWEN "\"layer_types\": [\"full_attention\", 3]}", QD_EUNSUPPORTED, "layer_types");
  refuse(QWEN "\"layer_types\": [\"full_attention\", \"linear_attention\"]}", QD_EUNSUPPORTED, "linear_attention");
  refuse(QWEN "\"layer_types\": [\"sliding_attention\", \"full_attention\"]}", QD_EUNSUPPORTED, "layer_types");
  refuse("{\"model_type\": \"qwen2\", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", QD_EBADINPUT,
         "layer_types");
#undef QWEN
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------- */

Test(model, lists_slots_with_names_and_shapes) {
  qd_model m = accept("{}");
  qd_slot slots[MAX_SLOTS];
  cr_assert_eq(all_slots(&m, 1, slots), 9);
  cr_expect_str_eq(slots[1].name, "model.layers.1.self_attn.k_proj.weight");
  cr_expect_eq(slots[1].role, QD_K_PROJ);
  cr_expect_eq(slots[1].rank, 2);
  cr_expect_eq(slots[1].dim[0], 12);
  cr_expect_eq(slots[1].dim[1], 8);
  cr_expect_eq(slots[1].expert, -1);
  cr_assert_eq(all_slots(&m, QD_REST, slots), 3);
  m.tied = true;
  cr_assert_eq(all_slots(&m, QD_REST, slots), 2);
  m.attention_bias = m.mlp_bias = true;
  cr_assert_eq(all_slots(&m, 0, slots), 16);
  cr_expect_eq(qd_model_columns(&m, QD_O_PROJ), 24);
  cr_expect_eq(qd_model_columns(&m, QD_DOWN_PROJ), 12);
  cr_expect_eq(qd_model_columns(&m, QD_GATE_PROJ), 8);
}

enum { MOST = 2 * MAX_SLOTS + 8 };

/* A model folder that one edit makes wrong. */
typedef struct made {
  qd_temporary_folder folder;
  qd_slot slot[MOST];
  qd_made_tensor tensor[MOST];
  int n;
} made;

static void add(made *m, const qd_slot *slot) {
  m->slot[m->n] = *slot;
  m->tensor[m->n] =
      (qd_made_tensor){.name = m->slot[m->n].name, .dtype = QD_F32, .rank = slot->rank, .dim = {slot->dim[0], slot->dim[1]}};
  m->n++;
}

static void fill(made *m, const char *changes) {
  qd_slot slots[MAX_SLOTS];
  qd_model model = accept(changes);
  qd_temporary_folder_open(&m->folder);
  m->n = 0;
  for (int64_t block = QD_REST; block < model.n_blocks; block++) {
    int n = all_slots(&model, block, slots);
    for (int i = 0; i < n; i++) add(m, &slots[i]);
  }
}

static void append(made *m, const char *name, int rank, int64_t rows, int64_t columns) {
  qd_slot slot = {.rank = rank, .dim = {rows, columns}};
  snprintf(slot.name, sizeof slot.name, "%s", name);
  add(m, &slot);
}

static qd_made_tensor *named(made *m, const char *name) {
  for (int i = 0; i < m->n; i++)
    if (strcmp(m->tensor[i].name, name) == 0) return &m->tensor[i];
  cr_assert_fail("no %s", name);
  return NULL;
}

static qd_status open_model(made *m, const char *changes, qd_model *model) {
  qd_json *config = config_with(changes);
  qd_source *source;
  char *text;
  MUST(qd_json_print(config, 0, &text));
  qd_make_model(m->folder.path, text, m->tensor, m->n, 1);
  MUST(qd_source_open(m->folder.path, &source));
  qd_status status = qd_model_from_source(source, model);
  qd_source_close(source);
  qd_heap_free(text);
  qd_json_free(config);
  qd_temporary_folder_close(&m->folder);
  return status;
}

static void refuse_source(made *m, const char *changes, const char *name, const char *other) {
  qd_model model;
  char path[sizeof m->folder.path];
  snprintf(path, sizeof path, "%s", m->folder.path);
  cr_expect_eq(open_model(m, changes, &model), QD_EBADINPUT, "%s", name);
  const char *wanted[] = {path, name, other};
  for (int i = 0; i < 3; i++)
    cr_expect(strstr(qd_error_text(), wanted[i]) != NULL, "no %s in \"%s\"", wanted[i], qd_error_text());
}

Test(model, takes_a_model_whose_tensors_fit) {
  static const char *const all[] = {"{}",
                                    "{\"tie_word_embeddings\": true}",
                                    "{\"attention_bias\": true, \"mlp_bias\": true}",
                                    "{\"model_type\": \"mistral\"}",
                                    "{\"model_type\": \"qwen2\"}",
                                    "{\"model_type\": \"qwen3\"}",
                                    "{\"model_type\": \"qwen3\", \"attention_bias\": true}"};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    made m;
    qd_model model;
    fill(&m, all[i]);
    cr_expect_eq(open_model(&m, all[i], &model), QD_OK, "%s: %s", all[i], qd_error_text());
    cr_expect_eq(model.dtype, QD_F32);
  }
}

Test(model, takes_its_dtype_from_the_embedding) {
  made m;
  qd_model model;
  fill(&m, "{}");
  named(&m, "model.embed_tokens.weight")->dtype = QD_BF16;
  cr_expect_eq(open_model(&m, "{}", &model), QD_OK);
  cr_expect_eq(model.dtype, QD_BF16);
}

Test(model, names_the_tensor_that_is_missing) {
  made m;
  fill(&m, "{}");
  *named(&m, "model.layers.1.mlp.up_proj.weight") = m.tensor[m.n - 1];
  m.n--;
  refuse_source(&m, "{}", "model.layers.1.mlp.up_proj.weight", "missing");
  fill(&m, "{}");
  refuse_source(&m, "{\"num_hidden_layers\": 3}", "model.layers.2.", "3 blocks");
  fill(&m, "{}");
  refuse_source(&m, "{\"attention_bias\": true}", "model.layers.0.self_attn.q_proj.bias", "missing");
}

Test(model, names_the_shape_that_is_wrong) {
  made m;
  fill(&m, "{}");
  named(&m, "model.layers.0.self_attn.k_proj.weight")->dim[0] = 6;
  refuse_source(&m, "{}", "model.layers.0.self_attn.k_proj.weight", "[6, 8], config.json says [12, 8]");
  fill(&m, "{}");
  *named(&m, "model.norm.weight") = (qd_made_tensor){.name = "model.norm.weight", .dtype = QD_F32, .rank = 2, .dim = {8, 1}};
  refuse_source(&m, "{}", "model.norm.weight", "[8, 1], config.json says [8]");
  fill(&m, "{}");
  refuse_source(&m, "{\"vocab_size\": 11}", "model.embed_tokens.weight", "[10, 8], config.json says [11, 8]");
}

Test(model, names_the_tensor_that_has_no_use) {
  static const char *const strangers[] = {"model.layers.0.self_attn.q_proj.bias",
                                          "model.layers.0.mlp.gate.weight",
                                          "score.weight",
                                          "model.layers.x.mlp.up_proj.weight",
                                          "model.layers.-5.mlp.up_proj.weight",
                                          "model.layers.-1.mlp.up_proj.weight",
                                          "model.layers.01.mlp.up_proj.weight",
                                          "model.layers.",
                                          "model.vision_tower.x"};
  made m;
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    fill(&m, "{}");
    append(&m, strangers[i], 1, 8, 0);
    refuse_source(&m, "{}", strangers[i], "does not use it");
  }
  fill(&m, "{}");
  refuse_source(&m, "{\"num_hidden_layers\": 1}", "model.layers.1.", "1 blocks only");
  fill(&m, "{}");
  append(&m, "model.layers.99999999999999999999.mlp.up_proj.weight", 1, 8, 0);
  refuse_source(&m, "{}", "model.layers.99999999999999999999.", "2 blocks only");
}

Test(model, passes_over_frequencies_and_a_tied_head) {
  static const char tied[] = "{\"tie_word_embeddings\": true}";
  static float values[80];
  made m;
  qd_model model;
  fill(&m, tied);
  append(&m, "model.layers.0.self_attn.rotary_emb.inv_freq", 1, 3, 0);
  append(&m, "lm_head.weight", 2, 10, 8);
  for (int i = 0; i < 80; i++) values[i] = (float)i;
  named(&m, "lm_head.weight")->data = named(&m, "model.embed_tokens.weight")->data = values;
  cr_expect_eq(open_model(&m, tied, &model), QD_OK, "%s", qd_error_text());
}

Test(model, refuses_a_tied_head_of_other_values) {
  static const char tied[] = "{\"tie_word_embeddings\": true}";
  made m;
  fill(&m, tied);
  append(&m, "lm_head.weight", 2, 10, 8); /* made values differ by name */
  refuse_source(&m, tied, "lm_head.weight", "tie_word_embeddings");
  fill(&m, tied);
  append(&m, "lm_head.weight", 2, 9, 8);
  refuse_source(&m, tied, "lm_head.weight", "tie_word_embeddings");
  fill(&m, tied);
  append(&m, "lm_head.weight", 2, 10, 8);
  named(&m, "lm_head.weight")->dtype = QD_F16;
  refuse_source(&m, tied, "lm_head.weight", "tie_word_embeddings");
}

/* Tensor names of blocks and experts that the configuration does not promise. */
Test(model, numbers_in_names_must_be_those_of_the_model) {
  static const char *const strangers[] = {
      "model.layers.0.block_sparse_moe.experts.3.w1.weight", "model.layers.0.block_sparse_moe.experts.01.w1.weight",
      "model.layers.0.block_sparse_moe.experts..w1.weight", "model.layers.00.block_sparse_moe.gate.weight",
      "model.layers.0.block_sparse_moe.experts.1.w1.weightx", "model.layers.0.mlp.gate_proj.weight"};
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    made m;
    qd_model model;
    static const char changes[] = "{\"model_type\": \"mixtral\", \"num_local_experts\": 3, \"num_experts_per_tok\": 1}";
    fill(&m, changes);
    append(&m, strangers[i], 2, 3, 4);
    cr_expect_eq(open_model(&m, changes, &model), QD_EBADINPUT, "%s", strangers[i]);
    cr_expect(strstr(qd_error_text(), strangers[i]) != NULL, "%s", qd_error_text());
  }
}
