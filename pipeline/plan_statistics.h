/* The part of a plan that belongs to statistics and factors: what calibrate.c and factorize.c take. */
#ifndef QDIST_PIPELINE_PLAN_STATISTICS_H
#define QDIST_PIPELINE_PLAN_STATISTICS_H

#include "pipeline/plan.h"

/* The statistics arena of a rank. */
size_t qd_plan_statistics(const qd_plan_request *request, int rank);

/* What their operations take of the scratch. */
size_t qd_plan_statistics_scratch(const qd_plan_request *request);

#endif
