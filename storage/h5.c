#define _POSIX_C_SOURCE 200809L
#include "storage/h5.h"

#include "storage/h5_zstd.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { CAUSE_BYTES = 512, BF16_NAME_BYTES = 4, MAX_FILTERS = 2 };

static const char bf16_attribute[] = "dtype", bf16_name[] = "BF16";
static const size_t most_bytes = (size_t)1 << 62;

/* ---- one caller at a time, and what HDF5 said to it ---------------------------------------------------------------------- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static bool ready;              /* the filter is registered        */
static char cause[CAUSE_BYTES]; /* of the first failure since enter */
static bool from_system;        /* it came with an errno            */

/* Chunks never pass through HDF5's pipeline: the filter is registered only because datasets that declare it cannot be made
 * otherwise. */
static size_t refuse_to_filter(unsigned flags, size_t n_values, const unsigned *values, size_t n, size_t *capacity,
                               void **buffer) {
  (void)flags, (void)n_values, (void)values, (void)n, (void)capacity, (void)buffer;
  return 0;
}

static const H5Z_class2_t filter_class = {.version = H5Z_CLASS_T_VERS, .id = QD_ZSTD_FILTER, .encoder_present = 1,
                                          .decoder_present = 1, .name = "Zstandard", .filter = refuse_to_filter};

/* At exit HDF5 (1.10.8) would write once more to a file whose close has failed, and crashes; all files are closed by then.
 * A damaged file must not make it load libraries. */
static void prepare(void) {
  if (ready) return;
  H5dont_atexit();
  ready = H5Zregister(&filter_class) >= 0 && H5PLset_loading_state(0) >= 0;
}

/* Printing is switched off at each entry, since HDF5 keeps that switch for each thread. */
static void enter(void) {
  pthread_mutex_lock(&gate);
  prepare();
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  cause[0] = '\0';
  from_system = false;
}

static qd_status leave(qd_status status) {
  pthread_mutex_unlock(&gate);
  return status;
}

/* The innermost entry of the stack says what happened; of its system errors (..., errno = 28, error message = 'No space left on
 * device', ...) only the message between the quotes is for people. */
static herr_t fold(unsigned depth, const H5E_error2_t *error, void *context) {
  static const char mark[] = "error message = '";
  (void)context;
  if (depth > 0 || error->desc == NULL) return 0;
  const char *message = strstr(error->desc, mark);
  from_system = message != NULL;
  if (message == NULL) message = error->desc;
  else message += sizeof mark - 1;
  snprintf(cause, sizeof cause, "%.*s", from_system ? (int)strcspn(message, "'") : CAUSE_BYTES, message);
  return 0;
}

/* Every result that may be a failure passes through here before another call wipes HDF5's stack. */
static int64_t seen(int64_t result) {
  if (result >= 0 || cause[0] != '\0') return result;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, fold, NULL);
  if (cause[0] == '\0') snprintf(cause, sizeof cause, "HDF5 does not say why");
  return result;
}

/* The message gets the cause behind it. */
#define H5_CHECK(condition, status, format, ...) \
  QD_CHECK(condition, from_system ? QD_EIO : (status), format ": %s", __VA_ARGS__, cause)

/* ---- layouts ------------------------------------------------------------------------------------------------------------- */

/* Fill in the rest from the chunk's dimensions, which must make it a run of the row-major elements. */
static bool layout_from_chunk(qd_h5_layout *layout, const hsize_t *chunk) {
  int axis = layout->rank - 1;
  while (axis > 0 && chunk[axis] == (hsize_t)layout->dim[axis]) axis--;
  int64_t outer = 1;
  size_t bytes = qd_dtype_bytes(layout->dtype);
  for (int i = 0; i < layout->rank; i++) {
    if (chunk[i] < 1 || chunk[i] > (hsize_t)layout->dim[i] || (i < axis && chunk[i] != 1)) return false;
    if (i < axis) outer *= layout->dim[i];
    else bytes *= (size_t)chunk[i];
  }
  layout->axis = axis;
  layout->extent = (int64_t)chunk[axis];
  layout->n_chunks = outer * ((layout->dim[axis] + layout->extent - 1) / layout->extent);
  layout->chunk_bytes = bytes;
  return true;
}

