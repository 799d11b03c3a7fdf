#define _GNU_SOURCE
#include "storage/find_model.h"

#include "kernels/base/heap.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qd_temporary_folder folder;
static qd_model_places places;
static const qd_made_tensor tensors[] = {{.name = "w", .dtype = QD_F32, .rank = 1, .dim = {3}, .shard = 0}};

/* first/ and second/ are places, hub/ a cache. */
static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  qd_temporary_make_folder(&folder, "first");
  qd_temporary_make_folder(&folder, "second");
  qd_temporary_make_folder(&folder, "hub");
  cr_assert_eq(chdir(folder.path), 0);
  cr_assert_eq(qd_model_places_add(&places, "first:second::absent", "--model-path", false), QD_OK);
  cr_assert_eq(qd_model_places_add(&places, "hub", "the cache", true), QD_OK);
}
static void close_folder(void) {
  qd_model_places_release(&places);
  cr_assert_eq(chdir("/"), 0);
  qd_temporary_folder_close(&folder);
}

TestSuite(find_model, .init = open_folder, .fini = close_folder);

static void make_model(const char *name) {
  qd_temporary_make_folder(&folder, name);
  qd_make_model(qd_temporary_path(&folder, name), "{}", tensors, 1, 1);
}

static void make_file(const char *name) { qd_temporary_write_text(&folder, name, "x"); }

/* hub/models--REPOSITORY as Hugging Face's tools keep it: blobs, and a snapshot of links to them. */
static void make_repository(const char *name, const char *snapshot, const char *ref) {
  char path[256], blobs[64];
  snprintf(path, sizeof path, "hub/models--%s", name);
  qd_temporary_make_folder(&folder, path);
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "hub/models--%s/%s", name, (const char *const[]){"blobs", "refs", "snapshots"}[i]);
    qd_temporary_make_folder(&folder, path);
  }
  snprintf(path, sizeof path, "hub/models--%s/snapshots/%s", name, snapshot);
  qd_temporary_make_folder(&folder, path);
  snprintf(path, sizeof path, "hub/models--%s/blobs", name);
  qd_make_model(path, "{}", tensors, 1, 1);
  for (int i = 0; i < 2; i++) {
    const char *file = i ? "model.safetensors" : "config.json";
    snprintf(path, sizeof path, "hub/models--%s/snapshots/%s/%s", name, snapshot, file);
    snprintf(blobs, sizeof blobs, "../../blobs/%s", file);
    cr_assert_eq(symlink(blobs, path), 0);
  }
  snprintf(path, sizeof path, "hub/models--%s/refs/main", name);
  if (ref != NULL) qd_temporary_write_text(&folder, path, ref);
}

static void expect_found(const char *name, const char *expected) {
  char *path;
  cr_assert_eq(qd_model_find(&places, name, &path), QD_OK, "%s: %s", name, qd_error_text());
  cr_expect_str_eq(path, expected, "%s: %s, expected %s", name, path, expected);
  qd_heap_free(path);
}

static void expect_none(const char *name, const char *first, const char *second) {
  char *path;
  cr_expect_eq(qd_model_find(&places, name, &path), QD_ENOTFOUND, "%s: %s", name, path);
  cr_expect_null(path);
  cr_expect(strstr(qd_error_text(), first) != NULL, "\"%s\" is not in: %s", first, qd_error_text());
  cr_expect(strstr(qd_error_text(), second) != NULL, "\"%s\" is not in: %s", second, qd_error_text());
}

Test(find_model, a_path_goes_before_everything) {
  make_model("first/llama-7b");
  expect_found("llama-7b", "first/llama-7b");
  make_model("llama-7b");
  expect_found("llama-7b", "llama-7b");
  expect_found("./absent", "./absent"); /* told where it is opened */
  expect_found("/no/such/model", "/no/such/model");
  expect_found("../x", "../x");
  expect_found("a/b/c", "a/b/c");
  expect_found("first", "first");
}

Test(find_model, exact_names_in_the_order_of_places) {
  make_model("second/m");
  make_file("second/n.gguf");
  expect_found("m", "second/m");
  expect_found("n", "second/n.gguf");
  expect_found("n.gguf", "second/n.gguf");
  make_model("first/m");
  expect_found("m", "first/m");
  qd_temporary_make_folder(&folder, "first/org");
  make_model("first/org/deep");
  expect_found("org/deep", "first/org/deep");
  expect_found("deep", "first/org/deep");
  expect_found("DEEP", "first/org/deep");
  make_file("first/quantized"); /* a store is found as well: whatever has the name */
  expect_found("quantized", "first/quantized");
}

Test(find_model, snapshots_of_the_cache) {
  make_repository("org--model", "abc", "abc");
  expect_found("org/model", "hub/models--org--model/snapshots/abc");
  expect_found("model", "hub/models--org--model/snapshots/abc");
  expect_found("Org/Model", "hub/models--org--model/snapshots/abc");
  qd_temporary_make_folder(&folder, "hub/models--org--model/snapshots/aaa");
  qd_temporary_make_folder(&folder, "hub/models--org--model/snapshots/xyz");
  expect_found("model", "hub/models--org--model/snapshots/abc"); /* refs/main decides */
  qd_temporary_write_text(&folder, "hub/models--org--model/refs/main", "xyz\n");
  expect_found("model", "hub/models--org--model/snapshots/xyz");
  qd_temporary_write_text(&folder, "hub/models--org--model/refs/main", "gone");
  expect_none("model", "org/model in hub cannot be used", "refs/main names is not there");
  cr_assert_eq(unlink("hub/models--org--model/refs/main"), 0);
  expect_none("model", "several snapshots", "no refs/main");
  qd_temporary_make_folder(&folder, "hub/models--org--begun");
  expect_none("org/begun", "org/begun in hub cannot be used", "no snapshot");
  make_repository("org--alone", "only", NULL);
  expect_found("alone", "hub/models--org--alone/snapshots/only");
  make_repository("org--with--dashes", "s", "s");
  expect_found("org/with--dashes", "hub/models--org--with--dashes/snapshots/s");
}

