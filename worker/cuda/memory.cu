/* memory.cu: buffers of activations, scratch, and copies between host and device. */
#include "worker/cuda/dev.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int dev_err(char err[BE_ERR_BYTES], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, BE_ERR_BYTES, fmt, ap);
    va_end(ap);
    return -1;
}

void *dev_scratch(struct be *b, enum scratch_id id, size_t bytes) {
    static uint64_t nowhere[32]; /* what an operation is given that will not run */
    if (b->scratch[id].bytes >= bytes)
        return b->scratch[id].data;
    CHECK(!b->capturing);
    if (id == SCRATCH_SAMPLE || id == SCRATCH_ROWS)
        bytes += bytes / 2; /* what rows bring along grows by a few bytes a step */
    else
        graphs_drop(b); /* they hold its address */
    rt_free(b->rt, b->scratch[id].data);
    b->scratch[id].data = rt_alloc(b->rt, bytes);
    b->scratch[id].bytes = b->scratch[id].data ? bytes : 0;
    if (b->scratch[id].data)
        return b->scratch[id].data;
    rt_no_memory(b->rt, "a step's working memory", bytes);
    return nowhere;
}

void *dev_act(const struct be *b, const struct be_mem *m, uint64_t rows, uint32_t cols) {
    CHECK(m && m->dtype == b->act && rows * cols <= m->rows * m->cols);
    return m->data;
}

const float *dev_vector(const struct be_w *w, uint32_t n) {
    if (!w)
        return NULL;
    CHECK(w->kind == BE_W_VECTOR && w->n_in == n);
    return static_cast<const float *>(w->data);
}

struct be_mem *dev_mem_new(struct be *b, uint64_t rows, uint32_t cols, enum dtype dt) {
    enum dtype t = dt == DT_NONE ? b->act : dt;
    uint64_t bytes;
    if (__builtin_mul_overflow(rows, static_cast<uint64_t>(cols) * dtype_bytes(t), &bytes))
        return NULL;
    struct be_mem *m = static_cast<struct be_mem *>(calloc(1, sizeof *m));
    void *data = m ? rt_alloc(b->rt, MAX(bytes, static_cast<uint64_t>(1))) : NULL;
    if (!data) {
        free(m);
        return NULL;
    }
    m->data = data;
    m->rows = rows;
    m->cols = cols;
    m->dtype = t;
    m->prev = &b->mems;
    m->next = b->mems.next;
    m->next->prev = b->mems.next = m;
    return m;
}

void dev_mem_free(struct be *b, struct be_mem *m) {
    if (!m)
        return;
    graphs_drop(b); /* they hold its address */
    rt_free(b->rt, m->data);
    m->prev->next = m->next;
    m->next->prev = m->prev;
    free(m);
}

enum { PIECE_BYTES = 8 << 20 };

void dev_upload(struct be *b, void *dst, const void *src, size_t n) {
    for (size_t at = 0; at < n; at += PIECE_BYTES) {
        size_t part = MIN(n - at, static_cast<size_t>(PIECE_BYTES));
        void *room = rt_stage(b->rt, part);
        memcpy(room, static_cast<const uint8_t *>(src) + at, part);
        rt_put(b->rt, static_cast<uint8_t *>(dst) + at, room, part);
    }
}

enum { COPIER_BYTES = 1 << 20, COPIERS_MAX = 8 }; /* COPIER_BYTES: that are worth a thread */

/* copier: rows that one thread copies. */
struct copier {
    uint8_t *to;
    const uint8_t *from;
    size_t n_rows, row_bytes, pitch;
    pthread_t thread;
    bool started;
};

static void *copier_run(void *arg) {
    const struct copier *c = static_cast<const struct copier *>(arg);
    if (c->pitch == c->row_bytes)
        memcpy(c->to, c->from, c->n_rows * c->row_bytes);
    for (size_t r = 0; c->pitch != c->row_bytes && r < c->n_rows; r++)
        memcpy(c->to + r * c->row_bytes, c->from + r * c->pitch, c->row_bytes);
    return NULL;
}

