/* grammar_cmd.h: `weir grammar`: a constraint tried on a text, without a server. */
#ifndef WEIR_ROUTER_GRAMMAR_CMD_H
#define WEIR_ROUTER_GRAMMAR_CMD_H

/* grammar_cmd: argv[0] is "grammar". Returns the exit status: 0 the text is accepted, 1 it is not or the
 * constraint is refused, 2 wrong usage. */
int grammar_cmd(int argc, char **argv);

#endif
