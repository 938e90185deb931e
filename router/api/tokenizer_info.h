/* tokenizer_info.h: the body of GET /tokenizer_info (api.md 14.3). */
#ifndef WEIR_ROUTER_API_TOKENIZER_INFO_H
#define WEIR_ROUTER_API_TOKENIZER_INFO_H

#include "common/json.h"

/* api_tokenizer_info: tokenizer_config.json (NULL: the model has none) without the names of files and
 * folders, with tokenizer_class and chat_template, which is the template in use (NULL: none). Heap. */
char *api_tokenizer_info(const json_t *config, const char *chat_template);

#endif
