/* weir-worker: flags, signals, loading, and waiting for the end. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hf/repo.h"
#include "common/link/link.h"
#include "common/link/secure.h"
#include "common/log.h"
#include "common/version.h"
#include "worker/assets.h"
#include "worker/flags.h"
#include "worker/load.h"
#include "worker/mock.h"
#include "worker/selftest.h"

enum { EXIT_USAGE = 2, FLUSH_MS = 500 };

/* worker: everything main waits for. events is an eventfd that wakes it. */
struct worker {
    struct worker_opts o;
    struct io *io;
    struct link_tls *tls; /* NULL: none */
    struct load load;
    struct mock *mock;
    struct tok *mock_tok; /* for --mock-text */
    struct io_engine engine;
    int events, signals;
    _Atomic bool drained, failed, drain_asked;
    char failure[256];
    uint64_t started_ns;
    struct buf secret;
};

static void wake(struct worker *w) {
    uint64_t one = 1;
    ssize_t ignored = write(w->events, &one, sizeof one);
    (void)ignored;
}

static void on_drained(void *arg) {
    struct worker *w = arg;
    atomic_store(&w->drained, true);
    wake(w);
}

static void on_failed(void *arg, const char *message) {
    struct worker *w = arg;
    snprintf(w->failure, sizeof w->failure, "%s", message);
    atomic_store(&w->failed, true);
    wake(w);
}

static void on_drain(void *arg) {
    struct worker *w = arg;
    atomic_store(&w->drain_asked, true);
    wake(w);
}

static void on_step(void *arg, const struct step_out *out) {
    io_on_step(((struct worker *)arg)->io, out);
}

static void on_control(void *arg, uint32_t router, uint32_t router_epoch, uint64_t id, bool ok) {
    io_on_control(((struct worker *)arg)->io, router, router_epoch, id, ok);
}

/* on_progress: on the main thread, between tensors. A signal ends loading here: there is nothing to drain,
 * and a large model takes minutes. */
static void on_progress(void *arg, uint64_t done, uint64_t total) {
    struct worker *w = arg;
    struct pollfd p = {.fd = w->signals, .events = POLLIN};
    if (poll(&p, 1, 0) == 1) {
        LOG(LOG_INFO, "stopped while loading");
        io_free(w->io); /* takes its socket away */
        _exit(0);
    }
    io_progress(w->io, done, total);
}

/* on_gone: a rank of the group is gone, and the model with it. The end is that of a worker that dies:
 * connections close, routers replay or report, and the supervisor starts another. On the thread that watches
 * the ranks, while others may wait for ever. */
static void on_gone(void *arg, const char *why) {
    struct worker *w = arg;
    LOG(LOG_ERROR, "a rank is gone", F_STR("reason", why));
    io_failed(w->io, why);
    io_flush(w->io, FLUSH_MS / 5);
    _exit(1);
}

/* on_sigbus: a mapped file lost its pages. Nothing can be saved: one line, and the end. */
static void on_sigbus(int sig) {
    static const char line[] = "weir-worker: a model file was cut short or could not be read while mapped\n";
    ssize_t ignored = write(STDERR_FILENO, line, sizeof line - 1);
    (void)ignored;
    (void)sig;
    _exit(1);
}

/* ---- the engine's face for io --------------------------------------------------------------------- */

static enum rc e_submit(void *arg, struct req *r, struct err *e) {
    return engine_submit(arg, r, e);
}
static enum rc e_abort(void *arg, uint32_t router, uint32_t epoch, struct id128 id, bool whole,
                       uint64_t stream) {
    return engine_abort(arg, router, epoch, id, whole, stream);
}
static void e_drop(void *arg, uint32_t router, uint32_t epoch) {
    engine_drop_router(arg, router, epoch);
}
static enum rc e_reset(void *arg, uint32_t router, uint32_t epoch, uint64_t id) {
    return engine_control(arg, ENGINE_RESET_PREFIX_CACHE, router, epoch, id);
}
static enum rc e_kv_snapshot(void *arg, uint32_t router, uint32_t epoch) {
    return engine_control(arg, ENGINE_KV_SNAPSHOT, router, epoch, 0);
}
static enum rc e_abort_pull(void *arg, uint32_t router, uint32_t epoch, struct id128 id) {
    return engine_abort_pull(arg, router, epoch, id);
}
static void e_end_transfer(void *arg, const struct req_kv *v) {
    engine_end_transfer(arg, v);
}
static void e_drain(void *arg) {
    engine_drain(arg);
}
static void e_stats(void *arg, struct engine_stats *out) {
    engine_stats_get(arg, out);
}

