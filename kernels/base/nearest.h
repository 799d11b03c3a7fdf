/* The nearest of some names to a misspelt one, for messages. */
#ifndef QDIST_KERNELS_BASE_NEAREST_H
#define QDIST_KERNELS_BASE_NEAREST_H

/* The name nearest to `name` among `names` (NULL at the end), or NULL if none is near. */
const char *qd_nearest(const char *name, const char *const *names);

#endif
