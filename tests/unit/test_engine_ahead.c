/* The tests of test_engine.c over a device that runs ahead: the next step is enqueued before the tokens of the one in front
 * are there. What comes out is the same. threads: tsan */
#define FIXTURE_OPS fake_ahead_ops
#include "tests/unit/test_engine.c"
