/* Workers' addresses in files and EndpointSlices, name servers' answers, and scripts of faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "router/fleet/addresses.h"
#include "router/fleet/dns.h"
#include "worker/mock_script.h"

static void expect(const char *text, const char *want) {
    struct addresses a;
    struct err e = {0};
    struct buf got = {0};
    enum rc rc = addresses_read(str_of(text), &a, &e);
    for (size_t i = 0; i < a.n; i++)
        buf_addf(&got, "%s;", a.v[i]);
    if (rc != RC_OK)
        buf_addz(&got, e.msg);
    assert_string_equal(buf_cstr(&got), want);
    buf_fini(&got);
    addresses_fini(&a);
}

static void test_file(void **state) {
    (void)state;
    expect("", "");
    expect("# nothing\n\n  \r\n", "");
    expect("tcp://10.0.0.1:7\r\n\tipc:///x \ntcp://10.0.0.1:7", "tcp://10.0.0.1:7;ipc:///x;");
    expect("tcp://10.0.0.1:7\nx", "line 2: x: an address is ipc://PATH, tcp://HOST:PORT or tls+tcp://HOST:PORT");
    struct buf many = {0};
    struct addresses a;
    struct err e;
    for (int i = 0; i <= ADDRESSES_MAX; i++)
        buf_addf(&many, "ipc:///w%d\n", i);
    assert_int_equal(addresses_read(buf_str(&many), &a, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "line 257"));
    many.len -= strlen("ipc:///w256\n");
    assert_int_equal(addresses_read(buf_str(&many), &a, &e), RC_OK);
    assert_int_equal(a.n, ADDRESSES_MAX);
    assert_false(addresses_add(&a, STR_LIT("ipc:///another")));
    addresses_fini(&a);
    buf_fini(&many);
}

static void slice_is(const char *text, const char *port, const char *want) {
    struct addresses a = {.n = 0};
    struct buf got = {0};
    struct err e = {0};
    json_t *slice;
    assert_int_equal(json_parse(str_of(text), &json_limits_default, &slice, &e), RC_OK);
    enum rc rc = endpoints_add(slice, port, &a, &e);
    for (size_t i = 0; i < a.n && rc == RC_OK; i++)
        buf_addf(&got, "%s;", a.v[i]);
    if (rc != RC_OK)
        buf_addz(&got, "no");
    assert_string_equal(buf_cstr(&got), want);
    json_decref(slice);
    buf_fini(&got);
    addresses_fini(&a);
}

static void test_slices(void **state) {
    (void)state;
    static const char one[] =
        "{\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"http\",\"port\":80},{\"name\":\"weir\",\"port\":7000}],"
        "\"endpoints\":[{\"addresses\":[\"10.0.0.1\"]},"
        "{\"addresses\":[\"10.0.0.2\"],\"conditions\":{\"ready\":false}},"
        "{\"addresses\":[\"10.0.0.3\"],\"conditions\":{\"ready\":false,\"serving\":true,\"terminating\":true}},"
        "{\"addresses\":[\"10.0.0.4\"],\"conditions\":{\"ready\":true,\"serving\":null}}]}";
    slice_is(one, "", "tcp://10.0.0.1:80;tcp://10.0.0.3:80;tcp://10.0.0.4:80;");
    slice_is(one, "weir", "tcp://10.0.0.1:7000;tcp://10.0.0.3:7000;tcp://10.0.0.4:7000;");
    slice_is(one, "9", "tcp://10.0.0.1:9;tcp://10.0.0.3:9;tcp://10.0.0.4:9;");
    slice_is(one, "grpc", "");
    slice_is("{\"addressType\":\"IPv6\",\"ports\":[{\"port\":7}],\"endpoints\":[{\"addresses\":[\"fd00::1\"]}]}", "",
             "tcp://[fd00::1]:7;");
    slice_is("{\"addressType\":\"FQDN\",\"ports\":[{\"port\":7}],\"endpoints\":[{\"addresses\":[\"a.b\"]}]}", "", "");
    slice_is("{\"addressType\":\"IPv4\",\"ports\":[{\"port\":7}],\"endpoints\":null}", "", "");
    slice_is("{\"addressType\":\"IPv4\",\"ports\":[{\"port\":7}],\"endpoints\":[{\"addresses\":[\"10.0.0.1/x\"]}]}", "", "no");
    slice_is("{\"addressType\":\"IPv4\",\"ports\":[{\"port\":7}],\"endpoints\":{}}", "", "no");
    slice_is("[]", "", "no");
}

/* add_record: an answer's, with a pointer to the question's name. */
static void add_record(struct buf *b, unsigned type, const char *data, size_t n) {
    buf_add(b, "\xc0\x0c\0", 3);
    buf_addc(b, (char)type);
    buf_add(b, "\0\1\0\0\0\x1e\0", 7);
    buf_addc(b, (char)n);
    buf_add(b, data, n);
}

static void begin(struct buf *b, unsigned type, unsigned n_answers) {
    struct err e;
    b->len = 0;
    assert_int_equal(dns_question("w.example.org", type, 0x1234, b, &e), RC_OK);
    b->len -= 11; /* EDNS */
    b->data[2] = (char)0x81;
    b->data[3] = (char)0x80;
    b->data[7] = (char)n_answers;
    b->data[11] = 0;
}

