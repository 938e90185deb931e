#include "router/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "router/launch_gpus.h"

extern char **environ;

enum {
    DIAL_POLL_MS = 5,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    STEADY_S = 10,
    GRACE_MS = 2000,
    LOOK_MS = 1000, /* at least so often */
    PLAIN_LINE_MS = 2000
};

struct child {
    pid_t pid; /* 0: not running */
    int pidfd;
    char url[160];                   /* ipc://PATH */
    uint64_t started_ns, restart_ns; /* restart_ns: due then, while pid is 0 */
    unsigned backoff_ms;
    bool dialled;
    bool was_up, frozen; /* this process has been connected once; was killed for its silence */
    uint64_t looked_ns;
    unsigned silent_ms; /* without a connection since then */
};
struct launch {
    struct launch_opts o;
    char worker_path[4096], dir[96];
    int dir_fd; /* locked as long as this process lives */
    struct child child[LAUNCH_WORKERS_MAX];
    pthread_t thread;
    int events;       /* eventfd: progress, or the order to stop */
    _Atomic int stop; /* 1: SIGTERM, 2: SIGKILL */
    _Atomic bool refused;
    bool was_ready, is_terminal, line_open;
    uint64_t shown_ns;
    _Atomic bool roll_asked;
    bool rolling;
    unsigned roll_at; /* the child that is being restarted */
    pid_t roll_pid;   /* what it was; 0: it has not been told yet */
};

static void wake(void *arg) {
    struct launch *l = arg;
    uint64_t one = 1;
    (void)!write(l->events, &one, sizeof one);
}

/* ---- what people see ------------------------------------------------------------------------------ */

static double seconds(const struct launch *l) {
    return (double)(clock_ns() - l->o.started_ns) * 1e-9;
}

static void end_line(struct launch *l) {
    if (l->line_open)
        fputs("\033[K", stderr);
    l->line_open = false;
}

static void show_loading(struct launch *l, const struct router_progress *p) {
    double done = (double)p->load_done_bytes / (double)MIB, total = (double)p->load_total_bytes / (double)MIB;
    if (!p->load_total_bytes)
        return;
    if (l->is_terminal) { /* the cursor goes back, so that a worker's log line covers this one */
        fprintf(stderr, "\033[Kloading %s: %.1f of %.1f MiB, %.1f s\r", l->o.model, done, total, seconds(l));
        l->line_open = true;
    } else if (clock_ns() - l->shown_ns >= PLAIN_LINE_MS * NS_PER_MS) {
        fprintf(stderr, "loading %s: %.1f of %.1f MiB, %.1f s\n", l->o.model, done, total, seconds(l));
        l->shown_ns = clock_ns();
    }
}

static void show(struct launch *l) {
    struct router_progress p;
    router_progress(l->o.router, &p);
    if (l->was_ready) {
        if (p.n_ready == l->o.n_workers)
            router_note_worker_state(l->o.router, NULL);
        return;
    }
    if (p.worker_failed)
        return; /* it has said why, and ends: on_end */
    if (p.failed && p.n_ready == 0 && p.detail[0]) {
        end_line(l);
        fprintf(stderr, "weir: cannot serve %s: %s\n", l->o.model, p.detail);
        atomic_store(&l->refused, true);
        router_shutdown(l->o.router);
        return;
    }
    if (p.n_ready < l->o.n_workers) {
        show_loading(l, &p);
        return;
    }
    l->was_ready = true;
    end_line(l);
    fprintf(stderr, "weir: ready in %.2f s: %s at %s\n", seconds(l), l->o.model, l->o.url);
}

/* ---- processes -------------------------------------------------------------------------------------- */

/* spawn: the worker in a process group of its own, so that a terminal's Ctrl-C reaches only the router, which
 * drains. */
