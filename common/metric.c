#include "common/metric.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/json.h"
#include "common/utf8.h"

/* LABEL_BYTES_MAX: of one value; longer ones, which only clients make, are cut. */
enum { SERIES_BUCKETS = 256, LABEL_BYTES_MAX = 256, FAMILY_BUCKETS_MAX = 128 };

/* A double in the bits of an atomic integer: value of a counter or gauge, sum of a histogram or summary. */
struct metric {
    _Atomic(struct metric *) next; /* in the family, in order of creation */
    struct metric *next_hashed;
    const struct metric_family *f;
    char *labels; /* rendered: a="x",b="y"; the key */
    size_t labels_n;
    _Atomic uint64_t bits;
    _Atomic uint64_t counts[]; /* HISTOGRAM: n_buckets + 1, not cumulative; SUMMARY: 1 */
};

struct metric_family {
    _Atomic(struct metric_family *) next;
    struct metrics *r;
    enum metric_type type;
    const char *name, *alias, *help;
    const char *labels[METRIC_LABELS_MAX];
    size_t n_labels;
    double *buckets;
    size_t n_buckets;
    _Atomic(struct metric *) first; /* as every `next`: set once, so a scrape reads the lists without the lock */
    /* Under the registry's lock: */
    struct metric *last;
    struct metric *hashed[SERIES_BUCKETS];
    size_t n_series;
};

struct metrics {
    pthread_mutex_t mu;
    uint64_t seed;
    _Atomic(struct metric_family *) first;
    struct metric_family *last; /* under the lock */
};

struct metrics *metrics_new(void) {
    struct metrics *r = xcalloc(1, sizeof *r);
    CHECK(pthread_mutex_init(&r->mu, NULL) == 0);
    fill_random(&r->seed, sizeof r->seed);
    return r;
}

void metrics_free(struct metrics *r) {
    if (!r)
        return;
    for (struct metric_family *f = r->first, *next; f; f = next) {
        next = f->next;
        for (struct metric *m = f->first, *after; m; m = after) {
            after = m->next;
            free(m->labels);
            free(m);
        }
        free(f->buckets);
        free(f);
    }
    pthread_mutex_destroy(&r->mu);
    free(r);
}

