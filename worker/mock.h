/* mock.h: a scripted engine: tokens by a clock instead of a model.
 *
 * It takes the same requests and gives the same step_out as engine.h, so that routers can be tested and
 * measured without a model. A step comes every step_ns and yields one token for every running sample; the
 * prompt takes prefill_ns_per_token for each of its tokens first. Token i of a sample is a function of its
 * seed and i, and never an end token, so every sample runs to its limit; or it says the text of a file. A resumed
 * sample goes on behind its tokens. What goes wrong, and when, is a script (mock_script.h). One thread of its own;
 * calls from any thread.
 */
#ifndef WEIR_WORKER_MOCK_H
#define WEIR_WORKER_MOCK_H

#include "common/text/tok.h"
#include "worker/engine.h"
#include "worker/io.h"
#include "worker/mock_script.h"

struct mock;
struct mock_opts {
    uint64_t step_ns, prefill_ns_per_token; /* step_ns 0: a step as soon as the last one is out */
    uint64_t seq_ns; /* a step takes so much longer for each running sample */
    struct mock_script script;
    uint32_t n_vocab, n_seqs_max, n_blocks;
    const uint32_t *eos_ids; /* [n_eos_ids] avoided; copied */
    uint32_t n_eos_ids;
    const char *text_path; /* NULL: none; copied. Else every answer is this file's text and an end token */
    const struct tok *tok; /* which encodes it; must outlive the mock */
    uint32_t cache_blocks; /* of a prefix cache (mock_cache.h), with which prompts are computed one after the other;
                              0: none, and all at once */
    void *arg;
    void (*on_step)(void *arg, const struct step_out *out);
    void (*on_control)(void *arg, uint32_t router, uint32_t router_epoch, uint64_t id, bool ok);
    void (*on_drained)(void *arg);
};
struct mock *mock_new(const struct mock_opts *o); /* starts its thread */
/* mock_stop: the thread ends; calls are still allowed and refused, as an engine's after engine_stop. */
void mock_stop(struct mock *m);
void mock_free(struct mock *m);
/* mock_engine: its face for io. */
struct io_engine mock_engine(struct mock *m);
/* mock_token: the i-th token of a sample. */
uint32_t mock_token(const struct mock_opts *o, uint64_t seed, uint32_t i);

#endif
