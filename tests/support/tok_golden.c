#include "tests/support/tok_golden.h"

#include <stdio.h>
#include <stdlib.h>

char *golden_file_read(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    struct buf b = {0};
    size_t got;
    do {
        got = fread(buf_reserve(&b, 65536), 1, 65536, f);
        b.len += got;
    } while (got);
    fclose(f);
    *n = b.len;
    return buf_take(&b);
}

struct tok *tok_golden(const char *family) {
    char path[160];
    size_t n_tok, n_config;
    snprintf(path, sizeof path, "tests/golden/tok/%s/tokenizer.json", family);
    char *tok_json = golden_file_read(path, &n_tok);
    snprintf(path, sizeof path, "tests/golden/tok/%s/tokenizer_config.json", family);
    char *config = golden_file_read(path, &n_config);
    struct tok_files files = {.tokenizer_json = {tok_json, n_tok},
                              .tokenizer_config_json = {config, n_config}};
    struct tok *t = NULL;
    struct err e;
    if (tok_load(&t, &files, &e)) {
        fprintf(stderr, "%s: %s\n", family, e.msg);
        exit(1);
    }
    free(tok_json);
    free(config);
    return t;
}

void golden_strings_open(struct golden_strings *g) {
    *g = (struct golden_strings){0};
    g->file = golden_file_read("tests/golden/tok/strings.bin", &g->n_file);
    CHECK(g->n_file > 8 && memcmp(g->file, "WTS1", 4) == 0);
    memcpy(&g->n, g->file + 4, 4);
    g->at = 8;
}

static size_t varint(struct golden_strings *g) {
    size_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        CHECK(g->at < g->n_file && shift < 35);
        uint8_t b = (uint8_t)g->file[g->at++];
        v |= (size_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return v;
    }
}

bool golden_strings_next(struct golden_strings *g) {
    if (g->i == g->n) {
        CHECK(g->at == g->n_file);
        return false;
    }
    g->i++;
    g->text.len = 0;
    for (size_t n_parts = varint(g); n_parts > 0; n_parts--) {
        size_t repeat = varint(g), len = varint(g);
        CHECK(len <= g->n_file - g->at);
        while (repeat--)
            buf_add(&g->text, g->file + g->at, len);
        g->at += len;
    }
    return true;
}

void golden_strings_close(struct golden_strings *g) {
    free(g->file);
    buf_fini(&g->text);
}
