#define _GNU_SOURCE
#include "storage/source.h"

#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qd_temporary_folder folder;
static const qd_made_tensor tensors[] = {{.name = "w", .dtype = QD_F32, .rank = 2, .dim = {2, 3}, .shard = 0},
                                         {.name = "v", .dtype = QD_F32, .rank = 1, .dim = {3}, .shard = 1}};

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  cr_assert_eq(chmod(folder.path, 0755), 0); /* some tests are another user for a while */
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(source, .init = open_folder, .fini = close_folder);

static void expect_refusal(const char *path, qd_status expected, const char *first, const char *second) {
  qd_source *source;
  qd_status got = qd_source_open(path, &source);
  const char *text = qd_error_text();
  cr_assert_eq(got, expected, "%s: %s", qd_status_name(got), text);
  cr_assert_null(source);
  cr_assert(strstr(text, path) != NULL, "%s is not in: %s", path, text);
  cr_assert(strstr(text, first) != NULL, "\"%s\" is not in: %s", first, text);
  cr_assert(strstr(text, second) != NULL, "\"%s\" is not in: %s", second, text);
  cr_assert_null(strchr(text, '\n'));
}

Test(source, says_what_is_missing) {
  const char *path = qd_temporary_path(&folder, "no such model");
  expect_refusal(path, QD_ENOTFOUND, "there is no folder", "config.json");
  expect_refusal("", QD_ENOTFOUND, "there is no folder", "");
  path = qd_temporary_write_text(&folder, "model.safetensors", "");
  expect_refusal(path, QD_ENOTFOUND, "is a file", "folder");
  expect_refusal(qd_temporary_path(&folder, "model.safetensors/x"), QD_ENOTFOUND, "there is no folder", "");
  expect_refusal(folder.path, QD_ENOTFOUND, "has no config.json", "");
}

Test(source, says_what_is_wrong_with_config_json) {
  qd_make_model(folder.path, "{\"model_type\": \"llama\",\n\"hidden_size\": }", tensors, 2, 1);
  expect_refusal(folder.path, QD_EBADINPUT, "config.json", "line 2");
  qd_make_model(folder.path, "[]", tensors, 2, 1);
  expect_refusal(folder.path, QD_EBADINPUT, "config.json", "not a JSON object");
  qd_make_model(folder.path, "", tensors, 2, 1);
  expect_refusal(folder.path, QD_EBADINPUT, "config.json", "");
  cr_assert_eq(unlink(qd_temporary_path(&folder, "config.json")), 0);
  qd_temporary_make_folder(&folder, "config.json");
  expect_refusal(folder.path, QD_EIO, "config.json", "is a folder");
}

static void as_another_user(const char *first, const char *second) {
  if (geteuid() == 0) cr_assert_eq(seteuid(65534), 0); /* root may read anything */
  expect_refusal(folder.path, QD_EIO, first, second);
  if (getuid() == 0) cr_assert_eq(seteuid(0), 0);
}

Test(source, names_what_may_not_be_read) {
  qd_make_model(folder.path, "{}", tensors, 2, 1);
  cr_assert_eq(chmod(qd_temporary_path(&folder, "model.safetensors"), 0), 0);
  as_another_user("model.safetensors", strerror(EACCES));
  cr_assert_eq(chmod(qd_temporary_path(&folder, "config.json"), 0), 0);
  as_another_user("config.json", strerror(EACCES));
  cr_assert_eq(chmod(qd_temporary_path(&folder, "config.json"), 0644), 0);
  cr_assert_eq(chmod(folder.path, 0111), 0); /* may be entered, not listed */
  as_another_user("cannot read the folder", strerror(EACCES));
}

Test(source, says_how_to_convert_pytorch_weights) {
  const char *const names[] = {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth", "model.pt"};
  qd_temporary_write_text(&folder, "config.json", "{}");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *file = qd_temporary_write_text(&folder, names[i], "x");
    expect_refusal(folder.path, QD_EUNSUPPORTED, names[i], "from transformers import AutoModelForCausalLM");
    expect_refusal(folder.path, QD_EUNSUPPORTED, ".save_pretrained(p", "safe_serialization=True");
    cr_assert_eq(unlink(file), 0);
  }
}

