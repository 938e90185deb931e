#include "tests/support/fake_worker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/buf.h"
#include "common/hash.h"

enum { N_ASSET = 4, VOCAB = 2048 };
static const char *const asset_names[N_ASSET] = {"tokenizer.json", "tokenizer_config.json",
                                                 "chat_template.jinja", "generation_config.json"};

struct seq {
    struct link_conn *conn; /* held */
    struct id128 id;
    uint64_t stream;
    uint32_t n_out, n_max;
};
struct fake_worker {
    struct fake_opts o;
    struct link *link;
    struct buf asset[N_ASSET];
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    bool stopping;
    Weir__WorkerState state;
    char detail[128];
    struct link_conn *conn; /* held: the newest router */
    struct seq *seqs;       /* [FAKE_SEQS_MAX] */
    uint32_t n_seqs;
    unsigned n_submits, n_aborts;
    uint64_t step;
};

uint32_t fake_worker_vocab(const struct fake_worker *w) {
    (void)w;
    return VOCAB;
}

/* ---- what it says of itself -------------------------------------------------------------------------- */

static void send_info(struct fake_worker *w, struct link_conn *c) {
    Weir__WorkerInfo m = WEIR__WORKER_INFO__INIT;
    Weir__Asset assets[N_ASSET], *ptrs[N_ASSET];
    uint8_t digest[N_ASSET][32], revision[32] = "a revision";
    char *name = (char *)(uintptr_t)(w->o.name ? w->o.name : "fake"), detail[128];
    uint32_t eos[1] = {0};
    pthread_mutex_lock(&w->lock);
    m.state = w->state;
    memcpy(detail, w->detail, sizeof detail);
    pthread_mutex_unlock(&w->lock);
    m.has_state = true;
    m.detail = detail;
    m.model = name;
    m.served_names = &name;
    m.n_served_names = 1;
    m.has_revision = true;
    m.revision = (ProtobufCBinaryData){sizeof revision, revision};
    m.has_vocab_size = m.has_max_model_len = m.has_block_tokens = m.has_max_logprobs = true;
    m.vocab_size = VOCAB;
    m.max_model_len = 4096;
    m.block_tokens = HASH_BLOCK_TOKENS;
    m.max_logprobs = 20;
    m.eos_ids = eos;
    m.n_eos_ids = 1;
    if (w->o.role) {
        m.serving_role = (char *)(uintptr_t)w->o.role;
        m.kv_engine_id = (char *)(uintptr_t)FAKE_KV_ENGINE;
        m.kv_host = (char *)(uintptr_t)FAKE_KV_HOST;
        m.has_kv_port = m.has_kv_pulls = true;
        m.kv_port = strcmp(w->o.role, "decode") ? FAKE_KV_PORT : 0;
        m.kv_pulls = strcmp(w->o.role, "prefill") != 0;
    }
    for (int i = 0; i < N_ASSET; i++) {
        if (w->asset[i].len == 0)
            continue;
        hash_sha256(w->asset[i].data, w->asset[i].len, digest[i]);
        digest[i][0] ^= w->o.bad_digest;
        weir__asset__init(&assets[i]);
        assets[i].name = (char *)(uintptr_t)asset_names[i];
        assets[i].has_total_bytes = assets[i].has_digest = true;
        assets[i].total_bytes = w->asset[i].len;
        assets[i].digest = (ProtobufCBinaryData){32, digest[i]};
        ptrs[m.n_assets++] = &assets[i];
    }
    m.assets = ptrs;
    (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_WORKER_INFO, &m);
    if (m.state != WEIR__WORKER_STATE__READY)
        return;
    Weir__Credit k = WEIR__CREDIT__INIT;
    k.has_sequences = k.has_prefill_tokens = true;
    k.sequences = w->o.credit_seqs ? w->o.credit_seqs : FAKE_SEQS_MAX;
    k.prefill_tokens = 1 << 20;
    (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CREDIT, &k);
}

static void send_load(struct fake_worker *w, struct link_conn *c, uint32_t n_running) {
    Weir__Load m = WEIR__LOAD__INIT;
    m.has_last_step_ns_ago = w->o.stall_ns > 0;
    m.last_step_ns_ago = w->o.stall_ns;
    m.has_running = true;
    m.running = n_running;
    (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_LOAD, &m);
}

