#include "pipeline/model.h"

#include "kernels/vecmath.h"
#include "storage/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t max_width = 1 << 24;

static int64_t width_of(const qd_model *model, qd_width width) {
  switch (width) {
    case QD_W_NONE: return 0;
    case QD_W_HIDDEN: return model->hidden;
    case QD_W_QUERY: return model->heads * model->head_dim;
    case QD_W_KV: return model->kv_heads * model->head_dim;
    case QD_W_FFN: return model->ffn;
    case QD_W_HEAD: return model->head_dim;
    case QD_W_VOCABULARY: return model->vocabulary;
  }
  return 0;
}

static bool holds(const qd_model *model, qd_condition condition) {
  switch (condition) {
    case QD_ALWAYS: return true;
    case QD_IF_ATTENTION_BIAS: return model->attention_bias;
    case QD_IF_MLP_BIAS: return model->mlp_bias;
    case QD_UNLESS_TIED: return !model->tied;
  }
  return false;
}

static void expand_name(const char *pattern, int64_t block, char *name, size_t size) {
  const char *mark = strchr(pattern, '%');
  if (mark == NULL) snprintf(name, size, "%s", pattern);
  else snprintf(name, size, "%.*s%" PRId64 "%s", (int)(mark - pattern), pattern, block, mark + 1);
}

int qd_model_slots(const qd_model *model, int64_t block, qd_slot slots[QD_MAX_SLOTS]) {
  const qd_arch_tensor *table = block == QD_REST ? model->arch->rest : model->arch->block;
  int rows = block == QD_REST ? model->arch->n_rest : model->arch->n_block, n = 0;
  for (int i = 0; i < rows; i++) {
    if (!holds(model, table[i].condition)) continue;
    qd_slot *slot = &slots[n++];
    *slot = (qd_slot){.role = table[i].role, .expert = -1, .rank = table[i].columns == QD_W_NONE ? 1 : 2,
                      .dim = {width_of(model, table[i].rows), width_of(model, table[i].columns)}};
    expand_name(table[i].name, block, slot->name, sizeof slot->name);
  }
  return n;
}

int64_t qd_model_window(const qd_model *model, int64_t block) { return block >= model->window_from_block ? model->window : 0; }

int64_t qd_model_columns(const qd_model *model, qd_role linear) {
  for (int i = 0; i < model->arch->n_block; i++)
    if (model->arch->block[i].role == linear) return width_of(model, model->arch->block[i].columns);
  return 0;
}

/* ---- rotary frequencies --------------------------------------------------------------------------------------------------------- */