Test(source, names_formats_that_are_not_read) {
  const char *const names[] = {"model-q4.ggml", "tf_model.h5", "flax_model.msgpack", "weights.npz", "model.onnx"};
  qd_temporary_write_text(&folder, "config.json", "{}");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *file = qd_temporary_write_text(&folder, names[i], "x");
    expect_refusal(folder.path, QD_EUNSUPPORTED, names[i], "not read");
    cr_assert_eq(unlink(file), 0);
  }
  expect_refusal(folder.path, QD_ENOTFOUND, "holds no weights", "model.safetensors");
}

Test(source, prefers_safetensors_to_pytorch) {
  qd_make_model(folder.path, "{}", tensors, 2, 1);
  qd_temporary_write_text(&folder, "pytorch_model.bin", "x");
  qd_source *source;
  cr_assert_eq(qd_source_open(folder.path, &source), QD_OK, "%s", qd_error_text());
  qd_source_close(source);
}

Test(source, knows_path_configuration_and_files) {
  const char *path = qd_temporary_make_folder(&folder, "a model of \xc3\xbc");
  qd_make_model(path, "{\"model_type\": \"llama\"}", tensors, 2, 2);
  qd_source *source;
  cr_assert_eq(qd_source_open(path, &source), QD_OK, "%s", qd_error_text());
  cr_assert_str_eq(qd_source_path(source), path);
  cr_assert_str_eq(qd_json_text(qd_json_get(qd_source_config(source), "model_type")), "llama");
  cr_assert_eq(qd_source_files(source), 2);
  for (size_t i = 0; i < 2; i++) {
    qd_file_identity now, then = qd_source_file_identity(source, i);
    cr_assert_eq(qd_file_identify(qd_source_file_path(source, i), &now), QD_OK);
    cr_assert_eq(memcmp(&now, &then, sizeof now), 0);
  }
  cr_assert(strstr(qd_source_file_path(source, 1), "/model-00002-of-00002.safetensors") != NULL);
  cr_assert_eq(qd_source_find(source, "w")->file, 0);
  cr_assert_eq(qd_source_find(source, "v")->file, 1);
  qd_source_close(source);
  qd_source_close(NULL);
}

Test(source, opens_through_links) {
  const char *path = qd_temporary_make_folder(&folder, "blobs"), *link = qd_temporary_make_folder(&folder, "snapshot");
  qd_make_model(path, "{}", tensors, 2, 1);
  cr_assert_eq(symlink("../blobs/config.json", qd_temporary_path(&folder, "snapshot/config.json")), 0);
  cr_assert_eq(symlink("../blobs/model.safetensors", qd_temporary_path(&folder, "snapshot/model.safetensors")), 0);
  qd_source *source;
  cr_assert_eq(qd_source_open(link, &source), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_source_tensors(source), 2);
  qd_source_close(source);
}

Test(source, lists_side_files_in_order) {
  const char *const all[] = {"config.json",     "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
                             "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                             "merges.txt",      "chat_template.jinja",     "chat_template.json"};
  qd_source *source;
  qd_make_model(folder.path, "{}", tensors, 2, 1);
  qd_temporary_write_text(&folder, "merges.txt", "x");
  qd_temporary_write_text(&folder, "tokenizer.json", "x");
  qd_temporary_write_text(&folder, "README.md", "x");
  cr_assert_eq(qd_source_open(folder.path, &source), QD_OK);
  const char *const some[] = {"config.json", "tokenizer.json", "merges.txt"};
  for (size_t i = 0; i < 3; i++) cr_assert_str_eq(qd_source_side_file(source, i), some[i]);
  cr_assert_null(qd_source_side_file(source, 3));
  cr_assert_null(qd_source_side_file(source, SIZE_MAX));
  qd_source_close(source);
  for (size_t i = 1; i < 11; i++) qd_temporary_write_text(&folder, all[i], "x");
  cr_assert_eq(qd_source_open(folder.path, &source), QD_OK);
  for (size_t i = 0; i < 11; i++) cr_assert_str_eq(qd_source_side_file(source, i), all[i]);
  cr_assert_null(qd_source_side_file(source, 11));
  qd_source_close(source);
}
