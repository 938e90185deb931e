/* sched_beam.c: sequences of a beam search, which wait for each other at every token and are forked (beam.h). */
#include "worker/sched_impl.h"

void sched_park(struct sched *s, struct seq *q) {
    (void)s;
    CHECK(q->state == SEQ_RUNNING && q->n_computed == seq_known(q) && !q->parked);
    q->parked = true;
}

void sched_drop(struct sched *s, struct seq *q) {
    if (q->state == SEQ_RUNNING)
        seat_leave(s, q);
    else if (q->state == SEQ_WAITING)
        queue_remove(s, q);
    CHECK(q->state != SEQ_PENDING && q->state != SEQ_ENDED);
    q->state = SEQ_NEW;
    q->parked = false;
}

void sched_fork(struct sched *s, const struct seq *from, struct seq *q) {
    CHECK(q->state == SEQ_NEW && from->req == q->req && from != q);
    bool room = from->state == SEQ_RUNNING && s->n_seats_free > 0;
    for (uint32_t g = 0; g < s->opts.n_groups; g++)
        room = room && kv_available(&s->pool[g]) > s->n_running;
    seq_ready(q);
    memcpy(q->out, from->out, from->n_out * sizeof *q->out);
    q->n_out = from->n_out;
    q->parked = true;
    if (!room)
        return; /* it computes its tokens again, or finds them in the prefix cache */
    seat_take(s, q);
    blocks_share(s, from, q);
    q->n_computed = from->n_computed;
    q->n_named = from->n_named;
    q->chain = from->chain;
}

void sched_unpark(struct sched *s, struct seq *q, uint32_t token) {
    CHECK(q->parked && q->n_out < q->req->max_tokens);
    q->out[q->n_out++] = token;
    q->parked = false;
    if (q->state == SEQ_NEW)
        queue_push(s, q);
}

bool sched_evict_parked(struct sched *s) {
    bool any = false;
    for (uint32_t i = s->n_running; i > 0; i--) {
        struct seq *q = s->running[i - 1];
        if (!q->parked)
            continue;
        sched_preempt(s, q);
        any = true;
    }
    return any;
}
