/* logits.cu: the head: norm of the rows that are asked for, product in f32, scale and cap. */
#include "worker/cuda/group.h"

struct cap_args {
    float *y;
    const float *part; /* NULL: y itself */
    const float *bias;
    float scale, softcap;
    uint32_t n_vocab, stride, part_stride;
};

static __global__ void cap_kernel(struct cap_args a) {
    dep_wait();
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= a.n_vocab)
        return;
    size_t at = static_cast<size_t>(blockIdx.y) * a.stride + c;
    float v = (a.part ? a.part[static_cast<size_t>(blockIdx.y) * a.part_stride + c] : a.y[at]) * a.scale +
              (a.bias ? a.bias[c] : 0.0f);
    a.y[at] = a.softcap > 0 ? a.softcap * tanhf(v / a.softcap) : v;
}

/* The head's rows are [n_out][n_in] with n_out the vocabulary, or this rank's share of it. */
void dev_logits(struct be *b, const struct op_logits *op) {
    uint32_t n_in = op->w->n_in, n = b->n_rows, n_out = op->w->n_out;
    const void *x = dev_act(b, op->x, b->n_tokens, n_in);
    bool sharded = op->sharded && b->group;
    normed_drop(b);
    CHECK(!w_gated(op->w) && op->w->n_experts == 1 && (n_out == b->n_vocab || sharded));
    b->n_logits = b->plan.n_rows;
    if (n == 0)
        return;
    void *rows = dev_scratch(b, SCRATCH_X, static_cast<size_t>(n) * n_in * dtype_bytes(b->act));
    norm_rows(b, rows, x, NULL, true, &op->norm, n_in, n);
    float *part = static_cast<float *>(dev_scratch(b, SCRATCH_WIDE, static_cast<size_t>(n) * n_out * sizeof(float)));
    product_rows(b, part, true, op->w, rows, NULL, n);
    struct cap_args a = {};
    a.y = b->logits;
    a.part = part;
    a.bias = dev_vector(op->bias, b->n_vocab);
    a.scale = op->scale == 0 ? 1.0f : op->scale;
    a.softcap = op->softcap;
    a.n_vocab = b->n_vocab;
    a.stride = b->n_vocab_padded;
    a.part_stride = n_out;
    if (sharded) {
        group_gather(b, b->logits, part, n, n_out, op->col0, b->n_vocab_padded);
        a.part = NULL;
    }
    rt_run(b->rt, cap_kernel, dim3(blocks_for(b->n_vocab, 256), n), dim3(256), 0, a);
}

void dev_logits_get(struct be *b, uint32_t row, float *dst) {
    CHECK(row < b->n_logits);
    dev_download(b, dst, b->logits + static_cast<size_t>(row) * b->n_vocab_padded, b->n_vocab * sizeof(float));
}

void dev_logits_put(struct be *b, uint32_t row, const float *src) {
    CHECK(row < b->n_rows_max);
    dev_upload(b, b->logits + static_cast<size_t>(row) * b->n_vocab_padded, src, b->n_vocab * sizeof(float));
    b->n_logits = MAX(b->n_logits, row + 1);
}
