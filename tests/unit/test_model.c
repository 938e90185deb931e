/* Loading: what is refused and how it is named, types and alignment, cache groups, the cut for tensor
 * parallelism. A recording backend keeps every packed weight as f32, so that shards can be compared with the
 * whole.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "worker/model/convert.h"
#include "worker/model/model.h"

/* ---- the recording backend ------------------------------------------------------------------------ */

struct be_w {
    enum be_weight_kind kind;
    enum dtype dtype; /* of the first source */
    uint32_t rows, cols;
    float *v; /* [rows][cols], sources stacked */
};
struct be_mem {
    uint64_t rows;
    uint32_t cols;
};
struct be {
    struct be_w *w[64]; /* in the order they were packed */
    uint32_t n_w, n_live, n_mem;
    uint32_t fail_at; /* this many weights, then no memory; 0: never */
    uint32_t n_gemm, n_attn, n_reduce, n_logits;
    bool in_graph; /* what begin answers */
};

static struct be_mem *rec_mem_new(struct be *b, uint64_t rows, uint32_t cols, enum dtype dt) {
    (void)dt;
    struct be_mem *m = malloc(sizeof *m);
    *m = (struct be_mem){rows, cols};
    b->n_mem++;
    return m;
}
static void rec_mem_free(struct be *b, struct be_mem *m) {
    b->n_mem--;
    free(m);
}

static struct be_w *rec_weight(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src,
                               uint32_t n_src, char err[BE_ERR_BYTES]) {
    if (b->fail_at && b->n_w + 1 == b->fail_at) {
        snprintf(err, BE_ERR_BYTES, "no memory for a test");
        return NULL;
    }
    struct be_w *w = calloc(1, sizeof *w);
    w->kind = kind;
    w->dtype = src[0].dtype;
    for (uint32_t i = 0; i < n_src; i++) {
        const struct be_weight_src *s = &src[i];
        uint32_t n_rows = s->n_rows ? s->n_rows : s->rows - s->row0,
                 n_cols = s->n_cols ? s->n_cols : s->cols - s->col0;
        assert_true(s->row0 + n_rows <= s->rows && s->col0 + n_cols <= s->cols);
        assert_true((uintptr_t)s->data % dtype_bytes(s->dtype) == 0);
        w->v = realloc(w->v, ((size_t)w->rows + n_rows) * n_cols * sizeof *w->v);
        for (uint32_t r = 0; r < n_rows; r++)
            convert_floats(w->v + ((size_t)w->rows + r) * n_cols, DT_F32,
                           (const uint8_t *)s->data +
                               ((size_t)(s->row0 + r) * s->cols + s->col0) * dtype_bytes(s->dtype),
                           s->dtype, n_cols);
        w->rows += n_rows;
        w->cols = n_cols;
    }
    b->w[b->n_w++] = w;
    b->n_live++;
    return w;
}
static void rec_weight_free(struct be *b, struct be_w *w) {
    b->n_live--;
    free(w->v);
    free(w);
}
static uint64_t rec_weight_bytes(const struct be_w *w) {
    return (uint64_t)w->rows * w->cols * dtype_bytes(w->dtype);
}
static void rec_plan(struct be *b, const struct batch *batch) {
    (void)b;
    (void)batch;
}
static bool rec_begin(struct be *b) {
    return b->in_graph;
}
static void rec_end(struct be *b) {
    (void)b;
}
static void rec_embed(struct be *b, const struct op_embed *op) {
    (void)b;
    assert_non_null(op->tokens);
}
static void rec_gemm(struct be *b, const struct op_gemm *op) {
    assert_ptr_not_equal(op->y, op->x);
    b->n_gemm++;
    b->n_reduce += op->reduce;
}
static void rec_attn(struct be *b, const struct op_attn *op) {
    (void)op;
    b->n_attn++;
}
static void rec_logits(struct be *b, const struct op_logits *op) {
    (void)op;
    b->n_logits++;
}

static void rec_info(struct be *b, struct be_info *out) {
    (void)b;
    *out = (struct be_info){0};
}

