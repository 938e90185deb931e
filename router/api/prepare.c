#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "router/api/chat.h"
#include "router/api/constraint.h"
#include "router/api/pool.h"
#include "router/api/processors.h"
#include "router/api/request.h"
#include "router/api/routing.h"

enum { SALT_BYTES_MAX = 256 };

enum rc body_parse(struct str body, const struct router_limits *limits, json_t **out, struct err *e) {
    struct json_limits l = {.depth_max = (size_t)limits->json_depth,
                            .nodes_max = (size_t)limits->json_nodes,
                            .keys_max = (size_t)limits->json_keys};
    json_t *root = NULL;
    enum rc rc = json_parse(body, &l, &root, e);
    if (rc)
        return rc;
    if (!json_is_object(root)) {
        rc = err_set(e, RC_INVALID, NULL, "the body must be a JSON object, not %s", json_kind(root));
        json_decref(root);
        return rc;
    }
    *out = root;
    return RC_OK;
}

enum rc model_lookup(struct gen_env *env, struct str name, struct model_info **out, struct err *e) {
    struct model_info *m = env->find_model(env->arg, name);
    if (m) {
        *out = m;
        return RC_OK;
    }
    struct str shown = api_quote(name);
    return err_set(e, RC_NOT_FOUND, "model", "The model `%.*s` does not exist.", (int)shown.n,
                   shown.n ? shown.p : "");
}

/* ---- identity ---------------------------------------------------------------------------------------- */

static bool id_valid(struct str id) {
    bool good = id.n >= 1 && id.n <= GEN_ID_BYTES_MAX;
    for (size_t i = 0; good && i < id.n; i++)
        good = id.p[i] >= 0x21 && id.p[i] <= 0x7E;
    return good;
}

void gen_asked_id(struct str body, const struct router_limits *limits, char *out) {
    json_t *root = NULL;
    struct err ignored;
    struct str id = {0};
    out[0] = 0;
    if (body_parse(body, limits, &root, &ignored) != RC_OK)
        return;
    if (json_get_str(root, "", "request_id", &id, NULL, &ignored) == RC_OK && id_valid(id)) {
        memcpy(out, id.p, id.n);
        out[id.n] = 0;
    }
    json_decref(root);
}

static enum rc check_identity(const struct field_values *v, struct err *e) {
    if (v->request_id.set && !id_valid(v->request_id.v))
        return err_set(e, RC_INVALID, "request_id", "request_id must be 1 to %d visible ASCII characters",
                       GEN_ID_BYTES_MAX);
    if (v->cache_salt.set && (v->cache_salt.v.n == 0 || v->cache_salt.v.n > SALT_BYTES_MAX))
        return err_set(e, RC_INVALID, "cache_salt", "cache_salt must have 1 to %d bytes", SALT_BYTES_MAX);
    return RC_OK;
}

/* set_id: route prefix and suffix: the header's, else the body's, else random (api.md 2.6.1). */
static void set_id(struct gen_req *r, struct str header, struct str asked) {
    static const char digits[] = "0123456789abcdef";
    static const char *const prefixes[N_GEN_ROUTE] = {"cmpl-",     "chatcmpl-", "embd-",  "pool-",
                                                      "classify-", "score-",    "rerank-"};
    struct str prefix = str_of(prefixes[r->route]);
    struct str suffix = header.n ? header : asked;
    char minted[32];
    if (!suffix.n) {
        uint8_t random[16];
        fill_random(random, sizeof random);
        for (size_t i = 0; i < sizeof minted; i++)
            minted[i] = digits[i % 2 ? random[i / 2] & 15 : random[i / 2] >> 4];
        suffix = (struct str){minted, sizeof minted};
    }
    char *id = arena_alloc(&r->arena, prefix.n + suffix.n + 1);
    memcpy(id, prefix.p, prefix.n);
    memcpy(id + prefix.n, suffix.p, suffix.n);
    id[prefix.n + suffix.n] = 0;
    r->id = (struct str){id, prefix.n + suffix.n};
    r->id_suffix = (struct str){id + prefix.n, suffix.n};
}

static void set_names(const struct field_values *v, struct gen_req *r) {
    struct str name = v->model.v.n ? v->model.v : str_of(r->model->facts.names[0]);
    r->model_name = (struct str){arena_strndup(&r->arena, name.p, name.n), name.n};
    struct hash_field domain[] = {
        {HASH_MODEL, {(const char *)r->model->facts.revision, sizeof r->model->facts.revision}},
        {HASH_ADAPTER, {0}},
        {HASH_SALT, v->cache_salt.v},
    };
    r->domain = hash_domain(domain, ARRAY_LEN(domain));
    r->created_unix_s = clock_unix_s();
}

