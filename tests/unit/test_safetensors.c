/* L01 of reliability.md and the reading of good files. Files are made in memory, or in a folder of their own.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/hf/safetensors.h"

/* make_file: length, header, n_data bytes that count up. len_override 0: the true length. */
static void make_file(struct buf *b, const char *header, uint64_t len_override, size_t n_data) {
    uint64_t len = len_override ? len_override : strlen(header);
    b->len = 0;
    for (int i = 0; i < 8; i++)
        buf_addc(b, (char)(len >> (8 * i)));
    buf_addz(b, header);
    for (size_t i = 0; i < n_data; i++)
        buf_addc(b, (char)i);
}

/* expect_refused: the file is refused, and the message says `why`. */
static void expect_refused(const struct buf *b, const char *why) {
    struct st_set *s = NULL;
    struct err e = {0};
    /* An own allocation of the exact size: a read past the end is seen by ASan. */
    uint8_t *copy = malloc(b->len ? b->len : 1);
    assert_non_null(copy);
    if (b->len)
        memcpy(copy, b->data, b->len);
    enum rc rc = st_open_memory(&s, copy, b->len, &e);
    if (rc != RC_INVALID || !strstr(e.msg, why))
        fail_msg("rc %d, \"%s\", wanted \"%s\"", (int)rc, e.msg, why);
    assert_null(s);
    free(copy);
}

#define T(name, dtype, shape, offsets)                                                                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_good(void **state) {
    (void)state;
    struct buf b = {0};
    make_file(&b,
              "{\"__metadata__\":{\"format\":\"pt\"}," T("b.w", "BF16", "[2,3]", "[8,20]") "," T(
                  "a", "F32", "[]", "[4,8]") "," T("e", "F64", "[0,7]", "[4,4]") "," T("u", "U8", "[4]",
                                                                                       "[0,4]") "}   ",
              0, 20);
    struct st_set *s;
    struct err e;
    assert_int_equal(st_open_memory(&s, b.data, b.len, &e), RC_OK);
    assert_int_equal(st_count(s), 4);
    assert_int_equal(st_total_bytes(s), 20);
    const struct st_tensor *t = st_find(s, "b.w");
    assert_non_null(t);
    assert_int_equal(t->dtype, ST_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->n_bytes, 12);
    assert_int_equal(((const uint8_t *)t->data)[0], 8);
    assert_int_equal(st_find(s, "a")->n_dims, 0);
    assert_int_equal(st_find(s, "e")->n_bytes, 0);
    assert_null(st_find(s, "b"));
    assert_null(st_find(s, ""));
    assert_string_equal(st_at(s, 0)->name.p, "b.w");
    st_close(s);
    make_file(&b, "{}", 0, 0);
    assert_int_equal(st_open_memory(&s, b.data, b.len, &e), RC_OK);
    assert_int_equal(st_count(s), 0);
    assert_null(st_find(s, "x"));
    st_close(s);
    buf_fini(&b);
}

static void test_names(void **state) {
    (void)state;
    struct buf b = {0};
    make_file(&b, "{" T("\\u00e9\\ud83d\\ude00\\n\\\"", "U8", "[1]", "[0,1]") "}", 0, 1);
    struct st_set *s;
    struct err e;
    assert_int_equal(st_open_memory(&s, b.data, b.len, &e), RC_OK);
    assert_non_null(st_find(s, "\xC3\xA9\xF0\x9F\x98\x80\n\""));
    st_close(s);
    buf_fini(&b);
}

