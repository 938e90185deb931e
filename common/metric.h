/* metric.h: counters, gauges and histograms in Prometheus text format 0.0.4.
 *
 * Families are registered at start, series on first use (bounded: 1000 label sets a family, then `other`).
 * Updates are atomic and lock-free from any thread once the series is at hand. Series are never removed, so a
 * scrape takes no lock either: a series that is being made holds nobody up, and is held up by nobody.
 */
#ifndef WEIR_COMMON_METRIC_H
#define WEIR_COMMON_METRIC_H

#include "common/buf.h"

enum metric_type { METRIC_COUNTER = 0, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_SUMMARY };
enum { METRIC_LABELS_MAX = 6, METRIC_SERIES_MAX = 1000 };

struct metrics; /* a registry */
struct metric_family;
struct metric; /* one series */

struct metrics *metrics_new(void);
void metrics_free(struct metrics *r);
/* metric_family: name, help and label names are literals. alias: a second spelling always exported with equal
 * values, or NULL. buckets: ascending upper bounds without +Inf, histograms only; copied. */
struct metric_family *metric_family(struct metrics *r, enum metric_type type, const char *name,
                                    const char *alias, const char *help, const char *const *labels,
                                    size_t n_labels, const double *buckets, size_t n_buckets);
/* metric_at: the series of these label values, created at zero if new. Any thread. */
struct metric *metric_at(struct metric_family *f, const struct str *values);
void metric_add(struct metric *m, double v);     /* counters, gauges */
void metric_set(struct metric *m, double v);     /* gauges, and counters fed from elsewhere */
void metric_observe(struct metric *m, double v); /* histograms, summaries (sum and count) */
double metric_value(const struct metric *m);
/* metric_add_counts: adds to a histogram's bucket counts (n_buckets + 1, not cumulative) and sum. */
void metric_add_counts(struct metric *m, const uint64_t *counts, size_t n, double sum);
/* metric_set_counts: replaces a histogram's bucket counts (n_buckets + 1, not cumulative) and sum: a worker's
 * report. */
void metric_set_counts(struct metric *m, const uint64_t *counts, size_t n, double sum);
/* metrics_write: the whole exposition. */
void metrics_write(struct metrics *r, struct buf *out);
/* metrics_write_process: the process_* series, from /proc/self. */
void metrics_write_process(struct buf *out);

#endif
