/* spm.h: SentencePiece's model file (tokenizer.model), a protobuf message.
 *
 * A reader for the fields a tokenizer needs, by the schema that SentencePiece publishes
 * (sentencepiece_model.proto). Strings are borrowed from the file. Linear; every length is checked.
 */
#ifndef WEIR_COMMON_TEXT_SPM_H
#define WEIR_COMMON_TEXT_SPM_H

#include "common/err.h"

enum spm_type { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER_DEFINED, SPM_UNUSED, SPM_BYTE };
enum spm_kind { SPM_UNIGRAM = 1, SPM_BPE, SPM_WORD, SPM_CHAR };
enum { SPM_PIECES_MAX = 1 << 22 };

struct spm_piece {
    struct str text; /* UTF-8 */
    float score;
    uint32_t type; /* enum spm_type */
};
struct spm {
    struct spm_piece *pieces; /* [n_pieces]; owned */
    uint32_t n_pieces;
    uint32_t kind; /* enum spm_kind */
    bool byte_fallback;
    struct str charsmap; /* may be empty */
    bool dummy_prefix, no_extra_spaces;
};

/* spm_read: RC_INVALID with "tokenizer.model: why". */
MUST_USE enum rc spm_read(struct spm *m, struct str file, struct err *e);
void spm_fini(struct spm *m);

#endif
