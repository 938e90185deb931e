/* weight.cu: takes a checkpoint's tensors to the device, through pinned memory, and into one type. */
#include "worker/cuda/tile.h"

#include <stdlib.h>

static uint32_t taken_rows(const struct be_weight_src *s) {
    return s->n_rows ? s->n_rows : s->rows - s->row0;
}
static uint32_t taken_cols(const struct be_weight_src *s) {
    return s->n_cols ? s->n_cols : s->cols - s->col0;
}
static bool is_float(enum dtype t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

static int src_check(const struct be_weight_src *s, bool vector, char err[BE_ERR_BYTES]) {
    if (!is_float(s->dtype) && (vector || s->dtype != DT_F8E4M3))
        return dev_err(err, "the CUDA backend takes weights in f32, f16, bf16 and, for matrices, fp8 (e4m3)");
    if (s->row0 > s->rows || s->col0 > s->cols || taken_rows(s) > s->rows - s->row0 ||
        taken_cols(s) > s->cols - s->col0)
        return dev_err(err, "rows and columns outside the tensor are asked for");
    if (!vector && (taken_rows(s) == 0 || taken_cols(s) == 0))
        return dev_err(err, "a weight without rows or columns");
    if (s->to_fp8 && (vector || s->dtype == DT_F8E4M3))
        return dev_err(err, "only matrices of floats are made fp8");
    if (s->dtype == DT_F8E4M3 && s->scale_block != 0 && s->scale_block != 128)
        return dev_err(err, "fp8 weights with a scale for each %u columns: the CUDA backend takes one, or one for each "
                            "128 x 128", s->scale_block);
    if (s->dtype == DT_F8E4M3 && s->scale_block && (s->col0 % s->scale_block || s->row0 % s->scale_block))
        return dev_err(err, "a rank's part of an fp8 weight begins within a block of 128 x 128 that shares a scale");
    return 0;
}

static int kind_check(enum be_weight_kind kind, const struct be_weight_src *src, uint32_t n_src,
                      char err[BE_ERR_BYTES]) {
    bool experts = kind == BE_W_EXPERTS || kind == BE_W_EXPERTS_GATE_UP;
    if (n_src == 0)
        return dev_err(err, "a weight without sources");
    for (uint32_t i = 0; i < n_src; i++) {
        if (src_check(&src[i], kind == BE_W_VECTOR, err) != 0)
            return -1;
        if (kind != BE_W_VECTOR && taken_cols(&src[i]) != taken_cols(src))
            return dev_err(err, "stacked weights of %u and %u columns", taken_cols(src), taken_cols(&src[i]));
        if (experts && taken_rows(&src[i]) != taken_rows(src))
            return dev_err(err, "experts of %u and %u rows", taken_rows(src), taken_rows(&src[i]));
        if ((src[i].dtype == DT_F8E4M3) != (src[0].dtype == DT_F8E4M3) || src[i].to_fp8 != src[0].to_fp8)
            return dev_err(err, "fp8 and other types in one weight");
        if (src[i].dtype == DT_F8E4M3 && src[i].scale_block != src[0].scale_block)
            return dev_err(err, "fp8 scales of blocks and of whole tensors in one weight");
    }
    if ((kind == BE_W_GATE_UP && (n_src != 2 || taken_rows(&src[0]) != taken_rows(&src[1]))) ||
        (kind == BE_W_EXPERTS_GATE_UP && n_src % 2))
        return dev_err(err, "gate and up must come in pairs of equal shape");
    return 0;
}

template <class T, class S> static __global__ void cast(T *y, const S *x, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n)
        from_f32(&y[i], to_f32(x[i]));
}

