#define _POSIX_C_SOURCE 200809L
#include "jobs/options.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a command line ----------------------------------------------------------------------------------------------------- */

typedef struct values {
  int64_t count, size;
  double  share, time;
  int     colour;
  char    text[64];
  qd_common_options common;
} values;

enum { KEY_COUNT = 0x300, KEY_SIZE, KEY_SHARE, KEY_TIME, KEY_COLOUR, KEY_TEXT };

static const struct argp_option list[] = {{"count", KEY_COUNT, "N", 0, "", 0}, {"shard-size", KEY_SIZE, "S", 0, "", 0},
                                          {"share", KEY_SHARE, "X", 0,
                                           "How much, in words enough that they do not find room on one line of the help", 0},
                                          {"part-of-the-whole", 0, 0, OPTION_ALIAS, 0, 0},
                                          {"percentage-by-a-long-name", 0, 0, OPTION_ALIAS, 0, 0},
                                          {"stop-after", KEY_TIME, "T", 0, "", 0},
                                          {"colour", KEY_COLOUR, "C", 0, "", 0}, {"text", KEY_TEXT, "S", 0, "", 0}, {0}};

static error_t parse(int key, char *text, struct argp_state *state) {
  static const char *const colours[] = {"red", "green", "light-blue", NULL};
  values *v = state->input;
  switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &v->common; return 0;
    case KEY_COUNT: v->count = qd_option_integer(state, "--count", text, -1, 100); return 0;
    case KEY_SIZE: v->size = qd_option_bytes(state, "--shard-size", text); return 0;
    case KEY_SHARE: v->share = qd_option_number(state, "--share", text, 0, 1); return 0;
    case KEY_TIME: v->time = qd_option_seconds(state, "--stop-after", text); return 0;
    case KEY_COLOUR: v->colour = qd_option_choice(state, "--colour", text, colours); return 0;
    case KEY_TEXT: snprintf(v->text, sizeof v->text, "%s", text); return 0;
    case ARGP_KEY_ARG: qd_option_refuse(state, "\"%s\" is no option", text);
    default: return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&qd_common_argp, 0, "Running:", 90}, {0}};
#define EXAMPLE "  qdist test --count 1 --shard-size 4G --share 0.25 --stop-after 90s --colour light-blue"
static const struct argp argp = {
    .options = list, .parser = parse, .children = children,
    .doc = "Tries options.\vExample:\n" EXAMPLE};

/* What became of a command line in a process of its own. */
typedef struct outcome {
  int    exit_code; /* -1: it went on */
  values value;
  char   said[4096];
} outcome;

/* A sanitizer would look for leaks at the end of each such process, whose other threads are gone, and speak of it. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) { return 1; }

static void parse_in_child(const char *const *words, int to) {
  char copies[8][128], *argv[9] = {0};
  int argc = 0;
  for (; words[argc] != NULL; argc++) {
    snprintf(copies[argc], sizeof copies[argc], "%s", words[argc]);
    argv[argc] = copies[argc];
  }
  values v = {.count = -7, .common = qd_common_defaults};
  qd_options_parse(&argp, argc, argv, &v);
  if (write(to, &v, sizeof v) != (ssize_t)sizeof v) _exit(9);
  _exit(77);
}

static outcome run(const char *const *words, const char *rank) {
  outcome o = {.exit_code = -1};
  int said[2], parsed[2], status;
  cr_assert(pipe(said) == 0 && pipe(parsed) == 0);
  fflush(NULL);
  pid_t child = fork();
  cr_assert_geq(child, 0);
  if (child == 0) {
    if (rank != NULL) setenv("OMPI_COMM_WORLD_RANK", rank, 1);
    dup2(said[1], STDOUT_FILENO), dup2(said[1], STDERR_FILENO);
    close(said[0]), close(parsed[0]);
    parse_in_child(words, parsed[1]);
  }
  close(said[1]), close(parsed[1]);
  size_t n = 0;
  for (ssize_t got; n + 1 < sizeof o.said && (got = read(said[0], o.said + n, sizeof o.said - 1 - n)) > 0;) n += (size_t)got;
  cr_assert_eq(waitpid(child, &status, 0), child);
  cr_assert(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) cr_assert_eq(read(parsed[0], &o.value, sizeof o.value), (ssize_t)sizeof o.value);
  else o.exit_code = WEXITSTATUS(status);
  close(said[0]), close(parsed[0]);
  return o;
}

#define RUN(...) run((const char *const[]){"qdist test", __VA_ARGS__, NULL}, NULL)

static values accept_one(const char *option, const char *text) {
  outcome o = RUN(option, text);
  cr_expect_eq(o.exit_code, -1, "%s %s: %s", option, text, o.said);
  return o.value;
}

/* The message says the option and what was given. */
static void refuse_one(const char *option, const char *text) {
  outcome o = RUN(option, text);
  char quoted[128];
  snprintf(quoted, sizeof quoted, "\"%s\"", text);
  cr_expect_eq(o.exit_code, 2, "%s %s", option, text);
  cr_expect(strstr(o.said, option) != NULL && strstr(o.said, quoted) != NULL, "%s %s: %s", option, text, o.said);
}