static void chunk_dimensions(const qd_h5_layout *layout, hsize_t *chunk) {
  for (int i = 0; i < layout->rank; i++)
    chunk[i] = i < layout->axis ? 1 : (hsize_t)(i > layout->axis ? layout->dim[i] : layout->extent);
}

static void cut(const qd_h5_layout *layout, hsize_t *chunk) {
  int64_t step_bytes = (int64_t)qd_dtype_bytes(layout->dtype);
  int i = layout->rank - 1;
  for (; i >= 0 && layout->dim[i] <= QD_H5_CHUNK_BYTES / step_bytes; i--) {
    chunk[i] = (hsize_t)layout->dim[i];
    step_bytes *= layout->dim[i];
  }
  if (i >= 0) {
    int64_t most = QD_H5_CHUNK_BYTES / step_bytes, n = (layout->dim[i] + most - 1) / most;
    chunk[i] = (hsize_t)((layout->dim[i] + n - 1) / n);
  }
  while (--i >= 0) chunk[i] = 1;
}

qd_status qd_h5_layout_make(qd_dtype dtype, int rank, const int64_t *dim, qd_h5_layout *out) {
  *out = (qd_h5_layout){.dtype = dtype, .rank = rank};
  QD_CHECK(rank >= 1 && rank <= QD_MAX_RANK, QD_ESHAPE, "a dataset has 1 to %d dimensions, not %d", QD_MAX_RANK, rank);
  size_t bytes = qd_dtype_bytes(dtype);
  bool empty = false;
  for (int i = 0; i < rank; i++) {
    QD_CHECK(dim[i] >= 0, QD_ESHAPE, "dimension %d is negative: %" PRId64, i, dim[i]);
    QD_CHECK(dim[i] == 0 || bytes <= most_bytes / (size_t)dim[i], QD_ESHAPE, "the dimensions give more than 2^62 bytes");
    if (dim[i] == 0) empty = true;
    else bytes *= (size_t)dim[i];
    out->dim[i] = dim[i];
  }
  hsize_t chunk[QD_MAX_RANK];
  if (empty) return QD_OK;
  cut(out, chunk);
  QD_ASSERT(layout_from_chunk(out, chunk) && out->chunk_bytes <= QD_H5_CHUNK_BYTES);
  return QD_OK;
}

/* Chunk `index` begins `*first` steps along the axis, in the `*outer`-th run of it. */
static void chunk_place(const qd_h5_layout *layout, int64_t index, int64_t *outer, int64_t *first) {
  int64_t along = (layout->dim[layout->axis] + layout->extent - 1) / layout->extent;
  *outer = index / along;
  *first = index % along * layout->extent;
}

void qd_h5_chunk_range(const qd_h5_layout *layout, int64_t index, size_t *offset, size_t *n) {
  int64_t outer, first, extent = layout->extent, length = layout->dim[layout->axis];
  chunk_place(layout, index, &outer, &first);
  size_t step = layout->chunk_bytes / (size_t)extent;
  *offset = (size_t)(outer * length + first) * step;
  *n = (size_t)(length - first < extent ? length - first : extent) * step;
}

static void chunk_corner(const qd_h5_layout *layout, int64_t index, hsize_t *corner) {
  int64_t outer, first;
  chunk_place(layout, index, &outer, &first);
  for (int i = layout->rank - 1; i >= 0; i--) {
    if (i >= layout->axis) corner[i] = i == layout->axis ? (hsize_t)first : 0;
    else corner[i] = (hsize_t)(outer % layout->dim[i]), outer /= layout->dim[i];
  }
}

/* ---- property lists and types -------------------------------------------------------------------------------------------- */

