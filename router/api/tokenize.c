/* POST /tokenize and /detokenize (api.md 14), and the card of a model (15.2). */
#include <stdio.h>

#include "common/hash.h"
#include "router/api/chat.h"
#include "router/api/constraint.h"
#include "router/api/request.h"

static void write_tokens(const struct model_info *m, const struct tok_ids *ids, bool pieces,
                         struct buf *out) {
    buf_addz(out, "{\"count\":");
    buf_addu64(out, ids->n);
    buf_addz(out, ",\"max_model_len\":");
    buf_addu64(out, m->facts.max_model_len);
    buf_addz(out, ",\"tokens\":[");
    for (size_t i = 0; i < ids->n; i++) {
        if (i)
            buf_addc(out, ',');
        buf_addu64(out, ids->v[i]);
    }
    buf_addz(out, pieces ? "],\"token_strs\":[" : "],\"token_strs\":null}");
    for (size_t i = 0; pieces && i < ids->n; i++) {
        if (i)
            buf_addc(out, ',');
        jw_str(out, tok_piece(m->tok, ids->v[i]));
    }
    if (pieces)
        buf_addz(out, "]}");
}

static enum rc tokenize(struct gen_env *env, json_t *root, struct model_info **m, struct arena *a,
                        struct tok_ids *ids, struct buf *out, struct err *e) {
    struct field_values v;
    struct chat_times times = {0};
    enum rc rc = api_fields_read(ON_TOKENIZE, root, &env->opts->limit, &v, e);
    if (rc)
        return rc;
    struct chat_input chat = chat_input_of(&v);
    if (v.messages && v.text.set)
        return err_set(e, RC_INVALID, "prompt", "prompt and messages exclude each other");
    if ((rc = tools_check(v.tools, e)))
        return rc;
    if (v.messages)
        rc = chat_check(&chat, env->opts, e);
    else if (!v.text.set)
        rc = err_set(e, RC_INVALID, "prompt", "prompt or messages is required");
    if (!rc)
        rc = model_lookup(env, v.model.v, m, e);
    if (rc)
        return rc;
    if (v.messages)
        rc = chat_encode(*m, env->opts, &chat, a, ids, &times, e);
    else
        tok_encode((*m)->tok, v.text.v.p, v.text.v.n, NULL, 0,
                   v.add_special.set && !v.add_special.v ? 0 : TOK_ADD_SPECIAL, ids);
    if (!rc)
        write_tokens(*m, ids, v.return_token_strs.v, out);
    return rc;
}

enum rc api_tokenize(struct gen_env *env, struct str body, struct buf *out, struct err *e) {
    json_t *root = NULL;
    struct model_info *m = NULL;
    struct tok_ids ids = {0};
    struct arena a;
    arena_init(&a);
    enum rc rc = body_parse(body, &env->opts->limit, &root, e);
    if (!rc)
        rc = tokenize(env, root, &m, &a, &ids, out, e);
    tok_ids_fini(&ids);
    arena_fini(&a);
    json_decref(root);
    model_info_drop(m);
    return rc;
}

/* read_ids: ids that the model's logits have but no vocabulary entry stand for nothing and are left out. */
static enum rc read_ids(const json_t *list, const struct model_info *m, struct tok_ids *ids, struct err *e) {
    uint32_t known = tok_vocab_size(m->tok), vocab_size = MAX(known, m->facts.vocab_size);
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t id;
        enum rc rc = api_field_int(list, i, "tokens", &id, e);
        if (!rc && (id < 0 || id >= (int64_t)vocab_size)) {
            char param[32];
            snprintf(param, sizeof param, "tokens.%zu", i);
            rc = api_check_token(param, id, vocab_size, e);
        }
        if (rc)
            return rc;
        if (id < (int64_t)known)
            tok_ids_push(ids, (uint32_t)id);
    }
    return RC_OK;
}

static enum rc detokenize(struct gen_env *env, json_t *root, struct model_info **m, struct tok_ids *ids,
                          struct buf *out, struct err *e) {
    struct field_values v;
    enum rc rc = api_fields_read(ON_DETOKENIZE, root, &env->opts->limit, &v, e);
    if (!rc)
        rc = api_fields_required(ON_DETOKENIZE, root, e);
    if (!rc)
        rc = model_lookup(env, v.model.v, m, e);
    if (!rc)
        rc = read_ids(v.tokens, *m, ids, e);
    if (rc)
        return rc;
    struct buf text = {0};
    detok_all((*m)->tok, ids->v, ids->n, false, &text);
    buf_addz(out, "{\"prompt\":");
    jw_str(out, buf_str(&text));
    buf_addc(out, '}');
    buf_fini(&text);
    return RC_OK;
}

enum rc api_detokenize(struct gen_env *env, struct str body, struct buf *out, struct err *e) {
    json_t *root = NULL;
    struct model_info *m = NULL;
    struct tok_ids ids = {0};
    enum rc rc = body_parse(body, &env->opts->limit, &root, e);
    if (!rc)
        rc = detokenize(env, root, &m, &ids, out, e);
    tok_ids_fini(&ids);
    json_decref(root);
    model_info_drop(m);
    return rc;
}

void api_model_card(const struct model_info *m, const char *name, struct buf *out) {
    uint8_t digest[32]; /* the permission's id: constant for a name and a revision */
    struct buf seed = {0};
    buf_add(&seed, m->facts.revision, sizeof m->facts.revision);
    buf_addz(&seed, name);
    hash_sha256(seed.data, seed.len, digest);
    buf_fini(&seed);
    buf_addz(out, "{\"id\":");
    jw_strz(out, name);
    buf_addz(out, ",\"object\":\"model\",\"created\":");
    jw_i64(out, m->created_unix_s);
    buf_addz(out, ",\"owned_by\":\"weir\",\"root\":");
    jw_strz(out, m->facts.root);
    buf_addz(out, ",\"parent\":null,\"max_model_len\":");
    buf_addu64(out, m->facts.max_model_len);
    buf_addz(out, ",\"permission\":[{\"id\":\"modelperm-");
    for (size_t i = 0; i < 16; i++)
        buf_addf(out, "%02x", digest[i]);
    buf_addz(out, "\",\"object\":\"model_permission\",\"created\":");
    jw_i64(out, m->created_unix_s);
    buf_addz(out, ",\"allow_create_engine\":false,\"allow_sampling\":true,\"allow_logprobs\":true,"
                  "\"allow_search_indices\":false,\"allow_view\":true,\"allow_fine_tuning\":false,"
                  "\"organization\":\"*\",\"group\":null,\"is_blocking\":false}]}");
}