static enum rc start_engine(struct worker *w, struct err *e) {
    struct engine_opts o = {.arg = w,
                            .on_step = on_step,
                            .on_control = on_control,
                            .on_drained = on_drained,
                            .on_failed = on_failed};
    w->load.on_gone = on_gone;
    w->load.on_gone_arg = w;
    enum rc rc = load_model(&w->load, &w->o.w, &o, on_progress, w, e);
    if (rc == RC_OK)
        rc = engine_start(w->load.engine, e);
    w->engine = (struct io_engine){w->load.engine, e_submit, e_abort, e_drop,
                                   e_reset,        e_drain,  e_stats, w->load.constraints,
                                   e_kv_snapshot,  e_abort_pull, e_end_transfer};
    return rc;
}

static enum rc start_mock(struct worker *w, struct err *e) {
    struct io_facts *f = &w->load.facts;
    struct tok_files files = assets_tokenizer(w->load.assets, w->load.n_assets);
    if (w->o.w.mock_text && tok_load(&w->mock_tok, &files, e) != RC_OK)
        return e->rc;
    if (w->o.w.mock_text && !f->n_eos)
        return err_set(e, RC_INVALID, "mock-text", "--mock-text needs a model with an end token");
    struct mock_script script;
    if (mock_script_parse(w->o.w.mock_faults, &script, e) != RC_OK)
        return e->rc;
    enum { MOCK_BLOCKS = 65536 };
    f->n_blocks = MOCK_BLOCKS;
    f->max_seqs = w->o.w.max_num_seqs ? (uint32_t)w->o.w.max_num_seqs : 4096;
    f->max_batched_tokens = 2048;
    f->device = "mock";
    f->priority_scheduling = !strcmp(w->o.w.scheduling_policy, "priority");
    if (w->o.w.mock_cache_blocks) {
        f->n_blocks = (uint32_t)w->o.w.mock_cache_blocks;
        f->prefix_caching = true;
    }
    f->dtype = f->kv_dtype = "none";
    w->mock = mock_new(
        &(struct mock_opts){.step_ns = (uint64_t)(w->o.w.mock_step_ms * 1e6),
                            .prefill_ns_per_token = (uint64_t)(w->o.w.mock_prefill_us_per_token * 1e3),
                            .seq_ns = (uint64_t)(w->o.w.mock_seq_us * 1e3),
                            .script = script,
                            .n_vocab = f->vocab_size,
                            .n_seqs_max = f->max_seqs,
                            .n_blocks = f->n_blocks,
                            .eos_ids = f->eos,
                            .n_eos_ids = f->n_eos,
                            .text_path = w->o.w.mock_text,
                            .cache_blocks = (uint32_t)w->o.w.mock_cache_blocks,
                            .tok = w->mock_tok,
                            .arg = w,
                            .on_step = on_step,
                            .on_control = on_control,
                            .on_drained = on_drained});
    w->engine = mock_engine(w->mock);
    return RC_OK;
}

/* ---- life --------------------------------------------------------------------------------------- */