void dev_gather_rows(const struct be *b, void *to, const void *from, size_t n_rows, size_t row_bytes, size_t pitch) {
    struct copier part[COPIERS_MAX] = {};
    size_t n = MIN(n_rows * row_bytes / COPIER_BYTES, MIN(static_cast<size_t>(b->n_copiers), n_rows));
    n = MAX(MIN(n, static_cast<size_t>(COPIERS_MAX)), static_cast<size_t>(1));
    for (size_t i = 0; i < n; i++) {
        size_t lo = n_rows * i / n, hi = n_rows * (i + 1) / n;
        part[i].to = static_cast<uint8_t *>(to) + lo * row_bytes;
        part[i].from = static_cast<const uint8_t *>(from) + lo * pitch;
        part[i].n_rows = hi - lo;
        part[i].row_bytes = row_bytes;
        part[i].pitch = pitch;
        if (i + 1 < n)
            part[i].started = pthread_create(&part[i].thread, NULL, copier_run, &part[i]) == 0;
        if (!part[i].started) /* the last one is this thread's, and so is one that the system gives no thread */
            copier_run(&part[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (part[i].started)
            pthread_join(part[i].thread, NULL);
}

void dev_download(struct be *b, void *dst, const void *src, size_t n) {
    char err[BE_ERR_BYTES];
    rt_fetch(b->rt, dst, src, n);
    rt_wait(b->rt, err); /* an error sticks: wait tells it */
}

template <class T> static __global__ void to_floats(float *y, const T *x, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = to_f32(x[i]);
}

template <class T> static __global__ void from_floats(T *y, const float *x, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n)
        from_f32(&y[i], x[i]);
}

template <class T> static void convert(struct be *b, void *data, float *floats, size_t n, bool out) {
    dim3 grid(blocks_for(n, 256));
    if (out)
        rt_run(b->rt, to_floats<T>, grid, dim3(256), 0, floats, static_cast<T *>(data), n);
    else
        rt_run(b->rt, from_floats<T>, grid, dim3(256), 0, static_cast<T *>(data), floats, n);
}

/* float_rows: between floats on the host and a buffer, some rows at a time. */
static void float_rows(struct be *b, const struct be_mem *m, uint64_t row0, uint64_t n_rows, const float *src,
                       float *dst) {
    CHECK(row0 <= m->rows && n_rows <= m->rows - row0);
    if (src)
        normed_drop(b);
    size_t e = dtype_bytes(m->dtype), n = n_rows * m->cols;
    uint8_t *data = static_cast<uint8_t *>(m->data) + row0 * m->cols * e;
    for (size_t at = 0; at < n; at += PIECE_BYTES / 4) {
        size_t part = MIN(n - at, static_cast<size_t>(PIECE_BYTES / 4));
        float *room = static_cast<float *>(dev_scratch(b, SCRATCH_ROWS, part * sizeof(float)));
        if (src)
            dev_upload(b, room, src + at, part * sizeof(float));
        switch (m->dtype) {
        case DT_F32:
            convert<float>(b, data + at * e, room, part, !src);
            break;
        case DT_F16:
            convert<f16>(b, data + at * e, room, part, !src);
            break;
        case DT_BF16:
            convert<bf16>(b, data + at * e, room, part, !src);
            break;
        default:
            CHECK(!"a buffer of floats");
        }
        if (dst)
            dev_download(b, dst + at, room, part * sizeof(float));
    }
}

void dev_mem_put(struct be *b, struct be_mem *m, uint64_t row0, uint64_t n_rows, const float *src) {
    float_rows(b, m, row0, n_rows, src, NULL);
}

void dev_mem_get(struct be *b, const struct be_mem *m, uint64_t row0, uint64_t n_rows, float *dst) {
    float_rows(b, m, row0, n_rows, NULL, dst);
}