template <class T> static void cast_from(struct be *b, void *y, const void *x, enum dtype from, size_t n) {
    dim3 grid(blocks_for(n, 256));
    T *to = static_cast<T *>(y);
    if (from == DT_F32)
        rt_run(b->rt, cast<T, float>, grid, dim3(256), 0, to, static_cast<const float *>(x), n);
    else if (from == DT_F16)
        rt_run(b->rt, cast<T, f16>, grid, dim3(256), 0, to, static_cast<const f16 *>(x), n);
    else
        rt_run(b->rt, cast<T, bf16>, grid, dim3(256), 0, to, static_cast<const bf16 *>(x), n);
}

enum { PIECE_BYTES = 16 << 20 };

/* src_upload: the taken part of a source, as type `to`, to dst. scale: of what becomes fp8 here, a factor a row. */
static void src_upload(struct be *b, uint8_t *dst, enum dtype to, const struct be_weight_src *s, float *scale) {
    size_t e = dtype_bytes(s->dtype), row_bytes = taken_cols(s) * e;
    if (row_bytes == 0 || taken_rows(s) == 0)
        return;
    uint32_t n = taken_rows(s),
             each = static_cast<uint32_t>(MIN(MAX(PIECE_BYTES / row_bytes, static_cast<size_t>(1)), static_cast<size_t>(n)));
    uint8_t *room = s->dtype == to ? NULL : static_cast<uint8_t *>(dev_scratch(b, SCRATCH_ROWS, each * row_bytes));
    for (uint32_t r = 0; r < n; r += each) {
        uint32_t part = MIN(n - r, each);
        uint8_t *staged = static_cast<uint8_t *>(rt_stage(b->rt, part * row_bytes));
        const uint8_t *from =
            static_cast<const uint8_t *>(s->data) + ((static_cast<size_t>(s->row0) + r) * s->cols + s->col0) * e;
        dev_gather_rows(b, staged, from, part, row_bytes, static_cast<size_t>(s->cols) * e);
        size_t n_elems = static_cast<size_t>(part) * taken_cols(s);
        uint8_t *at = dst + static_cast<size_t>(r) * taken_cols(s) * dtype_bytes(to);
        rt_put(b->rt, room ? room : at, staged, part * row_bytes);
        if (!room)
            continue;
        if (to == DT_F8E4M3)
            fp8_encode(b, at, scale + r, room, s->dtype, part, taken_cols(s));
        else if (to == DT_BF16)
            cast_from<bf16>(b, at, room, s->dtype, n_elems);
        else if (to == DT_F16)
            cast_from<f16>(b, at, room, s->dtype, n_elems);
        else
            cast_from<float>(b, at, room, s->dtype, n_elems);
    }
}

/* scales_upload: a factor for each row and each block of columns. */
static void scales_upload(struct be *b, const struct be_w *w, const struct be_weight_src *src, uint32_t n_src) {
    size_t n = static_cast<size_t>(w->n_experts) * w->n_out * w->n_scales;
    float *all = static_cast<float *>(malloc(n * sizeof *all)), *at = all;
    CHECK(all);
    for (uint32_t i = 0; i < n_src; i++) {
        const struct be_weight_src *s = &src[i];
        const float *scale = static_cast<const float *>(s->scale);
        size_t stored = s->scale_block ? (s->cols + s->scale_block - 1) / s->scale_block : 1;
        for (uint32_t r = 0; r < taken_rows(s); r++)
            for (uint32_t c = 0; c < w->n_scales; c++) {
                size_t row = s->scale_block ? (s->row0 + r) / s->scale_block : s->scale_rows ? s->row0 + r : 0;
                size_t col = s->scale_block ? s->col0 / s->scale_block + c : 0;
                *at++ = scale ? scale[row * stored + col] : 1.0f;
            }
    }
    dev_upload(b, w->scale, all, n * sizeof *all);
    free(all);
}

static void own(struct be *b, struct be_w *w) {
    w->prev = &b->weights;
    w->next = b->weights.next;
    w->next->prev = b->weights.next = w;
}

