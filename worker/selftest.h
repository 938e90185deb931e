/* selftest.h: `weir-worker --selftest`: every operation of the device that is present, against sums in f64, on random
 * ragged shapes, with poisoned outputs. */
#ifndef WEIR_WORKER_SELFTEST_H
#define WEIR_WORKER_SELFTEST_H

#include <stdio.h>

#include "common/err.h"

/* selftest: prints a line for each operation to `out`: its shapes, and its largest error as a share of the bound that
 * its type and number of roundings give. Seconds on a processor. *n_failed: operations beyond their bound. compute:
 * the type of activations; DT_NONE: the device's own. RC_UNAVAILABLE: the device does not open, with the reason. */
MUST_USE enum rc selftest(const char *device, int compute, FILE *out, int *n_failed, struct err *e);

#endif
