#include "worker/batch.h"

#include <stdlib.h>

void batch_init(struct batch_arrays *b, const struct sched *s) {
    size_t n_tokens = s->opts.token_budget, n_seqs = s->n_seats;
    *b = (struct batch_arrays){.n_groups = s->opts.n_groups};
    b->tokens = xcalloc(n_tokens, sizeof *b->tokens);
    b->pos = xcalloc(n_tokens, sizeof *b->pos);
    b->seq_start = xcalloc(n_seqs + 1, sizeof *b->seq_start);
    b->kv_len = xcalloc(n_seqs, sizeof *b->kv_len);
    b->rows = xcalloc(s->opts.n_rows_max, sizeof *b->rows);
    b->types = xcalloc(n_tokens, sizeof *b->types);
    b->from_row = xcalloc(n_tokens, sizeof *b->from_row);
    for (uint32_t g = 0; g < b->n_groups; g++) {
        b->table[g] = xcalloc(n_seqs * s->n_table, sizeof *b->table[g]);
        b->slot[g] = xcalloc(n_tokens, sizeof *b->slot[g]);
    }
}

void batch_fini(struct batch_arrays *b) {
    free(b->tokens);
    free(b->pos);
    free(b->seq_start);
    free(b->kv_len);
    free(b->rows);
    free(b->types);
    free(b->from_row);
    for (uint32_t g = 0; g < b->n_groups; g++) {
        free(b->table[g]);
        free(b->slot[g]);
    }
    *b = (struct batch_arrays){0};
}

/* add_types: token types of an entry; output tokens have type 0. */
static void add_types(struct batch_arrays *b, const struct plan_entry *e) {
    const struct req *r = e->seq->req;
    for (uint32_t k = 0; k < e->n_tokens; k++) {
        uint32_t at = e->start + k;
        b->types[e->at + k] = r->token_types && at < r->n_prompt ? r->token_types[at] : 0;
    }
    b->has_types |= r->token_types != NULL;
}

static void add_group(struct batch_arrays *b, const struct sched *s, const struct plan_entry *e, uint32_t i,
                      uint32_t g) {
    const uint32_t *row = sched_table(s, g, e->seq);
    uint32_t *dst = b->table[g] + (size_t)i * b->table_stride;
    for (uint32_t k = 0; k < b->table_stride; k++)
        dst[k] = k >= e->seq->n_blocks || row[k] == KV_NO_BLOCK ? 0 : row[k];
    for (uint32_t k = 0; k < e->n_tokens; k++) {
        uint32_t pos = e->start + k, block = row[pos / KV_TOKENS];
        CHECK(block != KV_NO_BLOCK);
        b->slot[g][e->at + k] = block * KV_TOKENS + pos % KV_TOKENS;
    }
}

void batch_build(struct batch_arrays *b, const struct sched *s, const struct step_plan *p) {
    CHECK(p->n_entries > 0);
    b->n_tokens = p->n_tokens;
    b->n_seqs = p->n_entries;
    b->n_rows = p->n_rows;
    b->table_stride = 1;
    b->has_types = b->has_guesses = false;
    memset(b->from_row, 0, p->n_tokens * sizeof *b->from_row);
    for (uint32_t i = 0; i < p->n_entries; i++)
        b->table_stride = MAX(b->table_stride, p->entries[i].seq->n_blocks);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const struct plan_entry *e = &p->entries[i];
        seq_copy_tokens(e->seq, e->start, e->n_tokens, b->tokens + e->at);
        for (uint32_t k = 0; k < e->n_tokens; k++)
            b->pos[e->at + k] = (int32_t)(e->start + k);
        if (e->seq->guessed && e->start + e->n_tokens == seq_known(e->seq)) {
            b->from_row[e->at + e->n_tokens - 1] = e->seq->from_row + 1;
            b->has_guesses = true;
        }
        add_types(b, e);
        b->seq_start[i] = e->at;
        b->kv_len[i] = e->start + e->n_tokens;
        for (uint32_t g = 0; g < b->n_groups; g++)
            add_group(b, s, e, i, g);
    }
    b->seq_start[p->n_entries] = p->n_tokens;
    for (uint32_t i = 0; i < p->n_rows; i++)
        b->rows[i] = p->rows[i].token;
}
