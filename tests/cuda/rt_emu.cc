/* rt_emu.cc: rt.h on the heap. Everything runs when it is enqueued; between rt_capture and rt_captured it is recorded
 * instead, and runs with every rt_launch, so that what a captured step may not hold shows: host decisions in between.
 *
 * WEIR_EMU_MEMORY_KIB: the device's memory [1 GiB]; what is allocated beyond it fails, as on a GPU. WEIR_EMU_USED_KIB:
 * what others use of it [0]. */
#include "worker/cuda/rt.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <deque>
#include <unordered_map>
#include <vector>

#include "worker/cuda/dev.h"
#include "worker/cuda/nccl.h"

struct rt_graph {
    std::vector<std::function<void()>> work;
};

struct rt {
    int sm;
    void *stage;
    size_t stage_bytes;
    bool stage_open;
    struct rt_graph *recording;
    size_t memory_bytes, others_bytes, used_bytes;
    std::unordered_map<void *, size_t> sizes;
    const char *lacking; /* what had no memory; NULL: no error */
    size_t lacking_bytes;
    std::deque<std::function<void()>> fetches; /* done at the wait, as late as they may be */
    size_t n_fetched, marks[RT_MARKS];
    std::vector<void *> shared;
    bool (*look)(void *arg, bool done, char why[BE_ERR_BYTES]);
    void *look_arg;
    bool given_up;
    char why[BE_ERR_BYTES];
};

static size_t kib_of(const char *name, size_t otherwise) {
    const char *s = getenv(name);
    return (s ? strtoul(s, NULL, 10) : otherwise) * KIB;
}

/* emu_sm: the architecture that devices opened from now on say they are of. */
extern "C" {
int emu_sm = 90;
}

int rt_devices(void) {
    return 1;
}

int rt_open(struct rt **out, int device_index, char err[BE_ERR_BYTES]) {
    (void)device_index;
    (void)err;
    *out = new rt();
    (*out)->memory_bytes = kib_of("WEIR_EMU_MEMORY_KIB", 1024 * 1024);
    (*out)->others_bytes = kib_of("WEIR_EMU_USED_KIB", 0);
    (*out)->sm = emu_sm;
    return 0;
}

void rt_close(struct rt *r) {
    free(r->stage);
    for (void *p : r->shared)
        free(p);
    delete r;
}

void rt_info(struct rt *r, struct rt_info *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "emulated");
    out->sm = r->sm;
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

/* fetch: downloads that were asked for, up to the n-th ever. */
static void fetch(struct rt *r, size_t n) {
    while (r->n_fetched < n) {
        r->fetches.front()();
        r->fetches.pop_front();
        r->n_fetched++;
    }
}

static int result(struct rt *r, char err[BE_ERR_BYTES]) {
    if (r->given_up)
        return dev_err(err, "%s", r->why);
    if (!r->lacking)
        return 0;
    return dev_err(err, "GPU 0: no %.1f MiB of memory for %s", static_cast<double>(r->lacking_bytes) / static_cast<double>(MIB),
                   r->lacking);
}

void rt_mark(struct rt *r, uint32_t mark) {
    CHECK(mark < RT_MARKS && !r->recording);
    r->marks[mark] = r->n_fetched + r->fetches.size();
}

int rt_wait_mark(struct rt *r, uint32_t mark, char err[BE_ERR_BYTES]) {
    CHECK(mark < RT_MARKS && !r->recording);
    fetch(r, r->marks[mark]);
    return result(r, err);
}

int rt_wait(struct rt *r, char err[BE_ERR_BYTES]) {
    CHECK(!r->recording);
    fetch(r, r->n_fetched + r->fetches.size());
    if (r->look && !r->given_up)
        r->given_up = r->look(r->look_arg, true, r->why);
    return result(r, err);
}

bool rt_product_fp8(struct rt *r, void *y, enum dtype y_type, const void *x, const void *w, const float *x_scale,
                    const float *w_scale, const void *add, uint32_t m, uint32_t n, uint32_t k) {
    (void)r, (void)y, (void)y_type, (void)x, (void)w, (void)x_scale, (void)w_scale, (void)add, (void)m, (void)n, (void)k;
    return false;
}

/* Ranks are threads of one process here, so a handle is an address, and the process whose it is. */
void rt_place(struct rt *r, char out[RT_PLACE_BYTES]) {
    (void)r;
    memset(out, 0, RT_PLACE_BYTES);
}

void *rt_share(struct rt *r, size_t bytes, uint8_t handle[RT_HANDLE_BYTES]) {
    pid_t self = getpid();
    void *p = rt_alloc(r, bytes);
    memcpy(handle, &p, sizeof p);
    memcpy(handle + sizeof p, &self, sizeof self);
    r->shared.push_back(p);
    return p;
}

void *rt_peer(struct rt *r, const uint8_t handle[RT_HANDLE_BYTES]) {
    void *p;
    pid_t owner;
    (void)r;
    memcpy(&p, handle, sizeof p);
    memcpy(&owner, handle + sizeof p, sizeof owner);
    return owner == getpid() ? p : NULL;
}

void rt_peer_leave(struct rt *r, void *p) {
    (void)r, (void)p;
}

uint32_t *rt_word(struct rt *r, uint32_t *host, bool pinned) {
    (void)r, (void)pinned;
    return host;
}

void rt_word_leave(struct rt *r, uint32_t *host) {
    (void)r, (void)host;
}

void rt_guard(struct rt *r, bool (*look)(void *arg, bool done, char why[BE_ERR_BYTES]), void *arg) {
    r->look = look;
    r->look_arg = arg;
}

bool rt_measures(struct rt *r) {
    (void)r;
    return false;
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

/* The emulated device has no library: ranks meet in each other's memory. */
int nccl_id(uint8_t id[NCCL_ID_BYTES], char err[BE_ERR_BYTES]) {
    (void)id;
    return dev_err(err, "the emulated device has no NCCL");
}

int nccl_open(struct nccl **out, struct rt *r, const uint8_t id[NCCL_ID_BYTES], int rank, int n_ranks,
              char err[BE_ERR_BYTES]) {
    (void)out, (void)r, (void)id, (void)rank, (void)n_ranks;
    return dev_err(err, "the emulated device has no NCCL");
}

void nccl_close(struct nccl *n) {
    CHECK(!n);
}

bool nccl_failed(struct nccl *n, char err[BE_ERR_BYTES]) {
    (void)n, (void)err;
    return false;
}

void nccl_sum(struct nccl *c, void *data, size_t n, enum dtype t) {
    (void)data, (void)n, (void)t;
    CHECK(c);
}

void nccl_gather(struct nccl *c, float *all, const float *mine, size_t n) {
    (void)all, (void)mine, (void)n;
    CHECK(c);
}
