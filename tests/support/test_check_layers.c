#define _POSIX_C_SOURCE 200809L
#include "tests/support/run.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[] = "/tmp/qdist_check_layers_XXXXXX";

typedef struct source_file {
  const char *path, *text;
} source_file;

static void run_quietly(const char *const *argv) {
  qd_run run = qd_run_command(argv, NULL, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

static void write_file(source_file file) {
  char path[300], folder[300];
  snprintf(path, sizeof path, "%s/%s", root, file.path);
  snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = '\0';
  run_quietly((const char *const[]){"mkdir", "-p", folder, NULL});
  FILE *stream = fopen(path, "w");
  cr_assert_not_null(stream);
  cr_assert(fputs(file.text, stream) >= 0 && fclose(stream) == 0);
}

#define TEN "1234567890"
#define A_HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define A_LINE "// " A_HUNDRED TEN TEN "12345" /* 128 characters */

static const source_file allowed[] = {
    {"CMakeLists.txt", "# no -ffast-math here\nadd_compile_options(-ffp-contract=off)\n"},
    {"workers/a.c", "#include \"workers/a.h\"\n#include \"kernels/a.h\"\n#include <mpi.h>\n"},
    {"kernels/base/task.h", "#include <pthread.h>\n"},
    {"kernels/line.c", A_LINE "\n"},
    {"storage/h5_a.c", "#include <hdf5.h>\n#include <zstd.h>\n#include \"storage/a.h\"\n"},
    {"storage/json.c", "#include <jansson.h>\n"},
    {"storage/tokenizer.c", "#include <pcre2.h>\n#include <utf8proc.h>\n"},
    {"pipeline/a.c", "#include \"storage/a.h\"\n#include \"workers/a.h\"\n/* malloc(1); exit(1); #include <mpi.h> */\n"
                     "const char *a = \"free(x) // exit(1)\"; // abort()\nchar quote = '\"'; /* \" */\n"},
    {"jobs/main.c", "int main(void) { printf(\"x\"); exit(0); }\n"},
    {"kernels/base/a.c", "void *a = malloc(1);\n"},
    {"kernels/a_ref.c", "#ifdef QD_REAL64\n#define a exp(1.0)\n#if 1\n#define b log(2.0)\n#endif\n"
                        "#else\n#define a qd_exp(1.0f)\n#endif\n"
                        "#pragma omp parallel for reduction(min : first)\n"
                        "double b = frexp(1.0, &e) + ldexp(1.0, 3) + table->exp(2);\n"},
};

/* Each must be found, and its file named. */
static const source_file breaches[] = {
    {"storage/bad.c", "\n#include <mpi.h>\n"},
    {"workers/bad.c", "\n#include <hdf5.h>\n"},
    {"storage/bad.c", "\n#include <hdf5.h>\n"},
    {"jobs/bad.c", "\n#include <zstd.h>\n"},
    {"storage/bad.c", "\n#include <jansson.h>\n"},
    {"pipeline/bad.c", "\n#include <pcre2.h>\n"},
    {"kernels/bad.c", "\n#include <xxhash.h>\n"},
    {"kernels/bad.c", "\n#include \"storage/a.h\"\n"},
    {"storage/bad.h", "\n#include \"workers/a.h\"\n"},
    {"workers/bad.c", "\n#include \"storage/a.h\"\n"},
    {"pipeline/methods/bad.c", "\n#include \"jobs/a.h\"\n"},
    {"pipeline/bad.c", "\n#include \"stages.h\"\n"},
    {"pipeline/bad.c", "\n#include \"../workers/a.h\"\n"},
    {"workers/bad.c", "/* one\n*/ void *a = malloc(1);\n"},
    {"storage/sources/bad.c", "\nfree(a);\n"},
    {"storage/bad.c", "\nexit (3);\n"},
    {"kernels/bad.c", "\nabort();\n"},
    {"pipeline/bad.c", "\nfprintf(stderr, \"x\");\n"},
    {"workers/bad.c", "\nprintf(\"x\");\n"},
    {"kernels/bad_isa.c", "\nx = _mm512_rsqrt14_ps(y);\n"},
    {"kernels/bad_isa.c", "\nx = _mm256_rcp_ps(y);\n"},
    {"kernels/bad.c", "\n#pragma omp parallel for reduction(+ : sum)\n"},
    {"kernels/bad.c", "\n#pragma omp simd \\\n  reduction(+ : sum)\n"},
    {"workers/bad.c", "\nMPI_Reduce(a, b, 1, MPI_DOUBLE, MPI_SUM, 0, c);\n"},
    {"kernels/bad.c", "\nfloat a = expf(x);\n"},
    {"kernels/bad.c", "\nfloat a = 1.0f + tanh(x);\n"},
    {"kernels/bad_ref.c", "#ifndef QD_REAL64\ndouble a = pow(x, 2.4);\n#endif\n"},
    {"kernels/bad_ref.c", "#ifdef QD_REAL64\n#else\ndouble a = pow(x, 2.4);\n#endif\n"},
    {"kernels/bad.c", "\n#pragma STDC FP_CONTRACT ON\n"},
    {"kernels/bad.c", "\n#pragma GCC optimize(\"fast-math\")\n"},
    {"CMakeLists.txt", "\nadd_compile_options(-ffast-math)\n"},
    {"tests/bad.c", "\n" A_LINE "6\n"},
};

static void make_tree(void) {
  cr_assert_not_null(mkdtemp(root));
  for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) write_file(allowed[i]);
}

static void remove_tree(void) { run_quietly((const char *const[]){"rm", "-r", root, NULL}); }

static qd_run check_layers(void) {
  return qd_run_command((const char *const[]){QDIST_SOURCE_DIR "/tests/check_layers.sh", root, NULL}, NULL, 60.0);
}

Test(check_layers, lets_pass_what_is_right, .init = make_tree, .fini = remove_tree) {
  qd_run run = check_layers();
  cr_assert_eq(run.exit_code, 0, "%s%s", run.out.text, run.err.text);
  cr_assert_str_empty(run.out.text);
  qd_run_close(&run);
}

Test(check_layers, finds_each_breach, .init = make_tree, .fini = remove_tree) {
  for (size_t i = 0; i < sizeof breaches / sizeof *breaches; i++) {
    write_file(breaches[i]);
    qd_run run = check_layers();
    cr_expect_eq(run.exit_code, 1, "unseen: %s%s", breaches[i].text, run.err.text);
    cr_expect(strstr(run.out.text, breaches[i].path) != NULL, "%s is not named in %s", breaches[i].path, run.out.text);
    qd_run_close(&run);
    write_file((source_file){breaches[i].path, ""});
  }
}

Test(check_layers, does_not_take_an_empty_folder_for_a_clean_one) {
  cr_assert_not_null(mkdtemp(root));
  qd_run run = check_layers();
  cr_assert_eq(run.exit_code, 1);
  cr_assert_eq(rmdir(root), 0);
  qd_run_close(&run);
}