static hid_t without_times(hid_t class) {
  hid_t list = H5Pcreate(class);
  seen(H5Pset_obj_track_times(list, false));
  return list;
}

/* The bounds fix the format to one whose metadata carry checksums.  HDF5's file locks stay off: the job's lock guards the
 * folder, and many parallel file systems refuse them. */
static hid_t file_access(void) {
  hid_t list = H5Pcreate(H5P_FILE_ACCESS);
  seen(H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110));
  seen(H5Pset_fclose_degree(list, H5F_CLOSE_STRONG));
  seen(H5Pset_file_locking(list, false, true));
  return list;
}

static herr_t refuse_to_follow(const char *file, const char *group, const char *other, const char *object, unsigned *flags,
                               hid_t list, void *context) {
  (void)file, (void)group, (void)other, (void)object, (void)flags, (void)list, (void)context;
  return -1;
}

static hid_t half_type(void) {
  hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  seen(H5Tset_fields(type, 15, 10, 5, 0, 10));
  seen(H5Tset_ebias(type, 15));
  seen(H5Tset_size(type, 2));
  return type;
}

/* BF16 has no name in HDF5: its bits are kept as unsigned integers, and an attribute says what they are. */
static hid_t type_of(qd_dtype dtype) {
  switch (dtype) {
    case QD_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case QD_F16: return half_type();
    case QD_BF16: return H5Tcopy(H5T_STD_U16LE);
    case QD_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case QD_U8: return H5Tcopy(H5T_STD_U8LE);
    case QD_U16: return H5Tcopy(H5T_STD_U16LE);
    case QD_I32: return H5Tcopy(H5T_STD_I32LE);
    case QD_I64: return H5Tcopy(H5T_STD_I64LE);
  }
  return H5I_INVALID_HID;
}

static hid_t name_type(void) {
  hid_t type = H5Tcopy(H5T_C_S1);
  seen(H5Tset_size(type, BF16_NAME_BYTES));
  seen(H5Tset_strpad(type, H5T_STR_NULLPAD));
  return type;
}

/* The filters of a dataset in the order of writing. */
static int filters_of(qd_dtype dtype, H5Z_filter_t filter[MAX_FILTERS]) {
  int n = 0;
  if (qd_dtype_bytes(dtype) == 2) filter[n++] = H5Z_FILTER_SHUFFLE;
  filter[n++] = QD_ZSTD_FILTER;
  return n;
}

/* ---- files --------------------------------------------------------------------------------------------------------------- */

static qd_status create_file(const char *path, qd_h5_file *out) {
  hid_t creation = without_times(H5P_FILE_CREATE), access = file_access();
  out->id = seen(H5Fcreate(path, H5F_ACC_TRUNC, creation, access));
  H5Pclose(access), H5Pclose(creation);
  H5_CHECK(out->id >= 0, QD_EIO, "cannot make %s", path);
  return QD_OK;
}

qd_status qd_h5_create(const char *path, qd_h5_file *out) {
  *out = (qd_h5_file){.id = -1, .path = path};
  enter();
  return leave(create_file(path, out));
}

static qd_status open_file(const char *path, qd_h5_file *out) {
  hid_t access = file_access();
  out->id = seen(H5Fopen(path, H5F_ACC_RDONLY, access));
  H5Pclose(access);
  H5_CHECK(out->id >= 0, QD_ECORRUPT, "%s cannot be opened as HDF5", path);
  return QD_OK;
}

qd_status qd_h5_open(const char *path, qd_h5_file *out) {
  *out = (qd_h5_file){.id = -1, .path = path};
  enter();
  return leave(open_file(path, out));
}

/* A flush before the close, since a close that fails tells less. */
static qd_status finish_file(qd_h5_file *file) {
  int64_t flushed = seen(H5Fflush(file->id, H5F_SCOPE_LOCAL)), closed = seen(H5Fclose(file->id));
  file->id = -1;
  H5_CHECK(flushed >= 0 && closed >= 0, QD_EIO, "cannot write %s", file->path);
  return QD_OK;
}

