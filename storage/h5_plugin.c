/* HDF5 filter 32015 as a library that h5dump, h5py and every other reader of HDF5 load from HDF5_PLUGIN_PATH.  It stands alone:
 * buffers come from malloc, since HDF5 frees them itself, and no function of HDF5 is called, since the reader may have brought
 * an HDF5 of its own. */
#include <H5PLextern.h>
#include <hdf5.h>
#include <stdlib.h>
#include <zstd.h>

enum { FILTER = 32015, DEFAULT_LEVEL = 1 };

static const unsigned long long most_bytes = 1ull << 32; /* HDF5's own bound on a chunk */

static size_t replace(void **buffer, size_t *capacity, void *fresh, size_t fresh_capacity, size_t result) {
  if (ZSTD_isError(result)) {
    free(fresh);
    return 0;
  }
  free(*buffer);
  *buffer = fresh;
  *capacity = fresh_capacity;
  return result;
}

/* A chunk counts only if it is one whole frame: a truncated one must not pass as data. */
static size_t decompress(size_t n, size_t *capacity, void **buffer) {
  unsigned long long content = ZSTD_getFrameContentSize(*buffer, n);
  if (content == ZSTD_CONTENTSIZE_ERROR || content == ZSTD_CONTENTSIZE_UNKNOWN || content > most_bytes) return 0;
  if (ZSTD_findFrameCompressedSize(*buffer, n) != n) return 0;
  size_t bytes = (size_t)content;
  void *fresh = malloc(bytes > 0 ? bytes : 1);
  if (fresh == NULL) return 0;
  size_t result = ZSTD_decompress(fresh, bytes, *buffer, n);
  return replace(buffer, capacity, fresh, bytes, result);
}

static size_t compress(int level, size_t n, size_t *capacity, void **buffer) {
  size_t bound = ZSTD_compressBound(n);
  void *fresh = malloc(bound);
  ZSTD_CCtx *context = ZSTD_createCCtx();
  if (fresh == NULL || context == NULL) {
    free(fresh);
    ZSTD_freeCCtx(context);
    return 0;
  }
  size_t result = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
  if (!ZSTD_isError(result)) result = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  if (!ZSTD_isError(result)) result = ZSTD_compress2(context, fresh, bound, *buffer, n);
  ZSTD_freeCCtx(context);
  return replace(buffer, capacity, fresh, bound, result);
}

/* H5Z_func_t: the bytes in *buffer afterwards, 0 for a failure. */
static size_t filter(unsigned flags, size_t n_values, const unsigned *values, size_t n, size_t *capacity, void **buffer) {
  if (flags & H5Z_FLAG_REVERSE) return decompress(n, capacity, buffer);
  return compress(n_values > 0 ? (int)values[0] : DEFAULT_LEVEL, n, capacity, buffer);
}

static const H5Z_class2_t filter_class = {
    .version = H5Z_CLASS_T_VERS, .id = FILTER, .encoder_present = 1, .decoder_present = 1, .name = "Zstandard",
    .filter = filter};

H5PL_type_t H5PLget_plugin_type(void) { return H5PL_TYPE_FILTER; }
const void *H5PLget_plugin_info(void) { return &filter_class; }