/* set_role: of the answer (api.md 7.4.4). */
static void set_role(const struct router_opts *o, const struct chat_input *in, struct gen_req *r) {
    struct str role = o->response_role ? str_of(o->response_role) : STR_LIT("assistant");
    if (!in->add_generation_prompt) {
        const json_t *last = json_array_get(in->messages, json_array_size(in->messages) - 1);
        const json_t *v = json_object_get(last, "role");
        role = (struct str){json_string_value(v), json_string_length(v)};
    }
    r->role = (struct str){arena_strndup(&r->arena, role.p, role.n), role.n};
}

/* ---- the request ------------------------------------------------------------------------------------- */

static enum rc encode_chat(const struct router_opts *o, struct chat_input *in, const struct prompt_cut *cut,
                           struct gen_req *r, struct err *e) {
    struct arena scratch;
    struct tok_ids ids = {0};
    struct chat_times times = {0};
    arena_init(&scratch);
    r->encode_ns = clock_ns();
    set_role(o, in, r);
    if (r->echo)
        echo_message(in->messages, r);
    enum rc rc = chat_encode(r->model, o, in, &scratch, &ids, &times, e);
    if (!rc) {
        prompt_cut_ids(cut, 0, &ids);
        rc = prompt_set(r, 0, &ids, e);
    }
    r->template_ns = times.template_ns;
    r->tokenize_ns = times.tokenize_ns;
    tok_ids_fini(&ids);
    arena_fini(&scratch);
    return rc;
}

static enum rc encode_completion(const struct field_values *v, const struct prompt_cut *cut,
                                 struct gen_req *r, struct err *e) {
    uint64_t start_ns = r->encode_ns = clock_ns();
    enum rc rc = prompts_encode(v->prompt, v->add_special.set ? v->add_special.v : true, cut, r, e);
    r->tokenize_ns = clock_ns() - start_ns;
    return rc;
}

static enum rc prepare_pool(struct gen_env *env, const struct field_values *v, struct str id_suffix,
                            struct gen_req *r, struct err *e) {
    enum rc rc = check_identity(v, e);
    if (!rc)
        rc = pool_check(v, env->opts, r, e);
    if (!rc)
        rc = model_lookup(env, v->model.v, &r->model, e);
    if (!rc)
        rc = pool_check_task(r, e);
    if (rc)
        return rc;
    set_id(r, id_suffix, v->request_id.v);
    set_names(v, r);
    return pool_prepare(env->opts, v, r, e);
}

/* check_entries: an answer that is not streamed is gathered whole: what log-probabilities may add to it is
 * bounded (about 70 bytes each). */
static enum rc check_entries(const struct router_limits *limits, const struct gen_req *r, struct err *e) {
    uint64_t n_tokens = 0, n_prompt_tokens = 0, n_entries;
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        n_tokens += (uint64_t)r->prompts[i].max_tokens * r->n_samples;
        n_prompt_tokens += (uint64_t)r->prompts[i].n_ids * r->n;
    }
    n_entries = n_prompt_tokens * ((uint64_t)r->n_prompt_top + 1); /* each below 2^12 x 2^25 x 2^20 */
    if (n_entries > (uint64_t)limits->logprob_entries)
        return err_set(e, RC_INVALID, "prompt_logprobs",
                       "prompt_logprobs: %llu tokens of prompts with %d alternatives each are %llu entries, must "
                       "be less_than_equal %lld (--max-logprob-entries)",
                       (unsigned long long)n_prompt_tokens, r->n_prompt_top, (unsigned long long)n_entries,
                       (long long)limits->logprob_entries);
    n_entries = n_tokens * ((uint64_t)r->n_top + 1);
    if (r->stream || !r->logprobs || n_entries <= (uint64_t)limits->logprob_entries)
        return RC_OK;
    return err_set(e, RC_INVALID, r->route == GEN_CHAT ? "top_logprobs" : "logprobs",
                   "logprobs: %llu tokens with %u alternatives each are %llu entries, must be "
                   "less_than_equal %lld in an answer that is not streamed (--max-logprob-entries): stream, or "
                   "lower the token limit, n or the alternatives",
                   (unsigned long long)n_tokens, r->n_top, (unsigned long long)n_entries,
                   (long long)limits->logprob_entries);
}

/* read_kv: kv_transfer_params, and what its legs exclude (api.md 16.2.2). */
static enum rc read_kv(json_t *v, struct gen_req *r, struct err *e) {
    enum rc rc = kv_params_read(v, &r->arena, &r->kv, e);
    if (!rc && r->kv.offer && r->n_samples > 1)
        rc = err_set(e, RC_INVALID, r->beams ? "use_beam_search" : r->n > 1 ? "n" : "best_of",
                     "with kv_transfer_params.do_remote_decode there is one sample: n, best_of and beams must be 1");
    return rc;
}