qd_status qd_h5_finish(qd_h5_file *file) {
  enter();
  return leave(finish_file(file));
}

void qd_h5_close(qd_h5_file *file) {
  if (file->id < 0) return;
  enter();
  H5Fclose(file->id);
  file->id = -1;
  (void)leave(QD_OK);
}

/* ---- writing datasets ---------------------------------------------------------------------------------------------------- */

/* HDF5 would make missing groups by itself, but with times in them. */
static qd_status make_groups(const qd_h5_file *file, const char *name) {
  char prefix[1024];
  QD_CHECK(strlen(name) < sizeof prefix, QD_EINVAL, "%s: the dataset name %.64s... is too long", file->path, name);
  for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    snprintf(prefix, sizeof prefix, "%.*s", (int)(slash - name), name);
    int64_t there = seen(H5Lexists(file->id, prefix, H5P_DEFAULT));
    if (there > 0) continue;
    hid_t list = without_times(H5P_GROUP_CREATE);
    hid_t group = there < 0 ? -1 : seen(H5Gcreate2(file->id, prefix, H5P_DEFAULT, list, H5P_DEFAULT));
    H5Pclose(list);
    H5_CHECK(group >= 0, QD_EIO, "cannot make the group %s in %s", prefix, file->path);
    seen(H5Gclose(group));
  }
  return QD_OK;
}

static hid_t dataset_creation(const qd_h5_layout *layout) {
  hid_t list = without_times(H5P_DATASET_CREATE);
  if (layout->n_chunks == 0) return list;
  hsize_t chunk[QD_MAX_RANK];
  chunk_dimensions(layout, chunk);
  seen(H5Pset_chunk(list, layout->rank, chunk));
  H5Z_filter_t filter[MAX_FILTERS];
  const unsigned level = QD_ZSTD_LEVEL;
  for (int i = 0, n = filters_of(layout->dtype, filter); i < n; i++) {
    if (filter[i] == H5Z_FILTER_SHUFFLE) seen(H5Pset_shuffle(list));
    else seen(H5Pset_filter(list, filter[i], H5Z_FLAG_MANDATORY, 1, &level));
  }
  return list;
}

static void attach_bf16(hid_t dataset) {
  hid_t type = name_type(), space = H5Screate(H5S_SCALAR);
  hid_t attribute = seen(H5Acreate2(dataset, bf16_attribute, type, space, H5P_DEFAULT, H5P_DEFAULT));
  if (attribute >= 0) seen(H5Awrite(attribute, type, bf16_name)), H5Aclose(attribute);
  H5Sclose(space), H5Tclose(type);
}

static qd_status create_dataset(qd_h5_file *file, const char *name, qd_h5_dataset *out) {
  QD_TRY(make_groups(file, name));
  const qd_h5_layout *layout = &out->layout;
  hsize_t dim[QD_MAX_RANK];
  for (int i = 0; i < layout->rank; i++) dim[i] = (hsize_t)layout->dim[i];
  hid_t type = type_of(layout->dtype), space = H5Screate_simple(layout->rank, dim, NULL), list = dataset_creation(layout);
  out->id = seen(H5Dcreate2(file->id, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT));
  if (out->id >= 0 && layout->dtype == QD_BF16) attach_bf16(out->id);
  H5Pclose(list), H5Sclose(space), H5Tclose(type);
  H5_CHECK(out->id >= 0 && cause[0] == '\0', QD_EIO, "cannot make the dataset %s in %s", name, file->path);
  return QD_OK;
}

qd_status qd_h5_dataset_create(qd_h5_file *file, const char *name, const qd_h5_layout *layout, qd_h5_dataset *out) {
  *out = (qd_h5_dataset){.id = -1, .path = file->path, .name = name, .layout = *layout};
  enter();
  return leave(create_dataset(file, name, out));
}

