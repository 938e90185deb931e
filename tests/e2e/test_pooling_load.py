"""Much pooling at once beside a stream of tokens: one router, a worker that embeds and a worker that generates."""
import concurrent.futures
import pathlib
import subprocess
import threading
import time

import pytest
from conftest import BUILD, SANITIZED, SCALE, SLOW, TINY, Server, wait_for
from test_pooling import ok
from test_pooling_generated import MODELS, write_folder

N_TEXTS = 2048 if SCALE >= 10 else 200
N_TOKENS = 512
N_CLIENTS = 64
GROWTH_MIB = 128  # the request, its ids and its vectors are a few MiB; two thousand texts at once would be a gigabyte


def high_water_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024


def text(i, n):
    """n - 2 words of one token each; no two texts are equal."""
    return " ".join(chr(97 + (i * 7 + k * (1 + i % 5) + (k == i % n)) % 26) for k in range(n - 2))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The router and the worker that embeds, its model stretched to 512 tokens."""
    folder = tmp_path_factory.mktemp("long")
    described = MODELS["xlmr-embed"]
    long = {"config": described["config"] | {"max_position_embeddings": N_TOKENS + 2},
            "tensors": {k: [N_TOKENS + 2, v[1]] if "position_embeddings" in k else v for k, v in described["tensors"].items()}}
    MODELS["long"] = long
    write_folder(folder, "long")
    del MODELS["long"]
    logs, procs, urls = [], [], []
    for name, model in (("embedder", folder), ("generator", TINY)):
        url, log = f"ipc://{folder}/{name}.sock", folder / f"{name}.log"
        urls += ["--worker", url]
        logs.append(log)
        procs.append(subprocess.Popen([BUILD / "weir-worker", model, "--threads", "1", "--served-model-name", name, "--listen",
                                       url], stderr=log.open("w"), stdout=subprocess.DEVNULL))
    router = Server(*urls, command="router")
    wait_for(lambda: {"embedder", "generator"} <= {m.id for m in router.client().models.list().data}, 60, "both models")
    yield router, procs[0]
    router.stop()
    for p in procs:
        p.terminate()
    for p, log in zip(procs, logs):
        assert p.wait(60) == 0, log.read_text()


def generate(router, n):
    """A greedy stream of n tokens: its text and the longest time between two of them."""
    said, last, gap = "", time.monotonic(), 0
    for chunk in router.client().completions.create(model="generator", prompt="once upon", max_tokens=n, temperature=0,
                                                    stream=True, extra_body={"ignore_eos": True}):
        now = time.monotonic()
        said, gap, last = said + chunk.choices[0].text, max(gap, now - last), now
    return said, gap


class Beside:
    """Streams one answer after the other while a block runs; each must be what it is alone, and none may stall."""

    def __init__(self, router):
        self.router, self.want = router, generate(router, 100)[0]
        self.stop, self.n, self.gap, self.bad = threading.Event(), 0, 0, []
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.stop.is_set() or self.n == 0:
                said, gap = generate(self.router, 100)
                self.n, self.gap = self.n + 1, max(self.gap, gap)
                if said != self.want:
                    self.bad.append(said)
        except Exception as e:  # noqa: BLE001  what went wrong is told by the test's own thread
            self.bad.append(e)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        assert not self.bad, self.bad[0]
        assert self.gap < 3 * SLOW, f"a stream stood still for {self.gap:.1f} s"


def test_many_long_texts_in_one_request(both):
    router, worker = both
    texts = [text(i, N_TOKENS) for i in range(N_TEXTS)]
    sample = list(range(0, N_TEXTS, N_TEXTS // 12))
    alone = {i: ok(router, "/v1/embeddings", {"model": "embedder", "input": texts[i]}) for i in sample}
    assert {a["usage"]["prompt_tokens"] for a in alone.values()} == {N_TOKENS}
    before = [high_water_mib(p) for p in (router.proc.pid, worker.pid)]
    start = time.monotonic()
    with Beside(router) as beside:
        answer = router.client().with_options(timeout=600 * SLOW, max_retries=0).embeddings.create(
            model="embedder", input=texts, encoding_format="float")
    growth = [high_water_mib(p) - b for p, b in zip((router.proc.pid, worker.pid), before)]
    print(f"{N_TEXTS} texts of {N_TOKENS} tokens in {time.monotonic() - start:.1f} s; memory of router and worker grew by "
          f"{growth[0]:.0f} and {growth[1]:.0f} MiB; {beside.n} streams beside it, at most {beside.gap * 1e3:.0f} ms "
          "between two tokens")
    assert answer.usage.prompt_tokens == N_TEXTS * N_TOKENS
    assert [d.index for d in answer.data] == list(range(N_TEXTS))
    assert all(answer.data[i].embedding == alone[i]["data"][0]["embedding"] for i in sample)
    assert len({tuple(d.embedding) for d in answer.data}) == len(set(texts))
    assert SANITIZED or max(growth) < GROWTH_MIB


def test_many_clients_of_one_text_each(both):
    router, _ = both
    texts = [text(i, 3 + i * 5) for i in range(N_CLIENTS)]
    whole = ok(router, "/v1/embeddings", {"model": "embedder", "input": texts})["data"]

    def one(i):
        return ok(router, "/v1/embeddings", {"model": "embedder", "input": texts[i]})["data"][0]["embedding"]

    with Beside(router) as beside, concurrent.futures.ThreadPoolExecutor(N_CLIENTS) as pool:
        got = list(pool.map(one, range(N_CLIENTS)))
    assert got == [d["embedding"] for d in whole]
    assert beside.n > 0
