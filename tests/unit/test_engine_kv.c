/* What an engine tells of its prefix cache: whoever listens from the beginning, or asks for a snapshot at any
 * time, knows in the end what the cache holds. threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/hash.h"
#include "router/fleet/index.h"
#include "tests/support/engine_rig.h"
#include "tests/support/fake_be.h"
#include "worker/engine_impl.h"

enum { N_LISTENERS = 3, N_BLOCKS = 6000 };

/* listener: applies what comes, as a router does. Listener i is router i, and asks when told to. */
struct listener {
    struct prefix_index *index;
    uint32_t slot;
    uint64_t next_event;
    uint32_t n_pieces, n_begins;
};
struct fixture {
    struct fake_device device;
    struct be *be;
    struct cache_group_spec group;
    struct engine_opts opts;
    struct rig rig;
    struct listener listeners[N_LISTENERS];
};

static void hear(struct listener *l, uint32_t router, const struct step_out *out) {
    const struct kv_piece *p = out->kv_piece;
    for (uint32_t i = 0; l->slot != INDEX_NO_SLOT && i < out->n_kv_events; i++) {
        const struct prefix_event *v = &out->kv_events[i];
        CHECK(l->next_event++ == out->first_kv_event + i);
        if (v->kind == PREFIX_STORED) {
            index_stored(l->index, l->slot, &v->name, 1);
        } else if (v->kind == PREFIX_REMOVED) {
            index_removed(l->index, l->slot, &v->name, 1);
        } else {
            index_leave(l->index, l->slot);
            l->slot = index_join(l->index);
        }
    }
    if (!p || p->router != router)
        return;
    if (p->begins) {
        if (l->slot != INDEX_NO_SLOT)
            index_leave(l->index, l->slot);
        l->slot = index_join(l->index);
        l->next_event = out->first_kv_event + out->n_kv_events;
    }
    l->n_begins += p->begins;
    l->n_pieces++;
    index_stored(l->index, l->slot, p->names, p->n_names);
}

static void watch(struct rig *r, const struct step_out *out) {
    struct fixture *f = r->watch_arg;
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < N_LISTENERS; i++)
        hear(&f->listeners[i], i, out);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static int setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    f->be = fake_open(&f->device);
    f->opts = rig_opts(f->be, &f->group);
    f->opts.n_blocks[0] = N_BLOCKS;
    f->opts.max_len = f->opts.n_tokens_max = f->opts.token_budget = 1024;
    f->opts.n_requests_max = 2048;
    f->opts.kv_events = true;
    f->opts.n_eos_ids = 0;
    for (uint32_t i = 0; i < N_LISTENERS; i++)
        f->listeners[i] = (struct listener){.index = index_new(MIB, i), .slot = INDEX_NO_SLOT};
    f->rig.watch = watch;
    f->rig.watch_arg = f;
    rig_start(&f->rig, &f->opts);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    rig_free(&f->rig);
    fake_close(f->be);
    for (uint32_t i = 0; i < N_LISTENERS; i++)
        index_free(f->listeners[i].index);
    free(f);
    return 0;
}

static void ask(struct fixture *f, uint32_t router) {
    assert_int_equal(engine_control(f->rig.engine, ENGINE_KV_SNAPSHOT, router, 0, 0), RC_OK);
}

/* load: prompts of 700 tokens, some with a shared beginning; streams begin at `from`. */
static void load(struct fixture *f, uint32_t from, uint32_t n) {
    static uint32_t prompt[700];
    for (uint32_t i = from; i < from + n; i++) {
        for (uint32_t k = 0; k < ARRAY_LEN(prompt); k++)
            prompt[k] = (uint32_t)(hash_u64((i % 4 && k < 320 ? i % 4 : i + 10) * 1000 + k) % 90);
        struct req q = rig_req(i, prompt, ARRAY_LEN(prompt), 20);
        q.ignore_eos = true;
        rig_submit(&f->rig, &q);
    }
    rig_wait_ends(&f->rig, from + n);
}

static void wait_pieces(struct fixture *f, uint32_t i, uint32_t n) {
    pthread_mutex_lock(&f->rig.lock);
    while (f->listeners[i].n_pieces < n)
        pthread_cond_wait(&f->rig.changed, &f->rig.lock);
    pthread_mutex_unlock(&f->rig.lock);
}

/* expect: the listener knows the names of the cache, every one and no other. The engine is idle. */
static void expect(struct fixture *f, uint32_t i) {
    static struct id128 names[N_BLOCKS];
    const struct prefix *p = &f->rig.engine->sched.prefix;
    struct listener *l = &f->listeners[i];
    uint32_t at = 0, out[INDEX_SLOTS];
    rig_wait_idle(&f->rig);
    pthread_mutex_lock(&f->rig.lock);
    uint32_t n = prefix_names(p, &at, names, N_BLOCKS);
    while (index_sweep(l->index, 1000))
        ;
    assert_int_equal(at, N_BLOCKS);
    assert_int_equal(n, p->table[0].n_named);
    assert_int_equal(index_stats(l->index).n_entries, n);
    index_match(l->index, names, n, out);
    assert_int_equal(out[l->slot], n);
    pthread_mutex_unlock(&f->rig.lock);
}

static void test_events(void **state) {
    struct fixture *f = *state;
    ask(f, 0); /* of an empty cache, and an idle engine */
    wait_pieces(f, 0, 2);
    assert_int_equal(f->listeners[0].n_begins, 1);
    load(f, 0, 60);
    expect(f, 0);
    ask(f, 1); /* idle: both pieces come without a step of the model */
    wait_pieces(f, 1, 2);
    expect(f, 1);
    ask(f, 2);
    load(f, 60, 200); /* more than the cache holds, around the snapshot */
    wait_pieces(f, 2, 2);
    for (uint32_t i = 0; i < N_LISTENERS; i++)
        expect(f, i);
    assert_in_range(f->rig.engine->sched.pool[0].n_free, 0,
                    64); /* blocks that were never full: it is in use */
    assert_int_equal(engine_control(f->rig.engine, ENGINE_RESET_PREFIX_CACHE, 0, 0, 7), RC_OK);
    load(f, 260, 20);
    for (uint32_t i = 0; i < N_LISTENERS; i++)
        expect(f, i);
}

/* Asked twice, it begins anew; of a router that has gone nothing more comes. */
static void test_again(void **state) {
    struct fixture *f = *state;
    load(f, 0, 10);
    ask(f, 0);
    ask(f, 0);
    wait_pieces(f, 0, 2);
    expect(f, 0);
    assert_in_range(f->listeners[0].n_pieces, 2, 4);
    ask(f, 1);
    engine_drop_router(f->rig.engine, 1, 0);
    ask(f, 2);
    wait_pieces(f, 2, 2);
    assert_in_range(f->listeners[1].n_pieces, 0, 2);
    expect(f, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_events, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_again, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
