/* A Submit, checked field by field, becomes a request of the engine. */
#include <math.h>
#include <stdlib.h>

#include <jansson.h>

#include "common/clock.h"
#include "common/hash.h"
#include "worker/io_private.h"
#include "worker/procs.h"

enum {
    SAMPLES_MAX = 128,
    STOP_IDS_MAX = 1024,
    BIAS_MAX = 4096,
    WORDS_MAX = 256,
    RESUME_MAX = SAMPLES_MAX,
    PROMPT_ROWS_BYTES_MAX = 48 << 20
};

static uint32_t status_of(enum rc rc) {
    switch (rc) {
    case RC_INVALID:
        return 400;
    case RC_UNSUPPORTED:
        return 501;
    case RC_OVERLOAD:
    case RC_UNAVAILABLE:
        return 503;
    default:
        return 500;
    }
}

void io_reject(struct link_conn *c, struct id128 id, const struct err *e) {
    Weir__Reject m = WEIR__REJECT__INIT;
    struct err copy = *e;
    m.has_request_id = true;
    m.request_id = (ProtobufCBinaryData){sizeof id.b, id.b};
    m.has_status = true;
    m.status = status_of(e->rc);
    m.message = copy.msg;
    m.param = copy.param[0] ? copy.param : NULL;
    if (link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_REJECT, &m) == RC_AGAIN)
        link_cut(c, "the router does not read");
}

/* What this build does not serve is refused by name: ignoring it would change what the client gets. */
enum { FAIR_TAG_BYTES_MAX = 32 };

static enum rc check_supported(const Weir__Submit *m, const struct io_facts *f, struct err *e) {
    const char *field = NULL;
    if (m->n_tensors)
        field = "tensors";
    else if (m->adapter && m->adapter[0])
        field = "adapter";
    else if (m->kv_transfer && !f->kvx)
        field = "kv_transfer";
    if (m->has_fair_tag && m->fair_tag.len > FAIR_TAG_BYTES_MAX)
        return err_set(e, RC_INVALID, "fair_tag", "fair_tag has at most %d bytes", FAIR_TAG_BYTES_MAX);
    return field ? err_set(e, RC_UNSUPPORTED, field, "this worker does not serve %s", field) : RC_OK;
}

/* The bounds of a constraint that its grammar's limits do not have. */
enum { STARTS_AFTER_MAX = 16 };

static enum rc check_constraint(const Weir__Constraint *c, const struct io *io, struct err *e) {
    if (!c)
        return RC_OK;
    if (!io->engine.constraints)
        return err_set(e, RC_UNSUPPORTED, "constraint", "this worker does not serve constraint");
    if (!c->has_kind || !c->text)
        return err_set(e, RC_INVALID, "constraint", "a constraint needs kind and text");
    if (c->n_starts_after > STARTS_AFTER_MAX)
        return err_set(e, RC_INVALID, "constraint", "too many tokens that it starts after");
    return RC_OK;
}

static enum rc check_ids(const uint32_t *ids, size_t n, uint32_t vocab, const char *field, struct err *e) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= vocab)
            return err_set(e, RC_INVALID, field, "token id %u is out of vocabulary (%u)", ids[i], vocab);
    return RC_OK;
}

static bool in_range(float v, float lo, float hi) {
    return isfinite(v) && v >= lo && v <= hi;
}

