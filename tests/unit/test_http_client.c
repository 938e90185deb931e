/* The client's reading of responses, events, chunks and URLs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "router/client/api.h"

/* read_all: the response cut into pieces of 1 to n_max bytes (n_max 0: whole); body gets it, then "|EVENT"
 * for each event that is in it. */
static enum rc read_all(const char *text, size_t n, unsigned n_max, int *status, struct buf *body,
                        struct err *e) {
    struct http_resp r;
    struct sse s = {0};
    struct buf events = {0};
    enum rc rc = RC_OK;
    http_resp_init(&r);
    for (size_t at = 0; at < n && !r.done && !rc;) {
        size_t cut = n_max ? 1 + (size_t)rand() % n_max : n;
        /* A copy of its own size: reading beyond it is seen by a sanitizer. */
        size_t len = MIN(cut, n - at);
        char *piece = xmalloc(len);
        memcpy(piece, text + at, len);
        at += len;
        struct str in = {piece, len}, slice, data;
        while (in.n && !r.done && !rc) {
            rc = http_resp_read(&r, &in, &slice, e);
            buf_add_str(body, slice);
            while (slice.n && !rc) {
                bool event;
                rc = sse_read(&s, &slice, &event, &data, e);
                if (!rc && event) {
                    buf_addc(&events, '|');
                    buf_add_str(&events, data);
                }
            }
        }
        free(piece);
    }
    if (!rc)
        rc = r.done ? RC_OK : http_resp_eof(&r, e);
    *status = r.status;
    buf_add_str(body, buf_str(&events));
    buf_fini(&events);
    sse_fini(&s);
    http_resp_fini(&r);
    return rc;
}

#define OK "HTTP/1.1 200 OK\r\n"

