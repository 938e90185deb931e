/* probe.cu: what the benchmark measures a device by, beside the table of operations. */
#include "worker/cuda/dev.h"

/* be_probe_copy: `bytes` from one buffer to another, so many times; waits. False: no memory, or the device failed. */
extern "C" __attribute__((visibility("default"))) bool be_probe_copy(struct be *b, size_t bytes, uint32_t times) {
    char err[BE_ERR_BYTES];
    void *from = rt_alloc(b->rt, bytes), *to = rt_alloc(b->rt, bytes);
    for (uint32_t i = 0; from && to && i < times; i++)
        rt_copy(b->rt, to, from, bytes);
    bool good = from && to && rt_wait(b->rt, err) == 0;
    rt_free(b->rt, from);
    rt_free(b->rt, to);
    return good;
}
