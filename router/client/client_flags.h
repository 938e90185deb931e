/* client_flags.h: flags of commands that are clients of a server. A command's struct cmd has the fields model, api_key,
 * temperature, timeout_s and insecure. */
#ifndef WEIR_ROUTER_CLIENT_CLIENT_FLAGS_H
#define WEIR_ROUTER_CLIENT_CLIENT_FLAGS_H

#include "common/conf.h"

#define CLIENT_AT(field) .offset = offsetof(struct cmd, field)
#define CLIENT_MODEL_FLAGS                                                                                   \
    {.name = "model", .kind = CONF_STR, CLIENT_AT(model), .help = "[the first that the server lists]"}, {    \
        .name = "api-key", .kind = CONF_STR, .flags = CONF_SECRET, CLIENT_AT(api_key),                       \
        .env = "WEIR_API_KEY", .help = "[WEIR_API_KEY of the environment]"                                   \
    }
#define CLIENT_TEMPERATURE_FLAG                                                                              \
    {                                                                                                        \
        .name = "temperature", .kind = CONF_FLOAT, CLIENT_AT(temperature), .min = 0, .max = 2,               \
        .help = "[the server's]"                                                                             \
    }
#define CLIENT_TIMEOUT_FLAG(what)                                                                            \
    {                                                                                                        \
        .name = "timeout", .kind = CONF_FLOAT, CLIENT_AT(timeout_s), .min = 0.1, .max = 86400, .help = what  \
    }
#define CLIENT_INSECURE_FLAG                                                                                 \
    {                                                                                                        \
        .name = "insecure", .kind = CONF_BOOL, CLIENT_AT(insecure),                                          \
        .help = "do not check the server's certificate"                                                      \
    }

#endif
