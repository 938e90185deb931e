/* Workers that make no progress, before they count as gone: what is there for requests that do not wait for that. */
#include <stdatomic.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "router/fleet/fleet_private.h"

/* SLOW_TICKS: a router that did not run for a while finds its workers' words unread, and must look again. */
enum { SLOW_TICKS = 2 };

/* without_progress_ns: a worker says every 200 ms how long ago its last step was; so its silence counts, too. */
static uint64_t without_progress_ns(const struct worker_state *s, uint64_t now) {
    uint64_t silent_ns = now > s->step_at_ns ? now - s->step_at_ns : 0;
    return s->step_at_ns ? s->step_ago_ns + silent_ns : 0;
}

static void post_slow(struct fleet *f, struct worker_state *s) {
    if (atomic_load(&s->w.n_slow_out) > 0)
        return; /* the loops are at it */
    atomic_store(&s->w.n_slow_out, f->o.n_loops);
    for (unsigned i = 0; i < f->o.n_loops; i++) {
        struct fleet_slow *m = xcalloc(1, sizeof *m);
        m->msg.step = f->o.on_slow;
        m->worker = worker_hold(&s->w);
        f->o.post(f->o.arg, i, &m->msg);
    }
}

void fleet_look_slow(struct fleet *f, struct worker_state *s, uint64_t now) {
    const double limit_s = f->o.opts->hedge_after_s;
    if (limit_s <= 0 || !s->up)
        return;
    bool late = (double)without_progress_ns(s, now) > limit_s * (double)NS_PER_S;
    s->n_slow_ticks = late ? s->n_slow_ticks + 1 : 0;
    bool slow = s->n_slow_ticks >= SLOW_TICKS;
    if (slow != s->slow) {
        s->slow = slow;
        LOG(slow ? LOG_WARN : LOG_INFO, slow ? "worker makes no progress; its requests may go on elsewhere"
                                             : "worker makes progress again",
            F_U64("engine", s->w.engine));
        if (!slow && s->model)
            fleet_pump(f, s->model);
    }
    if (slow && s->load.n_seqs > 0)
        post_slow(f, s);
}
