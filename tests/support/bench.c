#include "tests/support/bench.h"

#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* cpu_model: the first "model name" of /proc/cpuinfo; "unknown" where there is none. */
static json_t *cpu_model(void) {
    json_t *model = NULL;
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !model && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10) != 0)
            continue;
        colon += strspn(colon, ": \t");
        colon[strcspn(colon, "\n")] = 0;
        model = json_string(colon);
    }
    if (f)
        fclose(f);
    return model ? model : json_string("unknown");
}

static json_t *machine(void) {
    cpu_set_t set;
    int cores =
        sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    long long ram = (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / (long long)MIB;
    return json_pack("{s:o,s:i,s:I}", "cpu", cpu_model(), "cores", cores, "memory_mib", (json_int_t)ram);
}

void bench_emit(const char *name, double value, const char *unit, const char *params_json) {
    CHECK(isfinite(value));
    json_error_t err;
    json_t *params = json_loads(params_json ? params_json : "{}", 0, &err);
    CHECK(json_is_object(params));
    json_t *line = json_pack("{s:s,s:f,s:s,s:o,s:o}", "case", name, "value", value, "unit", unit, "params",
                             params, "machine", machine());
    CHECK(line);
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(6));
    CHECK(text);
    puts(text);
    fflush(stdout);
    free(text);
    json_decref(line);
}

static double seconds(clockid_t id) {
    struct timespec ts;
    CHECK(clock_gettime(id, &ts) == 0);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double bench_now_s(void) {
    return seconds(CLOCK_MONOTONIC);
}

double bench_cpu_s(void) {
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}