static const struct bad_file {
    const char *header;
    uint64_t len;
    size_t n_data;
    const char *why;
} bad_files[] = {
    {"{}", 1ull << 63, 0, "header of 9223372036854775808 bytes"},
    {"{}", UINT64_MAX, 0, "cut short"},
    {"{}", 3, 0, "header of 3 bytes"},
    {"{}", 1ull << 30, 0, "at most 100000000"},
    {"{}", 1, 0, "does not begin with an object"},
    {" {}", 0, 0, "does not begin with an object"},
    {"[]", 0, 0, "does not begin with an object"},
    {"nonsense", 0, 0, "does not begin with an object"},
    {"{nonsense", 0, 0, "a string must come here"},
    {"{\"a\"", 0, 0, "a colon"},
    {"{\"a", 0, 0, "a string without end"},
    {"{\"a\\", 0, 0, "a string without end"},
    {"{\"a\\\"", 0, 0, "a string without end"},
    {"{\"a\\q\":1}", 0, 0, "an escape that means nothing"},
    {"{\"a\\u12\":1}", 0, 0, "an escape that means nothing"},
    {"{\"a\\ud800\":1}", 0, 0, "an escape that means nothing"},
    {"{\"a\\u0000\":1}", 0, 0, "or a NUL"},
    {"{\"a\xFF\":1}", 0, 0, "not UTF-8"},
    {"{\"a\n\":1}", 0, 0, "control character"},
    {"{\"a\":1}", 0, 0, "an object must come here"},
    {"{\"a\":{\"dtype\":{\"a\":{\"a\":{}}}}}", 0, 0, "a string must come here"},
    {"{}{}", 0, 0, "text after the end"},
    {"{} x", 0, 0, "text after the end"},
    {"{,}", 0, 0, "a string must come here"},
    {"{\"__metadata__\":{\"a\":1}}", 0, 0, "a string must come here"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, 0, "given twice"},
    {"{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]") "}", 0, 2, "\"a\": given twice"},
    {"{" T("a", "U8", "[1]", "[0,1]") ",}", 0, 1, "a string must come here"},
    {"{" T("a", "U8", "[1]", "[0,1]") " " T("b", "U8", "[1]", "[1,2]") "}", 0, 2, "a comma"},
    {"{" T("a", "F128", "[1]", "[0,16]") "}", 0, 16, "\"a\": dtype: unknown type \"F128\""},
    {"{" T("a", "F32", "[1]", "[4,0]") "}", 0, 4, "\"a\": data_offsets: reversed"},
    {"{" T("a", "F32", "[2]", "[0,8]") "}", 0, 4, "lies past the 4 bytes of data"},
    {"{" T("a", "F32", "[2]", "[0,18446744073709551615]") "}", 0, 4, "lies past"},
    {"{" T("a", "F32", "[2]", "[0,18446744073709551616]") "}", 0, 4, "above 2^64"},
    {"{" T("a", "F32", "[2]", "[0,4]") "}", 0, 4, "4 bytes, but shape and dtype make 8"},
    {"{" T("a", "F32", "[1]", "[0,3]") "}", 0, 3, "3 bytes, but shape and dtype make 4"},
    {"{" T("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, 0, "\"a\": shape: the product"},
    {"{" T("a", "F32", "[4611686018427387904]", "[0,0]") "}", 0, 0, "\"a\": shape: the product"},
    {"{" T("a", "U8", "[-1]", "[0,1]") "}", 0, 1, "\"a\": shape: a negative number"},
    {"{" T("a", "U8", "[1.0]", "[0,1]") "}", 0, 1, "not written as a whole"},
    {"{" T("a", "U8", "[1e0]", "[0,1]") "}", 0, 1, "not written as a whole"},
    {"{" T("a", "U8", "[01]", "[0,1]") "}", 0, 1, "leading zeros"},
    {"{" T("a", "U8", "[1,]", "[0,1]") "}", 0, 1, "a whole number must come here"},
    {"{" T("a", "U8", "[1", "[0,1]") "}", 0, 1, "a whole number must come here"},
    {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 0, 1, "\"a\": shape: too many"},
    {"{" T("a", "U8", "[1]", "[0]") "}", 0, 1, "\"a\": data_offsets: two numbers"},
    {"{" T("a", "U8", "[1]", "[0,1,1]") "}", 0, 1, "\"a\": data_offsets: too many"},
    {"{" T("a", "U8", "[1]", "[]") "}", 0, 1, "\"a\": data_offsets: two numbers"},
    {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[1,3]") "}", 0, 3,
     "\"b\": data_offsets: overlaps"},
    {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[0,2]") "}", 0, 2, "data_offsets: overlaps"},
    {"{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[2,3]") "}", 0, 3,
     "\"b\": data_offsets: leaves a hole"},
    {"{" T("a", "U8", "[1]", "[1,2]") "}", 0, 2, "\"a\": data_offsets: leaves a hole"},
    {"{" T("a", "U8", "[1]", "[0,1]") "}", 0, 2, "1 bytes behind the last tensor"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 0, 1, "\"a\": data_offsets: missing"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 0, 1, "\"a\": shape: missing"},
    {"{\"a\":{}}", 0, 0, "\"a\": dtype: missing"},
    {"{\"a\":{\"shape\":[1],\"shape\":[1]}}", 0, 1, "\"a\": shape: given twice"},
    {"{\"a\":{\"strides\":[1]}}", 0, 1, "\"a\": strides: unknown key"},
};