/* check_address: of a group over several hosts: whoever reaches it must prove itself. */
static enum rc check_address(const struct worker_opts *o, const char *flag, const char *url, bool listens, struct err *e) {
    enum rc rc = link_check_url(url, e);
    if (rc != RC_OK)
        return rc;
    if (!strncmp(url, "ipc://", 6))
        return err_set(e, RC_INVALID, flag, "--%s: tcp://HOST:PORT or tls+tcp://HOST:PORT", flag);
    bool tls = link_is_tls(url);
    if (tls && listens && !o->cluster_tls_certfile)
        return err_set(e, RC_INVALID, flag, "--%s %.200s needs --cluster-tls-certfile", flag, url);
    if (tls && !listens && !o->cluster_tls_ca)
        return err_set(e, RC_INVALID, flag, "--%s %.200s needs --cluster-tls-ca", flag, url);
    if (!link_is_local(url) && !o->cluster_token_file && !(tls && o->cluster_tls_ca))
        return err_set(e, RC_INVALID, flag,
                       "--%s %.200s: whoever reached it could be a rank: give it --cluster-token-file, or tls+tcp and "
                       "--cluster-tls-ca",
                       flag, url);
    return RC_OK;
}

/* check_group: of ranks on several hosts. */
static enum rc check_group(const struct worker_opts *o, struct err *e) {
    if (o->leader && !o->rank)
        return err_set(e, RC_INVALID, "leader", "--leader takes --rank, from 1 on: rank 0 is the leader");
    if (o->rank && o->remote_ranks)
        return err_set(e, RC_INVALID, "remote-ranks", "--remote-ranks is rank 0's");
    if (!o->remote_ranks != !o->rank_listen)
        return err_set(e, RC_INVALID, "remote-ranks", "--remote-ranks and --rank-listen go together");
    if (o->remote_ranks && o->remote_ranks >= o->w.tensor_parallel)
        return err_set(e, RC_INVALID, "remote-ranks",
                       "--remote-ranks %lld: of %lld ranks (--tensor-parallel-size) the first is on this host",
                       (long long)o->remote_ranks, (long long)o->w.tensor_parallel);
    enum rc rc = o->rank_listen ? check_address(o, "rank-listen", o->rank_listen, true, e) : RC_OK;
    return rc == RC_OK && o->leader ? check_address(o, "leader", o->leader, false, e) : rc;
}

static enum rc check_flags(const struct worker_opts *o, struct err *e) {
    if (!o->w.chunked_prefill && o->w.long_prefill_threshold)
        return err_set(e, RC_INVALID, "enable-chunked-prefill",
                       "--no-enable-chunked-prefill contradicts --long-prefill-token-threshold");
    if (o->w.mock && o->w.tensor_parallel > 1)
        return err_set(e, RC_INVALID, "tensor-parallel-size", "--mock has no ranks");
    enum rc of_group = check_group(o, e);
    if (of_group != RC_OK)
        return of_group;
    for (size_t i = 0; i < o->listen.n; i++) {
        const char *url = o->listen.v[i];
        enum rc rc = link_check_url(url, e);
        if (rc != RC_OK)
            return rc;
        bool tls = link_is_tls(url);
        if (tls && !o->cluster_tls_certfile)
            return err_set(e, RC_INVALID, "listen", "--listen %.200s needs --cluster-tls-certfile", url);
        if (!link_is_local(url) && !o->cluster_token_file && !(tls && o->cluster_tls_ca))
            return err_set(e, RC_INVALID, "listen",
                           "--listen %.200s: whoever reached it could use the worker: give it --cluster-token-file, "
                           "or tls+tcp and --cluster-tls-ca",
                           url);
    }
    return RC_OK;
}

