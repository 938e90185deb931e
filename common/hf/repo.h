/* repo.h: the folder of a MODEL argument (api.md 21.1.1). Nothing is downloaded.
 *
 * A folder; a repository of the local Hugging Face cache, by its id ("org/name"); or the cache's folder of one
 * ("models--org--name"), which holds its revisions as snapshots/COMMIT and, in refs/NAME, the commits of branches and
 * tags. The cache lies where huggingface_hub has it: HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub.
 */
#ifndef WEIR_COMMON_HF_REPO_H
#define WEIR_COMMON_HF_REPO_H

#include "common/err.h"

/* hf_repo_find: revision: a branch, a tag or a whole commit; NULL: main. *dir is the caller's (free()).
 * RC_NOT_FOUND: no such folder or repository. RC_INVALID: a revision of a folder, which has none but its own name in
 * the cache, or one that the cache lacks. */
MUST_USE enum rc hf_repo_find(const char *model, const char *revision, char **dir, struct err *e);

/* hf_repo_check: before anything starts: RC_INVALID as above, and nothing else; that there is a model at all is seen
 * when it is loaded. revision may be NULL. */
MUST_USE enum rc hf_repo_check(const char *model, const char *revision, struct err *e);

#endif
