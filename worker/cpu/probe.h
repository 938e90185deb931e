/* probe.h: the two limits of a machine that the backend is measured against. */
#ifndef WEIR_WORKER_CPU_PROBE_H
#define WEIR_WORKER_CPU_PROBE_H

#include "worker/cpu/team.h"

/* probe_memory: memory for probe_read, written to and on huge pages where there are any. Free with free(). */
void *probe_memory(size_t bytes);

/* probe_read: bytes a second that all members of the team together read from memory: AVX2 loads, prefetched
 * as the backend's. `bytes` a multiple of 4 KiB and well above the last cache. */
double probe_read(struct team *team, const void *memory, size_t bytes);

/* probe_fma: f32 operations a second (a multiply-add is two) of AVX2 multiply-adds on registers, all members.
 */
double probe_fma(struct team *team);

#endif