static const struct be_ops recorder = {
    .abi = BE_ABI,
    .bytes = sizeof(struct be_ops),
    .name = "recorder",
    .info = rec_info,
    .mem_new = rec_mem_new,
    .mem_free = rec_mem_free,
    .weight = rec_weight,
    .weight_free = rec_weight_free,
    .weight_bytes = rec_weight_bytes,
    .plan = rec_plan,
    .begin = rec_begin,
    .end = rec_end,
    .embed = rec_embed,
    .gemm = rec_gemm,
    .attn = rec_attn,
    .logits = rec_logits,
};

/* ---- a checkpoint in memory ----------------------------------------------------------------------- */

/* 2 layers, hidden 16, 4 heads of 4, 2 KV heads, MLP 24, vocabulary 32, everything that a flag can add. */
static const char config_text[] =
    "{\"architectures\":[\"%s\"],\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":24,\"vocab_size\":32,\"max_position_embeddings\":64,"
    "\"head_dim\":4%s}";

static struct hf_config make_config(const char *arch, const char *more) {
    char text[700];
    struct hf_config c;
    struct err e;
    snprintf(text, sizeof text, config_text, arch, more);
    if (hf_config_parse(str_of(text), NULL, &c, &e))
        fail_msg("%s", e.msg);
    return c;
}

struct checkpoint {
    struct buf head, data;
    struct buf file;
    struct st_set *set;
    uint32_t salt;
    const char *type; /* "F32", "BF16", "F16" */
};

