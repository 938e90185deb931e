/* version.h: the one place that names the version. */
#ifndef WEIR_COMMON_VERSION_H
#define WEIR_COMMON_VERSION_H
#define WEIR_VERSION "0.1.0"
#endif