static enum rc spawn(struct launch *l, struct child *c, struct err *e) {
    struct conf_list argv = {0};
    const struct conf_list *flags = l->o.worker_argv;
    char parent[48], listen[192], sharing[32], drain[48];
    snprintf(parent, sizeof parent, "--parent-pid=%d", (int)getpid());
    snprintf(listen, sizeof listen, "--listen=%s", c->url);
    snprintf(sharing, sizeof sharing, "--sharing=%u", l->o.n_workers);
    snprintf(drain, sizeof drain, "--drain-timeout=%g", l->o.drain_timeout_s);
    struct buf gpus = {0}, line = {0};
    char **env = environ;
    if (l->o.n_workers > 1 && l->o.gpus_each > 0) {
        enum rc wrong = launch_gpus(&gpus, getenv("CUDA_VISIBLE_DEVICES"), (unsigned)(c - l->child), l->o.gpus_each, e);
        if (wrong)
            return wrong;
        env = launch_environ(environ, &line, buf_str(&gpus));
    }
    argv.v = xcalloc(flags->n + 7, sizeof *argv.v);
    argv.v[argv.n++] = l->worker_path;
    argv.v[argv.n++] = (char *)(uintptr_t)l->o.model; /* execv's strings are not const; they are only read */
    argv.v[argv.n++] = parent;
    argv.v[argv.n++] = listen;
    argv.v[argv.n++] = sharing;
    argv.v[argv.n++] = drain;
    for (size_t i = 0; i < flags->n; i++)
        argv.v[argv.n++] = flags->v[i];

    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    int rc = posix_spawn(&c->pid, l->worker_path, NULL, &attr, argv.v, env);
    posix_spawnattr_destroy(&attr);
    free(argv.v);
    if (env != environ)
        free(env);
    buf_fini(&gpus);
    buf_fini(&line);
    if (rc) {
        c->pid = 0;
        return err_set(e, RC_IO, NULL, "cannot start %s: %s", l->worker_path, strerror(rc));
    }
    c->pidfd = pidfd_open(c->pid, 0);
    c->started_ns = c->looked_ns = clock_ns();
    c->was_up = c->frozen = false;
    c->silent_ms = 0;
    return RC_OK;
}