/* add: tensor [rows][cols] (cols 0: a vector) of values that no other tensor has. */
static void add(struct checkpoint *c, const char *name, uint32_t rows, uint32_t cols) {
    uint32_t n = rows * MAX(cols, 1u);
    enum dtype t = c->type[0] == 'B' ? DT_BF16 : c->type[1] == '1' ? DT_F16 : DT_F32;
    size_t begin = c->data.len;
    for (uint32_t i = 0; i < n; i++) {
        float v = (float)((int)(c->salt++ * 37 % 4001) - 2000) / 256;
        char raw[4];
        convert_floats(raw, t, &v, DT_F32, 1);
        buf_add(&c->data, raw, dtype_bytes(t));
    }
    buf_addf(&c->head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u", c->head.len ? "," : "{", name, c->type,
             rows);
    if (cols)
        buf_addf(&c->head, ",%u", cols);
    buf_addf(&c->head, "],\"data_offsets\":[%zu,%zu]}", begin, c->data.len);
}

static void add_layer(struct checkpoint *c, uint32_t i, const char *skip) {
    static const struct {
        const char *name;
        uint32_t rows, cols;
    } all[] = {
        {"input_layernorm.weight", 16, 0},   {"self_attn.q_proj.weight", 16, 16},
        {"self_attn.k_proj.weight", 8, 16},  {"self_attn.v_proj.weight", 8, 16},
        {"self_attn.o_proj.weight", 16, 16}, {"self_attn.q_proj.bias", 16, 0},
        {"self_attn.k_proj.bias", 8, 0},     {"self_attn.v_proj.bias", 8, 0},
        {"self_attn.o_proj.bias", 16, 0},    {"post_attention_layernorm.weight", 16, 0},
        {"mlp.gate_proj.weight", 24, 16},    {"mlp.up_proj.weight", 24, 16},
        {"mlp.down_proj.weight", 16, 24},    {"mlp.gate_proj.bias", 24, 0},
        {"mlp.up_proj.bias", 24, 0},         {"mlp.down_proj.bias", 16, 0},
    };
    char name[128];
    for (size_t k = 0; k < ARRAY_LEN(all); k++) {
        snprintf(name, sizeof name, "model.layers.%u.%s", i, all[k].name);
        if (!skip || strcmp(name, skip) != 0)
            add(c, name, all[k].rows, all[k].cols);
    }
}

static void checkpoint_close(struct checkpoint *c) {
    st_close(c->set);
    buf_fini(&c->head);
    buf_fini(&c->data);
    buf_fini(&c->file);
}

/* seal: the tensors added so far become a set. pad_bytes: blanks behind the header, to shift the data. */
static void seal(struct checkpoint *c, uint32_t pad_bytes) {
    buf_addz(&c->head, "}");
    for (uint32_t i = 0; i < pad_bytes; i++)
        buf_addc(&c->head, ' ');
    for (int i = 0; i < 8; i++)
        buf_addc(&c->file, (char)((uint64_t)c->head.len >> (8 * i)));
    buf_add(&c->file, c->head.data, c->head.len);
    buf_add(&c->file, c->data.data, c->data.len);
    struct err e;
    if (st_open_memory(&c->set, c->file.data, c->file.len, &e))
        fail_msg("%s", e.msg);
}

/* checkpoint_open: a Llama with every bias, without `skip`, and with `extra`, a vector of 4, if not NULL. */
static void checkpoint_open(struct checkpoint *c, const char *type, const char *skip, const char *extra,
                            uint32_t pad) {
    *c = (struct checkpoint){.type = type};
    if (!skip || strcmp(skip, "model.embed_tokens.weight") != 0)
        add(c, "model.embed_tokens.weight", 32, 16);
    add_layer(c, 0, skip);
    add_layer(c, 1, skip);
    add(c, "model.norm.weight", 16, 0);
    if (!skip || strcmp(skip, "lm_head.weight") != 0)
        add(c, "lm_head.weight", 32, 16);
    if (extra)
        add(c, extra, 4, 0);
    seal(c, pad);
}

static struct model_opts opts(struct be *b, uint32_t rank, uint32_t n_ranks) {
    return (struct model_opts){
        .ops = &recorder, .be = b, .rank = rank, .n_ranks = n_ranks, .max_len = 64, .n_tokens_max = 8};
}

#define BIASES ",\"attention_bias\":true,\"mlp_bias\":true"

/* ---- refusals ------------------------------------------------------------------------------------- */

static void expect_refused(const struct hf_config *cfg, const struct checkpoint *c, struct be *b,
                           enum rc want, const char *why) {
    struct model_opts o = opts(b, 0, 1);
    struct model *m = NULL;
    struct err e = {0};
    enum rc rc = model_load(&m, cfg, c->set, &o, &e);
    if (rc != want || !strstr(e.msg, why))
        fail_msg("rc %d, \"%s\", wanted %d, \"%s\"", (int)rc, e.msg, (int)want, why);
    assert_null(m);
    assert_int_equal(b->n_live, 0); /* nothing is left behind */
    assert_int_equal(b->n_mem, 0);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *type, *skip, *extra, *more;
        enum rc rc;
        const char *why;
    } cases[] = {
        {"F32", "model.embed_tokens.weight", NULL, BIASES, RC_INVALID, "no tensor model.embed_tokens.weight"},
        {"F32", "lm_head.weight", NULL, BIASES, RC_INVALID, "no tensor lm_head.weight"},
        {"F32", "model.layers.1.mlp.up_proj.weight", NULL, BIASES, RC_INVALID,
         "no tensor model.layers.1.mlp.up_proj.weight"},
        {"F32", "model.layers.0.self_attn.k_proj.bias", NULL, BIASES, RC_INVALID,
         "layers.0.self_attn.k_proj.bias"},
        {"F32", NULL, NULL, ",\"attention_bias\":true", RC_UNSUPPORTED,
         "model.layers.0.mlp.gate_proj.bias, which"},
        {"F32", NULL, "model.layers.1.self_attn.q_norm.weight", BIASES, RC_UNSUPPORTED,
         "q_norm.weight, which"},
        {"F32", NULL, "lm_head.bias", BIASES, RC_UNSUPPORTED, "lm_head.bias, which"},
        {"F32", NULL, NULL, BIASES ",\"vocab_size\":33", RC_INVALID,
         "model.embed_tokens.weight has shape [32, 16], but config.json makes it [33, 16]"},
        {"F32", NULL, NULL, BIASES ",\"intermediate_size\":32", RC_INVALID,
         "model.layers.0.mlp.gate_proj.weight has shape [24, 16], but config.json makes it [32, 16]"},
        {"F32", NULL, NULL, BIASES ",\"num_key_value_heads\":4", RC_INVALID,
         "self_attn.k_proj.weight has shape [8, 16]"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct checkpoint c;
        struct be b = {0};
        /* The last of duplicate keys wins: `more` may say a size anew. */
        struct hf_config cfg = make_config("LlamaForCausalLM", cases[i].more);
        checkpoint_open(&c, cases[i].type, cases[i].skip, cases[i].extra, 0);
        expect_refused(&cfg, &c, &b, cases[i].rc, cases[i].why);
        checkpoint_close(&c);
        hf_config_fini(&cfg);
    }
}

static void test_refused_types(void **state) {
    (void)state;
    struct hf_config cfg = make_config("LlamaForCausalLM", BIASES);
    struct checkpoint c = {.type = "F32"};
    buf_addz(&c.head,
             "{\"model.embed_tokens.weight\":{\"dtype\":\"I8\",\"shape\":[32,16],\"data_offsets\":[0,512]}");
    for (int i = 0; i < 512; i++)
        buf_addc(&c.data, 1);
    seal(&c, 0);
    struct be b = {0};
    expect_refused(&cfg, &c, &b, RC_UNSUPPORTED,
                   "model.embed_tokens.weight: weights must be F32, F16, BF16 or F8_E4M3");
    checkpoint_close(&c);

    /* No memory for any of the weights: nothing leaks, the message says which. */
    checkpoint_open(&c, "F32", NULL, NULL, 0);
    for (uint32_t k = 1; k <= 21; k++) {
        b = (struct be){.fail_at = k};
        expect_refused(&cfg, &c, &b, RC_IO, "no memory for a test");
    }
    /* Contexts and ranks that cannot be. */
    struct model_opts o = opts(&b, 0, 3);
    struct model *m;
    struct err e;
    assert_int_equal(model_load(&m, &cfg, c.set, &o, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "3 ranks"));
    o = opts(&b, 0, 1);
    o.max_len = 65;
    assert_int_equal(model_load(&m, &cfg, c.set, &o, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "limit of 64"));
    struct be_ops lacking = recorder;
    lacking.attn = NULL;
    o = opts(&b, 0, 1);
    o.ops = &lacking;
    assert_int_equal(model_load(&m, &cfg, c.set, &o, &e), RC_UNSUPPORTED);
    checkpoint_close(&c);
    hf_config_fini(&cfg);
}

/* What belongs to other tasks or versions does not stop the load. */
static void test_unused_allowed(void **state) {
    (void)state;
    static const char *const extras[] = {"model.layers.0.self_attn.rotary_emb.inv_freq",
                                         "model.layers.2.eh_proj.weight", "score.weight", "v_head.bias"};
    struct hf_config cfg = make_config("LlamaForCausalLM", BIASES);
    for (size_t i = 0; i < ARRAY_LEN(extras); i++) {
        struct checkpoint c;
        struct be b = {0};
        struct model_opts o = opts(&b, 0, 1);
        struct model *m;
        struct err e = {0};
        checkpoint_open(&c, "F32", NULL, extras[i], 0);
        if (model_load(&m, &cfg, c.set, &o, &e))
            fail_msg("%s", e.msg);
        model_free(m);
        checkpoint_close(&c);
    }
    hf_config_fini(&cfg);
}

/* ---- types ---------------------------------------------------------------------------------------- */

/* load: a model on b, to be freed. */
static struct model *load(const struct hf_config *cfg, const struct checkpoint *c, struct model_opts *o) {
    struct model *m;
    struct err e = {0};
    if (model_load(&m, cfg, c->set, o, &e))
        fail_msg("%s", e.msg);
    return m;
}

static void test_types(void **state) {
    (void)state;
    static const char *const types[] = {"F32", "F16", "BF16"};
    static const enum dtype dts[] = {DT_F32, DT_F16, DT_BF16};
    struct hf_config cfg = make_config("LlamaForCausalLM", BIASES);
    struct checkpoint exact;
    struct be be = {0};
    struct model_opts oe = opts(&be, 0, 1);
    checkpoint_open(&exact, "F32", NULL, NULL, 0);
    struct model *me = load(&cfg, &exact, &oe);
    for (int t = 0; t < 3; t++) {
        for (int want = -1; want < 3; want++) {
            for (uint32_t pad = 0; pad < 4; pad++) { /* data at every alignment */
                struct checkpoint c;
                struct be b = {0};
                struct model_opts o = opts(&b, 0, 1);
                o.weights = want < 0 ? DT_NONE : dts[want];
                checkpoint_open(&c, types[t], NULL, NULL, pad);
                struct model *m = load(&cfg, &c, &o);
                assert_int_equal(b.n_w, be.n_w);
                for (uint32_t i = 1; i < b.n_w; i++) { /* 0: rotary frequencies, ours */
                    assert_int_equal(b.w[i]->dtype, want < 0 ? dts[t] : dts[want]);
                    for (uint32_t k = 0; k < b.w[i]->rows * b.w[i]->cols; k++) {
                        /* values have 12 bits: exact in f32 and nearly so in the others */
                        float x = be.w[i]->v[k], got = b.w[i]->v[k];
                        assert_true(fabsf(got - x) <= (t == 2 || want == 2 ? 0x1p-7f : 0x1p-10f) * fabsf(x));
                        assert_true(t != 0 || want > 0 || got == x);
                    }
                }
                model_free(m);
                checkpoint_close(&c);
            }
        }
    }
    model_free(me);
    checkpoint_close(&exact);
    hf_config_fini(&cfg);
}

/* Every f16 and bf16 number there and back, and the rounding of f32 numbers between them. */
static void test_convert(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        enum dtype dt = t ? DT_BF16 : DT_F16;
        for (uint32_t i = 0; i < 0x10000; i++) {
            uint16_t h = (uint16_t)i, back, up = (uint16_t)(i + 1);
            float x, next;
            convert_floats(&x, DT_F32, &h, dt, 1);
            convert_floats(&back, dt, &x, DT_F32, 1);
            if (isnan(x)) {
                convert_floats(&next, DT_F32, &back, dt, 1);
                assert_true(isnan(next));
                continue;
            }
            assert_int_equal(back, h);
            convert_floats(&next, DT_F32, &up, dt, 1);
            if (isinf(x) || !isfinite(next))
                continue;
            /* Halves go to the even one; a hair off goes to the near one. Exact in f32: one bit more. */
            float half = x + (next - x) / 2;
            convert_floats(&back, dt, &half, DT_F32, 1);
            assert_int_equal(back, i & 1 ? up : h);
            float near = nextafterf(half, x), far = nextafterf(half, next);
            convert_floats(&back, dt, &near, DT_F32, 1);
            assert_int_equal(back, h);
            convert_floats(&back, dt, &far, DT_F32, 1);
            assert_int_equal(back, up);
        }
    }
    static const struct {
        float x;
        uint16_t f16;
    } edges[] = {{65504.0f, 0x7BFF}, {65519.99f, 0x7BFF}, {65520.0f, 0x7C00},    {1e30f, 0x7C00},
                 {-1e30f, 0xFC00},   {0x1p-24f, 1},       {0x1p-25f, 0},         {0x1.8p-25f, 1},
                 {-0.0f, 0x8000},    {1.0f, 0x3C00},      {0x1.ff8p-15f, 0x03FF}};
    for (size_t i = 0; i < ARRAY_LEN(edges); i++) {
        uint16_t h;
        convert_floats(&h, DT_F16, &edges[i].x, DT_F32, 1);
        assert_int_equal(h, edges[i].f16);
    }
}

