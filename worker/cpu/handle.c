#include "worker/cpu/be.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/cpu/convert.h"

int cpu_err(char err[BE_ERR_BYTES], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, BE_ERR_BYTES, fmt, ap);
    va_end(ap);
    return -1;
}

static int config_check(const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    if (cfg->n_ranks > 1 && (!cfg->group || cfg->n_ranks > BE_RANKS_MAX || cfg->rank < 0 ||
                             cfg->rank >= cfg->n_ranks || cfg->n_reduce_cols == 0))
        return cpu_err(err, "rank %d of %d: the CPU backend takes 1 to %d ranks that share memory", cfg->rank,
                       cfg->n_ranks, BE_RANKS_MAX);
    if (cfg->n_threads < 0 || cfg->n_threads > TEAM_THREADS_MAX)
        return cpu_err(err, "%d compute threads asked for; the CPU backend takes 0 (all cores) to %d",
                       cfg->n_threads, TEAM_THREADS_MAX);
    if (cfg->compute != DT_NONE && cfg->compute != DT_F32)
        return cpu_err(err, "the CPU backend computes in f32 only");
    return 0;
}

int cpu_open(struct be **out, const struct be_config *cfg, bool avx2, char err[BE_ERR_BYTES]) {
    if (config_check(cfg, err) != 0)
        return -1;
    struct be *b = calloc(1, sizeof *b);
    if (!b)
        return cpu_err(err, "no memory for the CPU backend");
    b->objects.prev = b->objects.next = &b->objects;
    b->avx2 = avx2;
    b->flavor = avx2 ? "avx2" : "plain C";
    b->n_tokens_max = cfg->n_tokens_max;
    b->n_seqs_max = cfg->n_seqs_max;
    b->n_rows_max = cfg->n_rows_max;
    b->n_vocab = cfg->n_vocab;
    b->n_vocab_padded = cpu_vocab_padded(cfg->n_vocab);
    b->n_threads = cfg->n_threads ? cfg->n_threads : team_cores();
    b->group = cfg->n_ranks > 1 ? group_open(cfg, b->n_threads) : NULL;
    b->logits = b->group ? group_logits(b->group)
                         : cpu_alloc((size_t)b->n_rows_max * b->n_vocab_padded * sizeof(float));
    b->last_ids = calloc(MAX(b->n_rows_max, 1u), sizeof *b->last_ids);
    if (!b->logits || !b->last_ids || !plan_init(b)) {
        cpu_close(b);
        return cpu_err(err, "no memory for %u rows of %u logits and %u tokens", cfg->n_rows_max, cfg->n_vocab,
                       cfg->n_tokens_max);
    }
    b->team = team_start(b->n_threads);
    if (!b->team) {
        cpu_err(err, "cannot start %d compute threads", b->n_threads);
        cpu_close(b);
        return -1;
    }
    *out = b;
    return 0;
}

void cpu_close(struct be *b) {
    if (!b)
        return;
    team_stop(b->team);
    while (b->objects.next != &b->objects)
        owned_free(b->objects.next);
    slab_drop(b->slab);
    for (int i = 0; i < N_SCRATCH; i++)
        free(b->scratch[i].data);
    if (!b->group)
        free(b->logits);
    group_close(b->group);
    free(b->last_ids);
    free(b);
}

/* file_u64: the number that a one-line file starts with; UINT64_MAX where there is none ("max"). */
static uint64_t file_u64(const char *path) {
    unsigned long long v;
    FILE *f = fopen(path, "r");
    if (!f)
        return UINT64_MAX;
    bool ok = fscanf(f, "%llu", &v) == 1;
    fclose(f);
    return ok ? v : UINT64_MAX;
}