/* default_listen: a socket of this process in a folder of this user's that nobody else can enter. */
static enum rc default_listen(struct conf_list *listen, struct err *e) {
    const char *run = getenv("XDG_RUNTIME_DIR");
    char dir[108], url[160];
    struct stat st;
    int n = run && *run ? snprintf(dir, sizeof dir, "%s/weir", run)
                        : snprintf(dir, sizeof dir, "/tmp/weir-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= sizeof dir - sizeof "/worker-4194304.sock")
        return err_set(e, RC_INVALID, "listen",
                       "the path of XDG_RUNTIME_DIR is too long: name a socket by --listen");
    if (mkdir(dir, 0700) && errno != EEXIST)
        return err_set(e, RC_IO, "listen", "%s: %s: name a socket by --listen", dir, strerror(errno));
    if (lstat(dir, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
        return err_set(e, RC_INVALID, "listen",
                       "%s is not a folder that only this user can enter: name a socket by --listen", dir);
    snprintf(url, sizeof url, "ipc://%s/worker-%d.sock", dir, (int)getpid());
    listen->v = xcalloc(1, sizeof *listen->v);
    listen->v[listen->n++] = xstrdup(url);
    return RC_OK;
}

/* tell_open: where routers find this worker; weir serve knows. */
static void tell_open(const struct worker *w, bool has_secret) {
    const struct conf_list *listen = &w->o.listen;
    for (size_t i = 0; i < listen->n; i++) {
        char address[320];
        size_t n = strlen(listen->v[i]);
        bool any_port = n > 2 && !strcmp(listen->v[i] + n - 2, ":0");
        snprintf(address, sizeof address, "%.256s", listen->v[i]);
        if (any_port && n < 256) /* what came of it; several such addresses are told by their last one's */
            snprintf(address + n - 1, sizeof address - n, "%d", io_port(w->io));
        if (!w->o.parent_pid)
            LOG(LOG_INFO, "listening", F_STR("address", address));
        if (!has_secret && strncmp(address, "ipc://", 6) && !link_is_tls(address))
            LOG(LOG_WARN, "whoever reaches this address may use the worker: there is no --cluster-token-file",
                F_STR("address", address));
    }
}

/* set_role: one of two sides moves KV blocks, also if nothing more is said of it: then other workers find it where
 * routers do. */
static enum rc set_role(struct worker *w, struct err *e) {
    struct load *l = &w->load;
    const bool prefill = !strcmp(w->o.role, "prefill"), decode = !strcmp(w->o.role, "decode");
    if (!prefill && !decode)
        return RC_OK;
    l->facts.role = w->o.role;
    if ((prefill && !l->kvx.produces) || (decode && !l->kvx.consumes))
        return err_set(e, RC_INVALID, "role", "--role %s needs a kv_role of %s or kv_both in --kv-transfer-config",
                       w->o.role, prefill ? "kv_producer" : "kv_consumer");
    for (size_t i = 0; i < w->o.listen.n && !l->kvx_on; i++)
        kvx_host_of(w->o.listen.v[i], l->kvx.host);
    l->kvx_on = true;
    return RC_OK;
}

/* kv_transfers: what the flags say of them. */
static enum rc kv_transfers(struct worker *w, struct err *e) {
    struct load *l = &w->load;
    enum rc rc = kvx_config(&w->o.w, &l->kvx, &l->kvx_on, e);
    l->kvx.secret = buf_str(&w->secret);
    if (rc == RC_OK)
        rc = kvx_peers_parse(&w->o.w.kv_peer_allow, &l->facts.kvx_peers, e);
    if (rc == RC_OK)
        rc = set_role(w, e);
    if (rc == RC_OK && l->kvx_on && w->o.w.mock)
        rc = err_set(e, RC_INVALID, "kv-transfer-config", "--mock has no KV cache: drop --kv-transfer-config and --role");
    l->kvx.tls = link_tls_mutual(w->tls) ? w->tls : NULL;
    if (rc == RC_OK && l->kvx_on && w->tls && !l->kvx.tls)
        LOG(LOG_WARN, "KV transfers are not encrypted: that takes --cluster-tls-certfile and --cluster-tls-ca, at every worker");
    return rc;
}

/* credentials: what peers are shown, and ranks on other hosts. */
static enum rc credentials(struct worker *w, struct err *e) {
    enum rc rc = link_secret_read(w->o.cluster_token_file, &w->secret, e);
    if (rc == RC_OK)
        rc = link_tls_new(&w->tls,
                          &(struct link_tls_files){.ca = w->o.cluster_tls_ca,
                                                   .cert = w->o.cluster_tls_certfile,
                                                   .key = w->o.cluster_tls_keyfile,
                                                   .name = w->o.cluster_tls_name},
                          e);
    w->load.n_far = (uint32_t)w->o.remote_ranks;
    w->load.is_far = w->o.leader != NULL;
    w->load.far = (struct tp_far_config){
        .url = w->o.leader ? w->o.leader : w->o.rank_listen, .secret = buf_str(&w->secret), .tls = w->tls};
    return rc;
}

static enum rc start(struct worker *w, const char *model, struct err *e) {
    enum rc rc = credentials(w, e);
    if (rc == RC_OK)
        rc = kv_transfers(w, e);
    if (rc == RC_OK)
        rc = io_new(&w->io, &w->o.listen, buf_str(&w->secret), w->tls, model, on_drain, w, e);
    if (rc == RC_OK)
        tell_open(w, w->secret.len > 0);
    if (rc == RC_OK)
        rc = load_files(&w->load, model, &w->o.w, e);
    if (rc == RC_OK) {
        rc = w->o.w.mock ? start_mock(w, e) : start_engine(w, e);
    }
    if (rc != RC_OK) {
        if (w->io)
            io_failed(w->io, e->msg);
        return rc;
    }
    struct io_facts *f = &w->load.facts;
    f->served_names = &w->o.w.served_names;
    f->ready_ms = (uint32_t)((clock_ns() - w->started_ns) / NS_PER_MS);
    io_ready(w->io, &w->engine, f, w->load.assets, w->load.n_assets);
    w->load.n_assets = 0; /* io's now */
    LOG(LOG_INFO, "ready", F_STR("model", model), F_U64("ms", f->ready_ms), F_STR("device", f->device),
        F_STR("dtype", f->dtype), F_U64("context", f->max_model_len),
        F_U64("kv_tokens", (uint64_t)f->n_blocks * KV_BLOCK_TOKENS),
        F_U64("step_tokens", f->max_batched_tokens));
    return RC_OK;
}

/* serve: until a signal, a drain or a failure is over. What a drain has not finished in its time ends with the
 * engine, and routers take it to other workers. */
static int serve(struct worker *w) {
    bool draining = false;
    uint64_t end_ns = UINT64_MAX;
    for (;;) {
        struct pollfd p[2] = {{.fd = w->signals, .events = POLLIN}, {.fd = w->events, .events = POLLIN}};
        struct signalfd_siginfo si;
        uint64_t n;
        const uint64_t now = clock_ns();
        const uint64_t left_ms = draining ? MIN((MAX(end_ns, now) - now) / NS_PER_MS + 1, 3600000u) : 0;
        if (poll(p, 2, draining ? (int)left_ms : -1) < 0 && errno != EINTR)
            return 1;
        bool signalled = (p[0].revents & POLLIN) && read(w->signals, &si, sizeof si) == (ssize_t)sizeof si;
        if (p[1].revents & POLLIN)
            (void)!read(w->events, &n, sizeof n);
        if (signalled && draining)
            return 0;
        if ((signalled || atomic_load(&w->drain_asked)) && !draining) {
            draining = true;
            end_ns = clock_ns() + (uint64_t)(w->o.drain_timeout_s * (double)NS_PER_S);
            LOG(LOG_INFO, "draining", F_F64("limit_s", w->o.drain_timeout_s));
            io_draining(w->io);
            w->engine.drain(w->engine.arg);
        }
        if (atomic_load(&w->failed)) {
            LOG(LOG_ERROR, "the device failed", F_STR("reason", w->failure));
            io_failed(w->io, w->failure);
            return 1;
        }
        if (atomic_load(&w->drained))
            return 0;
        if (draining && clock_ns() >= end_ns) {
            LOG(LOG_INFO, "the time to drain is over");
            return 0;
        }
    }
}

/* stop: the engine before io, which it reports to; both are freed when no connection can call them any more.
 */
static void stop(struct worker *w) {
    if (w->load.engine && w->engine.arg)
        engine_stop(w->load.engine);
    if (w->mock)
        mock_stop(w->mock);
    if (w->io)
        io_flush(w->io, FLUSH_MS);
    io_free(w->io);
    link_tls_free(w->tls);
    mock_free(w->mock);
    tok_free(w->mock_tok);
    load_free(&w->load);
    buf_fini(&w->secret);
    close(w->events);
    close(w->signals);
}

static void set_signals(struct worker *w) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    w->signals = signalfd(-1, &set, SFD_CLOEXEC);
    w->events = eventfd(0, EFD_CLOEXEC);
    CHECK(w->signals >= 0 && w->events >= 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGBUS, on_sigbus);
}

/* follow_far: a rank of a group whose rank 0 is on another host. A signal ends it, and with it the group. */
static int follow_far(struct worker *w, const char *model) {
    struct err e = {0};
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    int rc = 1;
    if (credentials(w, &e) == RC_OK)
        rc = load_follow(&w->load, model, &w->o.w);
    else
        fprintf(stderr, "weir-worker: %s\n", e.msg);
    link_tls_free(w->tls);
    buf_fini(&w->secret);
    return rc;
}

static int run(struct worker *w, const char *model) {
    struct err e = {0};
    enum log_level level;
    if (log_parse_level(w->o.w.log_level, &level))
        log_set_level(level);
    set_signals(w);
    int rc = 0;
    w->load.n_sharing = (uint32_t)w->o.n_sharing;
    if (w->o.w.threads == 0 && w->o.n_sharing > 1)
        w->o.w.threads = MAX(sysconf(_SC_NPROCESSORS_ONLN) / w->o.n_sharing, 1);
    w->load.rank = (uint32_t)w->o.rank;
    if (w->o.rank) {
        static char name[24]; /* the log keeps it */
        snprintf(name, sizeof name, "rank %u", w->load.rank);
        log_set_name(name);
        close(w->events);
        close(w->signals);
        if (w->o.leader)
            return follow_far(w, model);
        return load_follow(&w->load, model, &w->o.w); /* rank 0 decides about signals; they stay blocked */
    }
    if ((!w->o.listen.n && default_listen(&w->o.listen, &e) != RC_OK) || start(w, model, &e) != RC_OK) {
        fprintf(stderr, "weir-worker: %s\n", e.msg);
        rc = 1;
    } else {
        rc = serve(w);
    }
    stop(w);
    return rc;
}

/* run_selftest: 0: every operation keeps its bound. */
static int run_selftest(const struct worker_opts *o) {
    struct err e = {0};
    enum dtype t = strstr(o->w.dtype, "bf") ? DT_BF16 : strstr(o->w.dtype, "16") || !strcmp(o->w.dtype, "half") ? DT_F16 : DT_NONE;
    int n_failed = 0;
    if (selftest(o->w.device, t, stdout, &n_failed, &e) != RC_OK) {
        fprintf(stderr, "weir-worker: %s\n", e.msg);
        return 1;
    }
    return n_failed > 0;
}

int main(int argc, char **argv) {
    struct worker w = {.started_ns = clock_ns(), .events = -1, .signals = -1};
    struct conf_flag *rows = xcalloc(WORKER_FLAG_ROWS_MAX, sizeof *rows);
    struct conf_table table = worker_table(rows);
    struct conf_list positional = {0};
    struct err e = {0};
    int rc = EXIT_USAGE;

    log_set_name("worker");
    worker_opts_init(&w.o);
    if (conf_has(argc, argv, "--version")) {
        puts("weir-worker " WEIR_VERSION);
        rc = 0;
    } else if (conf_has(argc, argv, "--help") || conf_has(argc, argv, "-h")) {
        struct buf help = {0};
        conf_help(&table, &help);
        fwrite(help.data, 1, help.len, stdout);
        buf_fini(&help);
        rc = 0;
    } else if (conf_parse(&table, argc, argv, &w.o, &positional, &e) != RC_OK ||
               check_flags(&w.o, &e) != RC_OK) {
        fprintf(stderr, "weir-worker: %s\n", e.msg);
    } else if (w.o.selftest) {
        rc = run_selftest(&w.o);
    } else if (positional.n != 1) {
        fprintf(stderr, "weir-worker: name one MODEL: usage: %s\n", table.usage);
    } else if (hf_repo_check(positional.v[0], w.o.w.revision, &e) != RC_OK) {
        fprintf(stderr, "weir-worker: %s\n", e.msg);
    } else {
        if (w.o.parent_pid) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != w.o.parent_pid)
                _exit(1); /* it is gone already */
        }
        rc = run(&w, positional.v[0]);
    }
    conf_free(&table, &w.o, &positional);
    free(rows);
    return rc;
}
