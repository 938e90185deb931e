/* HTTP/2 frames counted before libh2o has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/clock.h"
#include "router/h2guard.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION
};
enum { UNKNOWN = 77, END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

static void frame(struct buf *b, unsigned kind, unsigned flags, const char *payload, size_t n) {
    const char head[9] = {(char)(n >> 16), (char)(n >> 8), (char)n, (char)kind, (char)flags, 0, 0, 0, 1};
    buf_add(b, head, sizeof head);
    buf_add(b, payload, n);
}

static enum h2guard_fault scan(struct h2guard *g, struct buf *b, uint64_t now_ns) {
    size_t data_bytes;
    return h2guard_scan(g, b->data, &b->len, now_ns, &data_bytes);
}

/* most: how many of a frame one window takes; 0: at least 50,000. */
static unsigned most(unsigned kind, unsigned flags, const char *payload, size_t n) {
    struct h2guard g = {.begun = true};
    for (unsigned k = 0; k < 50000; k++) {
        struct buf b = {0};
        frame(&b, kind, flags, payload, n);
        enum h2guard_fault f = scan(&g, &b, 1);
        buf_fini(&b);
        if (f != H2GUARD_OK)
            return k;
    }
    return 0;
}

static void test_limits(void **state) {
    (void)state;
    static const char bytes[64] = {0, 0, 0, 5};
    assert_int_equal(most(RST_STREAM, 0, bytes, 4), H2GUARD_RESETS_MAX);
    assert_int_equal(most(WINDOW_UPDATE, 0, "\x80\0\0", 4),
                     H2GUARD_RESETS_MAX); /* the high bit says nothing */
    assert_int_equal(most(PING, 0, bytes, 8), H2GUARD_ANSWERS_MAX);
    assert_int_equal(most(SETTINGS, 0, NULL, 0), H2GUARD_ANSWERS_MAX);
    assert_int_equal(most(PING, ACK, bytes, 8), H2GUARD_IDLE_MAX);
    assert_int_equal(most(SETTINGS, ACK, NULL, 0), H2GUARD_IDLE_MAX);
    assert_int_equal(most(DATA, 0, NULL, 0), H2GUARD_IDLE_MAX);
    assert_int_equal(most(DATA, 0, bytes, H2GUARD_TINY_BYTES - 1), H2GUARD_IDLE_MAX);
    assert_int_equal(most(PRIORITY, 0, bytes, 5), H2GUARD_IDLE_MAX);
    assert_int_equal(most(CONTINUATION, 0, NULL, 0), H2GUARD_IDLE_MAX);
    assert_int_equal(most(UNKNOWN, 0, NULL, 0), H2GUARD_IDLE_MAX);
    assert_int_equal(most(DATA, 0, bytes, H2GUARD_TINY_BYTES), 0);
    assert_int_equal(most(DATA, END_STREAM, NULL, 0), 0);
    assert_int_equal(most(HEADERS, END_HEADERS, bytes, 3), 0);
    assert_int_equal(most(WINDOW_UPDATE, 0, bytes, 4), 0);
}

static void test_windows(void **state) {
    (void)state;
    const uint64_t window = (uint64_t)H2GUARD_WINDOW_S * NS_PER_S;
    struct h2guard g = {.begun = true};
    for (unsigned w = 1; w < 5; w++) {
        for (unsigned k = 0; k < H2GUARD_RESETS_MAX; k++) {
            struct buf b = {0};
            frame(&b, RST_STREAM, 0, "\0\0\0\x08", 4);
            assert_int_equal(scan(&g, &b, w * window), H2GUARD_OK);
            assert_int_equal(h2guard_early(&g, w * window), H2GUARD_OK); /* the same stream, told again */
            buf_fini(&b);
        }
    }
    assert_int_equal(h2guard_early(&g, 4 * window), H2GUARD_RESETS);
    assert_int_equal(h2guard_early(&g, 5 * window), H2GUARD_OK);
    for (int f = H2GUARD_RESETS; f <= H2GUARD_IDLE; f++)
        assert_true(strlen(h2guard_reason((enum h2guard_fault)f)) > 5);
}

