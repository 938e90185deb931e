#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "router/api/request.h"

#define GREEDY_BELOW 1e-5
#define TEMPERATURE_MIN 0.01
/* Beyond these a float32 logit divided by the penalty is infinite or zero; the ends act the same. */
#define REPETITION_MIN 1e-6
#define REPETITION_MAX 1e6

struct raw_bias {
    int64_t id;
    float value;
    size_t at; /* order in the body: the last of equal ids wins */
};

enum rc api_check_token(const char *param, int64_t id, uint32_t vocab_size, struct err *e) {
    if (id >= 0 && id < (int64_t)vocab_size)
        return RC_OK;
    return err_set(e, RC_INVALID, param, "token id %lld is out of vocabulary: ids are 0 to %u", (long long)id,
                   vocab_size - 1);
}

/* ---- before the model is known ----------------------------------------------------------------------- */

static enum rc stop_string(const json_t *v, const char *param, const struct router_limits *limits,
                           struct arena *a, struct str *out, struct err *e) {
    if (!json_is_string(v))
        return err_set(e, RC_INVALID, param, "%s must be a string, not %s", param, json_kind(v));
    size_t n = json_string_length(v);
    if (n == 0)
        return err_set(e, RC_INVALID, param, "%s must not be empty", param);
    enum rc rc = api_field_limit(param, "bytes", n, limits->stop_bytes, "--max-stop-bytes", e);
    if (rc == RC_OK)
        *out = (struct str){arena_strndup(a, json_string_value(v), n), n};
    return rc;
}

static enum rc check_stop(const json_t *stop, const struct router_limits *limits, struct gen_req *r,
                          struct err *e) {
    if (!stop)
        return RC_OK;
    bool list = json_is_array(stop);
    if (!list && !json_is_string(stop))
        return err_set(e, RC_INVALID, "stop", "stop must be a string or a list of strings, not %s",
                       json_kind(stop));
    size_t n = list ? json_array_size(stop) : 1;
    enum rc rc = RC_OK;
    struct str *strings = arena_zalloc(&r->arena, n + 1, sizeof *strings);
    for (size_t i = 0; !rc && i < n; i++) {
        char param[32] = "stop";
        if (list)
            snprintf(param, sizeof param, "stop.%zu", i);
        rc = stop_string(list ? json_array_get(stop, i) : stop, param, limits, &r->arena, &strings[i], e);
    }
    if (rc)
        return rc;
    r->stop_strings = strings;
    r->n_stop_strings = (uint32_t)n;
    r->stop = stop_set_new(strings, n);
    return RC_OK;
}

static enum rc check_stop_ids(const json_t *list, struct arena *a, struct sampling_raw *raw, struct err *e) {
    size_t n = json_array_size(list);
    enum rc rc = RC_OK;
    if (n == 0)
        return rc;
    int64_t *ids = arena_zalloc(a, n, sizeof *ids);
    for (size_t i = 0; !rc && i < n; i++)
        rc = api_field_int(list, i, "stop_token_ids", &ids[i], e);
    raw->stop_ids = ids;
    raw->n_stop_ids = n;
    return rc;
}

