#include "pipeline/model.h"

#include "kernels/base/heap.h"
#include "kernels/ops.h"
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
    case QD_W_ONE: return 1;
    case QD_W_EXPERTS: return model->experts;
    case QD_W_EXPERT_FFN: return model->expert_ffn;
    case QD_W_SHARED_FFN: return model->shared_ffn;
  }
  return 0;
}

static bool holds(const qd_model *model, qd_condition condition) {
  switch (condition) {
    case QD_ALWAYS: return true;
    case QD_IF_ATTENTION_BIAS: return model->attention_bias;
    case QD_IF_MLP_BIAS: return model->mlp_bias;
    case QD_UNLESS_TIED: return !model->tied;
    case QD_IF_DENSE: return qd_model_has_blocks(model, false);
    case QD_IF_SPARSE: return qd_model_has_blocks(model, true);
  }
  return false;
}

bool qd_model_is_sparse(const qd_model *model, int64_t block) {
  if (model->experts == 0 || block == QD_REST || (block + 1) % model->sparse_step != 0) return false;
  return (model->only_dense[block / 64] >> (block % 64) & 1) == 0;
}

bool qd_model_has_blocks(const qd_model *model, bool sparse) {
  for (int64_t block = 0; block < model->n_blocks; block++)
    if (qd_model_is_sparse(model, block) == sparse) return true;
  return false;
}

static bool belongs(const qd_model *model, int64_t block, const qd_arch_tensor *row) {
  if (row->condition == QD_IF_DENSE || row->condition == QD_IF_SPARSE)
    return qd_model_is_sparse(model, block) == (row->condition == QD_IF_SPARSE);
  return holds(model, row->condition);
}

static const qd_arch_tensor *table_of(const qd_model *model, int64_t block, int *n) {
  *n = block == QD_REST ? model->arch->n_rest : model->arch->n_block;
  return block == QD_REST ? model->arch->rest : model->arch->block;
}

/* Rows of the table that the block has: one tensor each, and one for each expert. */
static int count_rows(const qd_model *model, int64_t block, int *of_expert) {
  int rows, plain = 0;
  const qd_arch_tensor *table = table_of(model, block, &rows);
  *of_expert = 0;
  for (int i = 0; i < rows; i++) {
    if (!belongs(model, block, &table[i])) continue;
    if (qd_role_is_of_expert(table[i].role)) ++*of_expert;
    else plain++;
  }
  return plain;
}

int qd_model_n_slots(const qd_model *model, int64_t block) {
  int of_expert, plain = count_rows(model, block, &of_expert);
  return plain + of_expert * (int)model->experts;
}

int qd_model_most_slots(const qd_model *model) {
  int most = qd_model_n_slots(model, QD_REST);
  for (int64_t block = 0; block < model->n_blocks; block++) {
    int n = qd_model_n_slots(model, block);
    most = n > most ? n : most;
  }
  return most;
}

static void expand_name(const char *pattern, int64_t block, int expert, char *name, size_t size) {
  size_t used = 0;
  name[0] = '\0';
  for (const char *c = pattern; *c != '\0' && used + 1 < size; c++) {
    if (*c == '%') used += (size_t)snprintf(name + used, size - used, "%" PRId64, block);
    else if (*c == '#') used += (size_t)snprintf(name + used, size - used, "%d", expert);
    else name[used++] = *c, name[used] = '\0';
  }
}

static void fill_slot(const qd_model *model, int64_t block, const qd_arch_tensor *row, int expert, qd_slot *slot) {
  *slot = (qd_slot){.role = row->role, .expert = expert, .rank = row->columns == QD_W_NONE ? 1 : 2,
                    .dim = {width_of(model, row->rows), width_of(model, row->columns)}};
  expand_name(row->name, block, expert, slot->name, sizeof slot->name);
}

void qd_model_slot(const qd_model *model, int64_t block, int index, qd_slot *slot) {
  int rows, of_expert, plain = count_rows(model, block, &of_expert), expert = -1;
  const qd_arch_tensor *table = table_of(model, block, &rows);
  if (index >= plain) {
    expert = (index - plain) / of_expert;
    index = plain + (index - plain) % of_expert;
  }
  for (int i = 0; i < rows; i++)
    if (belongs(model, block, &table[i]) && index-- == 0) {
      fill_slot(model, block, &table[i], expert, slot);
      return;
    }
  QD_ASSERT(!"a block has so many tensors");
}

int64_t qd_model_window(const qd_model *model, int64_t block) { return block >= model->window_from_block ? model->window : 0; }