/* Llama 3's scaling: long wavelengths are divided by the factor, short ones kept, a linear blend between. */
static double scale_llama3(double frequency, double factor, double low, double high, double original) {
  const double pi = 3.14159265358979323846;
  double wavelength = 2 * pi / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  double smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

static qd_status scale_frequencies(const qd_json *rope, const char *what, const char *type, qd_model *model) {
  double factor, low, high, original;
  if (strcmp(type, "default") == 0) return QD_OK;
  QD_CHECK(strcmp(type, "linear") == 0 || strcmp(type, "llama3") == 0, QD_EUNSUPPORTED,
           "%s: rope type \"%s\" is not supported (default, linear and llama3 are)", what, type);
  QD_CHECK(qd_json_get(rope, "factor") != NULL, QD_EBADINPUT, "%s: rope type \"%s\" has no \"factor\"", what, type);
  QD_TRY(qd_json_take_number(rope, what, "factor", 1, 1e6, 1, &factor));
  QD_TRY(qd_json_take_number(rope, what, "low_freq_factor", 1e-3, 1e6, 1, &low));
  QD_TRY(qd_json_take_number(rope, what, "high_freq_factor", 1e-3, 1e6, 4, &high));
  QD_TRY(qd_json_take_number(rope, what, "original_max_position_embeddings", 1, 1e9, 8192, &original));
  QD_CHECK(high > low, QD_EBADINPUT, "%s: high_freq_factor %g must be above low_freq_factor %g", what, high, low);
  for (int64_t i = 0; i < model->head_dim / 2; i++)
    model->frequency[i] = type[1] == 'i' ? model->frequency[i] / factor : scale_llama3(model->frequency[i], factor, low, high, original);
  return QD_OK;
}

/* Both spellings: rope_theta and rope_scaling (transformers 4), rope_parameters (transformers 5). */
static qd_status read_rope(const qd_json *config, const char *what, qd_model *model) {
  const qd_json *parameters = qd_json_get(config, "rope_parameters"), *scaling = qd_json_get(config, "rope_scaling");
  const qd_json *rope = parameters ? parameters : scaling;
  QD_CHECK(rope == NULL || qd_json_is_object(rope), QD_EBADINPUT, "%s: %s must be an object", what,
           parameters ? "rope_parameters" : "rope_scaling");
  double theta;
  const qd_json *home = rope != NULL && qd_json_get(rope, "rope_theta") != NULL ? rope : config;
  QD_TRY(qd_json_take_number(home, what, "rope_theta", 1, 1e12, 10000, &theta));
  double partial;
  QD_TRY(qd_json_take_number(config, what, "partial_rotary_factor", 0, 1, 1, &partial));
  QD_CHECK(partial == 1, QD_EUNSUPPORTED, "%s: partial_rotary_factor %g is not supported for %s", what, partial, model->arch->name);
  for (int64_t i = 0; i < model->head_dim / 2; i++)
    model->frequency[i] = qd_vm_pow(theta, -(2.0 * (double)i) / (double)model->head_dim);
  model->rope_factor = 1;
  if (rope == NULL) return QD_OK;
  const qd_json *type = qd_json_get(rope, "rope_type");
  if (type == NULL) type = qd_json_get(rope, "type");
  if (type == NULL) return QD_OK;
  QD_CHECK(qd_json_is_text(type), QD_EBADINPUT, "%s: the rope type must be text", what);
  return scale_frequencies(rope, what, qd_json_text(type), model);
}

/* ---- configuration -------------------------------------------------------------------------------------------------------------- */

static qd_status read_window(const qd_json *config, const char *what, qd_model *model) {
  int64_t window;
  bool use;
  QD_TRY(qd_json_take_integer(config, what, "sliding_window", 1, INT32_MAX, 0, &window));
  if (model->arch->window_by_config) model->window = window;
  if (!model->arch->window_by_layers) return QD_OK;
  QD_TRY(qd_json_take_bool(config, what, "use_sliding_window", false, &use));
  if (!use) return QD_OK;
  model->window = window;
  QD_TRY(qd_json_take_integer(config, what, "max_window_layers", 0, INT32_MAX, model->n_blocks, &model->window_from_block));
  return QD_OK;
}

static qd_status read_widths(const qd_json *config, const char *what, qd_model *model) {
  QD_TRY(qd_json_need_integer(config, what, "num_hidden_layers", 1, 100000, &model->n_blocks));
  QD_TRY(qd_json_need_integer(config, what, "hidden_size", 1, max_width, &model->hidden));
  QD_TRY(qd_json_need_integer(config, what, "intermediate_size", 1, max_width, &model->ffn));
  QD_TRY(qd_json_need_integer(config, what, "num_attention_heads", 1, 65536, &model->heads));
  QD_TRY(qd_json_need_integer(config, what, "vocab_size", 1, max_width, &model->vocabulary));
  QD_TRY(qd_json_take_integer(config, what, "num_key_value_heads", 1, 65536, model->heads, &model->kv_heads));
  QD_TRY(qd_json_take_integer(config, what, "head_dim", 2, 2 * QD_MAX_HEAD_PAIRS, 0, &model->head_dim));
  QD_TRY(qd_json_take_integer(config, what, "max_position_embeddings", 1, INT32_MAX, 2048, &model->max_positions));
  QD_CHECK(model->heads % model->kv_heads == 0, QD_EBADINPUT,
           "%s: num_attention_heads %" PRId64 " is no multiple of num_key_value_heads %" PRId64, what, model->heads, model->kv_heads);
  if (model->head_dim == 0) {
    QD_CHECK(model->hidden % model->heads == 0, QD_EBADINPUT,
             "%s: hidden_size %" PRId64 " is no multiple of num_attention_heads %" PRId64 " and head_dim is not given", what,
             model->hidden, model->heads);
    model->head_dim = model->hidden / model->heads;
  }
  QD_CHECK(model->head_dim % 2 == 0 && model->head_dim <= 2 * QD_MAX_HEAD_PAIRS, QD_EBADINPUT,
           "%s: the head size must be even and at most %d, got %" PRId64, what, 2 * QD_MAX_HEAD_PAIRS, model->head_dim);
  return QD_OK;
}

static qd_status refuse_what_changes_the_forward(const qd_json *config, const char *what) {
  const qd_json *activation = qd_json_get(config, "hidden_act");
  QD_CHECK(activation == NULL || (qd_json_is_text(activation) && strcmp(qd_json_text(activation), "silu") == 0), QD_EUNSUPPORTED,
           "%s: hidden_act \"%s\" is not supported (silu is)", what, activation && qd_json_is_text(activation) ? qd_json_text(activation) : "?");
  QD_CHECK(qd_json_get(config, "quantization_config") == NULL, QD_EUNSUPPORTED,
           "%s: the model is quantized already (quantization_config); qdist needs the original weights", what);
  return QD_OK;
}

qd_status qd_model_from_config(const qd_json *config, const char *what, qd_model *out) {
  *out = (qd_model){.dtype = QD_F32};
  const char *type;
  QD_CHECK(qd_json_is_object(config), QD_EBADINPUT, "%s: must be a JSON object", what);
  QD_TRY(qd_json_need_text(config, what, "model_type", &type));
  out->arch = qd_arch_find(type);
  QD_CHECK(out->arch != NULL, QD_EUNSUPPORTED, "%s: model_type \"%s\" is not supported (%s are)", what, type, qd_arch_names());
  QD_TRY(refuse_what_changes_the_forward(config, what));
  QD_TRY(read_widths(config, what, out));
  QD_TRY(qd_json_take_number(config, what, "rms_norm_eps", 0, 1, 1e-6, &out->norm_eps));
  QD_TRY(qd_json_take_bool(config, what, "tie_word_embeddings", false, &out->tied));
  QD_TRY(qd_json_take_bool(config, what, "attention_bias", false, &out->attention_bias));
  QD_TRY(qd_json_take_bool(config, what, "mlp_bias", false, &out->mlp_bias));
  QD_TRY(read_window(config, what, out));
  return read_rope(config, what, out);
}

/* ---- against the tensors -------------------------------------------------------------------------------------------------------- */

static void shape_text(int rank, const int64_t *dim, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? ", " : "", dim[i]);
  if (used < size) snprintf(text + used, size - used, "]");
}

