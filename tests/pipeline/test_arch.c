#include "pipeline/arch.h"

#include <criterion/criterion.h>

#include <string.h>

Test(arch, roles_have_names_and_are_found_by_them) {
  qd_role found;
  for (qd_role role = 0; role < QD_N_ROLES; role++) {
    cr_assert(qd_role_find(qd_role_name(role), &found));
    cr_expect_eq(found, role, "%s", qd_role_name(role));
  }
  cr_expect(!qd_role_find("", &found));
  cr_expect(!qd_role_find("q_projx", &found));
  cr_expect(!qd_role_find("qkv_input", &found));
}

Test(arch, linears_come_first_and_their_biases_in_the_same_order) {
  static const char *const biases[] = {"q_bias", "k_bias", "v_bias", "o_bias", "gate_bias", "up_bias", "down_bias"};
  cr_assert_eq(QD_N_BIASED, 7);
  for (qd_role role = 0; role < QD_N_ROLES; role++)
    cr_expect_eq(qd_role_is_linear(role), strstr(qd_role_name(role), "_proj") != NULL, "%s", qd_role_name(role));
  for (int i = 0; i < QD_N_BIASED; i++) cr_expect_str_eq(qd_role_name(QD_Q_BIAS + i), biases[i]);
}

Test(arch, families_are_found_by_model_type) {
  static const char *const names[] = {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"};
  for (int i = 0; i < 7; i++) cr_expect_str_eq(qd_arch_find(names[i])->name, names[i]);
  cr_expect_null(qd_arch_find("llam"));
  cr_expect_null(qd_arch_find("llama2"));
  cr_expect_null(qd_arch_find(""));
  cr_expect_str_eq(qd_arch_names(), "llama, mistral, mixtral, qwen2, qwen2_moe, qwen3, qwen3_moe");
}

/* Each role once a table; every linear of the family there; a bias beside its weight: its length is the weight's rows. */
static int wanted_of(const qd_arch *arch, qd_role linear) {
  const qd_arch_experts *experts = arch->experts;
  if (qd_role_is_of_expert(linear)) return experts != NULL;
  if (linear >= QD_SHARED_GATE_PROJ && linear <= QD_SHARED_DOWN_PROJ) return experts != NULL && experts->shared_ffn != NULL;
  return linear < QD_GATE_PROJ || experts == NULL || !experts->every_block;
}

static void check_table(const qd_arch *arch, const qd_arch_tensor *table, int n, bool is_block) {
  int seen[QD_N_ROLES] = {0};
  for (int i = 0; i < n; i++) {
    seen[table[i].role]++;
    cr_expect_eq(strchr(table[i].name, '%') != NULL, is_block, "%s", table[i].name);
    cr_expect_eq(strchr(table[i].name, '#') != NULL, qd_role_is_of_expert(table[i].role), "%s", table[i].name);
    cr_expect(i == 0 || !qd_role_is_of_expert(table[i - 1].role) || qd_role_is_of_expert(table[i].role), "%s", table[i].name);
    cr_expect_neq(table[i].rows, QD_W_NONE);
    if (!qd_role_is_linear(table[i].role)) continue;
    cr_expect_neq(table[i].columns, QD_W_NONE);
    for (int k = 0; k < n; k++)
      if (table[i].role < QD_N_BIASED && table[k].role == table[i].role - QD_Q_PROJ + QD_Q_BIAS)
        cr_expect_eq(table[k].rows, table[i].rows, "%s", table[k].name);
  }
  for (qd_role role = 0; role < QD_N_ROLES; role++) {
    cr_expect_leq(seen[role], 1, "%s", qd_role_name(role));
    if (qd_role_is_linear(role))
      cr_expect_eq(seen[role], is_block ? wanted_of(arch, role) : 0, "%s %s", arch->name, qd_role_name(role));
  }
}

Test(arch, tables_are_whole) {
  static const qd_arch *const all[] = {
#define QD_ARCH(name) &qd_arch_##name,
#include "pipeline/archs.def"
#undef QD_ARCH
  };
  for (int i = 0; i < QD_COUNT_OF(all); i++) {
    check_table(all[i], all[i]->block, all[i]->n_block, true);
    check_table(all[i], all[i]->rest, all[i]->n_rest, false);
    cr_expect_gt(strlen(all[i]->summary), 0);
  }
}
