/* Other programs read the store's files through the filter library: h5dump, and Python's h5py, where they are installed. */
#define _POSIX_C_SOURCE 200809L
#include "storage/block_file.h"

#include "tests/support/store_maker.h"

#include <stdlib.h>
#include <sys/wait.h>

static qd_temporary_folder folder;
static char path[QD_TEMPORARY_PATH_BYTES], answer[65536];
static const char plugin_folder[] = QDIST_BINARY_DIR "/hdf5-plugin";

enum { ROWS = 700, COLUMNS = 1024 }; /* of F32: three chunks */

static float    wide[ROWS * COLUMNS];
static uint16_t half[6];

static void setup(void) {
  qd_temporary_folder_open(&folder);
  qd_temporary_make_folder(&folder, "partial");
  for (int i = 0; i < ROWS * COLUMNS; i++) wide[i] = (float)(i % 1000) - 0.5f * (float)(i / COLUMNS);
  for (int i = 0; i < 6; i++) half[i] = qd_f16_from_f32((float)(i + 1) / 4);
  static uint8_t bytes[5] = {1, 2, 3, 250, 255};
  static uint16_t bfloat[3] = {0x3f80, 0xc000, 0x7f80};
  qd_out_tensor out[] = {{"a/wide", qd_tensor_2d(wide, QD_F32, ROWS, COLUMNS)},
                         {"a/half", qd_tensor_2d(half, QD_F16, 2, 3)},
                         {"a/bytes", qd_tensor_1d(bytes, QD_U8, 5)},
                         {"a/bfloat", qd_tensor_1d(bfloat, QD_BF16, 3)},
                         {"a/empty", qd_tensor_2d(NULL, QD_F32, 0, 4)}};
  qd_entry_file file;
  qd_digest digest[5];
  MUST(qd_store_write_file(folder.path, "a.h5", out, 5, &file, digest));
  strcpy(path, qd_temporary_path(&folder, "a.h5"));
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(h5_plugin, .init = setup, .fini = teardown);

/* What a shell command prints; its exit status. */
static int run(const char *plugins, const char *command) {
  char line[4096];
  snprintf(line, sizeof line, "unset LD_PRELOAD; HDF5_PLUGIN_PATH='%s' %s 2>&1", plugins, command);
  FILE *pipe = popen(line, "r");
  cr_assert_not_null(pipe);
  size_t n = fread(answer, 1, sizeof answer - 1, pipe);
  answer[n] = '\0';
  int status = pclose(pipe);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void need(const char *command, const char *what) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  cr_skip_test("other programs cannot load a library with sanitizers");
#endif
  if (!qd_file_exists(QDIST_BINARY_DIR "/hdf5-plugin/libqdist_h5zstd.so")) cr_skip_test("the filter library is not built");
  if (run("", command) != 0) cr_skip_test("there is no %s here", what);
}

Test(h5_plugin, h5dump_reads_the_values) {
  need("h5dump --version", "h5dump");
  char command[2048];
  snprintf(command, sizeof command, "h5dump -d /a/bytes -d /a/half -d /a/bfloat '%s'", path);
  cr_assert_eq(run(plugin_folder, command), 0);
  cr_assert(strstr(answer, "1, 2, 3, 250, 255"), "%s", answer);
  cr_assert(strstr(answer, "0.25, 0.5, 0.75") && strstr(answer, "1, 1.25, 1.5"), "%s", answer);
  cr_assert(strstr(answer, "16256, 49152, 32640") && strstr(answer, "\"BF16\""), "%s", answer);
}

Test(h5_plugin, h5repack_writes_chunks_that_are_read_back) {
  need("h5repack --version", "h5repack");
  char command[4096];
  snprintf(command, sizeof command,
           "h5repack -l a/wide:CHUNK=256x1024 -f a/wide:UD=32015,0,1,1 --low=2 --high=2 '%s' '%s.again'", path, path);
  cr_assert_eq(run(plugin_folder, command), 0, "%s", answer);
  qd_out_tensor out = {"a/wide", qd_tensor_2d(wide, QD_F32, ROWS, COLUMNS)};
  qd_digest digest;
  qd_digest_of(wide, sizeof wide, &digest);
  qd_stored_part part = made_part(&out, &digest);
  char again[QD_TEMPORARY_PATH_BYTES + 8];
  snprintf(again, sizeof again, "%s.again", path);
  MUST(qd_block_file_read(again, &part, NULL));
}

Test(h5_plugin, h5py_reads_the_values) {
  need("python3 -c 'import h5py'", "python3 with h5py");
  const char *script = qd_temporary_write_text(
      &folder, "read.py",
      "import sys, h5py, numpy as np\n"
      "f = h5py.File(sys.argv[1], 'r')\n"
      "i = np.arange(700 * 1024)\n"
      "wide = ((i % 1000).astype(np.float32) - np.float32(0.5) * (i // 1024).astype(np.float32)).reshape(700, 1024)\n"
      "assert f['a/wide'].dtype == np.float32 and np.array_equal(f['a/wide'][:], wide)\n"
      "assert f['a/wide'][699, 3] == wide[699, 3]\n"
      "assert f['a/half'].dtype == np.float16 and f['a/half'][:].tolist() == [[0.25, 0.5, 0.75], [1, 1.25, 1.5]]\n"
      "assert f['a/bytes'].dtype == np.uint8 and f['a/bytes'][:].tolist() == [1, 2, 3, 250, 255]\n"
      "assert f['a/bfloat'].dtype == np.uint16 and f['a/bfloat'][:].tolist() == [0x3f80, 0xc000, 0x7f80]\n"
      "assert f['a/bfloat'].attrs['dtype'] == b'BF16'\n"
      "assert f['a/empty'].shape == (0, 4)\n");
  char command[4096];
  snprintf(command, sizeof command, "python3 '%s' '%s'", script, path);
  cr_assert_eq(run(plugin_folder, command), 0, "%s", answer);
}
