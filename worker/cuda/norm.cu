/* norm.cu: norms over rows, and the embedding, which may end in one. A block has a row. */
#include "worker/cuda/group.h"
#include "worker/cuda/norm.cuh"

enum { NORM_THREADS = 256 };

struct norm_args {
    void *y;
    const void *x, *add;
    const struct dplan *plan;
    struct dnorm norm;
    uint32_t cols;
    bool pick; /* x's rows are those that the plan names */
};

template <class T> static __global__ void norm_kernel(struct norm_args a) {
    SHARED(float, room, 32);
    dep_wait();
    uint32_t from = blockIdx.x;
    if (a.pick)
        from = blockIdx.x < a.plan->n_rows ? PLAN_AT(uint32_t, a.plan, a.plan->rows)[blockIdx.x] : 0;
    const T *x = static_cast<const T *>(a.x) + static_cast<size_t>(from) * a.cols;
    size_t at = static_cast<size_t>(blockIdx.x) * a.cols;
    T *y = static_cast<T *>(a.y) + at;
    const T *add = a.add ? static_cast<const T *>(a.add) + at : NULL;
    float mean = 0, inv = 1;
    if (a.norm.kind != NORM_NONE)
        norm_factors(a.norm, [=](uint32_t i) { return to_f32(x[i]); }, a.cols, room, &mean, &inv);
    for (uint32_t i = threadIdx.x; i < a.cols; i += blockDim.x) {
        float v = a.norm.kind == NORM_NONE ? to_f32(x[i]) : norm_value(a.norm, to_f32(x[i]), i, mean, inv);
        from_f32(&y[i], v + (add ? to_f32(add[i]) : 0.0f));
    }
}

template <class T> static void norm_launch(struct be *b, const struct norm_args *a, uint32_t n) {
    rt_run(b->rt, norm_kernel<T>, dim3(n), dim3(NORM_THREADS), 0, *a);
}

void norm_rows(struct be *b, void *y, const void *x, const void *add, bool pick, const struct be_norm *norm,
               uint32_t cols, uint32_t n) {
    struct norm_args a = {};
    a.y = y;
    a.x = x;
    a.add = add;
    a.plan = b->dplan;
    a.norm = dnorm_of(norm, cols);
    a.cols = cols;
    a.pick = pick;
    if (n > 0)
        ACT_CALL(b, norm_launch, b, &a, n);
}

const void *normed_take(struct be *b, const struct be_mem *x, const struct be_norm *norm, uint32_t n) {
    const struct be_norm *have = &b->normed.norm;
    bool same = b->normed.of == x && b->normed.n >= n && have->kind == norm->kind && have->weight == norm->weight &&
                have->bias == norm->bias && have->eps == norm->eps && have->weight_offset == norm->weight_offset;
    normed_drop(b);
    return same ? b->scratch[SCRATCH_NORMED].data : NULL;
}

void *normed_room(struct be *b, const struct be_mem *y, const struct be_norm *then, uint32_t cols, uint32_t n) {
    if (then->kind == NORM_NONE)
        return NULL;
    void *room = dev_scratch(b, SCRATCH_NORMED, static_cast<size_t>(n) * cols * dtype_bytes(b->act));
    b->normed.of = y;
    b->normed.norm = *then;
    b->normed.n = n;
    return room;
}

void dev_norm(struct be *b, const struct op_norm *op) {
    uint32_t n = op->n_rows ? op->n_rows : b->n_tokens;
    normed_drop(b);
    norm_rows(b, dev_act(b, op->y, n, op->cols), dev_act(b, op->x, n, op->cols),
              op->add ? dev_act(b, op->add, n, op->cols) : NULL, false, &op->norm, op->cols, n);
}

/* ---- embedding --------------------------------------------------------------------------------- */

struct embed_args {
    void *y;
    const struct dplan *plan;
    const void *tokens, *positions, *types, *embeds; /* positions, types, embeds: NULL for none */
    const uint32_t *last_ids;
    uint32_t n_vocab, n_positions, n_types, cols;
    bool sharded;  /* rows row0 .. of the vocabulary are here, and a row that is not is zero */
    bool replaces; /* sharded: this rank's are the rows that replace tokens' */
    uint32_t row0;
    int32_t pos_offset;
    float scale;
    struct dnorm norm;
};

/* The sum of a row is kept in shared memory: the norm reads it several times. What indices there are is clamped to
 * the tables, so that a token made up by the device can never read beyond them. */
