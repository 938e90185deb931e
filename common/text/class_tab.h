/* class_tab.h: the character classes that patterns of tokenizers name. Written by
 * scripts/gen_class_tab.py from tokenizers 0.23.3; do not edit. */
#ifndef WEIR_COMMON_TEXT_CLASS_TAB_H
#define WEIR_COMMON_TEXT_CLASS_TAB_H

#include <stdint.h>

/* Runs of equal characters, in order, from U+0000 on: the first character << 8 | value. */
enum { CLASS_N_RUNS = 4178, CLASS_N_SCRIPT_RUNS = 1708, CLASS_N_CUT_RUNS = 1489 };
/* Value: the category's place in class_category_names, and CLASS_IS_*. */
extern const uint32_t class_runs[CLASS_N_RUNS];
enum { CLASS_CATEGORY_MASK = 31, CLASS_IS_ALPHA = 32, CLASS_IS_LOWER = 64, CLASS_IS_UPPER = 128 };
enum { CLASS_N_CATEGORIES = 30, CLASS_N_SCRIPTS = 171 };
extern const char *const class_category_names[CLASS_N_CATEGORIES];
/* Value: the script's place in class_script_names. */
extern const uint32_t class_script_runs[CLASS_N_SCRIPT_RUNS];
extern const char *const class_script_names[CLASS_N_SCRIPTS][2]; /* Latn, Latin */
/* Value: a number for each script that UnicodeScripts tells apart; 0: joins either side. */
extern const uint32_t class_cut_runs[CLASS_N_CUT_RUNS];
/* What else a character matches where case does not count, in order of cp; 0 ends to. */
struct class_fold {
    uint32_t cp, to[3];
};
enum { CLASS_N_FOLDS = 2938, CLASS_N_LONG_FOLDS = 104 };
extern const struct class_fold class_folds[CLASS_N_FOLDS];
/* Characters that match several in a row, then. */
extern const struct class_fold class_long_folds[CLASS_N_LONG_FOLDS];

#endif
