/* device.h: which table of operations runs the model. */
#ifndef WEIR_WORKER_DEVICE_H
#define WEIR_WORKER_DEVICE_H

#include "common/err.h"
#include "worker/backend.h"

/* device_ops: cpu, cuda, or auto (cuda where backend-cuda.so stands beside the program and finds a device,
 * else cpu). The shared object stays loaded. RC_UNAVAILABLE says what is missing. */
MUST_USE enum rc device_ops(const char *device, const struct be_ops **out, struct err *e);

#endif
