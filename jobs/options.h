/* Options on top of argp: dashes or underscores, the nearest name for a misspelt option, numbers, sizes and times checked once.
 * Only the first rank speaks. */
#ifndef QDIST_JOBS_OPTIONS_H
#define QDIST_JOBS_OPTIONS_H

#include "kernels/base/nearest.h"
#include "kernels/device.h"

#include <argp.h>

/* Options that all commands with a computation have. */
typedef struct qd_common_options {
  const char *device, *isa;
  int         threads;
} qd_common_options;
extern const struct argp qd_common_argp; /* a child parser; its input is a qd_common_options */
extern const qd_common_options qd_common_defaults;

/* The device, whose scratch gets its size from a plan. */
qd_device_options qd_common_device(const qd_common_options *options);

/* argp_parse with all of the above.  Ends the program with 2 on a wrong use. */
void qd_options_parse(const struct argp *argp, int argc, char **argv, void *input);

/* A wrong use: the first rank says what and how to ask for help, every rank ends with 2. */
_Noreturn void qd_option_refuse(const struct argp_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Values; a wrong one is refused by the option, what it takes and what was given. */
int64_t qd_option_integer(struct argp_state *state, const char *option, const char *text, int64_t low, int64_t high);
double  qd_option_number(struct argp_state *state, const char *option, const char *text, double low, double high);
/* A number, or a word in its place that the caller knows. */
typedef struct qd_option_range {
  double low, high;
  const char *word;
} qd_option_range;
double  qd_option_number_or(struct argp_state *state, const char *option, const char *text, qd_option_range range);
int64_t qd_option_bytes(struct argp_state *state, const char *option, const char *text);   /* 4G, 512M, 4GiB */
double  qd_option_seconds(struct argp_state *state, const char *option, const char *text); /* 90, 90s, 15m, 2h, 1:30:00 */
const char *qd_option_text(struct argp_state *state, const char *option, const char *text); /* not empty */
int qd_option_choice(struct argp_state *state, const char *option, const char *text,
                     const char *const *choices); /* NULL at the end */

/* This process's rank by its launcher's environment, before MPI is there; 0 without one. */
int qd_launcher_rank(void);

#endif