int64_t qd_model_columns(const qd_model *model, qd_role linear) {
  for (int i = 0; i < model->arch->n_block; i++)
    if (model->arch->block[i].role == linear && holds(model, model->arch->block[i].condition))
      return width_of(model, model->arch->block[i].columns);
  return 0;
}

/* ---- rotary frequencies -------------------------------------------------------------------------------------------------- */

/* Llama 3's scaling: long wavelengths are divided by the factor, short ones kept, a linear blend between. */
static double scale_llama3(double frequency, double factor, double low, double high, double original) {
  const double pi = 3.14159265358979323846;
  double wavelength = 2 * pi / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  double smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/* What a scaling cannot do without is never guessed. */
static qd_status need_number(const qd_json *rope, const char *what, const char *key, double low, double *out) {
  QD_CHECK(qd_json_get(rope, key) != NULL, QD_EBADINPUT, "%s: the rope's scaling has no \"%s\"", what, key);
  return qd_json_take_number(rope, what, key, low, 1e9, low, out);
}

static qd_status scale_frequencies(const qd_json *rope, const char *what, const char *type, qd_model *model) {
  double factor, low, high, original;
  if (strcmp(type, "default") == 0) return QD_OK;
  bool linear = strcmp(type, "linear") == 0;
  QD_CHECK(linear || strcmp(type, "llama3") == 0, QD_EUNSUPPORTED,
           "%s: rope_type \"%s\" is not supported (default, linear and llama3 are)", what, type);
  QD_TRY(need_number(rope, what, "factor", 1, &factor));
  for (int64_t i = 0; linear && i < model->head_dim / 2; i++) model->frequency[i] /= factor;
  if (linear) return QD_OK;
  QD_TRY(need_number(rope, what, "low_freq_factor", 1e-3, &low));
  QD_TRY(need_number(rope, what, "high_freq_factor", 1e-3, &high));
  QD_TRY(need_number(rope, what, "original_max_position_embeddings", 1, &original));
  QD_CHECK(high > low, QD_EBADINPUT, "%s: high_freq_factor %g must be above low_freq_factor %g", what, high, low);
  for (int64_t i = 0; i < model->head_dim / 2; i++)
    model->frequency[i] = scale_llama3(model->frequency[i], factor, low, high, original);
  return QD_OK;
}

/* Both spellings: rope_theta and rope_scaling (transformers 4), rope_parameters (transformers 5). */
static qd_status find_rope(const qd_json *config, const char *what, const qd_json **rope) {
  const qd_json *parameters = qd_json_get(config, "rope_parameters"), *scaling = qd_json_get(config, "rope_scaling");
  *rope = NULL;
  QD_CHECK(parameters == NULL || scaling == NULL || qd_json_equal(parameters, scaling), QD_EBADINPUT,
           "%s: rope_parameters and rope_scaling are both there and differ", what);
  *rope = parameters ? parameters : scaling;
  QD_CHECK(*rope == NULL || qd_json_is_object(*rope), QD_EBADINPUT, "%s: %s must be an object", what,
           parameters ? "rope_parameters" : "rope_scaling");
  return QD_OK;
}

/* A key of the rope lies in its object or beside it. */
static const qd_json *home_of(const qd_json *rope, const qd_json *config, const char *key) {
  return rope != NULL && qd_json_get(rope, key) != NULL ? rope : config;
}

static qd_status read_rope(const qd_json *config, const char *what, qd_model *model) {
  const qd_json *rope;
  double theta, partial;
  QD_TRY(find_rope(config, what, &rope));
  QD_TRY(qd_json_take_number(home_of(rope, config, "rope_theta"), what, "rope_theta", 1, 1e12, 10000, &theta));
  QD_TRY(qd_json_take_number(home_of(rope, config, "partial_rotary_factor"), what, "partial_rotary_factor", 0, 1, 1, &partial));
  QD_CHECK(partial == 1, QD_EUNSUPPORTED, "%s: partial_rotary_factor %g is not supported for %s", what, partial,
           model->arch->name);
  for (int64_t i = 0; i < model->head_dim / 2; i++)
    model->frequency[i] = qd_vm_pow(theta, -(2.0 * (double)i) / (double)model->head_dim);
  model->rope_factor = 1;
  if (rope == NULL) return QD_OK;
  const qd_json *type = qd_json_get(rope, "rope_type");
  if (type == NULL) type = qd_json_get(rope, "type");
  if (type == NULL) return QD_OK;
  QD_CHECK(qd_json_is_text(type), QD_EBADINPUT, "%s: rope_type must be text", what);
  return scale_frequencies(rope, what, qd_json_text(type), model);
}

/* ---- configuration ------------------------------------------------------------------------------------------------------- */

/* What a file does not mention is what transformers' configurations of these families begin with; a window of null is none. */
enum { USUAL_MAX_WINDOW_LAYERS = 28 };

static bool mentions(const qd_json *config, const char *key) {
  const char *name;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(config, i, &name, &value); i++)
    if (strcmp(name, key) == 0) return true;
  return false;
}

