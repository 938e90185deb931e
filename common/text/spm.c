#include "common/text/spm.h"

#include "common/utf8.h"

#include <stdlib.h>

/* A message being read. */
struct message {
    const uint8_t *p, *end;
    bool bad;
};

/* One field: of kind VARINT and FIXED the value is in number, of kind BYTES in bytes. */
enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
struct field {
    uint32_t tag;
    enum wire wire;
    uint64_t number;
    struct str bytes;
};

static uint64_t varint(struct message *m) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->p == m->end)
            break;
        uint8_t b = *m->p++;
        v |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return v;
    }
    m->bad = true;
    return 0;
}

static uint64_t fixed(struct message *m, size_t n) {
    uint64_t v = 0;
    if ((size_t)(m->end - m->p) < n) {
        m->bad = true;
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)m->p[i] << (8 * i);
    m->p += n;
    return v;
}

/* next: the next field; false at the end, or where the message is broken (m->bad). */
static bool next(struct message *m, struct field *f) {
    if (m->bad || m->p == m->end)
        return false;
    uint64_t key = varint(m);
    *f = (struct field){.tag = (uint32_t)(key >> 3), .wire = (enum wire)(key & 7)};
    switch (f->wire) {
    case VARINT:
        f->number = varint(m);
        break;
    case FIXED64:
        f->number = fixed(m, 8);
        break;
    case FIXED32:
        f->number = fixed(m, 4);
        break;
    case BYTES: {
        uint64_t n = varint(m);
        if (m->bad || n > (uint64_t)(m->end - m->p)) {
            m->bad = true;
            break;
        }
        f->bytes = (struct str){(const char *)m->p, (size_t)n};
        m->p += n;
        break;
    }
    default: /* groups, which the schema has none of */
        m->bad = true;
    }
    return !m->bad;
}

static struct message message_of(struct str s) {
    const uint8_t *p = (const uint8_t *)s.p;
    return (struct message){p, p + s.n, false};
}

static bool piece_read(struct str s, struct spm_piece *out) {
    struct message m = message_of(s);
    struct field f;
    *out = (struct spm_piece){.type = SPM_NORMAL};
    while (next(&m, &f)) {
        uint32_t bits = (uint32_t)f.number;
        if (f.tag == 1 && f.wire == BYTES)
            out->text = f.bytes;
        else if (f.tag == 2 && f.wire == FIXED32)
            memcpy(&out->score, &bits, sizeof out->score);
        else if (f.tag == 3 && f.wire == VARINT)
            out->type = bits;
    }
    return !m.bad && utf8_valid(out->text.p, out->text.n) && out->score - out->score == 0; /* finite */
}

static bool trainer_read(struct str s, struct spm *out) {
    struct message m = message_of(s);
    struct field f;
    while (next(&m, &f)) {
        if (f.tag == 3 && f.wire == VARINT)
            out->kind = (uint32_t)f.number;
        else if (f.tag == 35 && f.wire == VARINT)
            out->byte_fallback = f.number != 0;
    }
    return !m.bad;
}

static bool normalizer_read(struct str s, struct spm *out) {
    struct message m = message_of(s);
    struct field f;
    while (next(&m, &f)) {
        if (f.tag == 2 && f.wire == BYTES)
            out->charsmap = f.bytes;
        else if (f.tag == 3 && f.wire == VARINT)
            out->dummy_prefix = f.number != 0;
        else if (f.tag == 4 && f.wire == VARINT)
            out->no_extra_spaces = f.number != 0;
    }
    return !m.bad;
}

enum rc spm_read(struct spm *m, struct str file, struct err *e) {
    struct message top = message_of(file);
    struct field f;
    size_t cap = 0;
    bool ok = true;
    *m = (struct spm){.kind = SPM_UNIGRAM, .dummy_prefix = true, .no_extra_spaces = true};
    while (ok && next(&top, &f)) {
        if (f.wire != BYTES)
            continue;
        if (f.tag == 2) {
            ok = trainer_read(f.bytes, m);
        } else if (f.tag == 3) {
            ok = normalizer_read(f.bytes, m);
        } else if (f.tag == 1) {
            if (m->n_pieces == cap) {
                cap = MAX(cap * 2, (size_t)1024);
                m->pieces = xreallocarray(m->pieces, cap, sizeof *m->pieces);
            }
            ok = m->n_pieces < SPM_PIECES_MAX && piece_read(f.bytes, &m->pieces[m->n_pieces++]);
        }
    }
    if (ok && !top.bad && m->n_pieces > 0)
        return RC_OK;
    spm_fini(m);
    return err_set(e, RC_INVALID, NULL, "tokenizer.model: not a SentencePiece model");
}

void spm_fini(struct spm *m) {
    free(m->pieces);
    *m = (struct spm){0};
}
