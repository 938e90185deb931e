/* fuzz_addresses: a file of workers' addresses, and from the same bytes a Kubernetes EndpointSlice. */
#include <stdlib.h>

#include "router/fleet/addresses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct str text = {(const char *)data, n};
    struct addresses a;
    struct err e = {0};
    json_t *slice = NULL;
    if (addresses_read(text, &a, &e) == RC_OK) {
        CHECK(a.n <= ADDRESSES_MAX);
        for (size_t i = 0; i < a.n; i++)
            CHECK(a.v[i][0] && strlen(a.v[i]) <= ADDRESS_BYTES_MAX && addresses_have(&a, a.v[i]));
    } else {
        CHECK(e.msg[0] && a.n == 0);
    }
    addresses_fini(&a);
    if (json_parse(text, &json_limits_default, &slice, &e) == RC_OK) {
        static const char *const ports[] = {"", "80", "weir"};
        for (size_t i = 0; i < ARRAY_LEN(ports); i++) {
            if (endpoints_add(slice, ports[i], &a, &e) != RC_OK)
                CHECK(e.msg[0]);
            for (size_t k = 0; k < a.n; k++)
                CHECK(!strncmp(a.v[k], "tcp://", 6));
            addresses_fini(&a);
        }
        (void)endpoint_slice_name(slice);
    }
    json_decref(slice);
    return 0;
}