/* layer_types, where it is there, outdoes max_window_layers: full attention first, the window from some block on. */
static qd_status read_layer_types(const qd_json *types, const char *what, bool use_window, qd_model *model) {
  QD_CHECK(qd_json_is_array(types) && (int64_t)qd_json_length(types) == model->n_blocks, QD_EBADINPUT,
           "%s: layer_types must be an array of num_hidden_layers %" PRId64 " texts", what, model->n_blocks);
  model->window_from_block = model->n_blocks;
  for (int64_t block = 0; block < model->n_blocks; block++) {
    const qd_json *type = qd_json_at(types, (size_t)block);
    const char *text = type != NULL && qd_json_is_text(type) ? qd_json_text(type) : "?";
    bool sliding = strcmp(text, "sliding_attention") == 0;
    QD_CHECK(sliding || strcmp(text, "full_attention") == 0, QD_EUNSUPPORTED, "%s: layer_types has \"%s\" for block %" PRId64,
             what, text, block);
    QD_CHECK(!sliding || use_window, QD_EBADINPUT,
             "%s: layer_types has \"%s\" for block %" PRId64 ", but use_sliding_window is false", what, text, block);
    QD_CHECK(sliding || block < model->window_from_block, QD_EUNSUPPORTED,
             "%s: layer_types has full_attention in block %" PRId64 " behind a sliding one", what, block);
    if (sliding && block < model->window_from_block) model->window_from_block = block;
  }
  return QD_OK;
}

static qd_status read_window(const qd_json *config, const char *what, qd_model *model) {
  bool use = model->arch->window_by_config;
  const qd_json *types = model->arch->window_by_layers ? qd_json_get(config, "layer_types") : NULL;
  if (model->arch->window_by_layers || model->arch->window_by_switch)
    QD_TRY(qd_json_take_bool(config, what, "use_sliding_window", false, &use));
  QD_CHECK(!use || model->arch->experts == NULL || !model->arch->experts->refuses_window, QD_EUNSUPPORTED,
           "%s: use_sliding_window is not supported for %s", what, model->arch->name);
  if (model->arch->window_by_layers) {
    QD_TRY(qd_json_take_integer(config, what, "max_window_layers", 0, INT32_MAX, USUAL_MAX_WINDOW_LAYERS,
                                &model->window_from_block));
  }
  if (types != NULL) QD_TRY(read_layer_types(types, what, use, model));
  int64_t otherwise = mentions(config, "sliding_window") ? 0 : model->arch->usual_window;
  if (use) QD_TRY(qd_json_take_integer(config, what, "sliding_window", 1, INT32_MAX, otherwise, &model->window));
  return QD_OK;
}

static qd_status read_widths(const qd_json *config, const char *what, qd_model *model) {
  QD_TRY(qd_json_need_integer(config, what, "num_hidden_layers", 1, QD_MAX_BLOCKS, &model->n_blocks));
  QD_TRY(qd_json_need_integer(config, what, "hidden_size", 1, max_width, &model->hidden));
  QD_TRY(qd_json_need_integer(config, what, "intermediate_size", 1, max_width, &model->ffn));
  QD_TRY(qd_json_need_integer(config, what, "num_attention_heads", 1, 65536, &model->heads));
  QD_TRY(qd_json_need_integer(config, what, "vocab_size", 1, max_width, &model->vocabulary));
  QD_TRY(qd_json_take_integer(config, what, "num_key_value_heads", 1, 65536, model->heads, &model->kv_heads));
  QD_TRY(qd_json_take_integer(config, what, "head_dim", 2, 2 * QD_MAX_HEAD_PAIRS, 0, &model->head_dim));
  QD_TRY(qd_json_take_integer(config, what, "max_position_embeddings", 1, INT32_MAX, 2048, &model->max_positions));
  QD_CHECK(model->heads % model->kv_heads == 0, QD_EBADINPUT,
           "%s: num_attention_heads %" PRId64 " is no multiple of num_key_value_heads %" PRId64, what, model->heads,
           model->kv_heads);
  if (model->head_dim == 0) {
    QD_CHECK(model->hidden % model->heads == 0, QD_EBADINPUT,
             "%s: hidden_size %" PRId64 " is no multiple of num_attention_heads %" PRId64 " and head_dim is not given", what,
             model->hidden, model->heads);
    model->head_dim = model->hidden / model->heads;
  }
  QD_CHECK(model->head_dim % 2 == 0 && model->head_dim <= 2 * QD_MAX_HEAD_PAIRS, QD_EBADINPUT,
           "%s: head_dim (else hidden_size / num_attention_heads) must be even and at most %d, got %" PRId64, what,
           2 * QD_MAX_HEAD_PAIRS, model->head_dim);
  return QD_OK;
}

