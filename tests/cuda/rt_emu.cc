/* rt_emu.cc: rt.h on the heap. Everything runs when it is enqueued; between rt_capture and rt_captured it is recorded
 * instead, and runs with every rt_launch, so that what a captured step may not hold shows: host decisions in between.
 *
 * WEIR_EMU_MEMORY_KIB: the device's memory [1 GiB]; what is allocated beyond it fails, as on a GPU. WEIR_EMU_USED_KIB:
 * what others use of it [0]. */
#include "worker/cuda/rt.h"

#include <stdio.h>
#include <stdlib.h>

#include <unordered_map>
#include <vector>

#include "worker/cuda/dev.h"

struct rt_graph {
    std::vector<std::function<void()>> work;
};

struct rt {
    void *stage;
    size_t stage_bytes;
    bool stage_open;
    struct rt_graph *recording;
    size_t memory_bytes, others_bytes, used_bytes;
    std::unordered_map<void *, size_t> sizes;
    const char *lacking; /* what had no memory; NULL: no error */
    size_t lacking_bytes;
    std::vector<std::function<void()>> fetches; /* done at the wait, as late as they may be */
};

static size_t kib_of(const char *name, size_t otherwise) {
    const char *s = getenv(name);
    return (s ? strtoul(s, NULL, 10) : otherwise) * KIB;
}

int rt_open(struct rt **out, int device_index, char err[BE_ERR_BYTES]) {
    (void)device_index;
    (void)err;
    *out = new rt();
    (*out)->memory_bytes = kib_of("WEIR_EMU_MEMORY_KIB", 1024 * 1024);
    (*out)->others_bytes = kib_of("WEIR_EMU_USED_KIB", 0);
    return 0;
}

void rt_close(struct rt *r) {
    free(r->stage);
    delete r;
}

void rt_info(struct rt *r, struct rt_info *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "emulated");
    out->sm = 90;
    out->n_sms = 8;
    out->memory_total_bytes = r->memory_bytes;
    out->memory_free_bytes = r->memory_bytes - MIN(r->memory_bytes, r->used_bytes + r->others_bytes);
}

void *rt_alloc(struct rt *r, size_t bytes) {
    size_t whole = (MIN(bytes, SIZE_MAX - 255) + 255) / 256 * 256, used = r->used_bytes + r->others_bytes;
    if (used > r->memory_bytes || whole > r->memory_bytes - used)
        return NULL;
    uint8_t *p = static_cast<uint8_t *>(aligned_alloc(256, whole ? whole : 256));
    CHECK(p);
    memset(p, 0, whole ? whole : 256);
    r->used_bytes += r->sizes[p] = whole;
    return p;
}

void rt_free(struct rt *r, void *p) {
    if (p)
        r->used_bytes -= r->sizes[p];
    r->sizes.erase(p);
    free(p);
}

void rt_no_memory(struct rt *r, const char *what, size_t bytes) {
    if (r->lacking)
        return;
    r->lacking = what;
    r->lacking_bytes = bytes;
}

void rt_fence(struct rt *r) {
    (void)r;
}

void *rt_stage(struct rt *r, size_t n) {
    CHECK(!r->stage_open && !r->recording);
    r->stage_open = true;
    free(r->stage); /* a new one each time, so that ASan sees its end */
    r->stage = malloc(n ? n : 1);
    CHECK(r->stage);
    r->stage_bytes = n;
    return r->stage;
}

void rt_put(struct rt *r, void *dst, const void *staged, size_t n) {
    CHECK(r->stage_open && staged == r->stage && n <= r->stage_bytes);
    r->stage_open = false;
    if (!r->lacking && n > 0)
        memcpy(dst, staged, n);
}

void rt_fetch(struct rt *r, void *dst, const void *src, size_t n) {
    CHECK(!r->recording);
    if (r->lacking)
        return;
    std::vector<uint8_t> now(static_cast<const uint8_t *>(src), static_cast<const uint8_t *>(src) + n);
    r->fetches.push_back([=] { memcpy(dst, now.data(), now.size()); });
}

void rt_copy(struct rt *r, void *dst, const void *src, size_t n) {
    rt_do(r, [=] { memmove(dst, src, n); });
}

void *rt_pinned(struct rt *r, size_t n) {
    (void)r;
    return malloc(n ? n : 1);
}

void rt_unpinned(struct rt *r, void *p) {
    (void)r;
    free(p);
}

int rt_wait(struct rt *r, char err[BE_ERR_BYTES]) {
    CHECK(!r->recording);
    for (auto &f : r->fetches)
        f();
    r->fetches.clear();
    if (!r->lacking)
        return 0;
    return dev_err(err, "GPU 0: no %.1f MiB of memory for %s", static_cast<double>(r->lacking_bytes) / static_cast<double>(MIB),
                   r->lacking);
}

void rt_do(struct rt *r, const std::function<void()> &work) {
    if (r->lacking)
        return;
    if (r->recording)
        r->recording->work.push_back(work);
    else
        work();
}

void rt_capture(struct rt *r) {
    CHECK(!r->recording);
    r->recording = new rt_graph();
}

struct rt_graph *rt_captured(struct rt *r) {
    struct rt_graph *g = r->recording;
    CHECK(g);
    r->recording = NULL;
    return g;
}

void rt_launch(struct rt *r, struct rt_graph *g) {
    if (r->lacking)
        return;
    for (auto &f : g->work)
        f();
}

void rt_graph_free(struct rt_graph *g) {
    delete g;
}

bool rt_product(struct rt *r, void *y, enum dtype y_type, const void *x, const void *w, const void *add, enum dtype t,
                uint32_t m, uint32_t n, uint32_t k) {
    (void)r, (void)y, (void)y_type, (void)x, (void)w, (void)add, (void)t, (void)m, (void)n, (void)k;
    return false; /* our own kernels are what is tested here */
}

int group_join(struct be *b, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    (void)b, (void)cfg;
    return dev_err(err, "the emulated device is alone");
}

void group_leave(struct be *b) {
    (void)b;
}

void group_sum(struct be *b, void *data, size_t n, enum dtype t) {
    (void)b, (void)data, (void)n, (void)t;
}

void group_gather(struct be *b, float *out, const float *part, uint32_t rows, uint32_t cols, uint32_t stride) {
    (void)b, (void)out, (void)part, (void)rows, (void)cols, (void)stride;
}