/* ---- tensor parallelism and groups ---------------------------------------------------------------- */

/* The weights of layer 0 in their order on the recorder, with every bias: frequencies and embedding come
 * first. */
enum { W_QKV = 3, W_QKV_BIAS, W_O, W_O_BIAS, W_MLP_NORM, W_GATE_UP, W_GATE_UP_BIAS, W_DOWN, W_DOWN_BIAS };

/* expect_rows: rows of a part, from `at` on, are rows of the whole, from `from` on. */
static void expect_rows(const struct be_w *part, uint32_t at, const struct be_w *whole, uint32_t from,
                        uint32_t n) {
    assert_int_equal(part->cols, whole->cols);
    assert_memory_equal(part->v + (size_t)at * part->cols, whole->v + (size_t)from * whole->cols,
                        (size_t)n * part->cols * sizeof(float));
}
static void expect_cols(const struct be_w *part, const struct be_w *whole, uint32_t from) {
    assert_int_equal(part->rows, whole->rows);
    for (uint32_t r = 0; r < part->rows; r++)
        assert_memory_equal(part->v + (size_t)r * part->cols, whole->v + (size_t)r * whole->cols + from,
                            part->cols * sizeof(float));
}

static void check_rank(const struct be *whole, const struct be *part, uint32_t rank, uint32_t n_ranks) {
    /* whole: q rows 0..15, k 16..23, v 24..31; heads of 4 rows; gate 0..23, up 24..47 */
    uint32_t nq = 16 / n_ranks, n_kv = MAX(2 / n_ranks, 1u), kv0 = rank * 2 / n_ranks * 4, nkv = n_kv * 4;
    uint32_t mlp = 24 / n_ranks;
    for (int bias = 0; bias < 2; bias++) {
        const struct be_w *p = part->w[W_QKV + bias], *w = whole->w[W_QKV + bias];
        assert_int_equal(p->rows, nq + 2 * nkv);
        expect_rows(p, 0, w, rank * nq, nq);
        expect_rows(p, nq, w, 16 + kv0, nkv);
        expect_rows(p, nq + nkv, w, 24 + kv0, nkv);
        p = part->w[W_GATE_UP + bias];
        w = whole->w[W_GATE_UP + bias];
        assert_int_equal(p->rows, 2 * mlp);
        expect_rows(p, 0, w, rank * mlp, mlp);
        expect_rows(p, mlp, w, 24 + rank * mlp, mlp);
    }
    assert_int_equal(part->w[W_O]->cols, nq);
    expect_cols(part->w[W_O], whole->w[W_O], rank * nq);
    assert_int_equal(part->w[W_DOWN]->cols, mlp);
    expect_cols(part->w[W_DOWN], whole->w[W_DOWN], rank * mlp);
    uint32_t vocab = 32 / n_ranks, head = whole->n_w - 1; /* the embedding's rows, and those of the head */
    assert_true(part->w[1]->rows == vocab && part->w[head]->rows == vocab);
    expect_rows(part->w[1], 0, whole->w[1], rank * vocab, vocab);
    expect_rows(part->w[head], 0, whole->w[head], rank * vocab, vocab);
    static const uint32_t same[] = {0, 2, W_O_BIAS, W_MLP_NORM, W_DOWN_BIAS};
    for (size_t i = 0; i < ARRAY_LEN(same); i++) { /* frequencies, norms, biases behind the sum */
        assert_int_equal(part->w[same[i]]->rows, whole->w[same[i]]->rows);
        expect_rows(part->w[same[i]], 0, whole->w[same[i]], 0, whole->w[same[i]]->rows);
    }
}