/* parse_id: a decimal integer and nothing else. */
static bool parse_id(const char *s, size_t n, int64_t *out) {
    size_t digits = n > 0 && s[0] == '-' ? 1 : 0;
    if (n == digits || n > 18)
        return false;
    for (size_t i = digits; i < n; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    *out = strtoll(s, NULL, 10);
    return true;
}

static int bias_order(const void *pa, const void *pb) {
    const struct raw_bias *a = pa, *b = pb;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static enum rc check_bias(json_t *obj, struct arena *a, struct sampling_raw *raw, struct err *e) {
    size_t n = json_object_size(obj), at = 0, kept = 0;
    enum rc rc = RC_OK;
    if (n == 0)
        return rc;
    struct raw_bias *all = arena_zalloc(a, n, sizeof *all);
    for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
        const char *key = json_object_iter_key(it);
        struct raw_bias *b = &all[at];
        double value = 0;
        if (!parse_id(key, json_object_iter_key_len(it), &b->id)) {
            struct str shown = api_quote((struct str){key, json_object_iter_key_len(it)});
            return err_set(e, RC_INVALID, "logit_bias", "logit_bias: \"%.*s\" is no token id", (int)shown.n,
                           shown.p);
        }
        rc = json_get_float(obj, "logit_bias", key, &value, NULL, e);
        if (rc)
            return rc;
        b->value = (float)fmin(fmax(value, -100), 100);
        b->at = at++;
    }
    qsort(all, n, sizeof *all, bias_order);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || all[i + 1].id != all[i].id)
            all[kept++] = all[i];
    raw->bias = all;
    raw->n_bias = kept;
    return RC_OK;
}

static enum rc check_stream(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                            struct err *e) {
    r->stream = v->stream.v;
    r->stream_interval = (uint32_t)o->stream_interval;
    if (v->stream_options && !r->stream && json_object_size(v->stream_options) > 0)
        return err_set(e, RC_INVALID, "stream_options", "stream_options is only allowed with stream true");
    bool usage = false, continuous = false;
    enum rc rc = RC_OK;
    if (v->stream_options)
        rc = json_get_bool(v->stream_options, "stream_options", "include_usage", &usage, NULL, e);
    if (!rc && v->stream_options)
        rc = json_get_bool(v->stream_options, "stream_options", "continuous_usage_stats", &continuous, NULL,
                           e);
    if (rc)
        return rc;
    r->include_usage = r->stream && (usage || o->force_include_usage);
    r->continuous_usage = r->include_usage && (continuous || o->force_include_usage);
    return RC_OK;
}

static enum rc check_logprobs(const struct field_values *v, struct gen_req *r, struct sampling_raw *raw,
                              struct err *e) {
    if (v->prompt_logprobs.v != 0 && r->stream)
        return err_set(e, RC_INVALID, "prompt_logprobs", "prompt_logprobs above 0 is not available with stream");
    if (r->route == GEN_CHAT) {
        if (v->top_logprobs.v != 0 && !v->logprobs.v)
            return err_set(e, RC_INVALID, "top_logprobs", "top_logprobs needs logprobs true");
        r->logprobs = v->logprobs.v;
        raw->n_top = v->top_logprobs.v;
        return RC_OK;
    }
    r->logprobs = v->n_logprobs.set;
    raw->n_top = v->n_logprobs.v;
    return RC_OK;
}

enum rc sampling_check(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                       struct sampling_raw *raw, struct err *e) {
    r->n = v->n.set ? (uint32_t)v->n.v : 1;
    r->echo = v->echo.v;
    r->include_stop = v->include_stop.v;
    r->skip_special = v->skip_special.set ? v->skip_special.v : true;
    r->spaces_between_special = v->spaces_between_special.set ? v->spaces_between_special.v : true;
    r->ids_as_tokens = v->ids_as_tokens.set ? v->ids_as_tokens.v : o->return_tokens_as_token_ids;
    r->prompt_details = o->prompt_tokens_details;
    r->priority = (int32_t)v->priority.v;
    enum rc rc = check_stream(v, o, r, e);
    if (!rc)
        rc = samples_check(v, r, e);
    if (!rc)
        rc = check_logprobs(v, r, raw, e);
    if (!rc)
        rc = check_stop(v->stop, &o->limit, r, e);
    if (!rc)
        rc = check_stop_ids(v->stop_token_ids, &r->arena, raw, e);
    if (!rc && v->logit_bias)
        rc = check_bias(v->logit_bias, &r->arena, raw, e);
    if (!rc)
        rc = bans_check(v, r, raw, e);
    return rc;
}

/* ---- with the model ---------------------------------------------------------------------------------- */