Test(options, takes_times) {
  static const struct {
    const char *text;
    double seconds;
  } times[] = {{"90", 90},        {"90s", 90},           {"1.5", 1.5},        {"15m", 900},   {"2h", 7200},
               {"2h30m", 9000},   {"1d", 86400},         {"1d2h3m4s", 93784}, {"0.5h", 1800}, {"1:30", 90},
               {"1:30:00", 5400}, {"100:00:00", 360000}, {"0:00:01", 1},      {"2h30", 7230}};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    cr_expect_eq(accept_one("--stop-after", times[i].text).time, times[i].seconds, "%s", times[i].text);
}

Test(options, refuses_what_is_no_time) {
  static const char *const wrong[] = {
      "",    "0",     "0:00", "-5",    "-1h",   "abc", "5x",    "5mm",     "h",     "1h-5m", "nan",
      "inf", "1e300", "1:",   "1::30", "1:30:", ":30", "1:30m", "1:2:3:4", "1:-30", "5 m",   "1,5h"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) refuse_one("--stop-after", wrong[i]);
}

Test(options, takes_sizes) {
  static const struct {
    const char *text;
    int64_t bytes;
  } sizes[] = {{"1", 1}, {"1000", 1000}, {"512B", 512}, {"4K", 4096}, {"4k", 4096}, {"4KB", 4096}, {"4KiB", 4096},
               {"4Ki", 4096}, {"512M", 512 << 20}, {"4G", (int64_t)4 << 30}, {"4GiB", (int64_t)4 << 30},
               {"2T", (int64_t)2 << 40}, {"1.5G", (int64_t)3 << 29}, {"0.5M", 1 << 19}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    cr_expect_eq(accept_one("--shard-size", sizes[i].text).size, sizes[i].bytes, "%s", sizes[i].text);
}

Test(options, refuses_what_is_no_size) {
  static const char *const wrong[] = {"",      "0",   "-4G", "G",   "4X",  "4i",   "4GG",     "4Gx",
                                      "4GiBs", "4 G", "0.2", "nan", "inf", "1e30", "9999999T"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) refuse_one("--shard-size", wrong[i]);
}

Test(options, takes_whole_numbers_within_their_limits) {
  cr_expect_eq(accept_one("--count", "100").count, 100);
  cr_expect_eq(accept_one("--count", "-1").count, -1);
  cr_expect_eq(accept_one("--count", "007").count, 7);
  static const char *const wrong[] = {"", "101", "-2", "1.0", "1e1", "5x", "x", "99999999999999999999"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) refuse_one("--count", wrong[i]);
  cr_expect(strstr(RUN("--count", "101").said, "-1 to 100") != NULL);
}

Test(options, takes_numbers_within_their_limits) {
  cr_expect_eq(accept_one("--share", "0.25").share, 0.25);
  cr_expect_eq(accept_one("--share", "0").share, 0);
  cr_expect_eq(accept_one("--share", "1").share, 1);
  static const char *const wrong[] = {"", "1.001", "-0.1", "nan", "0.5x", "half"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) refuse_one("--share", wrong[i]);
}

Test(options, takes_one_of_the_choices) {
  cr_expect_eq(accept_one("--colour", "red").colour, 0);
  cr_expect_eq(accept_one("--colour", "light-blue").colour, 2);
  refuse_one("--colour", "blue");
  refuse_one("--colour", "RED");
  refuse_one("--colour", "");
  cr_expect(strstr(RUN("--colour", "blue").said, "red, green, light-blue") != NULL);
}

/* ---- the line as a whole ------------------------------------------------------------------------------------------------ */

Test(options, dashes_and_underscores_are_the_same) {
  cr_expect_eq(RUN("--stop_after", "5m").value.time, 300);
  cr_expect_eq(RUN("--stop_after=5m").value.time, 300);
  outcome o = RUN("--text=a_b=c_d");
  cr_expect_str_eq(o.value.text, "a_b=c_d"); /* values stay as they are */
  o = RUN("--text", "a_b");
  cr_expect_str_eq(o.value.text, "a_b");
}

Test(options, takes_a_name_by_its_beginning) {
  cr_expect_eq(RUN("--stop", "5m").value.time, 300);
  outcome o = RUN("--s", "1");
  cr_expect_eq(o.exit_code, 2); /* --shard-size, --share and --stop-after */
}

Test(options, names_the_nearest_option) {
  outcome o = RUN("--stop-aftre", "5m");
  cr_expect_eq(o.exit_code, 2);
  cr_expect(strstr(o.said, "no option --stop-aftre; did you mean --stop-after?") != NULL, "%s", o.said);
  o = RUN("--thread=3"); /* of a child parser; a beginning is enough */
  cr_expect_eq(o.exit_code, -1);
  o = RUN("--treads=3");
  cr_expect(strstr(o.said, "did you mean --threads?") != NULL, "%s", o.said);
  o = RUN("--xyzzy");
  cr_expect_eq(o.exit_code, 2);
  cr_expect(strstr(o.said, "no option --xyzzy; --help lists them") != NULL, "%s", o.said);
  o = RUN("stray");
  cr_expect_eq(o.exit_code, 2);
  cr_expect(strstr(o.said, "\"stray\" is no option") != NULL, "%s", o.said);
}

Test(options, common_ones_say_where_to_compute) {
  values v = RUN("-t", "3", "--device", "ref", "--isa", "avx2").value;
  qd_device_options d = qd_common_device(&v.common);
  cr_expect_eq(d.threads, 3);
  v = RUN("--count", "1").value;
  d = qd_common_device(&v.common);
  cr_expect_eq(d.threads, 0);
  cr_expect_null(d.isa);
  refuse_one("--threads", "0");
  refuse_one("--device", "cuda");
}

/* Nothing is cut that is to be copied, nothing else is too long, and what goes on stands below what it goes on with. */
Test(options, the_help_is_cut_where_it_should_be) {
  outcome o = RUN("--help");
  cr_expect_eq(o.exit_code, 0);
  cr_expect_not_null(strstr(o.said, "\n" EXAMPLE "\n"));
  cr_expect_not_null(strstr(o.said, "\n      --share=X, --part-of-the-whole=X, --percentage-by-a-long-name=X\n"
                                    "                             How much, in words enough that they do not find\n"
                                    "                             room on one line of the help\n"), "%s", o.said);
  cr_expect_null(strstr(o.said, "\n\n\n"));
  for (const char *line = o.said, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
    cr_expect(end - line <= 79 || strncmp(line, "  qdist", 7) == 0, "%.*s", (int)(end - line), line);
}

Test(options, helps) {
  outcome o = RUN("--help");
  cr_expect_eq(o.exit_code, 0);
  cr_expect(strstr(o.said, "--stop-after") != NULL && strstr(o.said, "--threads") != NULL);
  o = RUN("--usage");
  cr_expect_eq(o.exit_code, 0);
}

/* ---- ranks -------------------------------------------------------------------------------------------------------------- */

#define RUN_RANK(rank, ...) run((const char *const[]){"qdist test", __VA_ARGS__, NULL}, rank)

Test(options, only_the_first_rank_speaks_and_all_end_alike) {
  static const char *const lines[][2] = {{"--count", "x"},  {"--stop-after", "5x"}, {"--shard-size", "G"}, {"--share", "2"},
                                         {"--colour", "x"}, {"--xyzzy", "1"},       {"stray", "1"},        {"--s", "1"}};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    outcome first = RUN_RANK("0", lines[i][0], lines[i][1]), other = RUN_RANK("1", lines[i][0], lines[i][1]);
    cr_expect_eq(first.exit_code, 2, "%s", lines[i][0]);
    cr_expect_gt(strlen(first.said), 0);
    cr_expect_eq(other.exit_code, 2, "%s", lines[i][0]);
    cr_expect_str_eq(other.said, "");
  }
  outcome help = RUN_RANK("3", "--help"), usage = RUN_RANK("3", "--usage"), fine = RUN_RANK("3", "--count", "5");
  cr_expect_eq(help.exit_code, 0);
  cr_expect_str_eq(help.said, "");
  cr_expect_eq(usage.exit_code, 0);
  cr_expect_str_eq(usage.said, "");
  cr_expect_eq(fine.value.count, 5);
}

Test(options, knows_its_rank_from_the_launcher) {
  static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
  for (int i = 0; i < 4; i++) unsetenv(variables[i]);
  cr_expect_eq(qd_launcher_rank(), 0);
  for (int i = 0; i < 4; i++) {
    setenv(variables[i], "5", 1);
    cr_expect_eq(qd_launcher_rank(), 5, "%s", variables[i]);
    unsetenv(variables[i]);
  }
}