/* prepare: the checks in the order of api.md 3.3: fields, then the model, then what depends on it. light:
 * RC_AGAIN before what may take long. */
static enum rc prepare(struct gen_env *env, json_t *root, struct str id_suffix, bool light, struct gen_req *r,
                       struct err *e) {
    const struct router_opts *o = env->opts;
    struct field_values v;
    struct sampling_raw raw = {0};
    static const unsigned on[N_GEN_ROUTE] = {ON_COMPLETIONS, ON_CHAT,  ON_EMBEDDINGS, ON_POOLING,
                                             ON_CLASSIFY,    ON_SCORE, ON_RERANK};
    enum rc rc = api_fields_read(on[r->route], root, &o->limit, &v, e);
    if (!rc)
        rc = api_fields_required(on[r->route], root, e);
    if (rc)
        return rc;
    if (light && v.chat_template.set) /* it may spend its whole budget of steps */
        return RC_AGAIN;
    if (r->route >= GEN_EMBEDDINGS)
        return prepare_pool(env, &v, id_suffix, r, e);
    struct chat_input chat = chat_input_of(&v);
    rc = sampling_check(&v, o, r, &raw, e);
    if (!rc && r->route == GEN_CHAT)
        rc = tools_read(&v, o, r, e);
    if (o->exclude_tools_when_none && r->tools_mode == TOOLS_NONE && !r->parse.auto_tools)
        chat.tools = NULL;
    if (!rc)
        rc = constraint_read(&v, o, r, e);
    if (!rc)
        rc = processors_read(&v, env->processor_names, r, e);
    if (!rc && r->beams)
        rc = beams_check(&v, &raw, r, e);
    if (!rc && v.kv_transfer_params && atomic_load_explicit(&env->moves_kv, memory_order_relaxed))
        rc = read_kv(v.kv_transfer_params, r, e);
    if (!rc && light && r->constraint.kind)
        return RC_AGAIN;
    if (!rc)
        rc = check_identity(&v, e);
    r->n_prompts = 1;
    if (!rc)
        rc =
            r->route == GEN_CHAT ? chat_check(&chat, o, e) : prompts_check(v.prompt, &o->limit, r, e);
    if (!rc)
        rc = model_lookup(env, v.model.v, &r->model, e);
    if (!rc)
        rc = pool_check_task(r, e);
    if (!rc)
        rc = sampling_resolve(&v, env, &raw, r, e);
    struct prompt_cut cut = {0};
    if (!rc)
        rc = prompt_cut_of(&v, r, &cut, e);
    if (rc)
        return rc;
    set_id(r, id_suffix, v.request_id.v);
    set_names(&v, r);
    r->prompts = arena_zalloc(&r->arena, r->n_prompts, sizeof *r->prompts);
    rc = r->route == GEN_CHAT ? encode_chat(o, &chat, &cut, r, e) : encode_completion(&v, &cut, r, e);
    if (!rc)
        rc = prompt_budgets(&v, r, e);
    if (!rc && r->echo)
        rc = echo_limit(r, &o->limit, e);
    if (!rc)
        rc = check_entries(&o->limit, r, e);
    if (!rc)
        rc = constraint_check(env, r, e);
    if (!rc) {
        routing_blocks(o, r);
        routing_session(o, r->route == GEN_CHAT ? chat.messages : NULL, r);
    }
    if (rc || r->route != GEN_CHAT)
        return rc;
    parsing_set(&v, o, r);
    return constraint_check(env, r, e); /* known already, unless it became part of another */
}

/* end_transfer: the request fails, and will fetch nothing. */
static void end_transfer(struct gen_env *env, const json_t *root) {
    struct kv_params p;
    struct arena a;
    struct err ignored;
    json_t *v = json_object_get(root, "kv_transfer_params");
    if (!json_is_object(v) || !env->end_transfer || !atomic_load_explicit(&env->moves_kv, memory_order_relaxed))
        return;
    arena_init(&a);
    if (kv_params_read(v, &a, &p, &ignored) == RC_OK && p.pull)
        env->end_transfer(env->arg, &p);
    arena_fini(&a);
}

static enum rc prepare_body(struct gen_env *env, enum gen_route route, struct str body, struct str id_suffix,
                            bool light, struct gen_req **out, struct err *e) {
    json_t *root = NULL;
    enum rc rc = body_parse(body, &env->opts->limit, &root, e);
    if (rc)
        return rc;
    struct gen_req *r = xcalloc(1, sizeof *r);
    arena_init(&r->arena);
    r->route = route;
    rc = prepare(env, root, id_suffix, light, r, e);
    if (rc && rc != RC_AGAIN && route < GEN_EMBEDDINGS)
        end_transfer(env, root);
    json_decref(root);
    if (rc)
        gen_req_free(r);
    else
        *out = r;
    return rc;
}

