/* Formats, from the RFCs that JSON Schema names. Where a validator may be stricter than the RFC, the strict
 * reading is taken: what is written is valid for both. */
#include <stdlib.h>

#include "common/gram/schema.h"

/* pattern: one of ours, so it parses; over canonical bodies. */
static uint32_t pattern(struct gram *g, const char *p) {
    uint32_t rx;
    struct err e;
    if (rx_parse_in(g, str_of(p), false, jt_one_of, &rx, &e))
        return RX_NONE; /* the grammar's limits are passed; gram_over tells */
    return rx;
}

/* ---- RFC 3339 --------------------------------------------------------------------------------------------
 */

/* Days of each month; 29 February in years that divide by 4, not by 100 unless by 400. The year 0000 is left
 * out: most calendars have none. */
#define LEAP "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
static uint32_t date(struct gram *g) {
    uint32_t e = pattern(g, "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|"
                            "[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29");
    return rx_and(g, e, rx_not(g, pattern(g, "0000.*")));
}

/* A leap second only where every reader knows it: at the end of a day in UTC. */
static uint32_t time_of_day(struct gram *g) {
    return pattern(g, "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):"
                      "[0-5][0-9])|23:59:60(\\.[0-9]+)?([Zz]|[+-]00:00)");
}

static uint32_t date_time(struct gram *g) {
    return rx_cat(g, date(g), rx_cat(g, pattern(g, "[Tt]"), time_of_day(g)));
}

/* RFC 3339 appendix A: units in order, none left out between two. */
static uint32_t duration(struct gram *g) {
#define D_TIME "(T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))"
    return pattern(g, "P([0-9]+W|" D_TIME "|([0-9]+D|[0-9]+M([0-9]+D)?|[0-9]+Y([0-9]+M([0-9]+D)?)?)" D_TIME
                      "?)");
}

/* ---- names and addresses ------------------------------------------------------------------------ */

#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(\\." OCTET "){3}"

static uint32_t ipv4(struct gram *g) {
    return pattern(g, IPV4);
}

/* RFC 4291 2.2, as RFC 3986 writes it: groups of 16 bits, one run of zeros as "::", the last two groups may
 * be an IPv4 address. */
#define H16 "[0-9A-Fa-f]{1,4}"
#define LS32 "(" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                                                 \
    "((" H16 ":){6}" LS32 "|::(" H16 ":){5}" LS32 "|(" H16 ")?::(" H16 ":){4}" LS32 "|((" H16 ":)?" H16      \
    ")?::(" H16 ":){3}" LS32 "|((" H16 ":){0,2}" H16 ")?::(" H16 ":){2}" LS32 "|((" H16 ":){0,3}" H16        \
    ")?::" H16 ":" LS32 "|((" H16 ":){0,4}" H16 ")?::" LS32 "|((" H16 ":){0,5}" H16 ")?::" H16 "|((" H16     \
    ":){0,6}" H16 ")?::)"

static uint32_t ipv6(struct gram *g) {
    return pattern(g, IPV6);
}

/* RFC 1123; no label with two hyphens in its third and fourth place, which only encoders of international
 * names may make (RFC 5891). */
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
static uint32_t hostname(struct gram *g) {
    uint32_t coded = pattern(g, "(.*\\.)?..--.*");
    uint32_t names = pattern(g, LABEL "(\\." LABEL ")*");
    return rx_and(g, rx_and(g, names, jt_length(g, 1, 253)), rx_not(g, coded));
}

/* RFC 5321 4.1.2: a mailbox. */
static uint32_t email(struct gram *g) {
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    uint32_t local = pattern(g, ATOM "(\\." ATOM ")*|\"([ !#-\\[\\]-~]|\\\\[ -~])*\"");
    uint32_t literal = pattern(g, "\\[(" IPV4 "|IPv6:" IPV6 ")\\]");
    return rx_cat(g, rx_and(g, local, jt_length(g, 1, 64)),
                  rx_cat(g, pattern(g, "@"), rx_alt(g, hostname(g), literal)));
}

/* ---- RFC 3986 and others ------------------------------------------------------------------------ */

#define PCT "%[0-9A-Fa-f]{2}"
#define PCHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|" PCT ")"
static uint32_t uri(struct gram *g) {
    uint32_t scheme = pattern(g, "[A-Za-z][A-Za-z0-9+.-]*:");
    uint32_t authority = pattern(g, "//(([A-Za-z0-9._~!$&'()*+,;=:-]|" PCT ")*@)?(\\[(" IPV6
                                    "|[vV][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|([A-Za-z0-9._~!$&'"
                                    "()*+,;=-]|" PCT ")*)(:[0-9]*)?(/" PCHAR "*)*");
    uint32_t path = pattern(g, "(/(" PCHAR "+(/" PCHAR "*)*)?|" PCHAR "+(/" PCHAR "*)*)?");
    uint32_t tail = pattern(g, "(\\?(" PCHAR "|[/?])*)?(#(" PCHAR "|[/?])*)?");
    return rx_cat(g, scheme, rx_cat(g, rx_alt(g, authority, path), tail));
}

static uint32_t uuid(struct gram *g) {
    return pattern(g, "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}");
}

static uint32_t json_pointer(struct gram *g) {
    return pattern(g, "(/([^/~]|~[01])*)*");
}

static const struct format {
    const char *name;
    uint32_t (*rx)(struct gram *g);
} formats[] = {
    {"date-time", date_time},
    {"date", date},
    {"time", time_of_day},
    {"duration", duration},
    {"email", email},
    {"ipv4", ipv4},
    {"ipv6", ipv6},
    {"hostname", hostname},
    {"uri", uri},
    {"uuid", uuid},
    {"json-pointer", json_pointer},
};

bool format_rx(struct gram *g, const char *name, uint32_t *rx) {
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (strcmp(formats[i].name, name) == 0) {
            *rx = formats[i].rx(g);
            return true;
        }
    return false;
}
