/* pooler_load.c: a pooler from a checkpoint's files and flags.
 *
 * What routers are told (pooler_describe): {"task": "embed" | "classify" | "score" | "reward", "dimensions":
 * n, "hidden": n, "n_labels": n, "labels": [text] or null, "matryoshka": [n], "is_matryoshka": bool,
 * "cross_encoder": bool, "prompt": text or null, "lower_case": bool}.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/hf/fields.h"
#include "worker/file.h"
#include "worker/model/convert.h"
#include "worker/pooler_impl.h"

static const char *const task_names[] = {[POOL_TASK_EMBED] = "embed",
                                         [POOL_TASK_CLASSIFY] = "classify",
                                         [POOL_TASK_SCORE] = "score",
                                         [POOL_TASK_REWARD] = "reward"};

enum rc pooler_task(const struct hf_config *c, const char *task, enum pool_task *out, struct err *e) {
    bool labels = c->head == HF_HEAD_LABELS, decoder = !hf_is_encoder(c);
    *out = 0;
    if (strcmp(task, "auto") == 0 || strcmp(task, "pooling") == 0) {
        if (labels)
            *out = !decoder && c->labels.n == 1 ? POOL_TASK_SCORE : POOL_TASK_CLASSIFY;
        else if (c->head == HF_HEAD_NONE || strcmp(task, "pooling") == 0)
            *out = POOL_TASK_EMBED;
        return RC_OK;
    }
    bool can = false;
    if (strcmp(task, "generate") == 0) {
        can = c->head == HF_HEAD_LM;
    } else if (strcmp(task, "embed") == 0 || strcmp(task, "embedding") == 0) {
        *out = POOL_TASK_EMBED;
        can = !labels;
    } else if (strcmp(task, "classify") == 0) { /* a decoder's head is looked for in the checkpoint */
        *out = POOL_TASK_CLASSIFY;
        can = labels || decoder;
    } else if (strcmp(task, "score") == 0) {
        *out = POOL_TASK_SCORE;
        can = labels && c->labels.n == 1;
    } else if (strcmp(task, "reward") == 0) {
        *out = POOL_TASK_REWARD;
        can = labels || decoder;
    }
    return can ? RC_OK : err_set(e, RC_INVALID, "task", "--task %s: %s cannot do it", task, c->arch_name);
}

/* ---- tensors ------------------------------------------------------------------------------------ */

/* floats_of: a tensor as f32, of rows x cols (cols 0: a vector). The caller frees it. */
static enum rc floats_of(const struct st_set *set, const char *name, uint32_t rows, uint32_t cols,
                         float **out, struct err *e) {
    size_t n = (size_t)rows * MAX(cols, 1u);
    *out = NULL;
    if (!set) {
        *out = xcalloc(n, sizeof **out);
        random_floats(*out, DT_F32, n, 0, n, 0.05f);
        return RC_OK;
    }
    const struct st_tensor *t = st_find(set, name);
    if (!t)
        return err_set(e, RC_INVALID, name, "the checkpoint has no tensor %s, which its head needs", name);
    enum dtype from = t->dtype == ST_F32    ? DT_F32
                      : t->dtype == ST_F16  ? DT_F16
                      : t->dtype == ST_BF16 ? DT_BF16
                                            : DT_NONE;
    if (t->n_dims != (cols ? 2u : 1u) || t->dims[0] != rows || (cols && t->dims[1] != cols))
        return err_set(e, RC_INVALID, name,
                       "tensor %s does not have the shape [%u%s%.0u] that the config gives it", name, rows,
                       cols ? ", " : "", cols);
    if (!from)
        return err_set(e, RC_UNSUPPORTED, name, "tensor %s must be F32, F16 or BF16", name);
    *out = xcalloc(n, sizeof **out);
    convert_floats(*out, DT_F32, t->data, from, n);
    return RC_OK;
}