static void test_ranks(void **state) {
    (void)state;
    struct hf_config cfg = make_config("LlamaForCausalLM", BIASES);
    struct checkpoint c;
    checkpoint_open(&c, "F32", NULL, NULL, 0);
    static const struct {
        enum dtype weights;
        bool dummy;
    } kinds[] = {{DT_NONE, false}, {DT_BF16, false}, {DT_F32, true}, {DT_BF16, true}};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct be whole = {0};
        struct model_opts o = opts(&whole, 0, 1);
        o.weights = kinds[k].weights;
        o.dummy = kinds[k].dummy;
        struct checkpoint none = {0};
        struct model *all = load(&cfg, o.dummy ? &none : &c, &o);
        for (uint32_t n = 2; n <= 4; n += 2) { /* 4: two ranks share a KV head */
            for (uint32_t rank = 0; rank < n; rank++) {
                struct be part = {0};
                struct model_opts po = o;
                po.be = &part;
                po.rank = rank;
                po.n_ranks = n;
                struct model *m = load(&cfg, o.dummy ? &none : &c, &po);
                check_rank(&whole, &part, rank, n);
                struct cache_group_spec spec[BE_GROUPS_MAX];
                assert_int_equal(model_groups(&cfg, &po, spec), 1);
                assert_int_equal(spec[0].n_kv_heads, 1);
                struct batch b = {.n_tokens = 1, .n_rows = 1};
                model_forward(m, &b);
                assert_int_equal(part.n_gemm, 8); /* five operations a layer, four of them products */
                assert_int_equal(part.n_attn, 2);
                assert_int_equal(part.n_reduce, 4); /* o and down */
                model_free(m);
                assert_int_equal(part.n_live + part.n_mem, 0);
            }
        }
        model_free(all);
    }
    checkpoint_close(&c);
    hf_config_fini(&cfg);
}

