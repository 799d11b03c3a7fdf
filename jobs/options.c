#define _GNU_SOURCE
#include "jobs/options.h"

#include "jobs/config.h"
#include "jobs/help.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USAGE_EXIT = 2, MAX_NAMES = 256 };

int qd_launcher_rank(void) {
  static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
  for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
    const char *text = getenv(variables[i]);
    if (text != NULL) return (int)strtol(text, NULL, 10);
  }
  return 0;
}

/* ---- misspelt options ---------------------------------------------------------------------------------------------------- */

static int collect_names(const struct argp *argp, const char **names, int n) {
  for (const struct argp_option *o = argp->options; o != NULL && (o->name != NULL || o->key != 0 || o->doc != NULL); o++)
    if (o->name != NULL && n < MAX_NAMES - 1) names[n++] = o->name;
  for (const struct argp_child *c = argp->children; c != NULL && c->argp != NULL; c++) n = collect_names(c->argp, names, n);
  return n;
}

/* getopt takes any unique beginning of a name; so do we. */
static bool is_known(const char *name, size_t length, const char *const *names) {
  for (; *names != NULL; names++)
    if (strncmp(name, *names, length) == 0) return true;
  return false;
}

static void refuse_misspelt(const struct argp *argp, int argc, char **argv) {
  const char *names[MAX_NAMES] = {"help", "usage"};
  names[collect_names(argp, names, 2)] = NULL;
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
    size_t length = strcspn(argv[i], "=");
    if (strncmp(argv[i], "--", 2) != 0 || length <= 2 || is_known(argv[i] + 2, length - 2, names)) continue;
    if (qd_launcher_rank() == 0) {
      char name[64];
      snprintf(name, sizeof name, "%.*s", (int)(length - 2), argv[i] + 2);
      const char *nearest = qd_nearest(name, names);
      if (nearest != NULL) fprintf(stderr, "%s: there is no option --%s; did you mean --%s?\n", argv[0], name, nearest);
      else fprintf(stderr, "%s: there is no option --%s; --help lists them\n", argv[0], name);
    }
    exit(USAGE_EXIT);
  }
}

static void dashes_for_underscores(int argc, char **argv) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (strncmp(argv[i], "--", 2) == 0)
      for (char *c = argv[i]; *c != '\0' && *c != '='; c++)
        if (*c == '_') *c = '-';
}

static bool is_there(int argc, char **argv, const char *option) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (strcmp(argv[i], option) == 0) return true;
  return false;
}

/* Under a launcher all ranks are asked, and one answers. */
static void help(const struct argp *argp, int argc, char **argv, bool speaks) {
  bool wanted = is_there(argc, argv, "--help") || is_there(argc, argv, "-?");
  if (wanted && speaks) qd_help_print(argp, argv[0], stdout);
  if (wanted || (!speaks && is_there(argc, argv, "--usage"))) exit(0);
}

void qd_options_parse(const struct argp *argp, int argc, char **argv, void *input) {
  bool speaks = qd_launcher_rank() == 0;
  argp_err_exit_status = USAGE_EXIT;
  dashes_for_underscores(argc, argv);
  help(argp, argc, argv, speaks);
  refuse_misspelt(argp, argc, argv);
  qd_status status = qd_config_apply(argp, &argc, &argv);
  if (status != QD_OK) {
    if (speaks) fprintf(stderr, "%s: %s\n", argv[0], qd_error_text());
    exit(qd_status_exit_code(status));
  }
  if (argp_parse(argp, argc, argv, speaks ? 0 : ARGP_NO_ERRS | ARGP_NO_EXIT, NULL, input) != 0) exit(USAGE_EXIT);
}

_Noreturn void qd_option_refuse(const struct argp_state *state, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  argp_error(state, "%s", text);
  exit(USAGE_EXIT);
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

int64_t qd_option_integer(struct argp_state *state, const char *option, const char *text, int64_t low, int64_t high) {
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || value < low || value > high)
    qd_option_refuse(state, "%s takes a whole number from %lld to %lld, got \"%s\"", option, (long long)low, (long long)high,
                     text);
  return value;
}

double qd_option_number_or(struct argp_state *state, const char *option, const char *text, qd_option_range range) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= range.low && value <= range.high))
    qd_option_refuse(state, "%s takes a number from %g to %g%s%s, got \"%s\"", option, range.low, range.high,
                     range.word != NULL ? ", or " : "", range.word != NULL ? range.word : "", text);
  return value;
}