/* mlp_only_layers: an array of numbers of blocks, which may name blocks that are not there. */
static qd_status read_only_dense(const qd_json *config, const char *what, qd_model *model) {
  const qd_json *list = qd_json_get(config, "mlp_only_layers");
  if (list == NULL) return QD_OK;
  QD_CHECK(qd_json_is_array(list), QD_EBADINPUT, "%s: mlp_only_layers must be an array of numbers of blocks", what);
  for (size_t i = 0; i < qd_json_length(list); i++) {
    const qd_json *block = qd_json_at(list, i);
    QD_CHECK(qd_json_is_integer(block) && qd_json_integer(block) >= 0, QD_EBADINPUT,
             "%s: mlp_only_layers must be an array of numbers of blocks", what);
    int64_t b = qd_json_integer(block);
    if (b < model->n_blocks) model->only_dense[b / 64] |= (uint64_t)1 << (b % 64);
  }
  return QD_OK;
}

static qd_status read_experts(const qd_json *config, const char *what, qd_model *model) {
  const qd_arch_experts *keys = model->arch->experts;
  if (keys == NULL) return QD_OK;
  const char *count = keys->count;
  if (keys->other_count != NULL && qd_json_get(config, count) == NULL) count = keys->other_count;
  QD_TRY(qd_json_need_integer(config, what, count, 1, QD_MAX_EXPERTS, &model->experts));
  QD_TRY(qd_json_need_integer(config, what, "num_experts_per_tok", 1, model->experts, &model->top_k));
  QD_TRY(qd_json_need_integer(config, what, keys->ffn, 1, max_width, &model->expert_ffn));
  if (keys->shared_ffn != NULL) QD_TRY(qd_json_need_integer(config, what, keys->shared_ffn, 1, max_width, &model->shared_ffn));
  model->renormalises = keys->renormalises, model->rounds_weights = keys->rounds_weights, model->sparse_step = 1;
  if (!keys->renormalises) QD_TRY(qd_json_take_bool(config, what, "norm_topk_prob", false, &model->renormalises));
  if (keys->every_block) return QD_OK;
  QD_TRY(qd_json_take_integer(config, what, "decoder_sparse_step", 1, QD_MAX_BLOCKS, 1, &model->sparse_step));
  return read_only_dense(config, what, model);
}

static qd_status read_biases(const qd_json *config, const char *what, qd_model *model) {
  const char *key = model->arch->experts != NULL ? model->arch->experts->attention_bias : NULL;
  QD_TRY(qd_json_take_bool(config, what, key ? key : "attention_bias", key != NULL, &model->attention_bias));
  return qd_json_take_bool(config, what, "mlp_bias", false, &model->mlp_bias);
}

static qd_status refuse_what_changes_the_forward(const qd_json *config, const char *what) {
  const qd_json *activation = qd_json_get(config, "hidden_act");
  QD_CHECK(activation == NULL || qd_json_is_text(activation), QD_EUNSUPPORTED, "%s: hidden_act is no text (silu is supported)",
           what);
  QD_CHECK(activation == NULL || strcmp(qd_json_text(activation), "silu") == 0, QD_EUNSUPPORTED,
           "%s: hidden_act \"%s\" is not supported (silu is)", what, qd_json_text(activation));
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
  QD_TRY(read_biases(config, what, out));
  QD_TRY(read_experts(config, what, out));
  QD_TRY(read_window(config, what, out));
  return read_rope(config, what, out);
}

/* ---- against the tensors ------------------------------------------------------------------------------------------------- */

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

static const char *name_in_rest(const qd_arch *arch, qd_role role) {
  for (int i = 0; i < arch->n_rest; i++)
    if (arch->rest[i].role == role) return arch->rest[i].name;
  return NULL;
}

const qd_source_tensor *qd_model_original(const qd_model *model, const qd_source *source, const qd_slot *slot) {
  bool is_tied = slot->role == QD_HEAD && model->tied;
  return qd_source_find(source, is_tied ? name_in_rest(model->arch, QD_EMBEDDING) : slot->name);
}

