/* ref_moe.c: the mixture of experts in plain C, row by row; and the choice of experts, which AVX2 shares. */
#include "worker/cpu/be.h"

#include <math.h>

void moe_check(const struct op_moe *op, uint32_t cols) {
    const struct be_w *up = op->gate_up, *down = op->down;
    CHECK(op->n_experts > 0 && op->top_k > 0 && op->top_k <= op->n_experts);
    CHECK(op->router->n_experts == 1 && !w_gated(op->router));
    CHECK(op->router->n_out == op->n_experts && op->router->n_in == cols);
    CHECK(up->kind == BE_W_EXPERTS_GATE_UP && up->n_experts == op->n_experts && up->n_in == cols);
    CHECK(down->kind == BE_W_EXPERTS && down->n_experts == op->n_experts && down->n_out == cols);
    CHECK(down->n_in == up->n_out / 2);
}

void moe_choose(const struct op_moe *op, float *p, uint32_t *experts, float *weights) {
    float max = p[0], sum = 0, kept = 0;
    for (uint32_t e = 1; e < op->n_experts; e++)
        max = p[e] > max ? p[e] : max;
    for (uint32_t e = 0; e < op->n_experts; e++)
        sum += p[e] = expf(p[e] - max);
    for (uint32_t j = 0; j < op->top_k; j++) {
        uint32_t best = 0;
        while (p[best] == -1.0f) /* taken; of NaNs the first that is left */
            best++;
        for (uint32_t e = best + 1; e < op->n_experts; e++)
            best = p[e] > p[best] ? e : best;
        experts[j] = best;
        weights[j] = p[best] / sum;
        kept += weights[j];
        p[best] = -1.0f;
    }
    for (uint32_t j = 0; op->renorm && j < op->top_k; j++)
        weights[j] /= kept;
}

struct moe {
    const struct op_moe *op;
    const float *x, *add;
    float *y, *room; /* room: [n_threads][room_floats] */
    uint32_t cols, room_floats;
    struct team_queue queue;
};

/* row_run: row t of x, add and y. */
static void row_run(const struct moe *m, uint32_t t, float *room) {
    const struct op_moe *op = m->op;
    uint32_t inner = op->down->n_in;
    float *x = room, *sum = x + m->cols, *h = sum + m->cols, *p = h + inner, *weights = p + op->n_experts;
    uint32_t *experts = (uint32_t *)(void *)(weights + op->top_k);
    ref_norm_row(x, m->x + (size_t)t * m->cols, m->cols, &op->norm);
    for (uint32_t e = 0; e < op->n_experts; e++)
        p[e] = ref_dot(op->router, e, x);
    moe_choose(op, p, experts, weights);
    memset(sum, 0, m->cols * sizeof *sum);
    for (uint32_t j = 0; j < op->top_k; j++) {
        uint32_t gate = experts[j] * op->gate_up->n_out, down = experts[j] * m->cols;
        for (uint32_t i = 0; i < inner; i++)
            h[i] = ref_act(op->act, ref_dot(op->gate_up, gate + i, x)) *
                   ref_dot(op->gate_up, gate + inner + i, x);
        for (uint32_t c = 0; c < m->cols; c++)
            sum[c] += weights[j] * ref_dot(op->down, down + c, h);
    }
    for (uint32_t c = 0; c < m->cols; c++) {
        size_t at = (size_t)t * m->cols + c;
        m->y[at] = (m->add ? m->add[at] : 0.0f) + sum[c];
    }
}

static void moe_run(void *arg, int member) {
    struct moe *m = arg;
    uint32_t n, t;
    while (t = queue_take(&m->queue, &n), n)
        row_run(m, t, m->room + (size_t)member * m->room_floats);
}

void ref_moe(struct be *b, const struct op_moe *op) {
    uint32_t n = b->plan.n_tokens, cols = op->down->n_out;
    moe_check(op, cols);
    CHECK(!op->gate_up->panels);
    struct moe m = {
        .op = op,
        .x = cpu_f32(op->x, n, cols),
        .add = op->add ? cpu_f32(op->add, n, cols) : NULL,
        .y = cpu_f32(op->y, n, cols),
        .cols = cols,
        .room_floats = 2 * cols + op->down->n_in + op->n_experts + 2 * op->top_k,
    };
    m.room = cpu_scratch(b, SCRATCH_THREAD, (size_t)b->n_threads * m.room_floats * sizeof *m.room);
    if (!op->reduce || !b->group) {
        queue_init(&m.queue, n, 1);
        team_run(b->team, moe_run, &m);
        return;
    }
    struct group_sum s = {.y = m.y, .add = m.add, .cols = cols};
    for (m.add = NULL; n > 0; n -= s.n_rows, m.x += (size_t)s.n_rows * cols, s.y += (size_t)s.n_rows * cols) {
        s.n_rows = MIN(n, GROUP_ROWS);
        m.y = group_slot(b->group);
        queue_init(&m.queue, s.n_rows, 1);
        team_run(b->team, moe_run, &m);
        group_sum(b, &s);
        s.add += s.add ? (size_t)s.n_rows * cols : 0;
    }
}