static void test_forward_order(void **state) {
    (void)state;
    struct hf_config cfg = make_config("LlamaForCausalLM", BIASES);
    struct checkpoint c;
    struct be b = {0};
    struct model_opts o = opts(&b, 0, 1);
    checkpoint_open(&c, "F32", NULL, NULL, 0);
    struct model *m = load(&cfg, &c, &o);
    struct batch batch = {.n_tokens = 1};
    model_forward(m, &batch);
    assert_int_equal(b.n_gemm, 8);
    assert_int_equal(b.n_reduce, 0);
    assert_int_equal(b.n_logits, 0); /* a chunk in mid-prompt wants none */
    batch.n_rows = 1;
    model_forward(m, &batch);
    assert_int_equal(b.n_logits, 1);
    b.in_graph = true; /* a captured graph ran instead */
    model_forward(m, &batch);
    assert_int_equal(b.n_gemm, 16);
    assert_int_equal(b.n_logits, 1);
    model_free(m);
    checkpoint_close(&c);
    hf_config_fini(&cfg);
}

static void test_groups(void **state) {
    (void)state;
    static const struct {
        const char *arch, *more;
        uint32_t max_len;
        enum dtype kv;
        uint32_t n;
        struct cache_group_spec want[2];
    } cases[] = {
        {"LlamaForCausalLM", "", 64, DT_NONE, 1, {{CACHE_FULL, 2, 2, 4, 0, 0, 0, DT_F32}}},
        {"LlamaForCausalLM",
         ",\"dtype\":\"bfloat16\"",
         64,
         DT_NONE,
         1,
         {{CACHE_FULL, 2, 2, 4, 0, 0, 0, DT_BF16}}},
        {"LlamaForCausalLM",
         ",\"dtype\":\"bfloat16\"",
         64,
         DT_F16,
         1,
         {{CACHE_FULL, 2, 2, 4, 0, 0, 0, DT_F16}}},
        {"MistralForCausalLM",
         ",\"sliding_window\":8",
         64,
         DT_NONE,
         1,
         {{CACHE_WINDOW, 2, 2, 4, 0, 8, 0, DT_F32}}},
        {"MistralForCausalLM",
         ",\"sliding_window\":8",
         8,
         DT_NONE,
         1,
         {{CACHE_FULL, 2, 2, 4, 0, 0, 0, DT_F32}}},
        {"MistralForCausalLM",
         ",\"sliding_window\":null",
         64,
         DT_NONE,
         1,
         {{CACHE_FULL, 2, 2, 4, 0, 0, 0, DT_F32}}},
        {"Qwen2ForCausalLM",
         ",\"use_sliding_window\":true,\"sliding_window\":8,\"max_window_layers\":1",
         64,
         DT_NONE,
         2,
         {{CACHE_FULL, 1, 2, 4, 0, 0, 0, DT_F32}, {CACHE_WINDOW, 1, 2, 4, 0, 8, 0, DT_F32}}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct hf_config cfg = make_config(cases[i].arch, cases[i].more);
        struct model_opts o = {.n_ranks = 1, .max_len = cases[i].max_len, .kv = cases[i].kv};
        struct cache_group_spec got[BE_GROUPS_MAX];
        assert_int_equal(model_groups(&cfg, &o, got), cases[i].n);
        for (uint32_t g = 0; g < cases[i].n; g++) {
            const struct cache_group_spec *w = &cases[i].want[g];
            assert_int_equal(got[g].kind, w->kind);
            assert_int_equal(got[g].n_layers, w->n_layers);
            assert_int_equal(got[g].n_kv_heads, w->n_kv_heads);
            assert_int_equal(got[g].head_dim, w->head_dim);
            assert_int_equal(got[g].window, w->window);
            assert_int_equal(got[g].dtype, w->dtype);
        }
        hf_config_fini(&cfg);
    }
}

/* ---- progress and made-up weights ----------------------------------------------------------------- */

struct seen {
    uint64_t done, total;
    uint32_t n;
};
static void see(void *arg, uint64_t done, uint64_t total) {
    struct seen *s = arg;
    assert_true(done >= s->done && done <= total);
    assert_true(s->n == 0 || total == s->total);
    *s = (struct seen){done, total, s->n + 1};
}

static void test_progress(void **state) {
    (void)state;
    struct hf_config cfg = make_config("LlamaForCausalLM", BIASES);
    struct checkpoint c, none = {0};
    checkpoint_open(&c, "F32", NULL, NULL, 0);
    for (int dummy = 0; dummy < 2; dummy++) {
        struct be b = {0};
        struct seen s = {0};
        struct model_opts o = opts(&b, 0, 1);
        o.dummy = dummy;
        o.progress = see;
        o.progress_arg = &s;
        struct model *m = load(&cfg, dummy ? &none : &c, &o);
        assert_true(s.n > 20 && s.done == s.total);
        assert_true(dummy || s.total == st_total_bytes(c.set));
        assert_true(model_weight_bytes(m) > 0);
        model_free(m);
    }
    checkpoint_close(&c);
    hf_config_fini(&cfg);
}

static void test_random(void **state) {
    (void)state;
    enum { N = 100003 };
    float *all = malloc(N * sizeof *all), *part = malloc(N * sizeof *part);
    assert_true(all && part);
    random_floats(all, DT_F32, 7, 0, N, 2.0f);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < N; i++) {
        assert_true(all[i] > -2 && all[i] < 2);
        sum += all[i];
        squares += all[i] * all[i];
    }
    assert_true(fabs(sum / N) < 0.02);               /* 5 sigma of a mean: 5 * 1.155 / sqrt(N) = 0.018 */
    assert_true(fabs(squares / N - 4.0 / 3) < 0.02); /* the variance of U(-2, 2) */
    for (uint32_t first = 0; first < 9; first++) {   /* parts fit together wherever they are cut */
        random_floats(part, DT_F32, 7, first, 1000, 2.0f);
        assert_memory_equal(part, all + first, 1000 * sizeof *part);
    }
    for (uint32_t first = 0; first < 9; first++) { /* 16-bit types are the same values, rounded */
        uint16_t half[1001], want;
        random_floats(half, DT_BF16, 7, first, ARRAY_LEN(half), 2.0f);
        for (size_t i = 0; i < ARRAY_LEN(half); i++) {
            convert_floats(&want, DT_BF16, &all[first + i], DT_F32, 1);
            assert_int_equal(half[i], want);
        }
    }
    random_floats(part, DT_F32, 8, 0, 1000, 2.0f);
    assert_memory_not_equal(part, all, 1000 * sizeof *part);
    free(all);
    free(part);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_refused_types),
        cmocka_unit_test(test_unused_allowed), cmocka_unit_test(test_types),
        cmocka_unit_test(test_convert),        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_forward_order),  cmocka_unit_test(test_groups),
        cmocka_unit_test(test_progress),       cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