/* A number without needless zeros, below limit, at *at: passed over. */
static bool skip_number(const char **at, int64_t limit) {
  const char *first = *at;
  int64_t value = 0;
  while (**at >= '0' && **at <= '9' && *at - first < 7) value = 10 * value + (*(*at)++ - '0');
  return *at > first && value < limit && (*first != '0' || *at == first + 1);
}

/* Whether a name is one of the pattern's, whatever the block. */
static bool matches(const qd_model *model, const char *pattern, const char *name) {
  for (; *pattern != '\0'; pattern++) {
    if (*pattern == '%' || *pattern == '#') {
      if (!skip_number(&name, *pattern == '%' ? model->n_blocks : model->experts)) return false;
    } else if (*pattern != *name++) {
      return false;
    }
  }
  return *name == '\0';
}

/* A tensor that the forward would leave out would change the model without a word. */
static qd_status check_no_stranger(const qd_source *source, const qd_source_tensor *tensor, const qd_model *model) {
  static const char layers[] = "model.layers.", frequencies[] = "rotary_emb.inv_freq";
  size_t length = strlen(tensor->name);
  if (length >= sizeof frequencies - 1 && strcmp(tensor->name + length - (sizeof frequencies - 1), frequencies) == 0)
    return QD_OK;
  if (model->tied && strcmp(tensor->name, name_in_rest(model->arch, QD_HEAD)) == 0) return QD_OK;
  int64_t block = QD_REST;
  if (strncmp(tensor->name, layers, sizeof layers - 1) == 0) block = strtoll(tensor->name + sizeof layers - 1, NULL, 10);
  block = block < 0 ? QD_REST : block;
  QD_CHECK(block < model->n_blocks, QD_EBADINPUT, "%s: the tensor %s is there, but config.json has %" PRId64 " blocks only",
           qd_source_path(source), tensor->name, model->n_blocks);
  int rows;
  const qd_arch_tensor *table = table_of(model, block, &rows);
  for (int i = 0; i < rows; i++)
    if (belongs(model, block, &table[i]) && matches(model, table[i].name, tensor->name)) return QD_OK;
  QD_FAIL(QD_EBADINPUT, "%s: the tensor %s is there, but a %s model with this config.json does not use it",
          qd_source_path(source), tensor->name, model->arch->name);
}

static qd_status same_values(const qd_source *source, const qd_source_tensor *a, const qd_source_tensor *b, bool *same) {
  enum { PIECE = 1 << 20 };
  unsigned char *pieces;
  qd_status status = QD_OK;
  *same = a->dtype == b->dtype && a->bytes == b->bytes;
  QD_TRY(qd_heap_new(2, PIECE, &pieces));
  for (uint64_t at = 0; status == QD_OK && *same && at < a->bytes; at += PIECE) {
    size_t n = a->bytes - at < PIECE ? (size_t)(a->bytes - at) : PIECE;
    status = qd_source_read(source, a, at, pieces, n);
    if (status == QD_OK) status = qd_source_read(source, b, at, pieces + PIECE, n);
    *same = *same && status == QD_OK && memcmp(pieces, pieces + PIECE, n) == 0;
  }
  qd_heap_free(pieces);
  return status;
}

/* A tied model may bring its head all the same; one of other values would be left out without a word. */
static qd_status check_tied_head(const qd_source *source, const qd_model *model) {
  const qd_source_tensor *head = qd_source_find(source, name_in_rest(model->arch, QD_HEAD));
  const qd_source_tensor *embedding = qd_source_find(source, name_in_rest(model->arch, QD_EMBEDDING));
  bool same;
  if (!model->tied || head == NULL) return QD_OK;
  QD_TRY(same_values(source, head, embedding, &same));
  QD_CHECK(same, QD_EBADINPUT, "%s: config.json says tie_word_embeddings, but %s is there and differs from %s",
           qd_source_path(source), head->name, embedding->name);
  return QD_OK;
}

qd_status qd_model_from_source(const qd_source *source, qd_model *out) {
  QD_TRY(qd_model_from_config(qd_source_config(source), qd_source_config_name(source), out));
  for (int64_t block = QD_REST; block < out->n_blocks; block++) {
    int n = qd_model_n_slots(out, block);
    for (int i = 0; i < n; i++) {
      qd_slot slot;
      qd_model_slot(out, block, i, &slot);
      QD_TRY(check_slot(source, &slot, out));
    }
  }
  for (size_t i = 0; i < qd_source_tensors(source); i++) QD_TRY(check_no_stranger(source, qd_source_tensor_at(source, i), out));
  return check_tied_head(source, out);
}