static void test_dns(void **state) {
    (void)state;
    static struct dns_answer a;
    struct buf b = {0};
    struct err e = {0};
    begin(&b, DNS_A, 3);
    add_record(&b, DNS_A, "\12\0\0\1", 4);
    add_record(&b, 5, "\1x\0", 3); /* a CNAME on the way */
    add_record(&b, DNS_A, "\12\0\0\2", 4);
    assert_int_equal(dns_read(buf_str(&b), DNS_A, 0x1234, &a, &e), RC_OK);
    assert_int_equal(a.n, 2);
    assert_string_equal(a.v[0].name, "10.0.0.1");
    assert_string_equal(a.v[1].name, "10.0.0.2");
    assert_int_equal(a.ttl_s, 30);
    assert_int_equal(dns_read(buf_str(&b), DNS_A, 0x1235, &a, &e), RC_PROTO);
    for (size_t n = 0; n < b.len; n++) /* cut anywhere */
        assert_int_equal(dns_read((struct str){b.data, n}, DNS_A, 0x1234, &a, &e), RC_PROTO);
    begin(&b, DNS_SRV, 1);
    add_record(&b, DNS_SRV, "\0\0\0\0\x1b\x58\2w1\xc0\x0c", 11);
    assert_int_equal(dns_read(buf_str(&b), DNS_SRV, 0x1234, &a, &e), RC_OK);
    assert_int_equal(a.v[0].port, 7000);
    assert_string_equal(a.v[0].name, "w1.w.example.org");
    begin(&b, DNS_SRV, 1);
    add_record(&b, DNS_SRV, "\0\0\0\0\x1b\x58\xc0\x31", 8); /* a pointer to itself */
    assert_int_equal(dns_read(buf_str(&b), DNS_SRV, 0x1234, &a, &e), RC_PROTO);
    begin(&b, DNS_SRV, 1);
    add_record(&b, DNS_SRV, "\0\0\0\0\x1b\x58\3a/b\0", 11); /* no host's name */
    assert_int_equal(dns_read(buf_str(&b), DNS_SRV, 0x1234, &a, &e), RC_PROTO);
    begin(&b, DNS_A, 0);
    b.data[3] = (char)0x83; /* no such name */
    assert_int_equal(dns_read(buf_str(&b), DNS_A, 0x1234, &a, &e), RC_OK);
    assert_int_equal(a.rcode, 3);
    b.data[3] = (char)0x82;
    assert_int_equal(dns_read(buf_str(&b), DNS_A, 0x1234, &a, &e), RC_IO);
    buf_fini(&b);
}

static void test_dns_names(void **state) {
    (void)state;
    struct buf b = {0};
    struct err e;
    char label[80] = "";
    memset(label, 'a', 64);
    assert_int_equal(dns_question("", DNS_A, 1, &b, &e), RC_INVALID);
    assert_int_equal(dns_question("a..b", DNS_A, 1, &b, &e), RC_INVALID);
    assert_int_equal(dns_question(label, DNS_A, 1, &b, &e), RC_INVALID);
    assert_int_equal(b.len, 0);
    assert_int_equal(dns_question("a.b.", DNS_A, 1, &b, &e), RC_OK);
    struct dns_server s;
    assert_int_equal(dns_server_read("10.0.0.1", &s, &e), RC_OK);
    assert_int_equal(dns_server_read("10.0.0.1:5353", &s, &e), RC_OK);
    assert_int_equal(dns_server_read("[::1]:5353", &s, &e), RC_OK);
    assert_int_equal(dns_server_read("::1", &s, &e), RC_OK);
    assert_int_equal(dns_server_read("example.org", &s, &e), RC_INVALID);
    assert_int_equal(dns_server_read("10.0.0.1:0", &s, &e), RC_INVALID);
    buf_fini(&b);
}

static void test_script(void **state) {
    (void)state;
    struct mock_script s;
    struct err e;
    assert_int_equal(mock_script_parse(NULL, &s, &e), RC_OK);
    assert_int_equal(s.n, 0);
    assert_int_equal(mock_script_parse("die@100,freeze@3:1.5,slow@20:50,refuse@0", &s, &e), RC_OK);
    assert_int_equal(s.n, 4);
    assert_int_equal(s.fault[0].kind, MOCK_DIE);
    assert_int_equal(s.fault[0].token, 100);
    assert_true(s.fault[1].arg == 1.5 && s.fault[2].arg == 50 && s.fault[3].arg < 0);
    static const char *const bad[] = {"die", "die@", "die@x", "die@1:2", "slow@1", "fly@1", "die@1,", ",", "die@-1", "slow@1:1e9",
                                      "freeze@1:", "die@1 ", "die@9999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(mock_script_parse(bad[i], &s, &e), RC_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file), cmocka_unit_test(test_slices), cmocka_unit_test(test_dns),
        cmocka_unit_test(test_dns_names), cmocka_unit_test(test_script),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
