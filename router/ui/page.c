#include "router/ui/page.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>

#include "common/hash.h"

/* The file as it is, in this object; the path is from the root of the repository, where compilers run. */
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        "weir_page_begin:\n"
        ".incbin \"router/ui/playground.html\"\n"
        "weir_page_end:\n"
        ".byte 0\n"
        ".popsection\n");
extern const char weir_page_begin[], weir_page_end[];

static char policy[512];
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct str page_html(void) {
    return (struct str){weir_page_begin, (size_t)(weir_page_end - weir_page_begin)};
}

/* digest: of what stands between two tags, in base64. Each is there once, which a test sees to. */
static void digest(const char *begin, const char *end, char out[48]) {
    struct str html = page_html();
    const char *from = memmem(html.p, html.n, begin, strlen(begin));
    CHECK(from);
    from += strlen(begin);
    const char *to = memmem(from, (size_t)(html.p + html.n - from), end, strlen(end));
    CHECK(to);
    uint8_t sha[32];
    hash_sha256(from, (size_t)(to - from), sha);
    EVP_EncodeBlock((unsigned char *)out, sha, sizeof sha);
}

static void make_policy(void) {
    char script[48], style[48];
    digest("<script>", "</script>", script);
    digest("<style>", "</style>", style);
    snprintf(policy, sizeof policy,
             "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; connect-src 'self'; img-src "
             "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             script, style);
}

const char *page_policy(void) {
    pthread_once(&once, make_policy);
    return policy;
}
