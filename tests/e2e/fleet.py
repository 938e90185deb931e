"""A fleet for the end-to-end tests: workers by hand on sockets of their own, and routers in front of them."""
import json
import pathlib
import signal
import subprocess
import tempfile
import urllib.request

from conftest import BUILD, TINY, Server, wait_for


class Fleet:
    """n workers, and one router unless told otherwise. Workers are killed and started again by their number."""

    def __init__(self, n, *router_flags, worker_flags=(), model=TINY, n_routers=1, key=None):
        self.key = key  # one of --api-key-file, if there is one
        self.folder = tempfile.TemporaryDirectory(prefix="weir-fleet-")
        self.dir = pathlib.Path(self.folder.name)
        self.urls = [f"ipc://{self.dir}/w{i}" for i in range(n)]
        self.model, self.worker_flags = model, list(map(str, worker_flags))
        self.procs = [None] * n
        self.all = []
        self.routers = []
        for i in range(n):
            self.start(i)
        self.router_flags = router_flags
        for _ in range(n_routers):
            self.routers.append(self.new_router())
        self.wait_all()

    def new_router(self, **kw):
        flags = [f for u in self.urls for f in ("--worker", u)]
        return Server(*flags, "--enable-admin-api", *self.router_flags, command="router", **kw)

    @property
    def router(self):
        return self.routers[0]

    def start(self, i, *flags):
        with open(self.dir / f"w{i}.log", "a") as log:
            p = subprocess.Popen([str(BUILD / "weir-worker"), str(self.model), "--threads", "1", "--listen", self.urls[i],
                                  *self.worker_flags, *map(str, flags)], stderr=log, stdout=log)
        self.procs[i] = p
        self.all.append(p)
        return p

    def kill(self, i, sig=signal.SIGKILL):
        self.procs[i].send_signal(sig)
        if sig == signal.SIGKILL:
            self.procs[i].wait()

    def workers(self, router=None):
        req = urllib.request.Request((router or self.router).url + "/weir/workers",
                                     headers={"Authorization": f"Bearer {self.key}"} if self.key else {})
        with urllib.request.urlopen(req, timeout=10) as r:
            return json.loads(r.read())["workers"]

    def states(self, router=None):
        """The state of each worker, by number."""
        by_url = {w["address"]: w["state"] for w in self.workers(router)}
        return [by_url.get(u, "gone") for u in self.urls]

    def wait_state(self, i, state, seconds=20, router=None):
        wait_for(lambda: self.states(router)[i] == state, seconds, f"worker {i} {state}")

    def wait_all(self, seconds=30):
        for r in self.routers:
            wait_for(lambda: set(self.states(r)) == {"ready"}, seconds, "every worker ready")

    def serving(self):
        """The numbers of the workers that have a request at the moment."""
        live = {r["worker"] for r in json.loads(self.router.get("/debug/requests"))["requests"]}
        return [self.urls.index(w["address"]) for w in self.workers() if w["id"] in live and w["state"] != "gone"]

    def logs(self):
        return "".join((self.dir / f"w{i}.log").read_text() for i in range(len(self.urls)))

    def idle(self, router=None):
        r = router or self.router
        return [r.metric(f"vllm:{n}") for n in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")] == [0, 0, 0]

    def stop(self):
        for r in self.routers:
            r.stop(expect=None)
        for p in self.all:
            if p.poll() is None:
                p.send_signal(signal.SIGCONT)
                p.kill()
            p.wait()
        text = self.logs()
        self.folder.cleanup()
        assert "ERROR: " not in text and "runtime error:" not in text, text
        assert "WARNING: ThreadSanitizer" not in text, text


def percentiles(name, values):
    """Printed with -s, and in the report of a failure."""
    v = sorted(values)
    if v:
        at = lambda q: v[min(int(q * len(v)), len(v) - 1)]
        print(f"{name}: n={len(v)} p50={at(.5) * 1e3:.0f} p90={at(.9) * 1e3:.0f} p99={at(.99) * 1e3:.0f} max={v[-1] * 1e3:.0f} ms")
