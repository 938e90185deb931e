#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/json.h"
#include "common/metric.h"

/* The process_* series that Prometheus' own clients export, from /proc (proc(5)). What cannot be read is left
 * out. */

struct process_stat {
    double cpu_s, start_s; /* start: seconds since 1970 */
    uint64_t virtual_bytes, resident_bytes;
};

/* boot_s: "btime" of /proc/stat, seconds since 1970; 0 if unknown. */
static double boot_s(void) {
    char line[256];
    unsigned long long t = 0;
    FILE *f = fopen("/proc/stat", "re");
    while (f && !t && fgets(line, sizeof line, f))
        if (sscanf(line, "btime %llu", &t) != 1)
            t = 0;
    if (f)
        fclose(f);
    return (double)t;
}

static bool read_stat(struct process_stat *s) {
    char text[1024];
    FILE *f = fopen("/proc/self/stat", "re");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    /* The second field, the program's name, may hold anything; the rest begins behind the last parenthesis.
     */
    const char *rest = strrchr(text, ')');
    unsigned long long utime, stime, start, vsize;
    long long rss;
    if (!rest ||
        sscanf(
            rest + 1,
            " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %llu %lld",
            &utime, &stime, &start, &vsize, &rss) != 5)
        return false;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    s->cpu_s = (double)(utime + stime) / ticks;
    s->start_s = boot_s() + (double)start / ticks;
    s->virtual_bytes = vsize;
    s->resident_bytes = (uint64_t)MAX(rss, 0) * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static uint64_t count_fds(void) {
    uint64_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* the directory's own */
}

static void put(struct buf *out, const char *name, const char *type, const char *help, double v) {
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s ", name, help, name, type, name);
    if (v == (double)(int64_t)v)
        jw_i64(out, (int64_t)v);
    else
        jw_f64(out, v);
    buf_addc(out, '\n');
}

void metrics_write_process(struct buf *out) {
    struct process_stat s;
    struct rlimit lim;
    if (read_stat(&s)) {
        put(out, "process_cpu_seconds_total", "counter", "User and system CPU time spent, in seconds.",
            s.cpu_s);
        put(out, "process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.",
            s.start_s);
        put(out, "process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes.",
            (double)s.virtual_bytes);
        put(out, "process_resident_memory_bytes", "gauge", "Resident memory, in bytes.",
            (double)s.resident_bytes);
    }
    put(out, "process_open_fds", "gauge", "Open file descriptors.", (double)count_fds());
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY)
        put(out, "process_max_fds", "gauge", "Limit of open file descriptors.", (double)lim.rlim_cur);
}