enum rc gen_prepare(struct gen_env *env, enum gen_route route, struct str body, struct str id_suffix,
                    struct gen_req **out, struct err *e) {
    return prepare_body(env, route, body, id_suffix, false, out, e);
}

enum rc gen_prepare_light(struct gen_env *env, enum gen_route route, struct str body, struct str id_suffix,
                          struct gen_req **out, struct err *e) {
    return prepare_body(env, route, body, id_suffix, true, out, e);
}

void gen_req_free(struct gen_req *r) {
    if (!r)
        return;
    stop_set_free(r->stop);
    if (r->model)
        model_info_drop(r->model);
    arena_fini(&r->arena);
    free(r);
}

/* ---- to the wire ------------------------------------------------------------------------------------- */

/* protobuf-c takes no const pointers; packing only reads. */
#define UNCONST(type, p) ((type *)(uintptr_t)(p))

void gen_submit(const struct gen_req *r, uint32_t prompt, struct gen_submit *scratch) {
    CHECK(prompt < r->n_prompts);
    const struct gen_prompt *p = &r->prompts[prompt];
    Weir__Sampling *s = &scratch->sampling;
    Weir__Submit *m = &scratch->m;
    weir__submit__init(m);
    m->has_priority = 1;
    m->priority = r->priority;
    m->has_domain = 1;
    m->domain = (ProtobufCBinaryData){sizeof r->domain.b, UNCONST(uint8_t, r->domain.b)};
    m->tokens = UNCONST(uint32_t, p->ids);
    m->n_tokens = p->n_ids;
    m->has_task = 1;
    if (r->pool) {
        static const Weir__Task tasks[N_MODEL_TASK] = {WEIR__TASK__EMBED, WEIR__TASK__CLASSIFY,
                                                       WEIR__TASK__SCORE, WEIR__TASK__REWARD};
        weir__pooling__init(&scratch->pooling);
        pool_submit_fill(r, &scratch->pooling);
        m->pooling = &scratch->pooling;
        m->task = tasks[r->model->pooling->task];
        m->token_types = UNCONST(uint32_t, p->types);
        m->n_token_types = p->types ? p->n_ids : 0;
        return;
    }
    weir__sampling__init(s);
#define SET(member, value) (s->has_##member = 1, s->member = (value))
    SET(n_samples, r->n_samples);
    SET(max_tokens, p->max_tokens);
    SET(min_tokens, r->min_tokens);
    SET(temperature, r->s.temperature);
    SET(top_p, r->s.top_p);
    SET(min_p, r->s.min_p);
    SET(top_k, r->s.top_k);
    SET(repetition_penalty, r->s.repetition_penalty);
    SET(frequency_penalty, r->s.frequency_penalty);
    SET(presence_penalty, r->s.presence_penalty);
    /* Equal prompts of an unseeded request must not give equal texts; a seeded one means its seed for each.
     */
    SET(seed, r->s.seeded || prompt == 0 ? r->s.seed : hash_u64(r->s.seed + prompt));
    SET(ignore_eos, r->s.ignore_eos);
    SET(n_logprobs, r->logprobs ? (int32_t)r->n_top : -1);
    SET(n_prompt_logprobs, r->n_prompt_top);
    SET(want_sum_logprob, r->sums);
    if (r->beams) {
        SET(beam_width, r->n_samples);
        SET(length_penalty, r->length_penalty);
    }
#undef SET
    s->stop_ids = UNCONST(uint32_t, r->s.stop_ids);
    s->n_stop_ids = r->s.n_stop_ids;
    s->bias_ids = UNCONST(uint32_t, r->s.bias_ids);
    s->n_bias_ids = r->s.n_bias;
    s->bias_values = UNCONST(float, r->s.bias_values);
    s->n_bias_values = r->s.n_bias;
    s->allowed_ids = UNCONST(uint32_t, r->s.allowed);
    s->n_allowed_ids = r->s.n_allowed;
    s->bad_words = r->s.bad_words;
    s->n_bad_words = r->s.n_bad_words;
    s->processors = r->s.processors;
    s->n_processors = r->s.n_processors;
    s->xargs_json = r->s.n_processors ? r->s.xargs_json : NULL;
    if (r->constraint.kind) {
        Weir__Constraint *c = &scratch->constraint;
        weir__constraint__init(c);
        c->has_kind = 1;
        c->kind = (Weir__Constraint__Kind)r->constraint.kind;
        c->text = UNCONST(char, r->constraint.text.p);
        c->options_json = UNCONST(char, r->constraint.options.p);
        c->starts_after = UNCONST(uint32_t, &r->constraint.starts_after);
        c->n_starts_after = r->constraint.starts_later;
        m->constraint = c;
    }
    m->task = WEIR__TASK__GENERATE;
    m->sampling = s;
}