template <class T> static __global__ void embed_kernel(struct embed_args a) {
    SHARED(float, room, 32);
    SHARED_DYN(float, row);
    dep_wait();
    const struct dplan *p = a.plan;
    uint32_t t = blockIdx.x;
    if (t >= p->n_tokens) /* of a padded batch; the same for the whole block */
        return;
    uint32_t id = PLAN_AT(uint32_t, p, p->tokens)[t], from = p->from_row ? PLAN_AT(uint32_t, p, p->from_row)[t] : 0;
    uint32_t embed = p->embed_row ? PLAN_AT(uint32_t, p, p->embed_row)[t] : 0;
    if (from)
        id = a.last_ids[from - 1];
    bool here = !a.sharded || (embed ? a.replaces : id >= a.row0 && id - a.row0 < a.n_vocab);
    id = a.sharded ? id - a.row0 : id;
    id = id < a.n_vocab ? id : 0;
    const T *e = embed ? static_cast<const T *>(a.embeds) + static_cast<size_t>(embed - 1) * a.cols
                       : static_cast<const T *>(a.tokens) + static_cast<size_t>(id) * a.cols;
    const T *pe = NULL, *te = NULL;
    if (a.positions) {
        int64_t at = static_cast<int64_t>(PLAN_AT(int32_t, p, p->pos)[t]) + a.pos_offset;
        at = at < 0 ? 0 : at < a.n_positions ? at : a.n_positions - 1;
        pe = static_cast<const T *>(a.positions) + static_cast<size_t>(at) * a.cols;
    }
    if (a.types) {
        uint32_t type = PLAN_AT(uint8_t, p, p->type)[t];
        te = static_cast<const T *>(a.types) + static_cast<size_t>(type < a.n_types ? type : 0) * a.cols;
    }
    for (uint32_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        row[i] = (here ? to_f32(e[i]) * a.scale : 0.0f) + (pe ? to_f32(pe[i]) : 0.0f) + (te ? to_f32(te[i]) : 0.0f);
    __syncthreads();
    float mean = 0, inv = 1;
    if (a.norm.kind != NORM_NONE)
        norm_factors(a.norm, [=](uint32_t i) { return row[i]; }, a.cols, room, &mean, &inv);
    T *y = static_cast<T *>(a.y) + static_cast<size_t>(t) * a.cols;
    for (uint32_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        from_f32(&y[i], a.norm.kind == NORM_NONE ? row[i] : norm_value(a.norm, row[i], i, mean, inv));
}

template <class T> static void embed_launch(struct be *b, const struct embed_args *a) {
    rt_run(b->rt, embed_kernel<T>, dim3(b->n_tokens), dim3(NORM_THREADS), a->cols * sizeof(float), *a);
}

void dev_embed(struct be *b, const struct op_embed *op) {
    struct embed_args a = {};
    bool sharded = op->sharded && b->group;
    normed_drop(b);
    CHECK(!sharded || (!op->positions && !op->types && op->norm.kind == NORM_NONE));
    CHECK(op->tokens && op->tokens->n_in == op->cols && op->tokens->dtype == b->act);
    CHECK(!b->embeds || b->embeds->cols == op->cols);
    CHECK((!op->positions || op->positions->n_in == op->cols) && (!op->types || op->types->n_in == op->cols));
    a.y = dev_act(b, op->y, b->n_tokens, op->cols);
    a.plan = b->dplan;
    a.tokens = op->tokens->data;
    a.positions = op->positions ? op->positions->data : NULL;
    a.types = op->types ? op->types->data : NULL;
    a.embeds = b->embeds ? b->embeds->data : NULL;
    a.last_ids = b->last_ids;
    a.n_vocab = op->tokens->n_out;
    a.n_positions = op->positions ? op->positions->n_out : 0;
    a.n_types = op->types ? op->types->n_out : 0;
    a.cols = op->cols;
    a.pos_offset = op->pos_offset;
    a.scale = op->scale == 0 ? 1.0f : op->scale;
    a.norm = dnorm_of(&op->norm, op->cols);
    a.sharded = sharded;
    a.replaces = b->rank == 0;
    a.row0 = op->row0;
    if (b->n_tokens == 0)
        return;
    ACT_CALL(b, embed_launch, b, &a);
    if (!sharded)
        return;
    struct tail t = {}; /* each row is some rank's, and zero on the others */
    t.y = a.y;
    t.n_out = op->cols;
    group_sum(b, a.y, b->n_tokens, op->cols, &t, NULL, NULL);
}
