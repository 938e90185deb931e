/* io.h: a worker's end of the link: requests in, outputs and state out.
 *
 * It exists before the model does, so that routers see loading progress. Link callbacks come on the link's
 * threads, io_on_step on the engine's, the load reports from a thread of its own. What a router sends is
 * checked here, field by field, before the engine sees it; a message that breaks a rule is rejected or cuts
 * its connection, and nothing else.
 */
#ifndef WEIR_WORKER_IO_H
#define WEIR_WORKER_IO_H

#include "common/conf.h"
#include "common/err.h"
#include "worker/engine.h"

enum { IO_ROUTERS_MAX = 64, IO_ASSETS_MAX = 16 };

struct io;

/* io_engine: what takes requests: the engine, or the mock. Contracts as in engine.h. */
struct io_engine {
    void *arg;
    enum rc (*submit)(void *arg, struct req *r, struct err *e);
    enum rc (*abort)(void *arg, uint32_t router, uint32_t router_epoch, struct id128 id, bool whole,
                     uint64_t stream);
    void (*drop_router)(void *arg, uint32_t router, uint32_t router_epoch);
    enum rc (*reset_prefix)(void *arg, uint32_t router, uint32_t router_epoch, uint64_t id);
    void (*drain)(void *arg);
    void (*stats)(void *arg, struct engine_stats *out);
    struct constraints *constraints; /* NULL: it serves none */
    /* kv_snapshot: engine_control's KV_SNAPSHOT. NULL: it has no prefix cache. */
    enum rc (*kv_snapshot)(void *arg, uint32_t router, uint32_t router_epoch);
    /* abort_pull, end_transfer: NULL: it moves no KV blocks. */
    enum rc (*abort_pull)(void *arg, uint32_t router, uint32_t router_epoch, struct id128 id);
    void (*end_transfer)(void *arg, const struct req_kv *v);
};

/* io_facts: what routers learn of the model. Strings and arrays are copied. */
struct io_facts {
    const char *model;
    const struct conf_list *served_names; /* empty: model */
    uint8_t revision[32];
    uint32_t max_model_len, vocab_size, n_blocks, max_seqs, max_batched_tokens, max_logprobs;
    bool priority_scheduling, prefix_caching;
    const char *role; /* prefill, decode; outlives io. NULL: both */
    const char *device, *dtype, *kv_dtype;
    uint32_t eos[16];
    uint32_t n_eos;
    uint32_t ready_ms;
    uint32_t n_ranks;            /* 0: as 1 */
    const struct pooler *pooler; /* NULL: the model generates */
    const struct plugins *plugins; /* logits processors; NULL: none */
    uint32_t n_token_types;      /* token types are below it; 0: there are none */
    const struct kvx_opts *kvx;  /* outlives io; NULL: no KV transfers */
    uint32_t kvx_port;
    struct kvx_peers kvx_peers;  /* that requests may name */
};
/* io_asset: a file for routers; the bytes go to io (free()). */
struct io_asset {
    const char *name; /* a literal */
    char *data;
    size_t n;
};

struct link_tls;

/* io_new: listens and announces LOADING. on_drain comes when a router asks for it, on a link thread. */
MUST_USE enum rc io_new(struct io **out, const struct conf_list *listen, struct str secret,
                        const struct link_tls *tls, const char *model, void (*on_drain)(void *arg), void *arg,
                        struct err *e);
int io_port(const struct io *io);
/* io_progress: at most ten times a second reaches the routers. */
void io_progress(struct io *io, uint64_t done_bytes, uint64_t total_bytes);
/* io_ready: from now on requests are taken. assets (n of them) are taken over. */
void io_ready(struct io *io, const struct io_engine *engine, const struct io_facts *facts,
              struct io_asset *assets, size_t n_assets);
/* io_state: tells routers DRAINING or FAILED with a line why. */
void io_draining(struct io *io);
void io_failed(struct io *io, const char *why);
/* The engine's callbacks. */
void io_on_step(void *io, const struct step_out *out);
void io_on_control(void *io, uint32_t router, uint32_t router_epoch, uint64_t id, bool ok);
/* io_flush: waits until all that was said to routers is on its way, at most so long. */
void io_flush(struct io *io, unsigned ms);
/* io_free: closes every connection; what is not on its way is lost. The engine must be stopped by then, but
 * not freed: until this returns, connections may call it. */
void io_free(struct io *io);

#endif
