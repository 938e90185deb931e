#include "worker/sched_impl.h"

static bool before(const struct sched *s, const struct seq *a, const struct seq *b) {
    return seq_order(a, b, s->opts.policy == SCHED_PRIORITY) < 0;
}

static void put(struct sched *s, uint32_t at, struct seq *q) {
    s->waiting[at] = q;
    q->at = at;
}

static void sift_up(struct sched *s, uint32_t at) {
    struct seq *q = s->waiting[at];
    for (; at > 0 && before(s, q, s->waiting[(at - 1) / 2]); at = (at - 1) / 2)
        put(s, at, s->waiting[(at - 1) / 2]);
    put(s, at, q);
}

static void sift_down(struct sched *s, uint32_t at) {
    struct seq *q = s->waiting[at];
    for (uint32_t child; (child = 2 * at + 1) < s->n_waiting; at = child) {
        if (child + 1 < s->n_waiting && before(s, s->waiting[child + 1], s->waiting[child]))
            child++;
        if (!before(s, s->waiting[child], q))
            break;
        put(s, at, s->waiting[child]);
    }
    put(s, at, q);
}

void queue_push(struct sched *s, struct seq *q) {
    if (s->n_waiting == s->n_waiting_max) {
        s->n_waiting_max *= 2;
        s->waiting = xreallocarray(s->waiting, s->n_waiting_max, sizeof(struct seq *));
    }
    q->state = SEQ_WAITING;
    put(s, s->n_waiting++, q);
    sift_up(s, q->at);
}

void queue_remove(struct sched *s, struct seq *q) {
    uint32_t at = q->at;
    CHECK(at < s->n_waiting && s->waiting[at] == q);
    struct seq *last = s->waiting[--s->n_waiting];
    if (last == q)
        return;
    put(s, at, last);
    sift_up(s, at);
    sift_down(s, last->at);
}

void running_insert(struct sched *s, struct seq *q) {
    CHECK(s->n_running < s->n_seats);
    uint32_t at = s->n_running++;
    for (; at > 0 && before(s, q, s->running[at - 1]); at--) {
        s->running[at] = s->running[at - 1];
        s->running[at]->at = at;
    }
    s->running[at] = q;
    q->at = at;
    q->state = SEQ_RUNNING;
}

void running_remove(struct sched *s, struct seq *q) {
    CHECK(q->at < s->n_running && s->running[q->at] == q);
    s->n_running--;
    for (uint32_t at = q->at; at < s->n_running; at++) {
        s->running[at] = s->running[at + 1];
        s->running[at]->at = at;
    }
}