static enum rc check_sampling(const Weir__Sampling *s, const struct io_facts *f, struct err *e) {
    const char *field = NULL;
    if (s->has_n_samples && (s->n_samples < 1 || s->n_samples > SAMPLES_MAX))
        field = "n_samples";
    else if (s->max_tokens > f->max_model_len || s->min_tokens > s->max_tokens)
        field = "max_tokens";
    else if (s->has_temperature && !in_range(s->temperature, 0, 100))
        field = "temperature";
    else if (s->has_top_p && !(in_range(s->top_p, 0, 1) && s->top_p > 0))
        field = "top_p";
    else if (s->has_min_p && !in_range(s->min_p, 0, 1))
        field = "min_p";
    else if (s->has_repetition_penalty && !(isfinite(s->repetition_penalty) && s->repetition_penalty > 0))
        field = "repetition_penalty";
    else if (!in_range(s->frequency_penalty, -100, 100))
        field = "frequency_penalty";
    else if (!in_range(s->presence_penalty, -100, 100))
        field = "presence_penalty";
    else if (s->n_stop_ids > STOP_IDS_MAX)
        field = "stop_ids";
    else if (s->n_bias_ids > BIAS_MAX || s->n_bias_ids != s->n_bias_values)
        field = "bias_ids";
    else if (s->beam_width && s->beam_width != (s->has_n_samples ? s->n_samples : 1))
        field = "beam_width";
    else if (s->has_length_penalty && !isfinite(s->length_penalty))
        field = "length_penalty";
    else if (s->n_bad_words > WORDS_MAX)
        field = "bad_words";
    else if (s->has_n_logprobs && (s->n_logprobs < -1 || s->n_logprobs > (int64_t)f->max_logprobs))
        field = "n_logprobs";
    else if (s->has_n_prompt_logprobs &&
             (s->n_prompt_logprobs < -1 || s->n_prompt_logprobs > (int64_t)f->max_logprobs))
        field = "n_prompt_logprobs";
    if (field)
        return err_set(e, RC_INVALID, field, "%s is out of range", field);
    for (size_t i = 0; i < s->n_bias_ids; i++)
        if (!isfinite(s->bias_values[i]) || (i && s->bias_ids[i] <= s->bias_ids[i - 1]))
            return err_set(e, RC_INVALID, "bias_ids", "bias_ids must ascend and their values be finite");
    enum rc rc = check_ids(s->bias_ids, s->n_bias_ids, f->vocab_size, "bias_ids", e);
    if (rc == RC_OK)
        rc = check_ids(s->allowed_ids, s->n_allowed_ids, f->vocab_size, "allowed_ids", e);
    for (size_t i = 0; i < s->n_bad_words && rc == RC_OK; i++) {
        rc = check_ids(s->bad_words[i]->tokens, s->bad_words[i]->n_tokens, f->vocab_size, "bad_words", e);
        if (rc == RC_OK && s->bad_words[i]->n_tokens == 0)
            rc = err_set(e, RC_INVALID, "bad_words", "a word without tokens");
    }
    return rc;
}

static bool is_json(const char *text, bool list) {
    json_t *v = text ? json_loads(text, 0, NULL) : NULL;
    bool good = !text || (list ? json_is_array(v) : json_is_object(v));
    json_decref(v);
    return good;
}

static enum rc check_processors(const Weir__Sampling *s, const struct io_facts *f, struct err *e) {
    if (s->n_processors > PROCS_MAX)
        return err_set(e, RC_INVALID, "logits_processors", "more than %d logits processors", PROCS_MAX);
    for (size_t i = 0; i < s->n_processors; i++) {
        const Weir__Processor *p = s->processors[i];
        if (!p->name || !plugins_find(f->plugins, p->name))
            return err_set(e, RC_INVALID, "logits_processors", "no logits processor has the name %.100s",
                           p->name ? p->name : "");
        if (!is_json(p->args_json, true) || !is_json(p->kwargs_json, false) || !is_json(s->xargs_json, false))
            return err_set(e, RC_INVALID, "logits_processors", "arguments of a logits processor are not JSON");
    }
    return RC_OK;
}

