/* router/api alone: CPU time of a streamed event and of preparing a short chat request. */
#include <stdio.h>

#include "tests/support/api_fixture.h"
#include "tests/support/bench.h"

enum { EVENTS = 400000, REQUESTS = 40000, TOKENS = 100 /* per request */ };

static const char body[] =
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
    "{\"role\":\"user\",\"content\":\"What is the capital of France?\"}],\"stream\":true,"
    "\"temperature\":0.7,\"max_tokens\":100}";

static struct gen_req *prepare(struct api_fixture *f) {
    struct gen_req *r = NULL;
    struct err e = {0};
    CHECK(gen_prepare(&f->env, GEN_CHAT, str_of(body), (struct str){0}, &r, &e) == RC_OK);
    return r;
}

static void bench_events(struct api_fixture *f) {
    struct buf sse = {0};
    double busy_s = 0;
    size_t bytes = 0;
    for (unsigned done = 0; done < EVENTS; done += TOKENS) {
        struct gen_run *g = gen_run_new(prepare(f));
        double start_s = bench_cpu_s();
        for (unsigned i = 0; i < TOKENS; i++) {
            sse.len = 0; /* as after each write to the socket */
            gen_on_step(g, 0, &(struct gen_token){.id = 'a' + i % 26}, NULL, &sse);
            bytes += sse.len;
        }
        busy_s += bench_cpu_s() - start_s;
        gen_run_free(g);
    }
    char params[96];
    snprintf(params, sizeof params, "{\"route\":\"chat\",\"events\":%d,\"bytes_per_event\":%zu}", EVENTS,
             bytes / EVENTS);
    bench_emit("api.event_us", busy_s / EVENTS * 1e6, "us", params);
    buf_fini(&sse);
}

static void bench_prepare(struct api_fixture *f) {
    double start_s = bench_cpu_s();
    for (unsigned i = 0; i < REQUESTS; i++)
        gen_req_free(prepare(f));
    bench_emit("api.prepare_us", (bench_cpu_s() - start_s) / REQUESTS * 1e6, "us",
               "{\"route\":\"chat\",\"messages\":2}");
}

int main(void) {
    struct api_fixture f;
    struct err e = {0};
    api_fixture_init(&f);
    f.context = 4096;
    CHECK(api_fixture_open(&f, &e) == RC_OK);
    bench_events(&f);
    bench_prepare(&f);
    api_fixture_fini(&f);
    return 0;
}
