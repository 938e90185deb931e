/* fleet_private.h: what fleet.c (the table), fleet_queue.c (choice and lines), fleet_link.c (the link's callbacks) and assets.c (fetching
 * and building models) share. Everything here is under fleet.lock unless it says otherwise. */
#ifndef WEIR_ROUTER_FLEET_FLEET_PRIVATE_H
#define WEIR_ROUTER_FLEET_FLEET_PRIVATE_H

#include <pthread.h>

#include "router/fleet/fleet.h"
#include "router/fleet/kvfeed.h"
#include "router/fleet/policy.h"

struct asset_fetch;

/* A model this router has seen: one for each set of facts. Never removed. */
struct fleet_model {
    uint8_t key[32];
    struct model_info *info;           /* held; NULL: not built yet */
    bool building;                     /* a worker is being asked for files, or a job builds */
    char error[256];                   /* why the last try failed */
    struct line line;
    uint64_t alone_ns; /* without workers since then; 0: it has some */
    bool forgotten;    /* for too long (--model-retention): nobody is told of it, until a worker brings it */
};

/* fleet_address: one that is dialled. One that nobody names any more stays for as long as its worker has requests. */
struct fleet_address {
    char *url; /* NULL: a free place */
    unsigned n_names;
    uint64_t leave_ns; /* n_names 0: it is let go then at the latest */
};

struct worker_state {
    struct worker w;
    struct fleet *fleet;
    bool up, suspect;
    bool slow;    /* no progress for --hedge-after: its requests are hedged, and it is a last resort */
    unsigned n_slow_ticks; /* calls of fleet_cut_silent since it last made some */
    bool leaving; /* nobody names its address any more: it gets nothing new */
    uint64_t suspect_ns;
    unsigned n_suspect_ticks; /* calls of fleet_cut_silent since then */
    char address[256];        /* as dialled */
    char version[32];
    Weir__WorkerState state;
    char detail[256], name[256]; /* name: of its MODEL, known before its served names are */
    uint64_t load_done_bytes, load_total_bytes;
    uint32_t ready_ms;
    struct fleet_model *model;
    uint64_t fetch_ns; /* when it was first asked for its files; 0: it is not being asked */
    struct pick_load load;
    struct split_rate prefill_rate; /* of a token */
    unsigned n_splits; /* prompts that it computes for others, and that others compute for it */
    uint64_t id;         /* of its address (policy.h) */
    bool prefix_caching; /* of its last WorkerInfo */
    struct kv_feed feed; /* its slot changes under fleet.lock and index_lock, the rest in the callbacks */
    uint64_t kv_asked_ns; /* the last time a snapshot was asked for; the callbacks' */
    uint32_t n_waiting, n_running, kv_used_blocks, kv_total_blocks; /* of its last Load */
    bool resetting;    /* it was told to reset its cache, and has not answered */
    uint32_t max_seqs; /* that run at a time; what it has beyond them waits there. 0: not told */
    uint64_t step_ago_ns,
        step_at_ns; /* of its last Load: time without progress (0: none pending), and when it said so */
    /* Only in the connection's callbacks: */
    struct mask_times masks_seen;
    struct kv_seen kv_seen;
    uint32_t vocab_size, n_top_max;
    struct asset_fetch *fetch; /* files on their way */
    struct asset_fetch
        *spare; /* the same, not begun: another worker fetches the model, and may be lost before it is done */
};

struct fleet {
    struct fleet_opts o;
    struct link *link;
    pthread_mutex_t lock;
    struct worker_state *workers[FLEET_WORKERS_MAX];
    struct fleet_model *models[FLEET_MODELS_MAX];
    unsigned n_models;
    _Atomic bool knows_model; /* some models[i].info is there, for good */
    bool tenants;             /* are told apart */
    unsigned n_workers_end;   /* workers[] is NULL from there on */
    pthread_mutex_t dial_lock; /* around what is told the link of addresses; taken before fleet.lock */
    struct fleet_address addresses[FLEET_WORKERS_MAX];
    unsigned n_dialled; /* that somebody names */
    struct policy policy;
    pthread_mutex_t index_lock; /* taken last, under fleet.lock or without it */
    struct prefix_index *index; /* under index_lock; NULL: the policy needs none */
    struct {
        _Atomic uint64_t predicted, actual, off; /* tokens, since since_ns */
        uint64_t since_ns;                       /* fleet_kv_tick's own */
    } drift;
    struct split_rate split_tail; /* of a transfer */
    uint64_t n_done, n_done_ticked;
    double done_per_s;
    bool stopped;
    struct fleet_reset *reset; /* under way; NULL: none */
    uint64_t reset_id, reset_ns;
};