static double pick(struct opt_float asked, double model, double neutral) {
    return asked.set ? asked.v : !isnan(model) ? model : neutral;
}

static void resolve_numbers(const struct field_values *v, struct gen_req *r) {
    const struct hf_generation *d = &r->model->defaults;
    double temperature = pick(v->temperature, d->temperature, 1);
    double top_p = pick(v->top_p, d->top_p, 1), min_p = pick(v->min_p, d->min_p, 0);
    double top_k = v->top_k.set ? (double)v->top_k.v : !isnan(d->top_k) ? d->top_k : 0;
    double repetition = pick(v->repetition_penalty, d->repetition_penalty, 1);
    if (r->beams) { /* the raw log-probabilities alone count */
        temperature = 0;
        repetition = 1;
    }
    if (temperature < GREEDY_BELOW) {
        temperature = 0;
        top_p = 1;
        top_k = min_p = 0;
    } else {
        temperature = fmax(temperature, TEMPERATURE_MIN);
    }
    r->s.temperature = (float)temperature;
    r->s.top_p = fmaxf((float)top_p, FLT_MIN);
    r->s.min_p = (float)min_p;
    r->s.top_k = top_k < 1 ? 0 : (uint32_t)fmin(top_k, r->model->facts.vocab_size);
    r->s.repetition_penalty = (float)fmin(fmax(repetition, REPETITION_MIN), REPETITION_MAX);
    r->s.frequency_penalty = (float)v->frequency_penalty.v;
    r->s.presence_penalty = (float)v->presence_penalty.v;
    r->s.ignore_eos = v->ignore_eos.v;
}

static bool has_id(const uint32_t *ids, size_t n, uint32_t id) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* resolve_stop_ids: the client's, and unless ignore_eos the model's end tokens beyond the first, which the
 * worker knows as EOS itself. */
static enum rc resolve_stop_ids(const struct router_opts *o, const struct sampling_raw *raw,
                                struct gen_req *r, struct err *e) {
    const struct model_info *m = r->model;
    uint32_t *ids =
        arena_zalloc(&r->arena, raw->n_stop_ids + m->facts.n_eos + m->defaults.n_eos + 1, sizeof *ids);
    size_t n = 0;
    for (size_t i = 0; i < raw->n_stop_ids; i++) {
        char param[40];
        snprintf(param, sizeof param, "stop_token_ids.%zu", i);
        enum rc rc = api_check_token(param, raw->stop_ids[i], m->facts.vocab_size, e);
        if (rc)
            return rc;
        if (!has_id(ids, n, (uint32_t)raw->stop_ids[i]))
            ids[n++] = (uint32_t)raw->stop_ids[i];
    }
    bool plain = o->generation_config && !strcmp(o->generation_config, "vllm");
    if (!r->s.ignore_eos) {
        for (size_t i = 1; !plain && i < m->facts.n_eos; i++)
            if (!has_id(ids, n, m->facts.eos[i]))
                ids[n++] = m->facts.eos[i];
        for (size_t i = 0; i < m->defaults.n_eos; i++)
            if ((m->facts.n_eos == 0 || m->defaults.eos[i] != m->facts.eos[0]) &&
                m->defaults.eos[i] < m->facts.vocab_size && !has_id(ids, n, m->defaults.eos[i]))
                ids[n++] = m->defaults.eos[i];
    }
    r->s.stop_ids = ids;
    r->s.n_stop_ids = (uint32_t)n;
    return RC_OK;
}

static enum rc resolve_bias(const struct sampling_raw *raw, struct gen_req *r, struct err *e) {
    uint32_t *ids = arena_zalloc(&r->arena, raw->n_bias + 1, sizeof *ids);
    float *values = arena_zalloc(&r->arena, raw->n_bias + 1, sizeof *values);
    for (size_t i = 0; i < raw->n_bias; i++) {
        enum rc rc = api_check_token("logit_bias", raw->bias[i].id, r->model->facts.vocab_size, e);
        if (rc)
            return rc;
        ids[i] = (uint32_t)raw->bias[i].id;
        values[i] = raw->bias[i].value;
    }
    r->s.bias_ids = ids;
    r->s.bias_values = values;
    r->s.n_bias = (uint32_t)raw->n_bias;
    return RC_OK;
}