/* add_step: NAME.weight and, with bias, NAME.bias. */
static enum rc add_step(struct steps *s, const struct st_set *set, const char *name, uint32_t n_in,
                        uint32_t n_out, bool bias, enum step_act act, struct err *e) {
    char full[160];
    if (s->n == POOL_STEPS_MAX)
        return err_set(e, RC_UNSUPPORTED, "modules.json", "more than %d dense layers", (int)POOL_STEPS_MAX);
    struct step *t = &s->v[s->n++];
    *t = (struct step){.n_in = n_in, .n_out = n_out, .act = act};
    snprintf(full, sizeof full, "%s.weight", name);
    enum rc rc = floats_of(set, full, n_out, n_in, &t->w, e);
    snprintf(full, sizeof full, "%s.bias", name);
    return rc || !bias ? rc : floats_of(set, full, n_out, 0, &t->b, e);
}

static enum step_act act_of(const char *name) {
    static const struct {
        const char *name;
        enum step_act act;
    } acts[] = {{"tanh", STEP_TANH},          {"Tanh", STEP_TANH},
                {"gelu", STEP_GELU},          {"GELU", STEP_GELU},
                {"relu", STEP_RELU},          {"ReLU", STEP_RELU},
                {"gelu_new", STEP_GELU_TANH}, {"silu", STEP_SILU},
                {"SiLU", STEP_SILU},          {"gelu_pytorch_tanh", STEP_GELU_TANH},
                {"Sigmoid", STEP_SIGMOID},    {"swish", STEP_SILU}};
    for (size_t i = 0; i < ARRAY_LEN(acts); i++)
        if (strcmp(name, acts[i].name) == 0)
            return acts[i].act;
    return STEP_NONE;
}

/* ---- heads of labels ---------------------------------------------------------------------------- */

/* set_n_labels: the head's own count; names for another count are none. */
static void set_n_labels(struct pooler *p, uint32_t n) {
    for (uint32_t i = 0; p->labels && n != p->n_labels && i < p->n_labels; i++)
        free(p->labels[i]);
    if (n != p->n_labels) {
        free(p->labels);
        p->labels = NULL;
    }
    p->n_labels = n;
}

static enum rc load_decoder_head(struct pooler *p, const struct pooler_opts *o, struct err *e) {
    const struct st_tensor *t = o->weights ? st_find(o->weights, "score.weight") : NULL;
    if (o->weights && !t)
        return err_set(e, RC_INVALID, "task",
                       "--task %s: the checkpoint has no head of labels (score.weight), and a random one is "
                       "never served",
                       o->task);
    if (o->config->head != HF_HEAD_LABELS && t && t->n_dims == 2 && t->dims[0] <= HF_LABELS_MAX)
        set_n_labels(p, (uint32_t)t->dims[0]);
    bool bias = o->weights && st_find(o->weights, "score.bias");
    return add_step(&p->head, o->weights, "score", p->hidden, p->n_labels, bias, STEP_NONE, e);
}

static enum rc load_modernbert_head(struct pooler *p, const struct pooler_opts *o, struct err *e) {
    const struct hf_encoder *c = &o->config->encoder;
    enum rc rc = add_step(&p->head, o->weights, "head.dense", p->hidden, p->hidden, c->head_bias,
                          act_of(c->head_act), e);
    struct step *t = &p->head.v[0];
    t->eps = c->norm_eps;
    if (!rc)
        rc = floats_of(o->weights, "head.norm.weight", p->hidden, 0, &t->norm, e);
    if (!rc && c->norm_bias)
        rc = floats_of(o->weights, "head.norm.bias", p->hidden, 0, &t->norm_bias, e);
    return rc ? rc : add_step(&p->head, o->weights, "classifier", p->hidden, p->n_labels, true, STEP_NONE, e);
}

static enum rc load_head(struct pooler *p, const struct pooler_opts *o, struct err *e) {
    static const char *const dense[N_HF_ARCH] = {
        [HF_BERT] = "bert.pooler.dense", [HF_ROBERTA] = "classifier.dense"};
    static const char *const last[N_HF_ARCH] = {
        [HF_BERT] = "classifier", [HF_ROBERTA] = "classifier.out_proj"};
    enum hf_arch arch = o->config->arch;
    p->has_head = true;
    if (!p->encoder)
        return load_decoder_head(p, o, e);
    if (arch == HF_MODERNBERT)
        return load_modernbert_head(p, o, e);
    CHECK(dense[arch]); /* the others have no class with labels */
    enum rc rc = add_step(&p->head, o->weights, dense[arch], p->hidden, p->hidden, true, STEP_TANH, e);
    return rc ? rc : add_step(&p->head, o->weights, last[arch], p->hidden, p->n_labels, true, STEP_NONE, e);
}

