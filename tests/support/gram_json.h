/* gram_json.h: a grammar that much of JSON's life is in, built by hand. */
#ifndef WEIR_TESTS_SUPPORT_GRAM_JSON_H
#define WEIR_TESTS_SUPPORT_GRAM_JSON_H

#include "common/gram/gram.h"

/* gram_json: sealed: values of brackets, strings without escapes, numbers to 20 digits, and objects whose
 * keys are unique; no white space. */
struct gram *gram_json(const struct gram_limits *limits);

#endif
