/* sched_blocks.c: block tables. Entry i of a sequence's row holds the block of tokens [16 i, 16 i + 16);
 * entries below n_gone were given back or never held. A block is written only while it has one holder.
 */
#include <stdlib.h>

#include "worker/sched_impl.h"

uint32_t sched_chunk_max(const struct sched *s) {
    uint32_t limit = s->opts.long_prefill_tokens;
    return limit ? MIN(limit, s->opts.token_budget) : s->opts.token_budget;
}

uint32_t sched_blocks_needed(const struct kv_group *g, uint32_t n_tokens, uint32_t n_chunk) {
    uint32_t all = blocks_of(n_tokens);
    if (g->kind == KV_FULL)
        return all;
    /* From the first token in sight of the chunk's first query to the chunk's last, wherever blocks begin. */
    uint64_t seen = ((uint64_t)g->window + n_chunk) / KV_TOKENS + 2;
    return (uint32_t)MIN(all, seen);
}

uint32_t blocks_lacking(const struct sched *s, const struct seq *q, uint32_t group) {
    uint32_t all = blocks_of(seq_known(q)), held = q->n_blocks - q->n_gone[group];
    uint32_t left = all > q->n_blocks ? all - q->n_blocks : 0;
    uint32_t most = sched_blocks_needed(&s->group[group], seq_known(q), sched_chunk_max(s));
    return MIN(left, most > held ? most - held : 0);
}

void blocks_adopt(struct sched *s, struct seq *q, uint32_t n) {
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        uint32_t *row = sched_table(s, g, q);
        uint32_t gone = MIN(n, kv_group_first(&s->group[g], n * KV_TOKENS));
        for (uint32_t i = 0; i < n; i++) {
            row[i] = i < gone ? KV_NO_BLOCK : prefix_find(&s->prefix, g, s->names[i]);
            if (i < gone)
                continue;
            CHECK(row[i] != KV_NO_BLOCK);
            kv_hold(&s->pool[g], row[i]);
        }
        q->n_gone[g] = gone;
    }
    q->n_blocks = n;
    q->n_computed = n * KV_TOKENS;
    q->n_named = n;
    if (n)
        q->chain = s->names[n - 1];
}

void blocks_share(struct sched *s, const struct seq *from, struct seq *q) {
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        const uint32_t *src = sched_table(s, g, from);
        uint32_t *row = sched_table(s, g, q);
        for (uint32_t i = 0; i < from->n_blocks; i++) {
            row[i] = src[i];
            if (i >= from->n_gone[g])
                kv_hold(&s->pool[g], row[i]);
        }
        q->n_gone[g] = from->n_gone[g];
    }
    q->n_blocks = from->n_blocks;
}

void blocks_release(struct sched *s, struct seq *q) {
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        const uint32_t *row = sched_table(s, g, q);
        if (q->cow_src[g] != KV_NO_BLOCK)
            kv_drop(&s->pool[g], q->cow_src[g]);
        q->cow_src[g] = KV_NO_BLOCK;
        /* From the end: of a cached prefix the tail is to be evicted first, for without its head it is no
         * use. */
        for (uint32_t i = q->n_blocks; i > q->n_gone[g]; i--)
            kv_drop(&s->pool[g], row[i - 1]);
        q->n_gone[g] = 0;
    }
    q->n_blocks = q->n_computed = q->n_named = 0;
    q->chain = (struct id128){0};
}

void blocks_slide(struct sched *s, struct seq *q) {
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        uint32_t *row = sched_table(s, g, q);
        uint32_t first = MIN(q->n_blocks, kv_group_first(&s->group[g], q->n_computed));
        for (; q->n_gone[g] < first; q->n_gone[g]++) {
            kv_drop(&s->pool[g], row[q->n_gone[g]]);
            row[q->n_gone[g]] = KV_NO_BLOCK;
        }
    }
}

/* must_copy: the next token goes into a block that others hold too. */
static bool must_copy(const struct sched *s, const struct seq *q, uint32_t g) {
    uint32_t at = q->n_computed / KV_TOKENS;
    return at < q->n_blocks && s->pool[g].blocks[sched_table(s, g, q)[at]].n_holds > 1;
}