static void test_bad(void **state) {
    (void)state;
    struct buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad_files); i++) {
        make_file(&b, bad_files[i].header, bad_files[i].len, bad_files[i].n_data);
        expect_refused(&b, bad_files[i].why);
    }
    b.len = 0;
    expect_refused(&b, "0 bytes are too short");
    buf_add(&b, "\0\0\0\0\0\0\0", 7);
    expect_refused(&b, "7 bytes are too short");
    buf_addc(&b, 0);
    expect_refused(&b, "does not begin with an object"); /* header of length 0 */
    /* A good file, cut at every byte. */
    make_file(&b, "{\"__metadata__\":{\"k\":\"v\"}," T("a", "F32", "[2,1]", "[0,8]") "}", 0, 8);
    for (size_t n = b.len; n-- > 0;) {
        b.len = n;
        expect_refused(&b, "");
    }
    buf_fini(&b);
}

/* Hostile sizes end early, or in linear time. */
static void test_large(void **state) {
    (void)state;
    struct buf b = {0}, h = {0};
    buf_addz(&h, "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
    for (int i = 0; i < 1000000; i++)
        buf_addz(&h, "1,");
    buf_addz(&h, "1],\"data_offsets\":[0,1]}}");
    make_file(&b, buf_cstr(&h), 0, 1);
    expect_refused(&b, "shape: too many numbers");

    h.len = 0;
    buf_addz(&h, "{");
    for (int i = 0; i < 200000; i++)
        buf_addf(&h, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "", i,
                 199999 - i, 200000 - i);
    buf_addz(&h, "}");
    make_file(&b, buf_cstr(&h), 0, 200000);
    struct st_set *s;
    struct err e;
    assert_int_equal(st_open_memory(&s, b.data, b.len, &e), RC_OK);
    assert_int_equal(st_count(s), 200000);
    assert_int_equal(((const uint8_t *)st_find(s, "t199999")->data)[0], 0);
    st_close(s);

    h.len = 0;
    buf_addz(&h, "{\"__metadata__\":{\"a\":");
    for (int i = 0; i < 1000000; i++)
        buf_addz(&h, "[");
    make_file(&b, buf_cstr(&h), 0, 0);
    expect_refused(&b, "a string must come here");
    buf_fini(&b);
    buf_fini(&h);
}

/* ---- folders ---- */

static char dir[64];

static void put(const char *name, const void *data, size_t n) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
static void put_tensors(const char *name, const char *header, size_t n_data) {
    struct buf b = {0};
    make_file(&b, header, 0, n_data);
    put(name, b.data, b.len);
    buf_fini(&b);
}
static void drop(const char *name) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}
static int make_dir(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/weir-st-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}
static int remove_dir(void **state) {
    (void)state;
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "a.safetensors",
                                        "b.safetensors", "pytorch_model.bin"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        drop(names[i]);
    return rmdir(dir);
}

static void expect_dir(enum rc want, const char *why) {
    struct st_set *s = NULL;
    struct err e = {0};
    enum rc rc = st_open(&s, dir, &e);
    if (rc != want || !strstr(e.msg, why))
        fail_msg("rc %d, \"%s\", wanted %d, \"%s\"", (int)rc, e.msg, (int)want, why);
    assert_null(s);
}
static void expect_index(const char *json, enum rc want, const char *why) {
    put("model.safetensors.index.json", json, strlen(json));
    expect_dir(want, why);
}

static void test_folder_none(void **state) {
    (void)state;
    expect_dir(RC_NOT_FOUND, "holds neither model.safetensors nor");
    put("pytorch_model.bin", "x", 1);
    expect_dir(RC_UNSUPPORTED, "pytorch_model.bin");
    struct st_set *s;
    struct err e;
    assert_int_equal(st_open(&s, "/nonexistent/folder", &e), RC_NOT_FOUND);
    assert_non_null(strstr(e.msg, "no such folder"));
}

