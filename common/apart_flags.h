/* apart_flags.h: flags that every program knows and none has a place for.
 *
 * Two kinds, from api.md 22: those of vLLM that are accepted and ignored (22.3), each with the reason that
 * its one warning gives; and those whose feature this version lacks, or that vLLM has and Weir will not have
 * (22.4), refused with a reason, because ignoring them would mislead. A flag whose feature arrives moves from
 * here to the table of its program: where both have a row, the program's wins (conf tables are searched in
 * order).
 */
#ifndef WEIR_COMMON_APART_FLAGS_H
#define WEIR_COMMON_APART_FLAGS_H

#include "common/conf.h"

extern const struct conf_flag apart_flag_rows[];
extern const size_t n_apart_flag_rows;

/* conf_rows_add: appends n_from rows to to[0, n), their offsets moved by base; a row whose name is there
 * already is left out, so the first table decides. CHECKs that they fit in n_max. Returns the new count. */
size_t conf_rows_add(struct conf_flag *to, size_t n, size_t n_max, const struct conf_flag *from,
                     size_t n_from, size_t base);

#endif
