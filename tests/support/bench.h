/* bench.h: what every benchmark shares: a clock and the one line that reports a case.
 *
 * A line is {"case":"tokenizer.mb_s","value":41.2,"unit":"MB/s","params":{...},"machine":{...}}.
 * Case names end in their unit. machine is read from the system once: model of CPU, cores this
 * process may use, memory in MiB.
 */
#ifndef WEIR_TESTS_SUPPORT_BENCH_H
#define WEIR_TESTS_SUPPORT_BENCH_H

#include "common/base.h"

/* bench_emit: one line on standard output, flushed. params_json is a JSON object as text, or NULL
 * for {}. value must be finite. */
void bench_emit(const char *name, double value, const char *unit, const char *params_json);

/* bench_now_s: a monotonic clock, in seconds. */
double bench_now_s(void);

/* bench_cpu_s: CPU time of this process so far, user and system, in seconds. */
double bench_cpu_s(void);

#endif
