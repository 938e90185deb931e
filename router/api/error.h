/* error.h: the one table from rc to HTTP status and error type, and the body of every error (api.md 3). */
#ifndef WEIR_ROUTER_API_ERROR_H
#define WEIR_ROUTER_API_ERROR_H

#include "common/buf.h"
#include "common/err.h"

int api_status(enum rc rc);             /* 400 ... 504 */
const char *api_reason(int status);     /* "Bad Request" */
const char *api_error_type(int status); /* "BadRequestError" */
enum rc api_rc_of_status(int status);   /* for a worker's Reject; RC_INTERNAL for unknown ones */
/* api_error_body: {"error": {message, type, param, code}}. Quoted client text was cut where the message was
 * made. */
void api_error_body(const struct err *e, struct buf *out);

#endif