static bool is_name(const char *z) {
    size_t n = strspn(z, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789");
    return n > 0 && !z[n] && !(z[0] >= '0' && z[0] <= '9');
}

/* series_new: under the lock. */
static struct metric *series_new(struct metric_family *f, struct str labels, uint64_t hash) {
    size_t n_counts = f->type == METRIC_HISTOGRAM ? f->n_buckets + 1 : f->type == METRIC_SUMMARY ? 1 : 0;
    struct metric *m = xcalloc(1, sizeof *m + n_counts * sizeof m->counts[0]);
    m->f = f;
    m->labels = xstrndup(labels.p, labels.n);
    m->labels_n = labels.n;
    m->next_hashed = f->hashed[hash % SERIES_BUCKETS];
    f->hashed[hash % SERIES_BUCKETS] = m;
    atomic_store_explicit(f->last ? &f->last->next : &f->first, m, memory_order_release);
    f->last = m;
    f->n_series++;
    return m;
}

struct metric_family *metric_family(struct metrics *r, enum metric_type type, const char *name,
                                    const char *alias, const char *help, const char *const *labels,
                                    size_t n_labels, const double *buckets, size_t n_buckets) {
    CHECK(is_name(name) && (!alias || is_name(alias)) && help && n_labels <= METRIC_LABELS_MAX);
    CHECK(n_buckets <= FAMILY_BUCKETS_MAX && (type == METRIC_HISTOGRAM) == (n_buckets > 0));
    struct metric_family *f = xcalloc(1, sizeof *f);
    f->r = r;
    f->type = type;
    f->name = name;
    f->alias = alias;
    f->help = help;
    f->n_labels = n_labels;
    for (size_t i = 0; i < n_labels; i++) {
        CHECK(is_name(labels[i]) && !strchr(labels[i], ':'));
        f->labels[i] = labels[i];
    }
    f->n_buckets = n_buckets;
    f->buckets = xcalloc(n_buckets, sizeof *buckets);
    for (size_t i = 0; i < n_buckets; i++) {
        CHECK(isfinite(buckets[i]) && (i == 0 || buckets[i] > buckets[i - 1]));
        f->buckets[i] = buckets[i];
    }
    pthread_mutex_lock(&r->mu);
    for (const struct metric_family *g = r->first; g; g = g->next)
        CHECK(strcmp(g->name, name) != 0);
    if (n_labels == 0)
        series_new(f, (struct str){0}, hash_fast("", 0, r->seed));
    atomic_store_explicit(r->last ? &r->last->next : &r->first, f, memory_order_release);
    r->last = f;
    pthread_mutex_unlock(&r->mu);
    return f;
}

/* ---- series ----------------------------------------------------------------------------------------- */

/* put_escaped: backslash, line feed and (in label values) the quote; invalid UTF-8 as U+FFFD. */
static void put_escaped(struct buf *b, struct str s, bool quoted) {
    for (size_t i = 0, len; i < s.n; i += len) {
        bool good = utf8_decode(s.p + i, s.n - i, &len) >= 0;
        if (!good)
            buf_addz(b, UTF8_REPLACEMENT);
        else if (s.p[i] == '\n')
            buf_addz(b, "\\n");
        else if (s.p[i] == '\\' || (quoted && s.p[i] == '"'))
            buf_add(b, (char[]){'\\', s.p[i]}, 2);
        else
            buf_add(b, s.p + i, len);
    }
}

static void render_labels(const struct metric_family *f, const struct str *values, struct buf *b) {
    for (size_t i = 0; i < f->n_labels; i++) {
        struct str v = values ? values[i] : STR_LIT("other");
        v.n = utf8_cut(v.p, v.n, LABEL_BYTES_MAX);
        buf_addf(b, "%s%s=\"", i ? "," : "", f->labels[i]);
        put_escaped(b, v, true);
        buf_addc(b, '"');
    }
}

/* find: under the lock. */
static struct metric *find(const struct metric_family *f, struct str labels, uint64_t hash) {
    for (struct metric *m = f->hashed[hash % SERIES_BUCKETS]; m; m = m->next_hashed)
        if (str_eq((struct str){m->labels, m->labels_n}, labels))
            return m;
    return NULL;
}

struct metric *metric_at(struct metric_family *f, const struct str *values) {
    struct buf b = {0};
    render_labels(f, values, &b);
    uint64_t hash = hash_fast(b.data, b.len, f->r->seed);
    pthread_mutex_lock(&f->r->mu);
    struct metric *m = find(f, buf_str(&b), hash);
    if (!m && f->n_series >= METRIC_SERIES_MAX) {
        b.len = 0;
        render_labels(f, NULL, &b);
        hash = hash_fast(b.data, b.len, f->r->seed);
        m = find(f, buf_str(&b), hash);
    }
    if (!m)
        m = series_new(f, buf_str(&b), hash);
    pthread_mutex_unlock(&f->r->mu);
    buf_fini(&b);
    return m;
}

static double from_bits(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t to_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static void add_bits(_Atomic uint64_t *at, double v) {
    uint64_t old = atomic_load_explicit(at, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(at, &old, to_bits(from_bits(old) + v), memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void metric_add(struct metric *m, double v) {
    CHECK(m->f->type == METRIC_GAUGE || (m->f->type == METRIC_COUNTER && v >= 0));
    add_bits(&m->bits, v);
}

void metric_set(struct metric *m, double v) {
    CHECK(m->f->type == METRIC_GAUGE || m->f->type == METRIC_COUNTER);
    atomic_store_explicit(&m->bits, to_bits(v), memory_order_relaxed);
}

void metric_observe(struct metric *m, double v) {
    size_t i = 0;
    if (m->f->type == METRIC_HISTOGRAM) {
        size_t hi = m->f->n_buckets; /* the first bucket whose bound is not below v; NaN falls into +Inf */
        while (i < hi) {
            size_t mid = i + (hi - i) / 2;
            if (v <= m->f->buckets[mid])
                hi = mid;
            else
                i = mid + 1;
        }
    } else {
        CHECK(m->f->type == METRIC_SUMMARY);
    }
    atomic_fetch_add_explicit(&m->counts[i], 1, memory_order_relaxed);
    add_bits(&m->bits, v);
}

double metric_value(const struct metric *m) {
    return from_bits(atomic_load_explicit(&m->bits, memory_order_relaxed));
}

void metric_add_counts(struct metric *m, const uint64_t *counts, size_t n, double sum) {
    CHECK(m->f->type == METRIC_HISTOGRAM && n == m->f->n_buckets + 1);
    for (size_t i = 0; i < n; i++)
        atomic_fetch_add_explicit(&m->counts[i], counts[i], memory_order_relaxed);
    add_bits(&m->bits, sum);
}

void metric_set_counts(struct metric *m, const uint64_t *counts, size_t n, double sum) {
    CHECK(m->f->type == METRIC_HISTOGRAM && n == m->f->n_buckets + 1);
    for (size_t i = 0; i < n; i++)
        atomic_store_explicit(&m->counts[i], counts[i], memory_order_relaxed);
    atomic_store_explicit(&m->bits, to_bits(sum), memory_order_relaxed);
}

/* ---- exposition ------------------------------------------------------------------------------------- */

static void put_value(struct buf *b, double v) {
    if (isnan(v))
        buf_addz(b, "NaN");
    else if (isinf(v))
        buf_addz(b, v > 0 ? "+Inf" : "-Inf");
    else if (v == trunc(v) && fabs(v) < 0x1p53)
        jw_i64(b, (int64_t)v);
    else
        jw_f64(b, v);
}

/* put_series: NAME SUFFIX {labels, le}, without the value. le NULL: none. */
static void put_series(struct buf *b, const char *name, const char *suffix, const struct metric *m,
                       const char *le) {
    buf_addz(b, name);
    buf_addz(b, suffix);
    if (m->labels_n || le) {
        buf_addc(b, '{');
        buf_add(b, m->labels, m->labels_n);
        if (le)
            buf_addf(b, "%sle=\"%s\"", m->labels_n ? "," : "", le);
        buf_addc(b, '}');
    }
    buf_addc(b, ' ');
}

static void put_count(struct buf *b, uint64_t v) {
    buf_addu64(b, v);
    buf_addc(b, '\n');
}

static void put_sum_and_count(struct buf *b, const char *name, const struct metric *m, uint64_t count) {
    put_series(b, name, "_sum", m, NULL);
    put_value(b, metric_value(m));
    buf_addc(b, '\n');
    put_series(b, name, "_count", m, NULL);
    put_count(b, count);
}

static void put_histogram(struct buf *b, const char *name, const struct metric *m) {
    struct buf le = {0};
    uint64_t count = 0;
    for (size_t i = 0; i <= m->f->n_buckets; i++) {
        le.len = 0;
        if (i < m->f->n_buckets)
            jw_f64(&le,
                   m->f->buckets[i]); /* 1.0, as the Python client prints it: dashboards match the text */
        else
            buf_addz(&le, "+Inf");
        count += atomic_load_explicit(&m->counts[i], memory_order_relaxed);
        put_series(b, name, "_bucket", m, buf_cstr(&le));
        put_count(b, count);
    }
    buf_fini(&le);
    put_sum_and_count(b, name, m, count);
}

static void put_head(struct buf *b, const char *name, const char *help, enum metric_type type) {
    static const char *const types[] = {[METRIC_COUNTER] = "counter",
                                        [METRIC_GAUGE] = "gauge",
                                        [METRIC_HISTOGRAM] = "histogram",
                                        [METRIC_SUMMARY] = "summary"};
    buf_addf(b, "# HELP %s ", name);
    put_escaped(b, str_of(help), false);
    buf_addf(b, "\n# TYPE %s %s\n", name, types[type]);
}

static void put_family(struct buf *b, const struct metric_family *f, const char *name) {
    put_head(b, name, f->help, f->type);
    for (const struct metric *m = atomic_load_explicit(&f->first, memory_order_acquire); m;
         m = atomic_load_explicit(&m->next, memory_order_acquire)) {
        if (f->type == METRIC_HISTOGRAM) {
            put_histogram(b, name, m);
        } else if (f->type == METRIC_SUMMARY) {
            put_sum_and_count(b, name, m, atomic_load_explicit(&m->counts[0], memory_order_relaxed));
        } else {
            put_series(b, name, "", m, NULL);
            put_value(b, metric_value(m));
            buf_addc(b, '\n');
        }
    }
}

void metrics_write(struct metrics *r, struct buf *out) {
    for (const struct metric_family *f = atomic_load_explicit(&r->first, memory_order_acquire); f;
         f = atomic_load_explicit(&f->next, memory_order_acquire)) {
        size_t from = out->len;
        put_family(out, f, f->name);
        if (!f->alias)
            continue;
        /* The second spelling is the same text under another name, so the two never differ within a scrape.
         */
        size_t n = out->len - from;
        char *text = xstrndup(out->data + from, n);
        struct str name = str_of(f->name);
        for (char *line = text, *end; line < text + n; line = end + 1) {
            end = memchr(line, '\n', (size_t)(text + n - line));
            CHECK(end);
            size_t head = line[0] == '#' ? 7 : 0; /* "# HELP " and "# TYPE " */
            CHECK(str_starts((struct str){line + head, (size_t)(end - line) - head}, name));
            buf_add(out, line, head);
            buf_addz(out, f->alias);
            buf_add(out, line + head + name.n, (size_t)(end + 1 - line) - head - name.n);
        }
        free(text);
    }
}