/* fleet_serves: some ready worker serves the model. */
bool fleet_serves(const struct fleet *f, const struct model_info *info);
/* fleet_queue.c */
/* fleet_pump: answers what it can of a model's line. Posts; sends nothing. */
void fleet_pump(struct fleet *f, struct fleet_model *m);
/* worker_is_ready: READY, its model is built, and somebody names its address: it may get requests. */
bool worker_is_ready(const struct worker_state *s);

/* fleet_decodes: a ready worker gets requests of its own: it does not only prefill, or nobody else serves its model. */
bool fleet_decodes(const struct fleet *f, const struct worker_state *s);

/* worker_state_name: "loading", "ready", "draining", "stalled" or "dead". */
const char *worker_state_name(const struct fleet *f, const struct worker_state *s, uint64_t now);

/* worker_health_name: what this router makes of it: "joining", "ready", "suspect" (silent), "draining", "stalled" or
 * "gone". */
const char *worker_health_name(const struct fleet *f, const struct worker_state *s, uint64_t now);
/* fleet_hedge.c */
/* fleet_look_slow: once in a tick, for each worker; under the lock. */
void fleet_look_slow(struct fleet *f, struct worker_state *s, uint64_t now);

/* fleet_dial.c */
/* fleet_leaving: whether url is dialled only for what its worker has yet to finish. Under the lock. */
bool fleet_leaving(const struct fleet *f, const char *url);
/* fleet_let_go: several times a second, without the lock: addresses whose workers have finished, or had their time. */
void fleet_let_go(struct fleet *f);
void fleet_addresses_free(struct fleet *f);
/* fleet_kv.c */
void fleet_kv_init(struct fleet *f);
void fleet_kv_fini(struct fleet *f);
/* fleet_kv_on_events: a worker's message; in its callback, without the lock. */
void fleet_kv_on_events(struct fleet *f, struct worker_state *s, struct link_conn *c, const Weir__KvEvents *m);
/* fleet_kv_want: asks for a snapshot if nothing is known of the worker's cache; likewise. Any number of times. */
void fleet_kv_want(struct fleet *f, struct worker_state *s);
/* fleet_kv_gone: under the lock. */
void fleet_kv_gone(struct fleet *f, struct worker_state *s);
/* fleet_kv_match: what of the ticket's prompt is where, by slot. With or without the lock. False: not known. */
bool fleet_kv_match(struct fleet *f, const struct fleet_ticket *t, uint32_t out[INDEX_SLOTS]);
/* fleet_kv_sweep: several times a second; fleet_kv_tick: once a second. Without the lock. */
void fleet_kv_sweep(struct fleet *f);
void fleet_kv_tick(struct fleet *f);

/* fleet_admin.c */
/* fleet_reset_answer: takes the lock; a reply that nobody waits for is dropped. fleet_reset_gone: under the
 * lock: a worker that is gone answers no more. fleet_reset_expire: takes the lock; ends a reset that takes
 * too long, or now. */
void fleet_reset_answer(struct fleet *f, struct worker_state *s, const Weir__ControlReply *m);
void fleet_reset_gone(struct fleet *f, struct worker_state *s);
void fleet_reset_expire(struct fleet *f, bool now);

/* fleet_link.c */
struct link *fleet_link_new(struct fleet *f);

/* assets.c. All in the connection's callbacks, without the lock. */
/* assets_want: a worker became READY: finds or makes its model, and starts fetching unless it is known or
 * under way. False: there are too many models, or facts that cannot be; *why says so. */
bool assets_want(struct worker_state *s, const Weir__WorkerInfo *info, char why[128]);
/* assets_chunk: a piece arrived. False: it does not fit, and the connection must be cut with *why. */
bool assets_chunk(struct worker_state *s, const Weir__AssetChunk *m, const char **why);
/* assets_retry: with every Load: starts the spare if nobody builds the model. False: as assets_chunk. */
bool assets_retry(struct worker_state *s, const char **why);
/* assets_gone: the connection ended; another worker may fetch. */
void assets_gone(struct worker_state *s);

#endif
