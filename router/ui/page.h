/* page.h: the playground (api.md 4.1): one page in the program, which fetches nothing from elsewhere.
 * Threads: any. */
#ifndef WEIR_ROUTER_UI_PAGE_H
#define WEIR_ROUTER_UI_PAGE_H

#include "common/base.h"

/* page_html: the bytes of router/ui/playground.html. */
struct str page_html(void);
/* page_policy: its Content-Security-Policy: scripts and styles are those of the page, by their digests, and
 * requests go to this server alone. */
const char *page_policy(void);

#endif