static qd_status write_chunk(qd_h5_dataset *dataset, int64_t index, const void *frame, size_t n) {
  hsize_t corner[QD_MAX_RANK];
  chunk_corner(&dataset->layout, index, corner);
  int64_t done = seen(H5Dwrite_chunk(dataset->id, H5P_DEFAULT, 0, corner, n, frame));
  H5_CHECK(done >= 0, QD_EIO, "cannot write chunk %" PRId64 " of %s in %s", index, dataset->name, dataset->path);
  return QD_OK;
}

qd_status qd_h5_chunk_write(qd_h5_dataset *dataset, int64_t index, const void *frame, size_t n) {
  QD_ASSERT(index >= 0 && index < dataset->layout.n_chunks);
  enter();
  return leave(write_chunk(dataset, index, frame, n));
}

/* ---- reading datasets ---------------------------------------------------------------------------------------------------- */

static bool is_marked_bf16(hid_t dataset) {
  char name[BF16_NAME_BYTES] = "";
  hid_t wanted = name_type(), attribute = seen(H5Aopen(dataset, bf16_attribute, H5P_DEFAULT));
  hid_t type = attribute < 0 ? -1 : H5Aget_type(attribute), space = attribute < 0 ? -1 : H5Aget_space(attribute);
  bool fits = type >= 0 && space >= 0 && H5Tequal(type, wanted) > 0 && H5Sget_simple_extent_npoints(space) == 1;
  if (fits) fits = seen(H5Aread(attribute, wanted, name)) >= 0 && memcmp(name, bf16_name, BF16_NAME_BYTES) == 0;
  if (space >= 0) H5Sclose(space);
  if (type >= 0) H5Tclose(type);
  if (attribute >= 0) H5Aclose(attribute);
  H5Tclose(wanted);
  return fits;
}

static qd_status check_type(const qd_h5_dataset *dataset) {
  qd_dtype dtype = dataset->layout.dtype;
  hid_t type = seen(H5Dget_type(dataset->id)), wanted = type_of(dtype);
  bool fits = type >= 0 && H5Tequal(type, wanted) > 0;
  if (type >= 0) H5Tclose(type);
  H5Tclose(wanted);
  if (fits && dtype == QD_BF16) fits = is_marked_bf16(dataset->id);
  QD_CHECK(fits, QD_ECORRUPT, "%s: dataset %s is not of type %s", dataset->path, dataset->name, qd_dtype_name(dtype));
  return QD_OK;
}

static qd_status check_shape(const qd_h5_dataset *dataset) {
  hsize_t dim[H5S_MAX_RANK];
  hid_t space = seen(H5Dget_space(dataset->id));
  bool fits = space >= 0 && H5Sget_simple_extent_ndims(space) == dataset->layout.rank;
  fits = fits && seen(H5Sget_simple_extent_dims(space, dim, NULL)) >= 0;
  for (int i = 0; fits && i < dataset->layout.rank; i++) fits = dim[i] == (hsize_t)dataset->layout.dim[i];
  if (space >= 0) H5Sclose(space);
  QD_CHECK(fits, QD_ECORRUPT, "%s: dataset %s has another shape than expected", dataset->path, dataset->name);
  return QD_OK;
}

static bool filters_fit(hid_t creation, qd_dtype dtype) {
  H5Z_filter_t wanted[MAX_FILTERS];
  int n = filters_of(dtype, wanted);
  if (H5Pget_nfilters(creation) != n) return false;
  for (int i = 0; i < n; i++) {
    unsigned flags;
    size_t n_values = 0;
    if (H5Pget_filter2(creation, (unsigned)i, &flags, &n_values, NULL, 0, NULL, NULL) != wanted[i]) return false;
  }
  return true;
}

/* Chunks of another size than this program's are read as well, as long as they are runs of elements of a bounded size. */
static bool chunks_fit(hid_t creation, qd_h5_layout *layout) {
  hsize_t chunk[QD_MAX_RANK];
  if (H5Pget_layout(creation) != H5D_CHUNKED || H5Pget_chunk(creation, layout->rank, chunk) != layout->rank) return false;
  return layout_from_chunk(layout, chunk) && layout->chunk_bytes <= 64 * (size_t)QD_H5_CHUNK_BYTES;
}

