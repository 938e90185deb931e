/* khash.h: what h2o/http2_internal.h includes and Debian's package of libh2o does not bring. A connection's
 * table of streams is libh2o's own affair: here it is a type without contents, and the one inline function of
 * that header which looks into it finds nothing. Streams are enumerated by
 * H2O_HTTP2_CALLBACKS.foreach_request. */
#ifndef WEIR_ROUTER_SHIM_KHASH_H
#define WEIR_ROUTER_SHIM_KHASH_H

#define KHASH_MAP_INIT_INT64(name, type) struct kh_##name;
#define khash_t(name) struct kh_##name
#define khiter_t unsigned
#define kh_get(name, table, key) ((void)(table), (void)(key), 0u)
#define kh_end(table) ((void)(table), 0u)
#define kh_val(table, at) ((void)(table), (void)(at), (void *)0)

#endif
