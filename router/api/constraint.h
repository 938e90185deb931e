/* constraint.h: the fields of structured output (api.md 9.1) and what constrains tool calls (11.1), as the
 * one constraint that goes to the worker. Inside router/api only.
 */
#ifndef WEIR_ROUTER_API_CONSTRAINT_H
#define WEIR_ROUTER_API_CONSTRAINT_H

#include "router/api/fields.h"
#include "router/api/gen.h"

/* constraint_read: the body's constraint, if any, into r->constraint: shapes only, no model needed.
 * tools_mode and tool_name of r are set: a named or required choice makes the constraint. RC_INVALID: two
 * constraints, or one of the wrong shape. */
MUST_USE enum rc constraint_read(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                                 struct err *e);
/* constraint_check: compiles it, to know that the worker will. RC_INVALID names keyword and pointer, or the
 * offset. What was compiled lately is known to be good. Takes up to the compile budget. */
MUST_USE enum rc constraint_check(struct gen_env *env, struct gen_req *r, struct err *e);

/* constraint_mix: a constraint that was checked becomes one for the whole output: with the reasoning in front of
 * it and the calls that may stand in its place. r->parse is set. */
void constraint_mix(const json_t *tools, struct gen_req *r);
/* parsing_set: fills r->parse, once prompts, constraint and tools_mode are there; mixes the constraint. */
void parsing_set(const struct field_values *v, const struct router_opts *o, struct gen_req *r);

/* tools_check: a list of functions with names; NULL is fine. RC_INVALID names the member. */
MUST_USE enum rc tools_check(const json_t *tools, struct err *e);
/* tools_read: checks `tools` and `tool_choice`; sets r->tools_mode and, for a named tool, r->tool_name; or
 * r->parse.auto_tools. */
MUST_USE enum rc tools_read(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                            struct err *e);
/* tools_constraint: of r->tools_mode, which is not TOOLS_NONE: kind and text, in the arena of r. */
void tools_constraint(const json_t *tools, struct gen_req *r);
/* tool_schema: appends the schema of a tool's arguments. */
void tool_schema(const json_t *tool, struct buf *b);

#endif