static qd_status check_storage(qd_h5_dataset *dataset) {
  if (dataset->layout.n_chunks == 0) return QD_OK;
  hid_t creation = seen(H5Dget_create_plist(dataset->id));
  bool chunks = creation >= 0 && chunks_fit(creation, &dataset->layout);
  bool filters = creation >= 0 && filters_fit(creation, dataset->layout.dtype);
  if (creation >= 0) H5Pclose(creation);
  QD_CHECK(chunks, QD_ECORRUPT, "%s: dataset %s is not cut in chunks of whole rows", dataset->path, dataset->name);
  QD_CHECK(filters, QD_ECORRUPT, "%s: dataset %s has other filters than expected", dataset->path, dataset->name);
  return QD_OK;
}

static qd_status open_dataset(qd_h5_file *file, const char *name, qd_h5_dataset *out) {
  hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
  seen(H5Pset_elink_cb(access, refuse_to_follow, NULL));
  out->id = seen(H5Dopen2(file->id, name, access));
  H5Pclose(access);
  H5_CHECK(out->id >= 0, QD_ECORRUPT, "%s: dataset %s cannot be opened", file->path, name);
  QD_TRY(check_type(out));
  QD_TRY(check_shape(out));
  QD_TRY(check_storage(out));
  return QD_OK;
}

qd_status qd_h5_dataset_open(qd_h5_file *file, const char *name, const qd_h5_layout *expected, qd_h5_dataset *out) {
  *out = (qd_h5_dataset){.id = -1, .path = file->path, .name = name, .layout = *expected};
  enter();
  qd_status status = leave(open_dataset(file, name, out));
  if (status != QD_OK) qd_h5_dataset_close(out);
  return status;
}

static qd_status read_chunk(qd_h5_dataset *dataset, int64_t index, void *frame, size_t capacity, size_t *n) {
  hsize_t corner[QD_MAX_RANK], bytes = 0;
  uint32_t skipped_filters = 0;
  chunk_corner(&dataset->layout, index, corner);
  int64_t found = seen(H5Dget_chunk_storage_size(dataset->id, corner, &bytes));
  H5_CHECK(found >= 0, QD_ECORRUPT, "%s: chunk %" PRId64 " of %s cannot be found", dataset->path, index, dataset->name);
  QD_CHECK(bytes >= 1 && bytes <= capacity, QD_ECORRUPT,
           "%s: chunk %" PRId64 " of %s takes %" PRIu64 " bytes, at most %zu are possible", dataset->path, index, dataset->name,
           (uint64_t)bytes, capacity);
  int64_t got = seen(H5Dread_chunk(dataset->id, H5P_DEFAULT, corner, &skipped_filters, frame));
  H5_CHECK(got >= 0, QD_ECORRUPT, "%s: chunk %" PRId64 " of %s cannot be read", dataset->path, index, dataset->name);
  QD_CHECK(skipped_filters == 0, QD_ECORRUPT, "%s: chunk %" PRId64 " of %s skips filters", dataset->path, index, dataset->name);
  *n = (size_t)bytes;
  return QD_OK;
}

qd_status qd_h5_chunk_read(qd_h5_dataset *dataset, int64_t index, void *frame, size_t capacity, size_t *n) {
  QD_ASSERT(index >= 0 && index < dataset->layout.n_chunks);
  enter();
  return leave(read_chunk(dataset, index, frame, capacity, n));
}

void qd_h5_dataset_close(qd_h5_dataset *dataset) {
  if (dataset->id < 0) return;
  enter();
  H5Dclose(dataset->id);
  dataset->id = -1;
  (void)leave(QD_OK);
}

const char *qd_h5_library_version(void) {
  static char text[32];
  snprintf(text, sizeof text, "%d.%d.%d", H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
  return text;
}