double qd_option_number(struct argp_state *state, const char *option, const char *text, double low, double high) {
  return qd_option_number_or(state, option, text, (qd_option_range){low, high, NULL});
}

int64_t qd_option_bytes(struct argp_state *state, const char *option, const char *text) {
  static const char letters[] = "KMGT";
  char *end;
  double value = strtod(text, &end);
  const char *letter = *end != '\0' ? strchr(letters, toupper((unsigned char)*end)) : NULL;
  bool fine = end != text && value > 0;
  if (letter != NULL) {
    for (const char *l = letters; l <= letter; l++) value *= 1024;
    end++;
    if (*end == 'i') end++;
  }
  if (*end == 'B') end++;
  if (!fine || *end != '\0' || value < 1 || value > 1e18)
    qd_option_refuse(state, "%s takes a size such as 512M or 4G, got \"%s\"", option, text);
  return (int64_t)value;
}

/* Hours, minutes and seconds, or minutes and seconds. */
static bool parse_clock(const char *text, double *total) {
  char *end;
  int fields = 0;
  for (*total = 0; fields < 3; fields++, text = end + 1) {
    double part = strtod(text, &end);
    if (end == text || !(part >= 0)) return false;
    *total = *total * 60 + part;
    if (*end != ':') return *end == '\0' && fields > 0;
  }
  return false;
}

/* Numbers with a unit each; seconds need none. */
static bool parse_spans(const char *text, double *total) {
  char *end;
  for (*total = 0; *text != '\0'; text = *end == '\0' ? end : end + 1) {
    double part = strtod(text, &end);
    if (end == text || !(part >= 0) || strchr("dhms", *end) == NULL) return false;
    *total += part * (*end == 'd' ? 86400 : *end == 'h' ? 3600 : *end == 'm' ? 60 : 1);
  }
  return true;
}

double qd_option_seconds(struct argp_state *state, const char *option, const char *text) {
  double total;
  bool fine = strchr(text, ':') != NULL ? parse_clock(text, &total) : parse_spans(text, &total);
  if (!fine || !(total > 0 && total < 1e9))
    qd_option_refuse(state, "%s takes a time such as 90s, 45m, 2h30m or 1:30:00, got \"%s\"", option, text);
  return total;
}

const char *qd_option_text(struct argp_state *state, const char *option, const char *text) {
  if (text[0] == '\0') qd_option_refuse(state, "%s is empty", option);
  return text;
}

int qd_option_choice(struct argp_state *state, const char *option, const char *text, const char *const *choices) {
  char list[256] = "";
  for (int i = 0; choices[i] != NULL; i++) {
    if (strcmp(text, choices[i]) == 0) return i;
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", choices[i]);
  }
  qd_option_refuse(state, "%s takes one of %s, got \"%s\"", option, list, text);
}

/* ---- common options ------------------------------------------------------------------------------------------------------ */

const qd_common_options qd_common_defaults = {.device = "cpu"};

static const struct argp_option common_options[] = {
    {"threads", 't', "N", 0, "Threads of each rank (OMP_NUM_THREADS, else 1); never changes a bit", 90},
    {"isa", 'I', "NAME", 0, "Use no more than avx2, avx512, avx512_vnni, avx512_bf16 or amx (QDIST_ISA); never changes a bit",
     90},
    {"device", 'D', "NAME", 0, "cpu, or ref: the plain loops of the specification, same bits, slow", 90},
    {0}};

static error_t parse_common(int key, char *text, struct argp_state *state) {
  static const char *const devices[] = {"cpu", "ref", NULL};
  qd_common_options *options = state->input;
  switch (key) {
    case 't': options->threads = (int)qd_option_integer(state, "--threads", text, 1, 1024); return 0;
    case 'I': options->isa = text; return 0;
    case 'D': options->device = devices[qd_option_choice(state, "--device", text, devices)]; return 0;
    default: return ARGP_ERR_UNKNOWN;
  }
}

const struct argp qd_common_argp = {.options = common_options, .parser = parse_common};

qd_device_options qd_common_device(const qd_common_options *options) {
  return (qd_device_options){
      .name = options->device, .isa = options->isa, .threads = options->threads, .scratch_bytes = QD_SCRATCH_LATER};
}