/* shape: what the sources make together. False: too large to count. */
static bool shape(struct be *b, struct be_w *w, enum be_weight_kind kind, const struct be_weight_src *src,
                  uint32_t n_src) {
    uint32_t n_each = kind == BE_W_EXPERTS ? 1 : kind == BE_W_EXPERTS_GATE_UP ? 2 : n_src;
    uint64_t n_out = 0, n;
    w->kind = kind;
    w->n_experts = n_src / n_each;
    for (uint32_t i = 0; i < n_each; i++)
        n_out += kind == BE_W_VECTOR ? static_cast<uint64_t>(taken_rows(&src[i])) * taken_cols(&src[i])
                                     : taken_rows(&src[i]);
    w->n_out = kind == BE_W_VECTOR ? 1 : static_cast<uint32_t>(n_out);
    w->n_in = kind == BE_W_VECTOR ? static_cast<uint32_t>(n_out) : taken_cols(src);
    w->dtype = kind == BE_W_VECTOR ? DT_F32 : src[0].dtype == DT_F8E4M3 || src[0].to_fp8 ? DT_F8E4M3 : b->act;
    if (w->dtype == DT_F8E4M3) {
        w->scale_block = src[0].scale_block ? src[0].scale_block : w->n_in;
        w->n_scales = (w->n_in + w->scale_block - 1) / w->scale_block;
        for (uint32_t i = 0; i < n_src; i++) /* stacked ones share their activations */
            w->input_scale = MAX(w->input_scale, src[i].input_scale);
    }
    return n_out <= UINT32_MAX && !__builtin_mul_overflow(n_out * w->n_experts, static_cast<uint64_t>(dtype_bytes(w->dtype)), &n) &&
           !__builtin_mul_overflow(n, static_cast<uint64_t>(kind == BE_W_VECTOR ? 1 : w->n_in), &w->bytes);
}

struct be_w *dev_weight(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src, uint32_t n_src,
                        char err[BE_ERR_BYTES]) {
    if (kind_check(kind, src, n_src, err) != 0)
        return NULL;
    struct be_w *w = static_cast<struct be_w *>(calloc(1, sizeof *w));
    bool good = w && shape(b, w, kind, src, n_src);
    size_t n_scales = good ? static_cast<size_t>(w->n_experts) * w->n_out * w->n_scales : 0;
    if (good)
        w->data = rt_alloc(b->rt, w->bytes + 16); /* whole vectors may be read at its end */
    if (good && w->data && n_scales)
        w->scale = static_cast<float *>(rt_alloc(b->rt, n_scales * sizeof(float)));
    if (!good || !w->data || (n_scales && !w->scale)) {
        dev_err(err, "no memory for a weight of %u x %u, %u stacked", taken_rows(src), taken_cols(src), n_src);
        if (w)
            rt_free(b->rt, w->data);
        free(w);
        return NULL;
    }
    uint8_t *at = static_cast<uint8_t *>(w->data);
    float *scale = w->scale;
    for (uint32_t i = 0; i < n_src; i++) {
        src_upload(b, at, w->dtype, &src[i], scale);
        scale += src[i].to_fp8 ? taken_rows(&src[i]) : 0;
        at += static_cast<size_t>(taken_rows(&src[i])) * taken_cols(&src[i]) * dtype_bytes(w->dtype);
    }
    if (n_scales && !src[0].to_fp8)
        scales_upload(b, w, src, n_src);
    rt_fence(b->rt); /* products read weights before their dep_wait */
    w->bytes += n_scales * sizeof(float);
    own(b, w);
    return w;
}

void dev_weight_free(struct be *b, struct be_w *w) {
    if (!w)
        return;
    graphs_drop(b);
    rt_free(b->rt, w->data);
    rt_free(b->rt, w->scale);
    w->prev->next = w->next;
    w->next->prev = w->prev;
    free(w);
}

uint64_t dev_weight_bytes(const struct be_w *w) {
    return w->bytes;
}