static qd_status check_slot(const qd_source *source, const qd_slot *slot, qd_model *model) {
  const qd_source_tensor *tensor = qd_source_find(source, slot->name);
  QD_CHECK(tensor != NULL, QD_EBADINPUT, "%s: the tensor %s is missing, which config.json (%s, %" PRId64 " blocks) promises",
           qd_source_path(source), slot->name, model->arch->name, model->n_blocks);
  bool same = tensor->rank == slot->rank;
  for (int i = 0; same && i < slot->rank; i++) same = tensor->dim[i] == slot->dim[i];
  if (!same) {
    char wanted[96], found[96];
    shape_text(slot->rank, slot->dim, wanted, sizeof wanted);
    shape_text(tensor->rank, tensor->dim, found, sizeof found);
    QD_FAIL(QD_EBADINPUT, "%s: the shape of %s is %s, config.json says %s", qd_source_path(source), slot->name, found, wanted);
  }
  if (slot->role == QD_EMBEDDING) model->dtype = tensor->dtype;
  return QD_OK;
}

/* A tensor that the forward would leave out would change the model without a word. */
static qd_status check_no_stranger(const qd_source *source, const qd_source_tensor *tensor, const qd_model *model) {
  static const char layers[] = "model.layers.", frequencies[] = "rotary_emb.inv_freq";
  qd_slot slots[QD_MAX_SLOTS];
  size_t length = strlen(tensor->name);
  if (length >= sizeof frequencies - 1 && strcmp(tensor->name + length - (sizeof frequencies - 1), frequencies) == 0) return QD_OK;
  if (model->tied && strcmp(tensor->name, "lm_head.weight") == 0) return QD_OK;
  int64_t block = QD_REST;
  if (strncmp(tensor->name, layers, sizeof layers - 1) == 0) block = strtoll(tensor->name + sizeof layers - 1, NULL, 10);
  QD_CHECK(block < model->n_blocks, QD_EBADINPUT, "%s: the tensor %s is there, but config.json has %" PRId64 " blocks only",
           qd_source_path(source), tensor->name, model->n_blocks);
  int n = qd_model_slots(model, block, slots);
  for (int i = 0; i < n; i++)
    if (strcmp(slots[i].name, tensor->name) == 0) return QD_OK;
  QD_FAIL(QD_EBADINPUT, "%s: the tensor %s is there, but a %s model with this config.json does not use it", qd_source_path(source),
          tensor->name, model->arch->name);
}

qd_status qd_model_from_source(const qd_source *source, qd_model *out) {
  char what[4096];
  snprintf(what, sizeof what, "%s/config.json", qd_source_path(source));
  QD_TRY(qd_model_from_config(qd_source_config(source), what, out));
  qd_slot slots[QD_MAX_SLOTS];
  for (int64_t block = QD_REST; block < out->n_blocks; block++) {
    int n = qd_model_slots(out, block, slots);
    for (int i = 0; i < n; i++) QD_TRY(check_slot(source, &slots[i], out));
  }
  for (size_t i = 0; i < qd_source_tensors(source); i++) QD_TRY(check_no_stranger(source, qd_source_tensor_at(source, i), out));
  return QD_OK;
}
