/* tokenizer.json and the text it meets.
 *
 * Input: JSON, a NUL, text. The file is loaded; if it is one, the text is encoded, with and without a mark
 * over a part of it, and decoded. Input that starts with a newline is a tokenizer.model (its first field),
 * and text is made of the same bytes; "#" starts a vocab.txt, "%" a vocab.json, a NUL and a merges.txt. Other
 * input is text for the golden Llama-3 tokenizer, which must decode to the text that went in. */
#include "common/text/detok.h"
#include "common/text/stop.h"
#include "common/text/uni.h"
#include "common/utf8.h"
#include "tests/support/tok_golden.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode_all(const struct tok *t, const char *p, size_t n, struct buf *decoded) {
    struct tok_ids ids = {0};
    struct tok_mark mark = {n / 3, n - n / 3};
    struct detok d;
    tok_encode(t, p, n, &mark, 1, TOK_ADD_SPECIAL, &ids);
    ids.n = 0;
    tok_encode(t, p, n, NULL, 0, 0, &ids);
    for (size_t i = 0; i < ids.n; i++)
        CHECK(ids.v[i] < tok_vocab_size(t));
    detok_all(t, ids.v, ids.n, false, decoded);
    /* The ids the other way round, stopped by what the text starts with: no invalid UTF-8 comes out. */
    struct str first = {p, MIN(n, (size_t)2)};
    struct stop_set *set = stop_set_new(&first, first.n ? 1 : 0);
    struct stop s;
    struct buf piece = {0}, out = {0};
    stop_init(&s, set, false);
    detok_init(&d, t, ids.v, MIN(ids.n, (size_t)1), true, true);
    int hit = -1;
    for (size_t i = ids.n; i-- > 0 && hit < 0;) {
        piece.len = 0;
        detok_push(&d, ids.v[i], &piece);
        CHECK(uni_valid_n(piece.data, piece.len) == piece.len);
        hit = stop_push(&s, piece.data, piece.len, i % 3 != 0, &out);
    }
    stop_fini(&s);
    stop_set_free(set);
    buf_fini(&piece);
    buf_fini(&out);
    tok_ids_fini(&ids);
}

/* round_trip: the golden tokenizer drops and changes nothing but invalid bytes. */
static void round_trip(const char *p, size_t n) {
    static struct tok *golden;
    if (!golden)
        golden = tok_golden("llama3");
    struct buf want = {0}, got = {0};
    for (size_t i = 0, len; i < n; i += len)
        if (uni_step(p + i, n - i, &len) == UNI_VALID)
            buf_add(&want, p + i, len);
        else
            buf_addz(&want, UTF8_REPLACEMENT);
    encode_all(golden, p, n, &got);
    CHECK(str_eq(buf_str(&want), buf_str(&got)));
    buf_fini(&want);
    buf_fini(&got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *p = (const char *)data;
    if (size == 0 || !memchr("{\n#%", p[0], 4)) {
        round_trip(p, size);
        return 0;
    }
    const char *nul = p[0] == '{' || p[0] == '%' ? memchr(p, 0, size) : NULL;
    size_t n_json = nul ? (size_t)(nul - p) : size;
    struct tok *t;
    struct err e;
    struct tok_files files = {0};
    if (p[0] == '{')
        files = (struct tok_files){.tokenizer_json = {p, n_json}, .tokenizer_config_json = {p, n_json}};
    else if (p[0] == '%' && nul)
        files = (struct tok_files){.vocab_json = {p + 1, n_json - 1}, .merges_txt = {nul + 1, size - n_json - 1}};
    else if (p[0] == '\n')
        files.tokenizer_model = (struct str){p, size};
    else
        files.vocab_txt = (struct str){p, size};
    if (tok_load(&t, &files, &e) == RC_OK) {
        struct buf decoded = {0};
        encode_all(t, nul ? nul + 1 : p, nul ? size - n_json - 1 : size, &decoded);
        buf_fini(&decoded);
        tok_free(t);
    }
    return 0;
}
