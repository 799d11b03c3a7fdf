/* Small safetensors files and model folders for tests.  Written by its own code, not by the product's. */
#ifndef QDIST_TESTS_SUPPORT_SAFETENSORS_MAKER_H
#define QDIST_TESTS_SUPPORT_SAFETENSORS_MAKER_H

#include "kernels/base/tensor.h"

typedef struct qd_made_tensor {
  const char *name;
  qd_dtype    dtype;             /* F32, F16 or BF16; any other only with data */
  int         rank;
  int64_t     dim[QD_MAX_RANK];
  const void *data;              /* row-major elements, or NULL: qd_made_value rounded to the dtype */
  int         shard;             /* of a model in several files: which one */
} qd_made_tensor;

/* Element `index` of a tensor that is made without data: in (-0.1, 0.1), another sequence for each name. */
float qd_made_value(const char *name, int64_t index);

/* One file with exactly this header and these data: what hostile files are made of. */
void qd_make_raw_safetensors(const char *path, const char *header, size_t header_bytes, const void *data, size_t data_bytes);

/* One file, the tensors in the order given, with a __metadata__ entry as transformers writes it. */
void qd_make_safetensors(const char *path, const qd_made_tensor *tensors, int n);

/* An existing folder with config.json and model.safetensors (n_shards = 1), or model-00001-of-0000N.safetensors ... and
 * model.safetensors.index.json. */
void qd_make_model(const char *folder, const char *config, const qd_made_tensor *tensors, int n, int n_shards);

#endif
