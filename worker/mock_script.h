/* mock_script.h: what goes wrong with a scripted engine, and when: the text of --mock-faults, parsed.
 *
 * The text is a list, "die@100,slow@20:50": a kind, the token that it comes with (counted over all samples since
 * the process began, from 0), and for some kinds an argument. Pure; bounded by MOCK_FAULTS_MAX.
 */
#ifndef WEIR_WORKER_MOCK_SCRIPT_H
#define WEIR_WORKER_MOCK_SCRIPT_H

#include "common/err.h"

enum mock_fault_kind {
    MOCK_DIE = 0, /* the process ends as by kill -9, before the token is told */
    MOCK_STOP,    /* the process stops as by SIGSTOP */
    MOCK_FREEZE,  /* no step for :SECONDS, or for ever; the link goes on */
    MOCK_GARBAGE, /* this token is none of the vocabulary */
    MOCK_SLOW,    /* a step takes :MS milliseconds from here on */
    MOCK_REFUSE,  /* the next :N requests are refused with 503, or all of them */
    N_MOCK_FAULT
};
enum { MOCK_FAULTS_MAX = 64 };
struct mock_fault {
    enum mock_fault_kind kind;
    uint64_t token;
    double arg; /* below 0: none */
};
struct mock_script {
    struct mock_fault fault[MOCK_FAULTS_MAX];
    unsigned n;
};

/* mock_script_parse: text NULL or "": nothing goes wrong. RC_INVALID names the piece. */
MUST_USE enum rc mock_script_parse(const char *text, struct mock_script *out, struct err *e);

#endif