static enum rc check_resume(const Weir__Submit *m, const struct io_facts *f, struct err *e) {
    uint32_t n_samples = m->sampling->has_n_samples ? m->sampling->n_samples : 1;
    if (m->n_resume > RESUME_MAX)
        return err_set(e, RC_INVALID, "resume", "too many resumed samples");
    for (size_t i = 0; i < m->n_resume; i++) {
        const Weir__Resume *r = m->resume[i];
        if (r->sample >= n_samples || (i && r->sample <= m->resume[i - 1]->sample) ||
            r->n_tokens >= m->sampling->max_tokens)
            return err_set(e, RC_INVALID, "resume", "resumed samples must ascend and be unfinished");
        enum rc rc = check_ids(r->tokens, r->n_tokens, f->vocab_size, "resume", e);
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

/* The pooling kinds by their names on the wire. */
static const char *const pool_names[] = {[POOL_EMBED] = "embed",
                                         [POOL_CLASSIFY] = "classify",
                                         [POOL_TOKEN_EMBED] = "token_embed",
                                         [POOL_TOKEN_CLASSIFY] = "token_classify"};

/* read_pooling: what m asks of the pooler; kind POOL_NONE for a generation. */
static enum rc read_pooling(const Weir__Submit *m, const struct io_facts *f, struct pool_ask *out,
                            struct err *e) {
    *out = (struct pool_ask){0};
    bool generates = !m->has_task || m->task == WEIR__TASK__GENERATE;
    if (generates && !f->pooler && !m->pooling)
        return RC_OK;
    if (generates || !f->pooler || !m->pooling)
        return err_set(e, RC_INVALID, "task", "the model does not serve this task");
    const char *kind = m->pooling->kind ? m->pooling->kind : "";
    for (int i = POOL_EMBED; i <= POOL_TOKEN_CLASSIFY; i++)
        if (strcmp(kind, pool_names[i]) == 0)
            out->kind = (enum pool_kind)i;
    if (out->kind == POOL_NONE)
        return err_set(e, RC_INVALID, "pooling", "unknown kind of pooling");
    out->dimensions = m->pooling->dimensions;
    out->activate =
        m->pooling->has_use_activation ? m->pooling->use_activation : pooler_activates(f->pooler, out->kind);
    return pooler_check(f->pooler, out, e);
}

static enum rc check_types(const Weir__Submit *m, const struct io_facts *f, struct err *e) {
    if (m->n_token_types && m->n_token_types != m->n_tokens)
        return err_set(e, RC_INVALID, "token_types", "as many token types as tokens are needed");
    for (size_t i = 0; i < m->n_token_types; i++)
        if (m->token_types[i] && m->token_types[i] >= f->n_token_types)
            return err_set(e, RC_INVALID, "token_types", "token type %u of %u", m->token_types[i],
                           f->n_token_types);
    return RC_OK;
}

/* check_pool_submit: of a pooling request; the rest of a Submit has no meaning for it. */
static enum rc check_pool_submit(const Weir__Submit *m, const struct io_facts *f, struct err *e) {
    if (!m->has_stream || m->sampling || m->n_resume || m->constraint)
        return err_set(e, RC_INVALID, "sampling", "a pooling Submit has a stream, and nothing to sample");
    if (m->n_tokens < 1 || m->n_tokens > f->max_model_len)
        return err_set(e, RC_INVALID, "tokens", "a text has 1 to %u tokens, not %zu", f->max_model_len,
                       m->n_tokens);
    if (m->has_domain && m->domain.len != 16)
        return err_set(e, RC_INVALID, "domain", "domain has 16 bytes");
    enum rc rc = check_ids(m->tokens, m->n_tokens, f->vocab_size, "tokens", e);
    return rc ? rc : check_types(m, f, e);
}

static enum rc check_submit(const Weir__Submit *m, const struct io_facts *f, struct err *e) {
    if (!m->sampling || !m->has_stream)
        return err_set(e, RC_INVALID, "sampling", "a Submit needs sampling and stream");
    if (m->n_tokens < 1 || m->n_tokens > f->max_model_len)
        return err_set(e, RC_INVALID, "tokens", "a prompt has 1 to %u tokens, not %zu", f->max_model_len,
                       m->n_tokens);
    if (m->n_tokens + m->sampling->max_tokens > f->max_model_len)
        return err_set(e, RC_INVALID, "max_tokens",
                       "prompt and max_tokens exceed the maximum context length of %u", f->max_model_len);
    /* About what the answer's rows take: packed id, logprob and rank, and 10 bytes for each of the top. */
    if (m->sampling->has_n_prompt_logprobs && m->sampling->n_prompt_logprobs >= 0 &&
        (uint64_t)m->n_tokens * (24 + 10 * (uint64_t)m->sampling->n_prompt_logprobs) > PROMPT_ROWS_BYTES_MAX)
        return err_set(e, RC_INVALID, "prompt_logprobs",
                       "%lld prompt logprobs for each of %zu tokens are more than a message holds",
                       (long long)m->sampling->n_prompt_logprobs, m->n_tokens);
    if (m->has_domain && m->domain.len != 16)
        return err_set(e, RC_INVALID, "domain", "domain has 16 bytes");
    if (m->n_token_types)
        return err_set(e, RC_UNSUPPORTED, "token_types", "this model has no token types");
    enum rc rc = check_ids(m->tokens, m->n_tokens, f->vocab_size, "tokens", e);
    if (rc == RC_OK)
        rc = check_sampling(m->sampling, f, e);
    if (rc == RC_OK)
        rc = check_resume(m, f, e);
    if (rc == RC_OK)
        rc = check_processors(m->sampling, f, e);
    if (rc == RC_OK && m->kv_transfer)
        rc = io_kv_check(m, f, e);
    return rc;
}

static uint32_t *allowed_bits(const Weir__Sampling *s, uint32_t vocab, uint32_t *n_words) {
    *n_words = (vocab + 31) / 32;
    uint32_t *bits = xcalloc(*n_words, sizeof *bits);
    for (size_t i = 0; i < s->n_allowed_ids; i++)
        bits[s->allowed_ids[i] / 32] |= 1u << s->allowed_ids[i] % 32;
    return bits;
}

/* hold_constraint: of a checked message; its compilation begins. */
static enum rc hold_constraint(const Weir__Constraint *c, struct io *io, struct constraint **out,
                               struct err *e) {
    *out = NULL;
    if (!c)
        return RC_OK;
    return constraint_get(io->engine.constraints, (enum gram_kind)c->kind, str_of(c->text),
                          str_of(c->options_json), out, e);
}

static void fill_tenant(const Weir__Submit *m, struct req *out) {
    uint8_t digest[32];
    if (!m->has_fair_tag || m->fair_tag.len == 0)
        return;
    out->tagged = true;
    if (m->fair_tag.len == sizeof out->tenant.b) {
        memcpy(out->tenant.b, m->fair_tag.data, sizeof out->tenant.b); /* our routers': a digest already */
        return;
    }
    hash_sha256(m->fair_tag.data, m->fair_tag.len, digest);
    memcpy(out->tenant.b, digest, sizeof out->tenant.b);
}

/* make_req: m was checked. Absent numbers are neutral. The constraint's hold goes to the request. */
static struct req *make_req(const Weir__Submit *m, const struct io_facts *f, struct id128 id, uint32_t router,
                            uint32_t epoch, struct constraint *constraint) {
    const Weir__Sampling *s = m->sampling;
    struct sample_bias *bias = xcalloc(s->n_bias_ids, sizeof *bias);
    struct req_resume *resume = xcalloc(m->n_resume, sizeof *resume);
    struct req_word *words = xcalloc(s->n_bad_words, sizeof *words);
    uint32_t *allowed = NULL, n_mask_words = 0;
    for (size_t i = 0; i < s->n_bias_ids; i++)
        bias[i] = (struct sample_bias){s->bias_ids[i], s->bias_values[i]};
    for (size_t i = 0; i < m->n_resume; i++)
        resume[i] =
            (struct req_resume){m->resume[i]->sample, m->resume[i]->tokens, (uint32_t)m->resume[i]->n_tokens};
    if (s->n_allowed_ids)
        allowed = allowed_bits(s, f->vocab_size, &n_mask_words);
    struct req_proc *procs = xcalloc(s->n_processors, sizeof *procs);
    for (size_t i = 0; i < s->n_processors; i++) {
        const Weir__Processor *p = s->processors[i];
        procs[i] = (struct req_proc){plugins_find(f->plugins, p->name), p->args_json ? p->args_json : "[]",
                                     p->kwargs_json ? p->kwargs_json : "{}"};
    }
    for (size_t i = 0; i < s->n_bad_words; i++)
        words[i] = (struct req_word){s->bad_words[i]->tokens, (uint32_t)s->bad_words[i]->n_tokens, NULL};
    uint64_t now = clock_ns();
    struct req src = {
        .id = id,
        .router = router,
        .router_epoch = epoch,
        .stream = m->stream,
        .n_samples = s->has_n_samples ? s->n_samples : 1,
        .priority = f->priority_scheduling ? m->priority : 0,
        .arrival_ns = now,
        .deadline_ns = m->deadline_ms ? now + m->deadline_ms * NS_PER_MS : 0,
        .prompt = m->tokens,
        .n_prompt = (uint32_t)m->n_tokens,
        .resume = resume,
        .n_resume = (uint32_t)m->n_resume,
        .cache_read = true,
        .cache_write = true,
        .max_tokens = s->max_tokens,
        .min_tokens = s->min_tokens,
        .ignore_eos = s->ignore_eos,
        .stop_ids = s->stop_ids,
        .n_stop_ids = (uint32_t)s->n_stop_ids,
        .temperature = s->has_temperature ? s->temperature : 1,
        .top_p = s->has_top_p ? s->top_p : 1,
        .min_p = s->min_p,
        .repetition_penalty = s->has_repetition_penalty ? s->repetition_penalty : 1,
        .frequency_penalty = s->frequency_penalty,
        .presence_penalty = s->presence_penalty,
        .top_k = s->top_k,
        .seed = s->seed,
        .bias = bias,
        .n_bias = (uint32_t)s->n_bias_ids,
        .allowed = allowed,
        .n_allowed_words = n_mask_words,
        .words = words,
        .n_words = (uint32_t)s->n_bad_words,
        .procs = procs,
        .n_procs = (uint32_t)s->n_processors,
        .xargs = !s->n_processors ? NULL : s->xargs_json ? s->xargs_json : "{}",
        .n_logprobs = s->has_n_logprobs ? s->n_logprobs : -1,
        .n_prompt_logprobs = s->has_n_prompt_logprobs ? s->n_prompt_logprobs : -1,
        .beams = s->beam_width > 0,
        .length_penalty = s->has_length_penalty ? s->length_penalty : 1,
        .want_raw = s->want_sum_logprob,
        .constraint = constraint,
        .starts_after = m->constraint ? m->constraint->starts_after : NULL,
        .n_starts_after = m->constraint ? (uint32_t)m->constraint->n_starts_after : 0,
    };
    if (m->has_domain)
        memcpy(src.domain, m->domain.data, sizeof src.domain);
    fill_tenant(m, &src);
    if (m->kv_transfer)
        io_kv_read(m, &src.kv);
    struct req *r = req_new(&src);
    free(bias);
    free(resume);
    free(allowed);
    free(words);
    free(procs);
    return r;
}

/* make_pool_req: m was checked. A prefix may come from the cache if only the last token counts. */
static struct req *make_pool_req(const Weir__Submit *m, const struct io_facts *f, const struct pool_ask *ask,
                                 struct id128 id, uint32_t router, uint32_t epoch) {
    uint8_t *types = m->n_token_types ? xmalloc(m->n_token_types) : NULL;
    uint32_t lo, hi;
    for (size_t i = 0; i < m->n_token_types; i++)
        types[i] = (uint8_t)m->token_types[i];
    pooler_span(f->pooler, ask, (uint32_t)m->n_tokens, &lo, &hi);
    uint64_t now = clock_ns();
    struct req src = {
        .id = id,
        .router = router,
        .router_epoch = epoch,
        .stream = m->stream,
        .n_samples = 1,
        .priority = f->priority_scheduling ? m->priority : 0,
        .arrival_ns = now,
        .deadline_ns = m->deadline_ms ? now + m->deadline_ms * NS_PER_MS : 0,
        .prompt = m->tokens,
        .n_prompt = (uint32_t)m->n_tokens,
        .cache_read = lo + 1 == m->n_tokens,
        .cache_write = true,
        .top_p = 1,
        .repetition_penalty = 1,
        .n_logprobs = -1,
        .n_prompt_logprobs = -1,
        .pool = *ask,
        .token_types = types,
    };
    if (m->has_domain)
        memcpy(src.domain, m->domain.data, sizeof src.domain);
    fill_tenant(m, &src);
    struct req *r = req_new(&src);
    free(types);
    return r;
}

void io_submit(struct io *io, struct link_conn *c, uint32_t router, uint32_t epoch, const Weir__Submit *m) {
    struct id128 id;
    struct err e = {0};
    if (!m->has_request_id || m->request_id.len != sizeof id.b) {
        link_cut(c, "a Submit without a request id");
        return;
    }
    memcpy(id.b, m->request_id.data, sizeof id.b);
    if (!atomic_load(&io->ready)) {
        err_set(&e, RC_UNAVAILABLE, NULL, "the worker is loading its model");
        io_reject(c, id, &e);
        return;
    }
    if (io_tomb_find(io, id, IO_TOMB_WHOLE)) { /* its Abort overtook it */
        io_kv_end(io, m->kv_transfer);
        return;
    }
    struct pool_ask ask;
    struct constraint *constraint = NULL;
    if (read_pooling(m, &io->facts, &ask, &e) != RC_OK || check_supported(m, &io->facts, &e) != RC_OK ||
        check_constraint(ask.kind ? NULL : m->constraint, io, &e) != RC_OK ||
        (ask.kind ? check_pool_submit(m, &io->facts, &e) : check_submit(m, &io->facts, &e)) != RC_OK ||
        hold_constraint(ask.kind ? NULL : m->constraint, io, &constraint, &e) != RC_OK) {
        io_reject(c, id, &e);
        return;
    }
    struct req *r = ask.kind ? make_pool_req(m, &io->facts, &ask, id, router, epoch)
                             : make_req(m, &io->facts, id, router, epoch, constraint);
    if (r->kv.pull && io_tomb_find(io, id, IO_TOMB_TRANSFER))
        r->kv.pull = false;
    if (io->engine.submit(io->engine.arg, r, &e) != RC_OK) {
        req_free(r);
        io_reject(c, id, &e);
        return;
    }
    uint32_t n = m->sampling && m->sampling->has_n_samples ? m->sampling->n_samples : 1;
    for (uint32_t k = 0; k < n; k++)
        if (io_tomb_find(io, id, m->stream + k))
            io_abort(io, router, epoch, id, false, m->stream + k);
}
