#include "worker/assets.h"

#include <stdlib.h>

#include "worker/file.h"

/* A router asks for them one by one, and each fits its connection's queue. */
enum { TOKENIZER_BYTES_MAX = 48 << 20 };

/* The ways to describe a tokenizer, the best first, each with one or two files. Old SentencePiece models have
 * names of their own. */
static const struct {
    struct {
        const char *on_disk, *name;
    } file[2];
} tokenizers[] = {
    {{{"tokenizer.json", "tokenizer.json"}}},
    {{{"tokenizer.model", "tokenizer.model"}}},
    {{{"sentencepiece.bpe.model", "tokenizer.model"}}},
    {{{"spiece.model", "tokenizer.model"}}},
    {{{"vocab.json", "vocab.json"}, {"merges.txt", "merges.txt"}}},
    {{{"vocab.txt", "vocab.txt"}}},
};

static const struct {
    const char *name;
    size_t limit;
    bool of_model; /* else it lies beside the tokenizer */
} others[] = {
    {"tokenizer_config.json", 16 * MIB, false}, {"special_tokens_map.json", MIB, false},
    {"chat_template.jinja", 4 * MIB, false},    {"chat_template.json", 4 * MIB, false},
    {"generation_config.json", MIB, true},      {"added_tokens.json", 4 * MIB, false},
};

/* read_one: *there: false without an error: no such file. */
static enum rc read_one(const char *dir, const char *on_disk, const char *name, size_t limit,
                        struct io_asset *v, size_t *n, bool *there, struct err *e) {
    struct io_asset a = {.name = name};
    enum rc rc = file_read(dir, on_disk, limit, &a.data, &a.n, e);
    *there = rc == RC_OK;
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (rc)
        return rc;
    CHECK(*n < IO_ASSETS_MAX);
    v[(*n)++] = a;
    return RC_OK;
}

static enum rc read_tokenizer(const char *dir, struct io_asset *v, size_t *n, struct err *e) {
    for (size_t i = 0; i < ARRAY_LEN(tokenizers); i++) {
        bool there = true;
        enum rc rc = RC_OK;
        size_t before = *n;
        for (size_t k = 0; !rc && there && k < 2 && tokenizers[i].file[k].name; k++)
            rc = read_one(dir, tokenizers[i].file[k].on_disk, tokenizers[i].file[k].name, TOKENIZER_BYTES_MAX,
                          v, n, &there, e);
        if (rc || there)
            return rc;
        while (*n > before) /* vocab.json alone says nothing */
            free(v[--*n].data);
    }
    return err_set(e, RC_NOT_FOUND, NULL,
                   "tokenizer.json is missing from %s, and so is what could stand in for it: "
                   "tokenizer.model, vocab.json with merges.txt, or vocab.txt",
                   dir);
}

enum rc assets_read(const char *model_dir, const char *dir, struct io_asset *v, size_t *n, struct err *e) {
    enum rc rc = read_tokenizer(dir, v, n, e);
    bool there;
    for (size_t i = 0; !rc && i < ARRAY_LEN(others); i++)
        rc = read_one(others[i].of_model ? model_dir : dir, others[i].name, others[i].name, others[i].limit, v, n, &there, e);
    return rc;
}

const struct io_asset *assets_find(const struct io_asset *v, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(v[i].name, name))
            return &v[i];
    return NULL;
}

static struct str text_of(const struct io_asset *v, size_t n, const char *name) {
    const struct io_asset *a = assets_find(v, n, name);
    return a ? (struct str){a->data, a->n} : (struct str){0};
}

struct tok_files assets_tokenizer(const struct io_asset *v, size_t n) {
    return (struct tok_files){.tokenizer_json = text_of(v, n, "tokenizer.json"),
                              .tokenizer_config_json = text_of(v, n, "tokenizer_config.json"),
                              .special_tokens_map_json = text_of(v, n, "special_tokens_map.json"),
                              .tokenizer_model = text_of(v, n, "tokenizer.model"),
                              .vocab_json = text_of(v, n, "vocab.json"),
                              .merges_txt = text_of(v, n, "merges.txt"),
                              .vocab_txt = text_of(v, n, "vocab.txt"),
                              .added_tokens_json = text_of(v, n, "added_tokens.json")};
}