static void test_folder_single(void **state) {
    (void)state;
    put_tensors("model.safetensors", "{" T("a", "U8", "[3]", "[0,3]") "}", 3);
    struct st_set *s;
    struct err e;
    assert_int_equal(st_open(&s, dir, &e), RC_OK);
    assert_int_equal(((const uint8_t *)st_find(s, "a")->data)[2], 2);
    st_close(s);
    put("model.safetensors", "", 0);
    expect_dir(RC_INVALID, "model.safetensors: 0 bytes");
    drop("model.safetensors");
    char path[160];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_dir(RC_IO, "model.safetensors");
}

static void test_folder_shards(void **state) {
    (void)state;
    put_tensors("a.safetensors", "{" T("x", "U8", "[3]", "[0,3]") "}", 3);
    put_tensors("b.safetensors", "{" T("y", "U8", "[2]", "[0,2]") "}", 2);
    const char *good = "{\"metadata\":{\"total_size\":5,\"deep\":[{},[[]],-1.5e3,null]},"
                       "\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}";
    put("model.safetensors.index.json", good, strlen(good));
    struct st_set *s;
    struct err e;
    assert_int_equal(st_open(&s, dir, &e), RC_OK);
    assert_int_equal(st_count(s), 2);
    assert_int_equal(st_total_bytes(s), 5);
    assert_int_equal(((const uint8_t *)st_find(s, "y")->data)[1], 1);
    st_close(s);

    expect_index("{\"weight_map\":{\"x\":\"b.safetensors\"}}", RC_INVALID, "\"x\" is not in b.safetensors");
    expect_index("{\"weight_map\":{\"z\":\"a.safetensors\"}}", RC_INVALID, "\"z\" is not in a.safetensors");
    expect_index("{\"weight_map\":{\"x\":\"c.safetensors\"}}", RC_NOT_FOUND, "c.safetensors is missing");
    expect_index("{\"weight_map\":{\"x\":\"../x.safetensors\"}}", RC_INVALID,
                 "\"../x.safetensors\" is not the name");
    expect_index("{\"weight_map\":{\"x\":\"/etc/x.safetensors\"}}", RC_INVALID, "is not the name");
    expect_index("{\"weight_map\":{\"x\":\"s\\\\x.safetensors\"}}", RC_INVALID, "is not the name");
    expect_index("{\"weight_map\":{\"x\":\"..safetensors\"}}", RC_INVALID, "is not the name");
    expect_index("{\"weight_map\":{\"x\":\"model.safetensors.index.json\"}}", RC_INVALID, "is not the name");
    expect_index("{\"weight_map\":{\"x\":\"\"}}", RC_INVALID, "is not the name");
    expect_index("{\"weight_map\":{\"x\":7}}", RC_INVALID, "a string must come here");
    expect_index("{\"weight_map\":[]}", RC_INVALID, "an object must come here");
    expect_index("{\"weight_map\":{}}", RC_INVALID, "missing or empty");
    expect_index("{\"metadata\":{}}", RC_INVALID, "missing or empty");
    expect_index("{\"weight_map\":{\"x\":\"a.safetensors\"},\"weight_map\":{}}", RC_INVALID, "given twice");
    expect_index("{\"weight_map\":{\"x\":\"a.safetensors\",\"x\":\"a.safetensors\"}}", RC_INVALID,
                 "given twice");
    expect_index("{\"weight_map\":{\"x\":\"a.safetensors\"}} 1", RC_INVALID, "text after the end");
    expect_index("", RC_INVALID, "an object must come here");
    struct buf deep = {0};
    buf_addz(&deep, "{\"metadata\":");
    for (int i = 0; i < 100; i++)
        buf_addc(&deep, i % 2 ? '{' : '[');
    put("model.safetensors.index.json", deep.data, deep.len);
    expect_dir(RC_INVALID, "a string must come here");
    deep.len = strlen("{\"metadata\":");
    for (int i = 0; i < 100; i++)
        buf_addc(&deep, '[');
    put("model.safetensors.index.json", deep.data, deep.len);
    expect_dir(RC_INVALID, "nested too deep");
    buf_fini(&deep);

    put_tensors("b.safetensors", "{" T("x", "U8", "[2]", "[0,2]") "}", 2);
    expect_index("{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}", RC_INVALID,
                 "b.safetensors: tensor \"x\": is also in a.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_large),
        cmocka_unit_test_setup_teardown(test_folder_none, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_folder_single, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_folder_shards, make_dir, remove_dir),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
