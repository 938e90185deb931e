#include "worker/device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

/* beside_program: "DIR/backend-cuda.so" of the running binary; false if the path is too long. */
static bool beside_program(const char *name, char *out, size_t n) {
    char self[3072];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return false;
    self[len] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    return (size_t)snprintf(out, n, "%s/%s", self, name) < n;
}

static enum rc load_plugin(const struct be_ops **out, struct err *e) {
    char path[4096];
    if (!beside_program("backend-cuda.so", path, sizeof path))
        return err_set(e, RC_UNAVAILABLE, "device", "cannot tell where this program lies");
    if (access(path, R_OK))
        return err_set(e, RC_UNAVAILABLE, "device",
                       "--device cuda needs backend-cuda.so beside weir-worker: build it with make CUDA=1");
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        return err_set(e, RC_UNAVAILABLE, "device", "backend-cuda.so does not load: %s", dlerror());
    void *sym = dlsym(so, "be_plugin_ops");
    const struct be_ops *(*get)(uint32_t);
    memcpy(&get, &sym, sizeof get);
    const struct be_ops *ops = sym ? get(BE_ABI) : NULL;
    if (!ops || ops->abi != BE_ABI || ops->bytes < sizeof *ops) {
        dlclose(so);
        return err_set(e, RC_UNAVAILABLE, "device",
                       "backend-cuda.so is of another version (ABI %u is needed)", BE_ABI);
    }
    *out = ops;
    return RC_OK;
}

/* no_driver: neither of the devices that NVIDIA's driver makes is there (the second one is of a virtual machine under
 * Windows). Looked at before the backend's libraries, which take a while to load. */
static bool no_driver(void) {
    return access("/dev/nvidiactl", F_OK) != 0 && access("/dev/dxg", F_OK) != 0;
}

enum rc device_ops(const char *device, const struct be_ops **out, struct err *e) {
    if (!strcmp(device, "cpu") || (!strcmp(device, "auto") && no_driver())) {
        *out = &cpu_ops;
        return RC_OK;
    }
    enum rc rc = load_plugin(out, e);
    if (rc != RC_OK && !strcmp(device, "auto")) {
        LOG(LOG_DEBUG, "no GPU backend", F_STR("reason", e->msg));
        *out = &cpu_ops;
        return RC_OK;
    }
    return rc;
}
