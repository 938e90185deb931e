/* tp_impl.h: the memory that rank 0 shares with the others; for tp*.c only.
 *
 * One memory file without a name, sealed in size, which the others inherit: struct tp_shared, the ring of
 * plans, room for blocks on their way, and the backend's part. Each word has one writer at a time.
 */
#ifndef WEIR_WORKER_TP_IMPL_H
#define WEIR_WORKER_TP_IMPL_H

#include <stdatomic.h>

#include "worker/ring.h"
#include "worker/tp.h"
#include "worker/tp_wire.h"

/* Descriptors that a rank is started with: the memory, and a pipe that ends when rank 0 does. */
enum { TP_FD_MEMORY = 3, TP_FD_LEADER = 4, TP_FD_FREE = 5 };
/* Under a sanitizer everything takes longer, and several ranks share a core. */
#ifdef WEIR_SANITIZE
enum { TP_SLOWER = 10 };
#else
enum { TP_SLOWER = 1 };
#endif
enum { TP_SILENT_MS = 1500 * TP_SLOWER };
enum { TP_MAGIC = 0x74707771, TP_RING_WORDS = 1 << 17, TP_BEAT_MS = 200, TP_WHY_BYTES = 320 };

enum tp_state { TP_LOADING = 0, TP_LOADED, TP_REFUSED };
struct tp_seat {
    _Alignas(64) _Atomic uint32_t state; /* enum tp_state */
    _Atomic uint32_t beat;               /* counts up every TP_BEAT_MS */
    _Atomic uint64_t cpu_ns;             /* processor time of the rank so far */
    /* a rank on another host has a seat, too, for which a thread of rank 0 writes (tp_far.h) */
    char why[TP_WHY_BYTES];              /* before TP_REFUSED */
};

struct tp_shared {
    uint32_t magic, n_ranks, n_local, may_spin; /* n_local: ranks on this host */
    uint64_t bytes, ring_at, move_at, move_bytes, group_at; /* of all; where the parts begin */
    _Atomic uint32_t moved; /* serial of the last TP_MOVE that was done; of the rank that it named */
    struct tp_seat seats[BE_RANKS_MAX];
};

#endif