static void say_why(int status, char *out, size_t n) {
    if (WIFSIGNALED(status))
        snprintf(out, n, "died by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, n, "ended with status %d", WEXITSTATUS(status));
}

/* on_end: a worker is gone. */
static void on_end(struct launch *l, struct child *c, int status) {
    char why[96], line[192];
    if (c->pidfd >= 0)
        close(c->pidfd);
    c->pidfd = -1;
    c->pid = 0;
    if (atomic_load(&l->stop))
        return;
    say_why(status, why, sizeof why);
    if (c->frozen)
        snprintf(why, sizeof why, "did not answer for %d s", LAUNCH_SILENT_S);
    end_line(l);
    if (!l->was_ready) {
        if (WIFSIGNALED(status))
            fprintf(stderr, "weir: the worker %s while loading%s\n", why,
                    WTERMSIG(status) == SIGKILL ? "; was there enough memory?" : "");
        else if (WEXITSTATUS(status) != 1 && WEXITSTATUS(status) != 2) /* with these it has said why */
            fprintf(stderr, "weir: the worker %s while loading\n", why);
        atomic_store(&l->refused, true);
        router_shutdown(l->o.router);
        return;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        c->backoff_ms = 0;
        c->restart_ns = 0;
        LOG(LOG_INFO, "a worker has drained and is started again");
        return;
    }
    if (clock_ns() - c->started_ns > STEADY_S * NS_PER_S)
        c->backoff_ms = 0;
    c->backoff_ms = c->backoff_ms ? MIN(2 * c->backoff_ms, (unsigned)BACKOFF_MAX_MS) : BACKOFF_MIN_MS;
    c->restart_ns = clock_ns() + c->backoff_ms * NS_PER_MS;
    snprintf(line, sizeof line, "the worker %s and is being restarted", why);
    router_note_worker_state(l->o.router, line);
    LOG(LOG_ERROR, "worker ended", F_STR("why", why), F_U64("restart_ms", c->backoff_ms));
}

static void reap(struct launch *l) {
    for (unsigned i = 0; i < l->o.n_workers; i++) {
        struct child *c = &l->child[i];
        int status;
        if (c->pid && waitpid(c->pid, &status, WNOHANG) == c->pid)
            on_end(l, c, status);
    }
}

/* kill_frozen: a worker that was connected, lives, and does not come back. The router has cut it off after
 * two seconds and dials it all the time. The time is that between looks, of which none counts for more than
 * two seconds: a launcher that did not run itself must not kill for it. */
static void kill_frozen(struct launch *l) {
    uint64_t now = clock_ns();
    for (unsigned i = 0; i < l->o.n_workers; i++) {
        struct child *c = &l->child[i];
        unsigned since_ms = (unsigned)MIN((now - c->looked_ns) / NS_PER_MS, 2u * LOOK_MS);
        if (!c->pid || !c->dialled || since_ms == 0)
            continue;
        c->looked_ns = now;
        if (router_worker_up(l->o.router, c->url)) {
            c->was_up = true;
            c->silent_ms = 0;
            continue;
        }
        c->silent_ms += c->was_up ? since_ms : 0;
        if (c->frozen || c->silent_ms < LAUNCH_SILENT_S * 1000u)
            continue;
        c->frozen = true;
        LOG(LOG_ERROR, "a worker does not answer and is killed", F_I64("pid", c->pid));
        kill(c->pid, SIGKILL);
    }
}

/* roll: one by one: a child is told to drain; once its successor is ready it is the next one's turn. */
static void roll(struct launch *l) {
    if (atomic_exchange(&l->roll_asked, false) && !l->rolling && l->was_ready) {
        l->rolling = true;
        l->roll_at = 0;
        l->roll_pid = 0;
        LOG(LOG_INFO, "restarting the workers, one by one");
    }
    while (l->rolling && l->roll_at < l->o.n_workers) {
        struct child *c = &l->child[l->roll_at];
        if (!l->roll_pid && c->pid) {
            l->roll_pid = c->pid;
            kill(c->pid, SIGTERM);
        }
        if (!c->pid || c->pid == l->roll_pid || !router_worker_ready(l->o.router, c->url))
            return;
        l->roll_pid = 0;
        l->roll_at++;
    }
    if (l->rolling)
        LOG(LOG_INFO, "the workers are restarted");
    l->rolling = false;
}

void launch_roll(struct launch *l) {
    int saved = errno;
    atomic_store(&l->roll_asked, true);
    wake(l);
    errno = saved;
}

/* restart_due: starts what is due; returns the milliseconds until the next one, -1 for none. */
static int restart_due(struct launch *l) {
    int wait_ms = -1;
    uint64_t now = clock_ns();
    if (atomic_load(&l->stop) || atomic_load(&l->refused))
        return -1;
    for (unsigned i = 0; i < l->o.n_workers; i++) {
        struct child *c = &l->child[i];
        struct err e;
        if (c->pid)
            continue;
        if (c->restart_ns <= now) {
            if (spawn(l, c, &e) == RC_OK)
                continue;
            LOG(LOG_ERROR, "restart failed", F_STR("reason", e.msg));
            c->restart_ns = now + BACKOFF_MAX_MS * NS_PER_MS;
        }
        int ms = (int)((c->restart_ns - now) / NS_PER_MS) + 1;
        wait_ms = wait_ms < 0 ? ms : MIN(wait_ms, ms);
    }
    return wait_ms;
}

/* dial_due: dials a worker once its socket is there, which is sooner than a dialler's backoff. Returns
 * whether some are missing. */
static bool dial_due(struct launch *l) {
    bool missing = false;
    for (unsigned i = 0; i < l->o.n_workers; i++) {
        struct child *c = &l->child[i];
        struct err e;
        if (!c->dialled && access(c->url + strlen("ipc://"), F_OK) == 0) {
            c->dialled = true;
            if (router_dial(l->o.router, c->url, &e) != RC_OK)
                LOG(LOG_ERROR, "cannot dial the worker", F_STR("reason", e.msg));
        }
        missing |= !c->dialled;
    }
    return missing;
}

static void kill_all(struct launch *l, int sig) {
    for (unsigned i = 0; i < l->o.n_workers; i++)
        if (l->child[i].pid)
            kill(l->child[i].pid, sig);
}

static bool any_left(const struct launch *l) {
    for (unsigned i = 0; i < l->o.n_workers; i++)
        if (l->child[i].pid)
            return true;
    return false;
}

static void wait_events(struct launch *l, int timeout_ms) {
    struct pollfd p[LAUNCH_WORKERS_MAX + 1] = {{.fd = l->events, .events = POLLIN}};
    nfds_t n = 1;
    uint64_t drained;
    for (unsigned i = 0; i < l->o.n_workers; i++)
        if (l->child[i].pid && l->child[i].pidfd >= 0)
            p[n++] = (struct pollfd){.fd = l->child[i].pidfd, .events = POLLIN};
    poll(p, n, timeout_ms);
    if (p[0].revents & POLLIN)
        (void)!read(l->events, &drained, sizeof drained);
}

static void *launch_loop(void *arg) {
    struct launch *l = arg;
    while (!atomic_load(&l->stop)) {
        int next_ms = restart_due(l);
        if (dial_due(l))
            next_ms = DIAL_POLL_MS;
        wait_events(l, next_ms < 0 ? LOOK_MS : MIN(next_ms, LOOK_MS));
        reap(l);
        kill_frozen(l);
        roll(l);
        if (!atomic_load(&l->stop) && !atomic_load(&l->refused))
            show(l);
    }
    end_line(l);
    kill_all(l, atomic_load(&l->stop) == 2 ? SIGKILL : SIGTERM);
    uint64_t deadline = clock_ns() + GRACE_MS * NS_PER_MS;
    while (any_left(l)) {
        if (clock_ns() > deadline || atomic_load(&l->stop) == 2)
            kill_all(l, SIGKILL);
        wait_events(l, 50);
        reap(l);
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------------- */

static enum rc find_worker(struct launch *l, struct err *e) {
    ssize_t n = readlink("/proc/self/exe", l->worker_path, sizeof l->worker_path - 16);
    if (n <= 0)
        return err_io(e, "cannot tell where this program lies");
    l->worker_path[n] = 0;
    char *slash = strrchr(l->worker_path, '/');
    strcpy(slash ? slash + 1 : l->worker_path, "weir-worker");
    if (access(l->worker_path, X_OK))
        return err_set(e, RC_NOT_FOUND, NULL, "weir-worker is missing beside weir");
    return RC_OK;
}

/* Sockets lie in a folder of their own. A killed `weir serve` leaves it behind; the next one, seeing by the
 * lock that nobody is there any more, takes it away. */
#define DIR_PREFIX "weir-serve-"

/* lock_dir: a descriptor of a folder of ours, locked; -1 if somebody has it, or it is not ours. */
static int lock_dir(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && !fstat(fd, &st) && st.st_uid == geteuid() && !flock(fd, LOCK_EX | LOCK_NB))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void sweep(void) {
    DIR *tmp = opendir("/tmp");
    struct dirent *entry;
    while (tmp && (entry = readdir(tmp))) {
        char path[sizeof "/tmp/" + sizeof entry->d_name];
        snprintf(path, sizeof path, "/tmp/%s", entry->d_name);
        int fd = strncmp(entry->d_name, DIR_PREFIX, strlen(DIR_PREFIX)) ? -1 : lock_dir(path);
        if (fd < 0)
            continue;
        for (unsigned i = 0; i < LAUNCH_WORKERS_MAX; i++) {
            char name[32];
            snprintf(name, sizeof name, "worker-%u.sock", i);
            unlinkat(fd, name, 0);
        }
        rmdir(path);
        close(fd);
    }
    if (tmp)
        closedir(tmp);
}

static enum rc make_dir(struct launch *l, struct err *e) {
    enum { TRIES = 8 };
    struct stat st;
    sweep();
    for (int i = 0; i < TRIES; i++) {
        strcpy(l->dir, "/tmp/" DIR_PREFIX "XXXXXX");
        if (!mkdtemp(l->dir)) {
            l->dir[0] = 0;
            return err_io(e, "cannot make a folder in /tmp");
        }
        l->dir_fd = lock_dir(l->dir);
        if (l->dir_fd >= 0 && !stat(l->dir, &st))
            return RC_OK;
        if (l->dir_fd >= 0) /* a sweep of another process came between mkdtemp and the lock */
            close(l->dir_fd);
        l->dir_fd = -1;
    }
    l->dir[0] = 0;
    return err_set(e, RC_IO, NULL, "cannot lock a folder in /tmp");
}

static void clean(struct launch *l) {
    for (unsigned i = 0; i < l->o.n_workers; i++)
        if (l->child[i].url[0])
            unlink(l->child[i].url + strlen("ipc://"));
    if (l->dir[0])
        rmdir(l->dir);
    if (l->dir_fd >= 0)
        close(l->dir_fd);
    if (l->events >= 0)
        close(l->events);
    free(l);
}

enum rc launch_start(struct launch **out, const struct launch_opts *o, struct err *e) {
    struct launch *l = xcalloc(1, sizeof *l);
    CHECK(o->n_workers >= 1 && o->n_workers <= LAUNCH_WORKERS_MAX);
    l->o = *o;
    l->events = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->is_terminal = isatty(STDERR_FILENO);
    l->shown_ns = clock_ns();
    l->dir_fd = -1;
    enum rc rc = find_worker(l, e);
    if (rc == RC_OK)
        rc = make_dir(l, e);
    if (rc == RC_OK && o->n_workers > 1 && o->gpus_each > 0) { /* enough for the last: enough for all */
        struct buf last = {0};
        rc = launch_gpus(&last, getenv("CUDA_VISIBLE_DEVICES"), o->n_workers - 1, o->gpus_each, e);
        buf_fini(&last);
    }
    for (unsigned i = 0; i < o->n_workers && rc == RC_OK; i++) {
        struct child *c = &l->child[i];
        c->pidfd = -1;
        snprintf(c->url, sizeof c->url, "ipc://%s/worker-%u.sock", l->dir, i);
    }
    if (rc != RC_OK) {
        clean(l);
        return rc;
    }
    router_on_change(o->router, wake, l);
    CHECK(pthread_create(&l->thread, NULL, launch_loop, l) == 0);
    *out = l;
    return RC_OK;
}

bool launch_stop(struct launch *l, bool now) {
    if (!l)
        return true;
    atomic_store(&l->stop, now ? 2 : 1);
    wake(l);
    pthread_join(l->thread, NULL);
    bool ok = !atomic_load(&l->refused);
    router_on_change(l->o.router, NULL, NULL);
    clean(l);
    return ok;
}