static void test_responses(void **state) {
    (void)state;
    static const struct {
        const char *text, *body;
        int status;
    } cases[] = {
        {OK "Content-Length: 5\r\n\r\nhello, and more", "hello", 200},
        {"HTTP/1.0 404\nContent-length:0\n\n", "", 404},
        {OK "\r\nuntil the end", "until the end", 200},
        {"HTTP/1.1 204 No Content\r\n\r\n", "", 204},
        {"HTTP/1.1 100 Continue\r\nContent-Length: 7\r\n\r\n" OK
         "content-length: 2\r\nContent-Length: 2\r\n\r\nab",
         "ab", 200},
        {OK
         "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
         "abc0123456789", 200},
        {OK "Transfer-Encoding: chunked\r\n\r\n2\r\nda\r\n7\r\nta: x\n\n\r\n0\r\n\r\n", "data: x\n\n|x", 200},
        {OK "\r\ndata:a\r\rdata: b\r\n: note\r\ndata\r\ndata: \r\n\r\nevent: e\nid: 3\n\ndata: lost",
         "data:a\r\rdata: b\r\n: note\r\ndata\r\ndata: \r\n\r\nevent: e\nid: 3\n\ndata: lost|a|b\n\n", 200},
        {OK "\r\n\xef\xbb\xbf"
            "data: bom\n\ndatax: no\ndat: no\n\n",
         "\xef\xbb\xbf"
         "data: bom\n\ndatax: no\ndat: no\n\n|bom",
         200},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (unsigned n_max = 0; n_max < 24; n_max++) {
            struct buf body = {0};
            struct err e = {0};
            int status;
            enum rc rc = read_all(cases[i].text, strlen(cases[i].text), n_max, &status, &body, &e);
            if (rc || !str_eqz(buf_str(&body), cases[i].body))
                print_error("case %zu, pieces to %u: %s: %s\n", i, n_max, e.msg, buf_cstr(&body));
            assert_int_equal(rc, RC_OK);
            assert_int_equal(status, cases[i].status);
            assert_string_equal(buf_cstr(&body), cases[i].body);
            buf_fini(&body);
        }
}

static void test_hostile(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "without an answer"},
        {"HTTP/1.1 20", "without an answer"},
        {"SSH-2.0-OpenSSH\r\n", "no status line"},
        {"HTTP/2 200\r\n\r\n", "no status line"},
        {"HTTP/1.1 2000\r\n\r\n", "no status line"},
        {"HTTP/1.1 999 x\r\n\r\n", "status is none"},
        {"HTTP/1.1 101 Switching\r\n\r\n", "status is none"},
        {OK "no colon\r\n\r\n", "without a name"},
        {OK ": x\r\n\r\n", "without a name"},
        {OK "X: 1\r\n folded\r\n\r\n", "without a name"},
        {OK "X : 1\r\n\r\n", "without a name"},
        {OK "X: \x1b[2J\r\n\r\n", "control characters"},
        {OK "X: a\rb\r\n\r\n", "control characters"},
        {OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "lengths that differ"},
        {OK "Content-Length: -1\r\n\r\n", "no number"},
        {OK "Content-Length: 99999999999999999999\r\n\r\n", "no number"},
        {OK "Content-Length:\r\n\r\n", "empty Content-Length"},
        {OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "both a length"},
        {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", "\"gzip, chunked\" is not supported"},
        {OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "not supported"},
        {OK "Content-Encoding: gzip\r\n\r\n", "\"gzip\", that was not asked for"},
        {OK "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "without a size"},
        {OK "Transfer-Encoding: chunked\r\n\r\n3g\r\n", "without a size"},
        {OK "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "size is too large"},
        {OK "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", "longer than its size"},
        {OK "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "in the middle"},
        {OK "Content-Length: 9\r\n\r\nabc", "in the middle"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (unsigned n_max = 0; n_max < 8; n_max++) {
            struct buf body = {0};
            struct err e = {0};
            int status;
            enum rc rc = read_all(cases[i].text, strlen(cases[i].text), n_max, &status, &body, &e);
            if (!rc || !strstr(e.msg, cases[i].says))
                print_error("case %zu: %d, %s\n", i, rc, e.msg);
            assert_true(rc == RC_PROTO || rc == RC_CLOSED);
            assert_non_null(strstr(e.msg, cases[i].says));
            buf_fini(&body);
        }
}

/* test_endless: what a server may send for ever ends at a limit. */
static void test_endless(void **state) {
    (void)state;
    static const struct {
        const char *head, *again, *says;
        size_t n;
    } cases[] = {
        {"", "H", "line is too long", HTTP_LINE_BYTES_MAX},
        {OK, "x", "line is too long", HTTP_LINE_BYTES_MAX},
        {OK, "X: y\r\n", "too many headers", HTTP_HEADERS_MAX},
        {"", "HTTP/1.1 100 Continue\r\n\r\n", "too many interim", HTTP_INTERIM_MAX},
        {OK "Transfer-Encoding: chunked\r\n\r\n1;", "x", "line is too long", HTTP_LINE_BYTES_MAX},
        {OK "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n", "too many headers", HTTP_HEADERS_MAX},
        {OK "\r\n", "d", "event of more than", SSE_EVENT_BYTES_MAX},
        {OK "\r\n", "data: 0123456789\n", "event of more than", SSE_EVENT_BYTES_MAX / 11},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t more = 0; more < 2; more++) {
            struct buf text = {0}, body = {0};
            struct err e = {0};
            int status;
            buf_addz(&text, cases[i].head);
            for (size_t k = 0; k < cases[i].n - 2 + 4 * more; k++)
                buf_addz(&text, cases[i].again);
            enum rc rc = read_all(text.data, text.len, 0, &status, &body, &e);
            assert_int_equal(strstr(e.msg, cases[i].says) != NULL, more);
            assert_true(!more || rc == RC_PROTO || rc == RC_TOO_LARGE);
            buf_fini(&text);
            buf_fini(&body);
        }
}

static void test_chunks(void **state) {
    (void)state;
    static const struct {
        const char *data, *text, *thought, *fault;
        int64_t n_completion;
        bool output, finished, last;
    } cases[] = {
        {"[DONE]", "", "", NULL, -1, false, false, true},
        {"{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", "", "", NULL, -1, false,
         false, false},
        {"{\"choices\":[{\"delta\":{\"content\":\"a\\u00e9\"}}]}", "a\xc3\xa9", "", NULL, -1, true, false,
         false},
        {"{\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}", "b", "", NULL, -1, true, true, false},
        {"{\"choices\":[{\"delta\":{\"reasoning\":\"r\",\"reasoning_content\":\"r\"}}]}", "", "r", NULL, -1,
         true, false, false},
        {"{\"choices\":[{\"delta\":{\"reasoning_content\":\"q\"}}]}", "", "q", NULL, -1, true, false, false},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}", "", "", NULL, -1, true, false, false},
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":7}}", "", "", NULL, 7, false,
         false, false},
        {"{\"choices\":[],\"usage\":{\"completion_tokens\":-7}}", "", "", NULL, -1, false, false, false},
        {"{\"choices\":[3, null]}", "", "", NULL, -1, false, false, false},
        {"{\"choices\":[{\"text\":7,\"delta\":[]}],\"usage\":[]}", "", "", NULL, -1, false, false, false},
        {"{\"error\":{\"message\":\"bad\\u001b[2J\\nday\"}}", "", "",
         "the server reports an error: bad?[2J day", -1, 0, 0, 0},
        {"{\"error\":\"plain\"}", "", "", "the server reports an error: plain", -1, 0, 0, 0},
        {"{}", "", "", "without choices", -1, 0, 0, 0},
        {"[]", "", "", "without choices", -1, 0, 0, 0},
        {"{\"choices\":", "", "", "no JSON", -1, 0, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text = {0}, thought = {0};
        struct err e = {0};
        struct chunk c = {.text = &text, .reasoning = &thought, .usage = {-1, -1}};
        enum rc rc = chunk_read(str_of(cases[i].data), &c, &e);
        assert_int_equal(rc, cases[i].fault ? RC_PROTO : RC_OK);
        assert_true(!cases[i].fault || strstr(e.msg, cases[i].fault));
        assert_string_equal(buf_cstr(&text), cases[i].text);
        assert_string_equal(buf_cstr(&thought), cases[i].thought);
        assert_int_equal(c.usage.n_completion, cases[i].n_completion);
        assert_true(c.has_output == cases[i].output && c.finished == cases[i].finished &&
                    c.last == cases[i].last);
        buf_fini(&text);
        buf_fini(&thought);
    }
}

static void test_urls(void **state) {
    (void)state;
    static const struct {
        const char *text, *host, *port, *path;
    } good[] = {
        {"http://localhost", "localhost", "80", "/v1"},
        {"http://localhost:8000/", "localhost", "8000", "/v1"},
        {"https://a.example/api/v1/", "a.example", "443", "/api/v1"},
        {"http://[::1]:9", "::1", "9", "/v1"},
    };
    static const char *const bad[] = {"",
                                      "localhost:8000",
                                      "ftp://a",
                                      "http://",
                                      "http://:80",
                                      "http://a:",
                                      "http://a:x",
                                      "http://a:0",
                                      "http://a:70000",
                                      "http://a b",
                                      "http://a/\r\nX: y",
                                      "http://u:p@a",
                                      "http://a/v1?x=y",
                                      "http://a#b",
                                      "http://[::1",
                                      "http://[::1]9",
                                      "http://[]:1"};
    struct url u;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(url_read(good[i].text, &u, &e), RC_OK);
        assert_string_equal(u.host, good[i].host);
        assert_string_equal(u.port, good[i].port);
        assert_string_equal(u.path, good[i].path);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(url_read(bad[i], &u, &e), RC_INVALID);
    struct buf longest = {0};
    buf_addz(&longest, "http://");
    for (int i = 0; i <= TARGET_HOST_BYTES_MAX; i++)
        buf_addc(&longest, 'a');
    assert_int_equal(url_read(buf_cstr(&longest), &u, &e), RC_INVALID);
    buf_fini(&longest);
    assert_int_equal(key_check("sk-1", &e), RC_OK);
    assert_int_equal(key_check("a\r\nX: y", &e), RC_INVALID);
}

static void test_clean(void **state) {
    (void)state;
    struct buf out = {0};
    clean_text(&out, str_of("a\x1b[31m\tb\n\r\xc2\x9b\xc2\xa0\xc3\x9b\x7f"));
    assert_string_equal(buf_cstr(&out), "a?[31m\tb\n??\xc2\xa0\xc3\x9b?");
    buf_fini(&out);
}

int main(void) {
    srand(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_responses), cmocka_unit_test(test_hostile),
                                       cmocka_unit_test(test_endless),   cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_urls),      cmocka_unit_test(test_clean)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