static void send_asset(struct fake_worker *w, struct link_conn *c, const char *name) {
    for (int i = 0; i < N_ASSET; i++) {
        struct buf *b = &w->asset[i];
        if (strcmp(name, asset_names[i]) != 0)
            continue;
        for (size_t at = 0; at < b->len;) {
            Weir__AssetChunk m = WEIR__ASSET_CHUNK__INIT;
            size_t n = MIN(b->len - at, (size_t)50000);
            m.name = (char *)(uintptr_t)name;
            m.has_total_bytes = m.has_offset = m.has_data = true;
            m.total_bytes = b->len;
            m.offset = at;
            m.data = (ProtobufCBinaryData){n, (uint8_t *)b->data + at};
            (void)!link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_ASSET_CHUNK, &m);
            at += n;
        }
    }
}

/* ---- work -------------------------------------------------------------------------------------------- */

void fake_send(struct link_conn *c, uint64_t stream, uint32_t token, Weir__Finish__Reason reason) {
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    Weir__Finish f = WEIR__FINISH__INIT, *fp = &f;
    if (token != UINT32_MAX) {
        m.stream = &stream;
        m.token = &token;
        m.n_stream = m.n_token = 1;
    }
    f.has_stream = f.has_reason = true;
    f.stream = stream;
    f.reason = reason;
    m.finish = &fp;
    m.n_finish = reason != 0;
    (void)!link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_STEP_OUTPUTS, &m);
}

static void on_submit(struct fake_worker *w, struct link_conn *c, const Weir__Submit *m) {
    pthread_mutex_lock(&w->lock);
    w->n_submits++;
    pthread_mutex_unlock(&w->lock);
    if (w->o.on_submit && w->o.on_submit(w->o.arg, w, c, m))
        return;
    pthread_mutex_lock(&w->lock);
    for (uint32_t k = 0; k < MAX(m->sampling->n_samples, 1) && w->n_seqs < FAKE_SEQS_MAX; k++) {
        struct seq *q = &w->seqs[w->n_seqs++];
        *q = (struct seq){.conn = link_hold(c), .stream = m->stream + k, .n_max = m->sampling->max_tokens};
        memcpy(q->id.b, m->request_id.data, sizeof q->id.b);
    }
    for (size_t i = 0; i < m->n_resume; i++)
        for (uint32_t k = 0; k < w->n_seqs; k++)
            if (w->seqs[k].stream == m->stream + m->resume[i]->sample)
                w->seqs[k].n_out = (uint32_t)m->resume[i]->n_tokens;
    pthread_mutex_unlock(&w->lock);
}

static void seq_remove(struct fake_worker *w, uint32_t i) {
    link_drop(w->seqs[i].conn);
    memmove(&w->seqs[i], &w->seqs[i + 1], (w->n_seqs - i - 1) * sizeof *w->seqs);
    w->n_seqs--;
}

static void on_abort(struct fake_worker *w, const Weir__Abort *m) {
    if (w->o.on_abort)
        w->o.on_abort(w->o.arg, m);
    pthread_mutex_lock(&w->lock);
    w->n_aborts++;
    for (uint32_t i = w->n_seqs; i-- > 0;) {
        struct seq *q = &w->seqs[i];
        if (!memcmp(q->id.b, m->request_id.data, sizeof q->id.b) && (m->whole || m->stream == q->stream))
            seq_remove(w, i);
    }
    pthread_mutex_unlock(&w->lock);
}

/* step: with the lock held: one token for each live sample, in one message for the newest connection. */
static void step(struct fake_worker *w) {
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    uint32_t n = w->n_seqs;
    uint64_t *stream = xcalloc(n, sizeof *stream);
    uint32_t *token = xcalloc(n, sizeof *token);
    float *logprob = xcalloc(n, sizeof *logprob);
    Weir__First *first = xcalloc(n, sizeof *first), **first_ptr = xcalloc(n, sizeof *first_ptr);
    Weir__Finish *finish = xcalloc(n, sizeof *finish), **finish_ptr = xcalloc(n, sizeof *finish_ptr);
    for (uint32_t i = n; i-- > 0;) {
        struct seq *q = &w->seqs[i];
        if (q->n_out == 0) {
            Weir__First *f = first_ptr[m.n_first] = &first[m.n_first];
            weir__first__init(f);
            f->has_stream = true;
            f->stream = q->stream;
            m.n_first++;
        }
        stream[m.n_stream] = q->stream;
        logprob[m.n_stream] = -0.5f;
        token[m.n_stream++] = 40 + q->n_out % 50;
        if (++q->n_out < q->n_max)
            continue;
        Weir__Finish *f = finish_ptr[m.n_finish] = &finish[m.n_finish];
        weir__finish__init(f);
        f->has_stream = f->has_reason = true;
        f->stream = q->stream;
        f->reason = WEIR__FINISH__REASON__LENGTH;
        m.n_finish++;
        seq_remove(w, i);
    }
    m.stream = stream;
    m.token = token;
    m.logprob = logprob;
    m.n_token = m.n_logprob = m.n_stream;
    m.first = first_ptr;
    m.finish = finish_ptr;
    if (w->conn)
        (void)!link_send(w->conn, LINK_DATA, WEIR__ENVELOPE__BODY_STEP_OUTPUTS, &m);
    free(stream);
    free(token);
    free(logprob);
    free(first);
    free(first_ptr);
    free(finish);
    free(finish_ptr);
}