/* The newest that is there and whole: a download that is not through does not hide an older model. */
Test(find_model, short_names_take_the_first_repository_that_can_be_opened) {
  make_repository("meta-llama--Llama-2-70b-hf", "two", "two");
  expect_found("llama-70b", "hub/models--meta-llama--Llama-2-70b-hf/snapshots/two");
  expect_none("llama-3.3-70b", "stands for meta-llama/Llama-3.3-70B-Instruct", "found meta-llama/Llama-2-70b-hf");
  make_repository("meta-llama--Llama-3.3-70B-Instruct", "three", "three");
  expect_found("llama-70b", "hub/models--meta-llama--Llama-3.3-70B-Instruct/snapshots/three");
  expect_found("Llama-70B", "hub/models--meta-llama--Llama-3.3-70B-Instruct/snapshots/three");
  cr_assert_eq(unlink("hub/models--meta-llama--Llama-3.3-70B-Instruct/blobs/model.safetensors"), 0);
  expect_found("llama-70b", "hub/models--meta-llama--Llama-2-70b-hf/snapshots/two");
  expect_found("llama-3.3-70b", "hub/models--meta-llama--Llama-3.3-70B-Instruct/snapshots/three"); /* opening says why */
  make_model("second/Llama-3.1-70B");
  expect_found("llama-70b", "second/Llama-3.1-70B");
}

Test(find_model, short_names_know_quantized_files) {
  make_file("first/SmolLM2-360M.Q4_K_M.gguf");
  make_file("first/SmolLM2-135M-Instruct.Q4_1.gguf");
  expect_found("smollm2-135m", "first/SmolLM2-135M-Instruct.Q4_1.gguf");
  expect_found("SmolLM2-135M-Instruct", "first/SmolLM2-135M-Instruct.Q4_1.gguf");
  expect_found("SmolLM2-135M", "first/SmolLM2-135M-Instruct.Q4_1.gguf"); /* a short name, too */
}

Test(find_model, a_name_of_two_is_not_guessed) {
  make_repository("one--model", "s", "s");
  make_repository("two--model", "s", "s");
  expect_none("model", "both one/model in hub and two/model in hub", "give the whole name");
  expect_found("two/model", "hub/models--two--model/snapshots/s");
}

Test(find_model, says_where_it_looked_and_what_is_near) {
  expect_none("qwen",
              "looked for it here and in first (--model-path), second (--model-path), absent (--model-path: no such folder), "
              "hub (the cache)",
              "found no model there");
  make_model("first/tiny-stories");
  make_repository("org--tinystories", "s", "s");
  for (int i = 0; i < 12; i++) {
    char name[32];
    snprintf(name, sizeof name, "second/zz-%02d", i);
    make_model(name);
  }
  expect_none("tinystorys", "found tiny-stories, zz-00, ", "...; the nearest names are tinystories, tiny-stories");
  qd_model_places none = {0};
  char *path;
  cr_expect_eq(qd_model_find(&none, "llama-77b", &path), QD_ENOTFOUND);
  cr_expect(strstr(qd_error_text(), "here only (--model-path names other places)") != NULL, "%s", qd_error_text());
  cr_expect(strstr(qd_error_text(), "nearest names are llama-7b, llama-70b") != NULL, "%s", qd_error_text());
}

/* Links that lead nowhere, parts, hidden files and foreign folders are passed over. */
Test(find_model, lists_what_places_hold) {
  static const char *const expected[] = {"a", "b.gguf", "org/c", "org/d-00001-of-00002.gguf", "x/y"};
  make_model("first/a");
  make_file("first/b.gguf");
  make_file("first/notes.txt");
  make_model("first/.hidden");
  qd_temporary_make_folder(&folder, "first/empty");
  qd_temporary_make_folder(&folder, "first/org");
  make_model("first/org/c");
  make_file("first/org/d-00001-of-00002.gguf");
  make_file("first/org/d-00002-of-00002.gguf");
  cr_assert_eq(symlink("nowhere", "first/link"), 0);
  make_repository("x--y", "s", "s");
  qd_temporary_make_folder(&folder, "hub/datasets--x--z");
  qd_temporary_make_folder(&folder, "hub/.locks");
  qd_model_entries all;
  cr_assert_eq(qd_model_entries_read(&places, &all), QD_OK, "%s", qd_error_text());
  cr_assert_eq(all.n, sizeof expected / sizeof *expected);
  for (size_t i = 0; i < all.n; i++) cr_expect_str_eq(all.at[i].name, expected[i]);
  cr_expect_str_eq(all.at[4].path, "hub/models--x--y/snapshots/s");
  cr_expect(all.at[4].place->is_hub);
  cr_expect_str_eq(all.at[3].path, "first/org/d-00001-of-00002.gguf");
  qd_model_entries_release(&all);
}
