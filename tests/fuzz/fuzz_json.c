/* fuzz_json: request JSON: the scan, the parse behind it, every getter, the writer. What the scan accepts
 * jansson must parse (but for a NUL in a key), and what was written must read back as the same value. */
#include <stdlib.h>

#include "common/json.h"

static void get_all(const json_t *obj) {
    const char *key;
    json_t *v, *root = (json_t *)(uintptr_t)obj;
    json_object_foreach(root, key, v) {
        struct err e = {0};
        int64_t i;
        double d;
        bool b, present;
        struct str s;
        const json_t *t;
        enum rc rcs[] = {
            json_get_int(obj, "a.0", key, &i, &present, &e), json_get_float(obj, "", key, &d, NULL, &e),
            json_get_bool(obj, "a", key, &b, NULL, &e),      json_get_str(obj, "", key, &s, NULL, &e),
            json_get_list(obj, "", key, &t, NULL, &e),       json_get_object(obj, "", key, &t, NULL, &e),
        };
        size_t n_ok = 0;
        for (size_t k = 0; k < ARRAY_LEN(rcs); k++) {
            CHECK(rcs[k] == RC_OK || rcs[k] == RC_INVALID);
            n_ok += rcs[k] == RC_OK;
        }
        CHECK(present == !json_is_null(v));
        CHECK(!json_is_null(v) || n_ok == ARRAY_LEN(rcs));
        CHECK(n_ok == ARRAY_LEN(rcs) || e.msg[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct json_limits small = {.depth_max = 8, .nodes_max = 64, .keys_max = 3};
    struct str text = {(const char *)data, n};
    struct err e = {0};
    json_t *v = NULL, *again = NULL;
    enum rc scanned = json_scan(text, NULL, &e), rc = json_parse(text, NULL, &v, &e);
    CHECK(scanned == rc || (scanned == RC_OK && rc == RC_INVALID && strstr(e.msg, "NUL")));
    CHECK(scanned == RC_OK || json_scan(text, &small, NULL) == RC_INVALID);
    if (rc)
        return 0;
    if (json_is_object(v))
        get_all(v);
    struct buf out = {0};
    jw_json(&out, v);
    CHECK(json_parse(buf_str(&out), NULL, &again, &e) == RC_OK);
    CHECK(json_equal(v, again));
    buf_fini(&out);
    json_decref(v);
    json_decref(again);
    return 0;
}
