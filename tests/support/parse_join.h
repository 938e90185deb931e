/* parse_join.h: what a parser makes of a text, joined, for tests and fuzzing. One thread. */
#ifndef WEIR_TESTS_SUPPORT_PARSE_JOIN_H
#define WEIR_TESTS_SUPPORT_PARSE_JOIN_H

#include "common/buf.h"
#include "router/parse/parse.h"

/* join: joined parts: reasoning, content, and "name(arguments)" of each call, a newline behind each. */
struct join {
    struct buf reasoning, content, calls;
    uint32_t n_calls;
    bool in_reasoning; /* the end lies inside the reasoning */
    struct parse *p;
};
/* join_start, join_push, join_end: as parse.h. join_fini frees what the join holds. */
void join_start(struct join *j, const struct parse_opts *o);
void join_push(struct join *j, struct str text);
void join_end(struct join *j);
void join_fini(struct join *j);
/* join_text: all of it: "reasoning|content|calls". */
void join_text(const struct join *j, struct buf *out);

/* join_whole: of a text in one piece. join_pieces: in pieces of 1 to most bytes that seed chooses. */
void join_whole(const struct parse_opts *o, struct str text, struct buf *out);
void join_pieces(const struct parse_opts *o, struct str text, size_t most, uint64_t seed, struct buf *out);
/* join_gives: whether text joins to want whole, in bytes and in random pieces; prints what differs. */
bool join_gives(const struct parse_opts *o, const char *text, const char *want);

#endif