static void *step_loop(void *arg) {
    struct fake_worker *w = arg;
    uint32_t us = w->o.step_us ? w->o.step_us : 1000;
    struct timespec pause = {us / 1000000, (long)(us % 1000000) * 1000};
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        if (w->n_seqs)
            step(w);
        if (w->step++ % 50 == 0 && w->conn)
            send_load(w, w->conn, w->n_seqs);
        pthread_mutex_unlock(&w->lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the link ---------------------------------------------------------------------------------------- */

static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct fake_worker *w = arg;
    (void)peer;
    pthread_mutex_lock(&w->lock);
    if (w->conn)
        link_drop(w->conn);
    w->conn = link_hold(c);
    pthread_mutex_unlock(&w->lock);
    send_info(w, c);
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct fake_worker *w = arg;
    (void)reason;
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = w->n_seqs; i-- > 0;) {
        if (w->seqs[i].conn == c)
            seq_remove(w, i);
    }
    bool newest = w->conn == c;
    if (newest)
        w->conn = NULL;
    pthread_mutex_unlock(&w->lock);
    if (newest)
        link_drop(c);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct fake_worker *w = arg;
    if (m->body_case == WEIR__ENVELOPE__BODY_SUBMIT)
        on_submit(w, c, m->submit);
    else if (m->body_case == WEIR__ENVELOPE__BODY_ABORT)
        on_abort(w, m->abort);
    else if (m->body_case == WEIR__ENVELOPE__BODY_ASSET_GET)
        send_asset(w, c, m->asset_get->name);
}

void fake_worker_state(struct fake_worker *w, Weir__WorkerState state, const char *detail) {
    pthread_mutex_lock(&w->lock);
    w->state = state;
    snprintf(w->detail, sizeof w->detail, "%s", detail ? detail : "");
    struct link_conn *c = w->conn ? link_hold(w->conn) : NULL;
    pthread_mutex_unlock(&w->lock);
    if (!c)
        return;
    send_info(w, c);
    link_drop(c);
}

static void load_asset(struct fake_worker *w, int i) {
    char path[512], part[65536];
    snprintf(path, sizeof path, "%s/%s", w->o.model_dir ? w->o.model_dir : "deploy/tiny-model",
             asset_names[i]);
    FILE *f = fopen(path, "re");
    for (size_t n; f && (n = fread(part, 1, sizeof part, f)) > 0;)
        buf_add(&w->asset[i], part, n);
    if (f)
        fclose(f);
}

struct fake_worker *fake_worker_new(const struct fake_opts *o) {
    struct fake_worker *w = xcalloc(1, sizeof *w);
    struct err e;
    w->o = *o;
    w->state = o->start_loading ? WEIR__WORKER_STATE__LOADING : WEIR__WORKER_STATE__READY;
    w->seqs = xcalloc(FAKE_SEQS_MAX, sizeof *w->seqs);
    pthread_mutex_init(&w->lock, NULL);
    for (int i = 0; i < N_ASSET; i++)
        load_asset(w, i);
    CHECK(w->asset[0].len);
    w->link = link_new(&(struct link_opts){
        .role = WEIR__ROLE__WORKER, .arg = w, .on_up = on_up, .on_message = on_message, .on_down = on_down});
    CHECK(link_listen(w->link, o->url, &e) == RC_OK);
    CHECK(pthread_create(&w->thread, NULL, step_loop, w) == 0);
    return w;
}

void fake_worker_free(struct fake_worker *w) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    link_free(w->link);
    CHECK(w->n_seqs == 0 && !w->conn);
    for (int i = 0; i < N_ASSET; i++)
        buf_fini(&w->asset[i]);
    pthread_mutex_destroy(&w->lock);
    free(w->seqs);
    free(w);
}

static unsigned read_locked(struct fake_worker *w, const unsigned *v) {
    pthread_mutex_lock(&w->lock);
    unsigned n = *v;
    pthread_mutex_unlock(&w->lock);
    return n;
}
unsigned fake_worker_live(struct fake_worker *w) {
    return read_locked(w, &w->n_seqs);
}
unsigned fake_worker_submits(struct fake_worker *w) {
    return read_locked(w, &w->n_submits);
}
unsigned fake_worker_aborts(struct fake_worker *w) {
    return read_locked(w, &w->n_aborts);
}
