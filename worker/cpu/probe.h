/* probe.h: the two limits of a machine that the backend is measured against. */
#ifndef WEIR_WORKER_CPU_PROBE_H
#define WEIR_WORKER_CPU_PROBE_H

#include "worker/cpu/team.h"

/* probe_memory: memory for probe_read, with random contents, on huge pages where there are any. free() it. */
void *probe_memory(size_t bytes);

/* probe_read: all members of the team together read `bytes` once, with AVX2 loads in four streams each, which
 * was the fastest of the plain ways tried. A multiple of 256 KiB, and well above the last cache. */
void probe_read(struct team *team, const void *memory, size_t bytes);

/* probe_fma: AVX2 multiply-adds on registers, by all members. Returns the f32 operations done, a multiply-add
 * being two. The caller takes the time of both. */
double probe_fma(struct team *team);

#endif