uint32_t blocks_room(const struct sched *s, const struct seq *q, uint32_t want) {
    uint32_t room = want;
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        uint32_t n = kv_available(&s->pool[g]), copy = must_copy(s, q, g);
        if (n < copy)
            return 0;
        uint64_t end = ((uint64_t)q->n_blocks + n - copy) * KV_TOKENS;
        room = (uint32_t)MIN(room, end - q->n_computed);
    }
    return room;
}

void blocks_grow(struct sched *s, struct seq *q, uint32_t n) {
    uint32_t n_blocks = MAX(q->n_blocks, blocks_of(q->n_computed + n));
    CHECK(n_blocks <= s->n_table);
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        uint32_t *row = sched_table(s, g, q), at = q->n_computed / KV_TOKENS;
        if (must_copy(s, q, g)) {
            /* The hold on the source stays until the plan is complete, lest it be taken as a destination. */
            q->cow_src[g] = row[at];
            row[at] = kv_take(&s->pool[g]);
            CHECK(row[at] != KV_NO_BLOCK);
        }
        for (uint32_t i = q->n_blocks; i < n_blocks; i++) {
            row[i] = kv_take(&s->pool[g]);
            CHECK(row[i] != KV_NO_BLOCK);
        }
    }
    q->n_blocks = n_blocks;
}

uint32_t sched_keep_room(const struct sched *s, uint32_t group) {
    uint32_t least = sched_blocks_needed(&s->group[group], s->opts.max_len, sched_chunk_max(s));
    return s->pool[group].n_blocks - least - s->n_kept[group];
}

void sched_keep(struct sched *s, uint32_t group, uint32_t block) {
    CHECK(sched_keep_room(s, group) > 0);
    kv_hold(&s->pool[group], block);
    s->n_kept[group]++;
}

uint32_t sched_keep_new(struct sched *s, uint32_t group) {
    CHECK(sched_keep_room(s, group) > 0);
    uint32_t block = kv_take(&s->pool[group]);
    s->n_kept[group] += block != KV_NO_BLOCK;
    return block;
}

void sched_unkeep(struct sched *s, uint32_t group, uint32_t block) {
    CHECK(s->n_kept[group] > 0);
    s->n_kept[group]--;
    kv_drop(&s->pool[group], block);
}

/* check_seq: adds q's holds to held[block] of each group. */
static void check_seq(const struct sched *s, const struct seq *q, uint32_t *held, uint32_t g) {
    const uint32_t *row = sched_table(s, g, q);
    CHECK(q->state == SEQ_RUNNING && q->seat < s->n_seats && q->n_gone[g] <= q->n_blocks);
    CHECK(q->n_computed <= q->n_blocks * KV_TOKENS && q->n_computed <= seq_known(q));
    CHECK(q->cow_src[g] == KV_NO_BLOCK);
    for (uint32_t i = 0; i < q->n_blocks; i++) {
        CHECK((row[i] == KV_NO_BLOCK) == (i < q->n_gone[g]));
        if (row[i] != KV_NO_BLOCK)
            held[row[i]]++;
    }
}

void sched_check(const struct sched *s) {
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        const struct kv_pool *p = &s->pool[g];
        kv_check(p);
        uint32_t *held = xcalloc(p->n_blocks, sizeof *held);
        for (uint32_t i = 0; i < s->n_running; i++)
            check_seq(s, s->running[i], held, g);
        uint32_t n_kept = 0;
        for (uint32_t b = 0; b < p->n_blocks; b++) {
            CHECK(held[b] <= p->blocks[b].n_holds);
            n_kept += p->blocks[b].n_holds - held[b];
        }
        CHECK(n_kept == s->n_kept[g]);
        free(held);
    }
    prefix_check(&s->prefix);
    bool by_priority = s->opts.policy == SCHED_PRIORITY;
    for (uint32_t i = 0; i < s->n_running; i++) {
        CHECK(s->running[i]->at == i);
        CHECK(i == 0 || seq_order(s->running[i - 1], s->running[i], by_priority) < 0);
    }
    for (uint32_t i = 0; i < s->n_waiting; i++) {
        const struct seq *q = s->waiting[i];
        CHECK(q->at == i && q->state == SEQ_WAITING && q->seat == SEQ_NO_SEAT && q->n_blocks == 0);
        CHECK(i == 0 || seq_order(s->waiting[(i - 1) / 2], q, by_priority) < 0);
    }
    CHECK(s->n_running + s->n_seats_free == s->n_seats);
}
