/* schema_keyword.h: the keywords of drafts 7, 2019-09 and 2020-12: what their values must be. No state. */
#ifndef WEIR_COMMON_GRAM_SCHEMA_KEYWORD_H
#define WEIR_COMMON_GRAM_SCHEMA_KEYWORD_H

#include "common/gram/schema.h"

enum keyword_kind {
    KW_NOTE = 0,   /* an annotation, or unknown to the drafts */
    KW_DEFS,       /* schemas by name, which assert nothing here */
    KW_REF,        /* a reference */
    KW_SCHEMA,     /* one schema */
    KW_SCHEMAS,    /* a list of schemas, not empty */
    KW_SCHEMA_MAP, /* schemas by name */
    KW_ITEMS,      /* a schema or a list of schemas */
    KW_COUNT,      /* a whole number from 0 */
    KW_NUMBER,
    KW_STEP, /* a number above 0 */
    KW_STRING,
    KW_BOOL,
    KW_NAMES,     /* a list of strings */
    KW_NAMES_MAP, /* lists of strings by name */
    KW_DEPENDS,   /* lists of strings or schemas by name */
    KW_TYPE,      /* a type's name or a list of them */
    KW_ENUM,
    KW_CONST,
    KW_REFUSED, /* a schema that asserts what no grammar here can say */
};

enum keyword_kind schema_keyword(const char *name);

#endif