/* ---- sentence-transformers ---------------------------------------------------------------------- */

/* open_fields: DIR/NAME as an object; RC_NOT_FOUND if there is none. */
static enum rc open_fields(const char *dir, const char *name, json_t **obj, struct fields *f, struct err *e) {
    char *data;
    size_t n;
    enum rc rc = file_read(dir, name, MIB, &data, &n, e);
    if (rc)
        return rc;
    rc = fields_parse(name, (struct str){data, n}, obj, e);
    free(data);
    *f = (struct fields){.file = name, .prefix = "", .obj = rc ? NULL : *obj, .e = e};
    return rc;
}

static void add_take(struct pooler *p, enum pool_take take) {
    p->take[p->n_takes++] = take;
}

/* The pooling modes, in the order in which sentence-transformers joins them. */
static const struct {
    const char *flag, *name;
    enum pool_take take;
} modes[] = {
    {"pooling_mode_cls_token", "cls", TAKE_CLS},
    {"pooling_mode_max_tokens", "max", TAKE_MAX},
    {"pooling_mode_mean_tokens", "mean", TAKE_MEAN},
    {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", TAKE_MEAN_SQRT},
    {"pooling_mode_weightedmean_tokens", "weightedmean", TAKE_WEIGHTED},
    {"pooling_mode_lasttoken", "lasttoken", TAKE_LAST},
};

static enum rc read_pooling(struct pooler *p, const char *dir, struct err *e) {
    json_t *obj;
    struct fields f;
    const char *mode = NULL;
    enum rc rc = open_fields(dir, "config.json", &obj, &f, e);
    if (rc)
        return rc;
    p->n_takes = 0;
    rc = field_str(&f, "pooling_mode", &mode);
    for (size_t i = 0; i < ARRAY_LEN(modes) && !rc; i++) {
        bool on = mode && strcmp(mode, modes[i].name) == 0;
        rc = field_bool(&f, modes[i].flag, &on);
        if (!rc && on)
            add_take(p, modes[i].take);
    }
    if (!rc && p->n_takes == 0)
        rc = field_bad(&f, "pooling_mode", "names no way of pooling that is known");
    bool mean = false, weighted = false;
    for (uint32_t i = 0; i < p->n_takes; i++) {
        mean |= p->take[i] == TAKE_MEAN || p->take[i] == TAKE_MEAN_SQRT;
        weighted |= p->take[i] == TAKE_WEIGHTED;
    }
    if (!rc && mean && weighted)
        rc = err_set(e, RC_UNSUPPORTED, "pooling_mode",
                     "means with and without weights together are not supported");
    json_decref(obj);
    return rc;
}

static enum rc read_dense(struct pooler *p, const char *dir, struct err *e) {
    json_t *obj;
    struct fields f;
    struct st_set *set = NULL;
    uint32_t n_in = 0, n_out = 0, width = steps_width(&p->dense, p->hidden * p->n_takes);
    bool bias = true;
    const char *act = "Identity", *dot;
    enum rc rc = open_fields(dir, "config.json", &obj, &f, e);
    if (rc)
        return rc;
    if (!(rc = field_u32(&f, "in_features", 1, 1 << 20, &n_in)) &&
        !(rc = field_u32(&f, "out_features", 1, 1 << 17, &n_out)) && !(rc = field_bool(&f, "bias", &bias)))
        rc = field_str(&f, "activation_function", &act);
    dot = strrchr(act, '.');
    act = dot ? dot + 1 : act;
    if (!rc && (n_in != width || n_out == 0))
        rc = field_bad(&f, "in_features", "is %u, but %u values come in", n_in, width);
    else if (!rc && strcmp(act, "Identity") != 0 && act_of(act) == STEP_NONE)
        rc = field_bad(&f, "activation_function", "%.64s is not supported", act);
    if (!rc)
        rc = st_open(&set, dir, e);
    if (!rc)
        rc = add_step(&p->dense, set, "linear", n_in, n_out, bias, act_of(act), e);
    if (set)
        st_close(set);
    json_decref(obj);
    return rc;
}

/* module: one entry of modules.json; its path is a plain name below dir. */
static enum rc read_module(struct pooler *p, const char *dir, const json_t *entry, size_t i, struct err *e) {
    char path[4096];
    const char *type = json_string_value(json_object_get(entry, "type")),
               *sub = json_string_value(json_object_get(entry, "path")), *dot;
    if (!type || !sub || strchr(sub, '/') || strstr(sub, "..") ||
        (size_t)snprintf(path, sizeof path, "%s/%s", dir, sub) >= sizeof path)
        return err_set(e, RC_INVALID, "modules.json",
                       "modules.json: entry %zu needs a type and the plain name of a folder", i);
    dot = strrchr(type, '.');
    type = dot ? dot + 1 : type;
    if (i == 0 && strcmp(type, "Transformer") == 0)
        return RC_OK;
    if (strcmp(type, "Pooling") == 0 && p->dense.n == 0 && !p->normalize)
        return read_pooling(p, path, e);
    if (strcmp(type, "Dense") == 0 && !p->normalize)
        return read_dense(p, path, e);
    if (strcmp(type, "Normalize") == 0) {
        p->normalize = true;
        return RC_OK;
    }
    return err_set(e, RC_UNSUPPORTED, "modules.json",
                   "modules.json: entry %zu: a module %.64s at this place is not supported", i, type);
}

static enum rc read_modules(struct pooler *p, const char *dir, struct err *e) {
    char *data;
    size_t n;
    struct err ignored;
    enum rc rc = file_read(dir, "modules.json", MIB, &data, &n, &ignored);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (rc)
        return err_set(e, rc, NULL, "%s", ignored.msg);
    json_t *list = json_loadb(data, n, JSON_REJECT_DUPLICATES, NULL);
    free(data);
    if (!json_is_array(list))
        rc = err_set(e, RC_INVALID, "modules.json", "modules.json: a list of modules is needed");
    p->normalize = false;
    for (size_t i = 0; !rc && i < json_array_size(list); i++)
        rc = read_module(p, dir, json_array_get(list, i), i, e);
    json_decref(list);
    return rc;
}

/* read_prompt: the prompt that sentence-transformers puts before every text by default. */
static enum rc read_prompt(struct pooler *p, const char *dir, struct err *e) {
    json_t *obj;
    struct fields f;
    const char *name = NULL;
    enum rc rc = open_fields(dir, "config_sentence_transformers.json", &obj, &f, e);
    if (rc)
        return rc == RC_NOT_FOUND ? RC_OK : rc;
    rc = field_str(&f, "default_prompt_name", &name);
    const char *text = name ? json_string_value(json_object_get(field_get(&f, "prompts"), name)) : NULL;
    if (!rc && name && !text)
        rc = field_bad(&f, "default_prompt_name", "\"%.64s\" is not among the prompts", name);
    if (!rc && text && *text)
        p->prompt = xstrdup(text);
    json_decref(obj);
    return rc;
}

static enum rc read_limits(struct pooler *p, const char *dir, struct err *e) {
    json_t *obj;
    struct fields f;
    enum rc rc = open_fields(dir, "sentence_bert_config.json", &obj, &f, e);
    if (rc)
        return rc == RC_NOT_FOUND ? RC_OK : rc;
    rc = field_u32(&f, "max_seq_length", 1, 1 << 26, &p->max_len);
    if (!rc)
        rc = field_bool(&f, "do_lower_case", &p->lower_case);
    json_decref(obj);
    return rc;
}

/* ---- flags -------------------------------------------------------------------------------------- */

static enum rc read_flag(struct pooler *p, const char *text, struct err *e) {
    static const struct {
        const char *name;
        enum pool_take take;
    } types[] = {{"CLS", TAKE_CLS}, {"MEAN", TAKE_MEAN}, {"LAST", TAKE_LAST}, {"MAX", TAKE_MAX}};
    json_t *obj = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *v;
    const char *key;
    enum rc rc = json_is_object(obj)
                     ? RC_OK
                     : err_set(e, RC_INVALID, "pooler-config", "--pooler-config must be a JSON object");
    json_object_foreach(obj, key, v) {
        bool known = json_is_null(v);
        if (strcmp(key, "pooling_type") == 0 || strcmp(key, "seq_pooling_type") == 0)
            for (size_t i = 0; i < ARRAY_LEN(types); i++)
                if (json_is_string(v) && strcmp(json_string_value(v), types[i].name) == 0) {
                    p->n_takes = 0;
                    add_take(p, types[i].take);
                    known = true;
                }
        if (strcmp(key, "normalize") == 0 && json_is_boolean(v)) {
            p->normalize = json_is_true(v);
            known = true;
        }
        if ((strcmp(key, "use_activation") == 0 || strcmp(key, "activation") == 0 ||
             strcmp(key, "softmax") == 0) &&
            json_is_boolean(v)) {
            p->act = json_is_true(v) ? HF_LABEL_ACT_DEFAULT : HF_LABEL_ACT_NONE;
            if (p->task == POOL_TASK_EMBED)
                p->normalize = json_is_true(v);
            known = true;
        }
        if (!known && !rc)
            rc = err_set(
                e, RC_INVALID, "pooler-config",
                "--pooler-config: %.64s is not one of pooling_type (CLS, MEAN, LAST, MAX), normalize and "
                "use_activation, or has a wrong value",
                key);
    }
    json_decref(obj);
    return rc;
}

static void copy_labels(struct pooler *p, const struct hf_labels *l) {
    p->n_labels = l->n;
    p->act = l->act;
    p->is_matryoshka = l->is_matryoshka;
    p->n_matryoshka = l->n_matryoshka;
    memcpy(p->matryoshka, l->matryoshka, sizeof p->matryoshka);
    if (!l->names)
        return;
    p->labels = xcalloc(l->n, sizeof *p->labels);
    for (uint32_t i = 0; i < l->n; i++)
        p->labels[i] = xstrdup(l->names[i]);
}

enum rc pooler_load(struct pooler **out, const struct pooler_opts *o, struct err *e) {
    struct pooler *p = xcalloc(1, sizeof *p);
    p->hidden = o->config->hidden;
    p->encoder = hf_is_encoder(o->config);
    p->normalize = true;
    copy_labels(p, &o->config->labels);
    enum rc rc = pooler_task(o->config, o->task, &p->task, e);
    CHECK(rc || p->task);
    add_take(p, !p->encoder ? TAKE_LAST : o->config->encoder.pools_mean ? TAKE_MEAN : TAKE_CLS);
    if (!rc && p->task == POOL_TASK_EMBED)
        rc = read_modules(p, o->dir, e);
    if (!rc && p->task == POOL_TASK_EMBED)
        rc = read_prompt(p, o->dir, e);
    if (!rc)
        rc = read_limits(p, o->dir, e);
    if (!rc && p->task != POOL_TASK_EMBED)
        rc = load_head(p, o, e);
    if (!rc && o->pooler_config)
        rc = read_flag(p, o->pooler_config, e);
    if (rc)
        pooler_free(p);
    else
        *out = p;
    return rc;
}

void pooler_describe(const struct pooler *p, struct buf *out) {
    json_t *labels = p->labels ? json_array() : json_null(), *sizes = json_array();
    for (uint32_t i = 0; p->labels && i < p->n_labels; i++)
        json_array_append_new(labels, json_string(p->labels[i]));
    for (uint32_t i = 0; i < p->n_matryoshka; i++)
        json_array_append_new(sizes, json_integer(p->matryoshka[i]));
    json_t *obj =
        json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:b, s:b, s:s?, s:b}", "task", task_names[p->task],
                  "dimensions", (json_int_t)steps_width(&p->dense, p->hidden * p->n_takes), "hidden",
                  (json_int_t)p->hidden, "n_labels", (json_int_t)(p->has_head ? p->n_labels : 0), "labels",
                  labels, "matryoshka", sizes, "is_matryoshka", p->is_matryoshka, "cross_encoder",
                  p->encoder && p->has_head, "prompt", p->prompt, "lower_case", p->lower_case);
    char *text = json_dumps(obj, JSON_COMPACT);
    CHECK(text);
    buf_add(out, text, strlen(text));
    free(text);
    json_decref(obj);
}