/* top_of: how many alternatives -1 or a number asks for. */
static enum rc top_of(const struct model_facts *f, const char *param, int64_t asked, uint32_t *out,
                      struct err *e) {
    uint64_t n = asked < 0 ? f->vocab_size : (uint64_t)asked;
    if (n > f->max_logprobs)
        return err_set(e, RC_INVALID, param, "%s must be less_than_equal %u (--max-logprobs of the model)",
                       param, f->max_logprobs);
    *out = (uint32_t)MIN(n, f->vocab_size);
    return RC_OK;
}

/* resolve_logprobs: of the output, and of the prompt (api.md 7.4.5, 8.7.3, 8.7.5). A stream has no place for the
 * list of the prompt's, but its echo has. */
static enum rc resolve_logprobs(const struct field_values *v, const struct sampling_raw *raw, struct gen_req *r,
                                struct err *e) {
    const struct model_facts *f = &r->model->facts;
    bool chat = r->route == GEN_CHAT, list = v->prompt_logprobs.set;
    uint32_t n_list = 0;
    enum rc rc = top_of(f, chat ? "top_logprobs" : "logprobs", raw->n_top, &r->n_top, e);
    if (!rc)
        rc = top_of(f, "prompt_logprobs", v->prompt_logprobs.v, &n_list, e);
    if (rc)
        return rc;
    if (!list && r->echo && (chat || r->logprobs)) {
        list = true;
        n_list = r->n_top;
    }
    r->n_prompt_list = list && !r->stream ? (int32_t)n_list : -1;
    r->n_prompt_top = r->n_prompt_list;
    if (r->echo && !chat && r->logprobs)
        r->n_prompt_top = MAX(r->n_prompt_top, (int32_t)r->n_top);
    return RC_OK;
}

static void mint_seed(const struct field_values *v, struct gen_env *env, struct gen_req *r) {
    uint64_t count = env->n_requests++;
    r->s.seeded = v->seed.set && v->seed.v != -1;
    if (r->s.seeded)
        r->s.seed = (uint64_t)v->seed.v;
    else if (env->opts->has_seed)
        r->s.seed = hash_u64((uint64_t)env->opts->seed ^ hash_u64(count + 1));
    else
        fill_random(&r->s.seed, sizeof r->s.seed);
}

enum rc sampling_resolve(const struct field_values *v, struct gen_env *env, const struct sampling_raw *raw,
                         struct gen_req *r, struct err *e) {
    resolve_numbers(v, r);
    const char *several = r->n > 1 ? "n" : "best_of";
    if (r->n_samples > 1 && r->s.temperature == 0 && !r->beams)
        return err_set(e, RC_INVALID, several, "%sn must be 1 when using greedy sampling, got %u",
                       r->n > 1 ? "" : "best_of as well as ", r->n > 1 ? r->n : r->n_samples);
    if (r->beams && 2 * (uint64_t)r->n_samples > r->model->facts.vocab_size)
        return err_set(e, RC_INVALID, several, "%s: twice the beams must be less_than_equal %u, the vocabulary",
                       several, r->model->facts.vocab_size);
    if (r->priority != 0 && !r->model->facts.priority_scheduling)
        return err_set(e, RC_INVALID, "priority",
                       "priority needs a server with --scheduling-policy priority");
    enum rc rc = resolve_logprobs(v, raw, r, e);
    if (!rc)
        rc = resolve_stop_ids(env->opts, raw, r, e);
    if (!rc)
        rc = resolve_bias(raw, r, e);
    if (!rc)
        rc = bans_resolve(raw, r, e);
    if (!rc)
        mint_seed(v, env, r);
    return rc;
}
