/* chat_cmd.h: `weir chat`: a chat in the terminal with any OpenAI-compatible server. */
#ifndef WEIR_ROUTER_CLIENT_CHAT_CMD_H
#define WEIR_ROUTER_CLIENT_CHAT_CMD_H

/* chat_cmd: argv[0] is "chat". Reads questions and commands from standard input, a line each, until its end,
 * /quit, or Ctrl-C while no answer runs. Returns the exit status: 0, or 1 if the server cannot be reached or,
 * where standard input is no terminal, a question or command failed; 2 wrong usage. */
int chat_cmd(int argc, char **argv);

#endif
