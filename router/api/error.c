#include "router/api/error.h"

#include "common/json.h"

/* api.md 3.2. The first row of a status is what a worker's Reject with that status becomes. */
static const struct {
    enum rc rc;
    int status;
} statuses[] = {
    {RC_OK, 200},          {RC_INVALID, 400},     {RC_UNAUTHORIZED, 401}, {RC_NOT_FOUND, 404},
    {RC_METHOD, 405},      {RC_TOO_LARGE, 413},   {RC_UNFETCHABLE, 422},  {RC_OVERLOAD, 429},
    {RC_HEADERS, 431},     {RC_INTERNAL, 500},    {RC_IO, 500},           {RC_PROTO, 500},
    {RC_UNSUPPORTED, 501}, {RC_UNAVAILABLE, 503}, {RC_AGAIN, 503},        {RC_CLOSED, 503},
    {RC_TIMEOUT, 504},
};

static const struct {
    int status;
    const char *reason, *type;
} names[] = {
    {200, "OK", ""},
    {400, "Bad Request", "BadRequestError"},
    {401, "Unauthorized", "AuthenticationError"},
    {404, "Not Found", "NotFoundError"},
    {405, "Method Not Allowed", "MethodNotAllowedError"},
    {408, "Request Timeout", "RequestTimeoutError"},
    {413, "Payload Too Large", "PayloadTooLargeError"},
    {422, "Unprocessable Entity", "UnprocessableEntityError"},
    {429, "Too Many Requests", "RateLimitError"},
    {431, "Request Header Fields Too Large", "RequestHeaderFieldsTooLargeError"},
    {500, "Internal Server Error", "InternalServerError"},
    {501, "Not Implemented", "NotImplementedError"},
    {503, "Service Unavailable", "ServiceUnavailableError"},
    {504, "Gateway Timeout", "GatewayTimeoutError"},
};

static size_t name_of(int status) {
    size_t i = 0, internal = 0;
    for (; i < ARRAY_LEN(names); i++) {
        if (names[i].status == status)
            return i;
        if (names[i].status == 500)
            internal = i;
    }
    return internal;
}

int api_status(enum rc rc) {
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
        if (statuses[i].rc == rc)
            return statuses[i].status;
    return 500;
}

const char *api_reason(int status) {
    return names[name_of(status)].reason;
}

const char *api_error_type(int status) {
    return names[name_of(status)].type;
}

enum rc api_rc_of_status(int status) {
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
        if (statuses[i].status == status && status != 200)
            return statuses[i].rc;
    return RC_INTERNAL;
}

void api_error_body(const struct err *e, struct buf *out) {
    int status = api_status(e->rc);
    buf_addz(out, "{\"error\":{\"message\":");
    jw_strz(out, e->msg);
    buf_addz(out, ",\"type\":");
    jw_strz(out, api_error_type(status));
    buf_addz(out, ",\"param\":");
    jw_strz(out, e->param[0] ? e->param : NULL);
    buf_addz(out, ",\"code\":");
    jw_i64(out, status);
    buf_addz(out, "}}");
}
