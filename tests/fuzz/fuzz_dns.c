/* fuzz_dns: what a name server may answer. The first byte chooses the type that was asked for. */
#include "router/fleet/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const unsigned types[] = {DNS_A, DNS_AAAA, DNS_SRV};
    static struct dns_answer a;
    struct err e = {0};
    if (n < 3)
        return 0;
    uint16_t id = (uint16_t)(data[1] << 8 | data[2]);
    if (dns_read((struct str){(const char *)data + 1, n - 1}, types[data[0] % 3], id, &a, &e) == RC_OK) {
        CHECK(a.n <= DNS_RECORDS_MAX && (a.rcode == 0 || a.rcode == 3));
        for (size_t i = 0; i < a.n; i++)
            CHECK(strlen(a.v[i].name) <= DNS_NAME_BYTES_MAX && !strpbrk(a.v[i].name, "/@ \n"));
    } else {
        CHECK(e.msg[0]);
    }
    return 0;
}
