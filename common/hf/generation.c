/* Sampling defaults: the model's generation_config.json, another folder's, none, and what is merged on top
 * (api.md 5.2). */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/hf/config.h"
#include "common/hf/fields.h"

enum { FILE_BYTES_MAX = 1 << 20 };

/* read_folder: FOLDER/generation_config.json. */
static enum rc read_folder(const char *folder, struct buf *out, struct err *e) {
    struct buf path = {0};
    buf_addf(&path, "%s/generation_config.json", folder);
    FILE *f = fopen(buf_cstr(&path), "re");
    int why = errno;
    if (f) {
        out->len = fread(buf_reserve(out, FILE_BYTES_MAX + 1), 1, FILE_BYTES_MAX + 1, f);
        why = ferror(f) ? EIO : 0;
        fclose(f);
    }
    buf_fini(&path);
    if (!f || why)
        return err_set(e, RC_INVALID, "generation-config",
                       "--generation-config %s: it is auto, vllm or a folder with generation_config.json: %s",
                       folder, strerror(why));
    return out->len <= FILE_BYTES_MAX
               ? RC_OK
               : err_set(e, RC_INVALID, "generation-config", "--generation-config %s: a file above 1 MiB", folder);
}

static enum rc merge(json_t *to, const char *override, struct err *e) {
    json_t *over = json_loads(override, JSON_DECODE_ANY, NULL);
    enum rc rc = RC_OK;
    if (json_is_object(over))
        rc = json_object_update(to, over) == 0 ? RC_OK : RC_INTERNAL;
    else
        rc = err_set(e, RC_INVALID, "override-generation-config",
                     "--override-generation-config must be a JSON object");
    json_decref(over);
    return rc;
}

/* has_limit: max_new_tokens is there. */
static bool has_limit(const char *text) {
    json_t *v = text ? json_loads(text, 0, NULL) : NULL;
    const json_t *limit = json_object_get(v, "max_new_tokens");
    bool has = limit && !json_is_null(limit);
    json_decref(v);
    return has;
}

enum rc hf_generation_load(struct str own, const char *source, const char *override, struct hf_generation *out,
                           bool *capped, struct err *e) {
    struct buf file = {0};
    json_t *all = NULL;
    char *text = NULL;
    enum rc rc = RC_OK;
    bool folder = strcmp(source, "auto") != 0 && strcmp(source, "vllm") != 0;
    *out = (struct hf_generation){
        .temperature = NAN, .top_p = NAN, .top_k = NAN, .min_p = NAN, .repetition_penalty = NAN};
    *capped = false;
    if (folder)
        rc = read_folder(source, &file, e);
    if (rc)
        goto out;
    struct str base = folder ? buf_str(&file) : strcmp(source, "vllm") ? own : (struct str){0};
    if (base.n)
        rc = fields_parse("generation_config.json", base, &all, e);
    else
        all = json_object();
    if (!rc && folder)
        *capped = json_is_integer(json_object_get(all, "max_new_tokens"));
    if (!rc && override)
        rc = merge(all, override, e);
    if (rc)
        goto out;
    *capped |= override && has_limit(override);
    text = json_dumps(all, JSON_COMPACT | JSON_ENCODE_ANY);
    rc = hf_generation_parse(str_of(text), out, e);
    *capped &= rc == RC_OK && out->max_new_tokens > 0;
out:
    free(text);
    json_decref(all);
    buf_fini(&file);
    return rc;
}
