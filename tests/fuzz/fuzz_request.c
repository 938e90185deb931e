/* fuzz_request: a letter for the route (c completions, h chat, t tokenize, d detokenize) and a body, against
 * the tokenizer and template of deploy/tiny-model. What is accepted is run to its end with tokens of its own
 * prompt; everything written must parse. */
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "router/api/error.h"
#include "router/api/processors.h"
#include "tests/support/api_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { CONTEXT = 2048, STEPS = 24, CHOICES_MAX = 64 };

static void must_parse(struct str text) {
    static const struct json_limits wide = {.depth_max = 64, .nodes_max = 1 << 24};
    struct err e = {0};
    json_t *v = NULL;
    CHECK(json_parse(text, &wide, &v, &e) == RC_OK);
    json_decref(v);
}

/* must_be_events: "data: JSON" and a blank line, over and over; the last one may be [DONE]. */
static void must_be_events(struct str s) {
    while (s.n) {
        const char *end = memmem(s.p, s.n, "\n\n", 2);
        CHECK(end && str_starts(s, STR_LIT("data: ")));
        struct str json = {s.p + 6, (size_t)(end - s.p) - 6};
        if (!str_eqz(json, "[DONE]"))
            must_parse(json);
        s = (struct str){end + 2, s.n - (size_t)(end + 2 - s.p)};
    }
}

/* feed_prompts: the rows that the request needs of its prompts. */
static void feed_prompts(struct gen_run *g, const struct gen_req *r) {
    struct err e;
    for (uint32_t i = 0; r->n_prompt_top >= 0 && i < r->n_prompts; i++)
        for (uint32_t k = 0; k < r->prompts[i].n_ids; k++) {
            uint32_t id = r->prompts[i].ids[k] / 2;
            float value = -1;
            struct gen_prompt_row row = {
                .logprob = -0.5f, .rank = k ? 1 + k % 3 : 0, .top_ids = &id, .top_logprobs = &value, .n_top = k > 0};
            CHECK(gen_on_prompt(g, i, &row, 1, &e) == RC_OK);
        }
}

static void run(struct gen_req *r) {
    struct gen_run *g = gen_run_new(r);
    uint32_t n_choices = r->n_prompts * r->n_samples;
    struct buf out = {0};
    struct err e = {0};
    feed_prompts(g, r);
    for (uint32_t i = 0; i < n_choices; i++) {
        const struct gen_prompt *p = &r->prompts[i / r->n_samples];
        uint32_t top[32];
        float values[32];
        gen_on_first(g, i, &(struct gen_first){.cached_tokens = i});
        if (r->echo_alone)
            gen_on_step(g, i, NULL, &(struct gen_finish){.reason = GEN_LENGTH}, &out);
        for (uint32_t k = 0; k < STEPS && !r->echo_alone; k++) {
            for (uint32_t t = 0; t < MIN(r->n_top, ARRAY_LEN(top)); t++) {
                top[t] = p->ids[(k + t) % p->n_ids];
                values[t] = -(float)t;
            }
            struct gen_token token = {.id = p->ids[k % p->n_ids],
                                      .logprob = -0.1f,
                                      .top_ids = top,
                                      .top_logprobs = values,
                                      .n_top = MIN(r->n_top, (uint32_t)ARRAY_LEN(top))};
            struct gen_finish finish = {
                .reason = i % 2 ? GEN_LENGTH : GEN_STOP, .has_stop_id = i % 3, .stop_id = token.id};
            if (gen_on_step(g, i, &token, k + 1 == STEPS ? &finish : NULL, &out) == GEN_CUT)
                break;
        }
    }
    CHECK(gen_run_done(g));
    CHECK(r->stream || out.len == 0);
    CHECK(gen_on_end(g, &out, &e) == RC_OK);
    if (r->stream)
        must_be_events(buf_str(&out));
    else
        must_parse(buf_str(&out));
    buf_fini(&out);
    gen_run_free(g);
}

static void check_request(const struct gen_req *r) {
    CHECK(r->id.n && r->model_name.n && r->n && r->n_prompts);
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        const struct gen_prompt *p = &r->prompts[i];
        CHECK(p->n_ids && (p->max_tokens || r->echo_alone) && p->n_ids + p->max_tokens <= CONTEXT &&
              r->min_tokens <= p->max_tokens);
        for (uint32_t k = 0; k < p->n_ids; k++)
            CHECK(p->ids[k] < r->model->facts.vocab_size);
    }
    struct gen_submit s;
    gen_submit(r, r->n_prompts - 1, &s);
    CHECK(weir__submit__get_packed_size(&s.m) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct api_fixture f;
    struct err e = {0};
    if (!f.m) {
        log_set_level(LOG_ERROR);
        api_fixture_init(&f);
        f.context = CONTEXT;
        f.opts.limit.template_steps = 200000;
        f.env.moves_kv = true;
        if (processor_names_new(&f.env.processor_names, "[a-z.]*", &e) || api_fixture_open_tiny(&f, &e)) {
            fprintf(stderr, "fuzz_request: %s\n", e.msg);
            exit(1);
        }
    }
    struct buf out = {0};
    struct gen_req *r = NULL;
    enum rc rc = RC_OK;
    struct str body = {(const char *)data + 1, n ? n - 1 : 0};
    switch (n ? data[0] : 0) {
    case 'c':
        rc = gen_prepare(&f.env, GEN_COMPLETIONS, body, (struct str){0}, &r, &e);
        break;
    case 'h':
        rc = gen_prepare(&f.env, GEN_CHAT, body, (struct str){0}, &r, &e);
        break;
    case 't':
        rc = api_tokenize(&f.env, body, &out, &e);
        break;
    case 'd':
        rc = api_detokenize(&f.env, body, &out, &e);
        break;
    }
    if (rc) {
        CHECK(e.rc == rc && *e.msg && !r && !out.len && api_status(rc) < 500);
        api_error_body(&e, &out);
    }
    if (r) {
        check_request(r);
        if (r->n_prompts * r->n_samples <= CHOICES_MAX)
            run(r);
        else
            gen_req_free(r);
    }
    if (out.len)
        must_parse(buf_str(&out));
    buf_fini(&out);
    return 0;
}