/* What nobody knows is taken out, whatever stands around it, and in whatever pieces it comes. */
static void test_unknown_frames(void **state) {
    (void)state;
    struct buf all = {0}, want = {0};
    buf_addz(&all, PREFACE);
    buf_addz(&want, PREFACE);
    for (unsigned k = 0; k < 40; k++) {
        bool known = k % 3 == 0;
        frame(&all, known ? DATA : 10 + k, 0, "abcdefghijklmnopqrstuvwxyz", k % 26);
        if (known)
            frame(&want, DATA, 0, "abcdefghijklmnopqrstuvwxyz", k % 26);
    }
    buf_add(&all, "\0\0\5", 3); /* a frame that has only begun */
    buf_add(&want, "\0\0\5", 3);
    for (size_t step = 1; step <= all.len; step += step < 30 ? 1 : 97) {
        struct h2guard g = {0};
        struct buf input = {0}, got = {0};
        for (size_t at = 0; at < all.len; at += step) {
            size_t data_bytes, n = MIN(step, all.len - at), used = 0;
            buf_add(&input, all.data + at, n);
            assert_int_equal(h2guard_scan(&g, input.data, &input.len, 1, &data_bytes), H2GUARD_OK);
            /* As libh2o does: whole frames are used up. */
            if (got.len < 24 && input.len >= 24)
                used = 24;
            while ((got.len || used) && input.len - used >= 9 &&
                   input.len - used >= 9 + (size_t)(unsigned char)input.data[used + 2])
                used += 9 + (size_t)(unsigned char)input.data[used + 2];
            buf_add(&got, input.data, used);
            memmove(input.data, input.data + used, input.len - used);
            input.len -= used;
        }
        buf_add(&got, input.data, input.len);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.data, want.data, want.len);
        buf_fini(&input);
        buf_fini(&got);
    }
    buf_fini(&all);
    buf_fini(&want);
}

/* Amid headers nothing else may come, and libh2o is to see that. */
static void test_amid_headers(void **state) {
    (void)state;
    struct h2guard g = {.begun = true};
    struct buf b = {0};
    frame(&b, HEADERS, 0, "a", 1);
    frame(&b, UNKNOWN, 0, "b", 1);
    size_t n = b.len;
    assert_int_equal(scan(&g, &b, 1), H2GUARD_OK);
    assert_int_equal(b.len, n);
    b.len = 0;
    frame(&b, CONTINUATION, END_HEADERS, "c", 1);
    n = b.len;
    frame(&b, UNKNOWN, 0, "b", 1);
    assert_int_equal(scan(&g, &b, 1), H2GUARD_OK);
    assert_int_equal(b.len, n);
    buf_fini(&b);
}

static void test_what_libh2o_refuses_stays(void **state) {
    (void)state;
    struct h2guard g = {.begun = true};
    struct buf b = {0};
    size_t data_bytes;
    static const char long_bytes[H2GUARD_FRAME_BYTES_MAX + 1];
    frame(&b, UNKNOWN, 0, long_bytes, sizeof long_bytes);
    frame(&b, RST_STREAM, 0, long_bytes, 4);
    size_t n = b.len;
    assert_int_equal(scan(&g, &b, 1), H2GUARD_OK);
    assert_int_equal(b.len, n);
    assert_int_equal(g.n_resets, 0);
    b.len = 0;
    frame(&b, DATA, 0, long_bytes, 1000);
    frame(&b, DATA, 0, long_bytes, 24);
    frame(&b, PING, 0, long_bytes, 8);
    assert_int_equal(h2guard_scan(&g, b.data, &b.len, 1, &data_bytes), H2GUARD_OK);
    assert_int_equal(data_bytes, 1024);
    buf_fini(&b);
}

static void test_preface(void **state) {
    (void)state;
    for (size_t n = 0; n <= 24; n++)
        assert_true(h2guard_preface(PREFACE, n));
    assert_true(h2guard_preface(PREFACE "more", 28));
    assert_false(h2guard_preface("POST", 4));
    assert_false(h2guard_preface("PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", 24));
    assert_false(h2guard_preface("GET", 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_unknown_frames),
        cmocka_unit_test(test_amid_headers),
        cmocka_unit_test(test_what_libh2o_refuses_stays),
        cmocka_unit_test(test_preface),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
