/* nng is built without ThreadSanitizer, which sees its locks but not its atomics. What nng counts by atomics dies with its
 * last reference, after every use, and TSan would call the end of its mutex a race with a use that another thread made
 * before it gave its reference up. So for nng's own mutexes, and nobody else's, the end is said to come after the last
 * unlock. Without TSan this is nothing. */
#ifdef __SANITIZE_THREAD__
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <string.h>

void __tsan_acquire(void *at);

struct range {
    uintptr_t from, to;
};

static int find_nng(struct dl_phdr_info *info, size_t size, void *arg) {
    struct range *r = arg;
    (void)size;
    if (!strstr(info->dlpi_name, "libnng"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X))
            *r = (struct range){info->dlpi_addr + p->p_vaddr, info->dlpi_addr + p->p_vaddr + p->p_memsz};
    }
    return 1;
}

static int (*destroy)(pthread_mutex_t *);
static struct range nng;

/* Before main, and so before nng's first thread. The linker is told to want it (Makefile). */
void tsan_nng(void);
__attribute__((constructor)) void tsan_nng(void) {
    *(void **)&destroy = dlsym(RTLD_NEXT, "pthread_mutex_destroy");
    (void)dl_iterate_phdr(find_nng, &nng);
}

int pthread_mutex_destroy(pthread_mutex_t *m) {
    const uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    if (caller >= nng.from && caller < nng.to)
        __tsan_acquire(m);
    if (!destroy)
        tsan_nng();
    return destroy(m);
}
#else
typedef int tsan_nng_is_empty;
#endif