/* available_bytes: the kernel's own estimate of what can be had without swapping. */
static uint64_t available_bytes(void) {
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib ? kib * KIB : (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

void cpu_info(struct be *b, struct be_info *out) {
    static const char *const limits[][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
    };
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "cpu %s, %d thread%s", b->flavor, b->n_threads,
             b->n_threads == 1 ? "" : "s");
    out->act = DT_F32;
    out->n_vocab_padded = b->n_vocab_padded;
    out->memory_total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    out->memory_free_bytes = available_bytes();
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        uint64_t limit = file_u64(limits[i][0]), used = file_u64(limits[i][1]);
        if (limit >= out->memory_total_bytes || used == UINT64_MAX)
            continue;
        out->memory_total_bytes = limit;
        out->memory_free_bytes = MIN(out->memory_free_bytes, limit > used ? limit - used : 0);
    }
}

struct be_mem *cpu_mem_new(struct be *b, uint64_t rows, uint32_t cols, enum dtype dt) {
    enum dtype t = dt == DT_NONE ? DT_F32 : dt;
    uint64_t bytes;
    if (__builtin_mul_overflow(rows, (uint64_t)cols * dtype_bytes(t), &bytes))
        return NULL;
    struct be_mem *m = owned_new(b, sizeof *m, bytes);
    if (!m)
        return NULL;
    m->data = m->own.data;
    m->rows = rows;
    m->cols = cols;
    m->dtype = t;
    memset(m->data, 0, bytes);
    return m;
}

void cpu_mem_free(struct be *b, struct be_mem *m) {
    (void)b;
    owned_free(m ? &m->own : NULL);
}

void cpu_mem_put(struct be *b, struct be_mem *m, uint64_t row0, uint64_t n_rows, const float *src) {
    (void)b;
    CHECK(is_float_type(m->dtype) && row0 <= m->rows && n_rows <= m->rows - row0);
    size_t at = row0 * m->cols, n = n_rows * m->cols;
    for (size_t i = 0; i < n; i++)
        f32_store(m->data, m->dtype, at + i, src[i]);
}

void cpu_mem_get(struct be *b, const struct be_mem *m, uint64_t row0, uint64_t n_rows, float *dst) {
    (void)b;
    CHECK(is_float_type(m->dtype) && row0 <= m->rows && n_rows <= m->rows - row0);
    size_t at = row0 * m->cols, n = n_rows * m->cols;
    for (size_t i = 0; i < n; i++)
        dst[i] = f32_load(m->data, m->dtype, at + i);
}

void cpu_gather(struct be *b, const struct op_gather *op) {
    const struct plan *p = &b->plan;
    const float *x = cpu_f32(op->x, p->n_tokens, op->cols);
    float *y = cpu_f32(op->y, p->n_rows, op->cols);
    CHECK(op->y != op->x);
    for (uint32_t r = 0; r < p->n_rows; r++)
        memcpy(y + (size_t)r * op->cols, x + (size_t)p->rows[r] * op->cols, op->cols * sizeof *y);
}

float *cpu_f32(const struct be_mem *m, uint64_t rows, uint32_t cols) {
    CHECK(m && m->dtype == DT_F32 && rows * cols <= m->rows * m->cols);
    return m->data;
}

const float *cpu_vector(const struct be_w *w, uint32_t n) {
    if (!w)
        return NULL;
    CHECK(w->kind == BE_W_VECTOR && w->n_in == n);
    return w->data;
}

void cpu_logits_get(struct be *b, uint32_t row, float *dst) {
    CHECK(row < b->n_logits);
    memcpy(dst, b->logits + (size_t)row * b->n_vocab_padded, b->n_vocab * sizeof(float));
}

/* A row may be put without an op_logits before it: tests and logits processors write rows of their own. */
void cpu_logits_put(struct be *b, uint32_t row, const float *src) {
    CHECK(row < b->n_rows_max);
    memcpy(b->logits + (size_t)row * b->n_vocab_padded, src, b->n_vocab * sizeof(float));
    b->n_logits = MAX(b->n_logits, row + 1);
}

int cpu_wait(struct be *b, char err[BE_ERR_BYTES]) {
    return b->group && group_why(b->group, err) ? -1 : 0;
}

uint32_t cpu_vocab_padded(uint32_t n_vocab) {
    return (n_vocab + PANEL_COLS - 1) / PANEL_COLS * PANEL_COLS;
}

size_t cpu_group_bytes(const struct be_config *cfg) {
    return group_bytes(cfg);
}
