/* probe.h: the two limits of a machine that the backend is measured against. */
#ifndef WEIR_WORKER_CPU_PROBE_H
#define WEIR_WORKER_CPU_PROBE_H

#include "worker/cpu/team.h"

/* probe_memory: memory for probe_read, with random contents, on huge pages where there are any. Free with
 * free(). */
void *probe_memory(size_t bytes);

/* probe_read: bytes a second that all members of the team together read from memory with AVX2 loads, each in
 * four streams, which was the fastest of the plain ways tried. `bytes` a multiple of 256 KiB and well above
 * the last cache. */
double probe_read(struct team *team, const void *memory, size_t bytes);

/* probe_fma: f32 operations a second (a multiply-add is two) of AVX2 multiply-adds on registers, all members.
 */
double probe_fma(struct team *team);

#endif
