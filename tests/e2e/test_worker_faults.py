"""Workers with broken models, under signals, and killed: reliability.md rows L01 to L04 and section 3, over the real binaries."""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

import pytest

from conftest import BUILD, ROOT, SLOW, TINY, Server, wait_for
from test_faults import gauges, stream_request

CONFIG = json.loads((TINY / "config.json").read_text())
TOKENIZER = json.loads((TINY / "tokenizer.json").read_text())
WEIGHTS = (TINY / "model.safetensors").read_bytes()
HEADER_BYTES = struct.unpack("<Q", WEIGHTS[:8])[0]
HEADER = json.loads(WEIGHTS[8:8 + HEADER_BYTES])
DATA = WEIGHTS[8 + HEADER_BYTES:]
EMBED = "model.embed_tokens.weight"


def safetensors(header, data=DATA):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def config(**changes):
    return {k: v for k, v in {**CONFIG, **changes}.items() if v != "absent"}


def tensor(**changes):
    return safetensors({**HEADER, EMBED: {**HEADER[EMBED], **changes}})


def tokenizer(part, **changes):
    return {**TOKENIZER, **changes} if part is None else {**TOKENIZER, part: {**TOKENIZER[part], **changes}}


def model_copy(folder, files):
    """The tiny model with some files replaced; None takes one away."""
    folder.mkdir()
    for f in TINY.iterdir():
        if f.name not in files:
            (folder / f.name).symlink_to(f)
    for name, content in files.items():
        if content is not None:
            data = content if isinstance(content, (bytes, str)) else json.dumps(content)
            (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def one_line(args, seconds=20, env=None):
    """What a program that refuses to start says, which must be one line beside its log and its progress, and its exit status."""
    r = subprocess.run([str(a) for a in args], cwd=ROOT, capture_output=True, text=True, timeout=seconds * SLOW,
                       env={**os.environ, **(env or {})})
    lines = [line for line in (r.stdout + r.stderr).splitlines() if not line.startswith(("20", "loading "))]
    assert len(lines) == 1, r.stdout + r.stderr
    return r.returncode, lines[0]


INDEX = "model.safetensors.index.json"
VOCAB = TOKENIZER["model"]["vocab"]
LAST = max(VOCAB, key=VOCAB.get)

WORKER_REFUSES = {
    # L01
    "empty": ({"model.safetensors": b""}, ["model.safetensors", "0 bytes"]),
    "seven": ({"model.safetensors": b"1234567"}, ["model.safetensors", "7 bytes"]),
    "length 2^63": ({"model.safetensors": struct.pack("<Q", 1 << 63) + WEIGHTS[8:]}, ["model.safetensors", "header of 9223372036854775808"]),
    "length > file": ({"model.safetensors": struct.pack("<Q", len(WEIGHTS)) + WEIGHTS[8:]}, ["model.safetensors", "cut short"]),
    "not json": ({"model.safetensors": safetensors(b"{xyz")}, ["model.safetensors", "header, byte 1"]),
    "not object": ({"model.safetensors": safetensors(b"[]")}, ["model.safetensors", "object"]),
    "space": ({"model.safetensors": safetensors(b" {}")}, ["model.safetensors", "object"]),
    "deep": ({"model.safetensors": safetensors(b'{"a":' * 1000)}, ["model.safetensors"]),
    "twice": ({"model.safetensors": safetensors(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
                                                b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', b"")}, ['"a"', "twice"]),
    "truncated": ({"model.safetensors": WEIGHTS[:-1]}, ["model.safetensors", "cut short"]),
    "extra": ({"model.safetensors": WEIGHTS + b"x"}, ["model.safetensors", "1 bytes behind"]),
    "hole": ({"model.safetensors": safetensors({k: v for k, v in HEADER.items() if k != EMBED})}, ["model.safetensors", "hole"]),
    "reversed": ({"model.safetensors": tensor(data_offsets=[9, 0])}, [EMBED, "data_offsets", "reversed"]),
    "past end": ({"model.safetensors": tensor(data_offsets=[0, 1 << 40])}, [EMBED, "data_offsets", "past"]),
    "overflow": ({"model.safetensors": tensor(shape=[1 << 40, 1 << 40])}, [EMBED, "shape", "overflow"]),
    "negative": ({"model.safetensors": tensor(shape=[-1])}, [EMBED, "shape", "negative"]),
    "dims": ({"model.safetensors": tensor(shape=[1] * 10**6)}, [EMBED, "shape", "too many"]),
    "type": ({"model.safetensors": tensor(dtype="Q4")}, [EMBED, "dtype", "Q4"]),
    "span": ({"model.safetensors": tensor(shape=[1, 2])}, [EMBED, "data_offsets", "make 4"]),
    "missing": ({"model.safetensors": None}, ["model.safetensors"]),
    "shard outside": ({"model.safetensors": None, INDEX: {"weight_map": {"a": "../x.safetensors"}}}, [INDEX, "../x.safetensors"]),
    "shard missing": ({"model.safetensors": None, INDEX: {"weight_map": {"a": "x.safetensors"}}}, ["x.safetensors", "missing"]),
    "shard is index": ({"model.safetensors": None, INDEX: {"weight_map": {"a": INDEX}}}, [INDEX]),
    # L02
    "no config": ({"config.json": None}, ["config.json", "missing"]),
    "config deep": ({"config.json": "[" * 100000}, ["config.json", "nested"]),
    "hidden 0": ({"config.json": config(hidden_size=0)}, ["config.json", "hidden_size", "got 0"]),
    "heads 0": ({"config.json": config(num_attention_heads=0)}, ["config.json", "num_attention_heads", "got 0"]),
    "heads 7": ({"config.json": config(num_attention_heads=7)}, ["config.json", "num_key_value_heads", "divide"]),
    "layers 1e9": ({"config.json": config(num_hidden_layers=10**9)}, ["config.json", "num_hidden_layers", "1000000000"]),
    "layers + 1": ({"config.json": config(num_hidden_layers=5)}, ["model.layers.4", "config.json"]),
    "rope 0": ({"config.json": config(rope_scaling={"rope_type": "linear", "factor": 0})}, ["config.json", "rope_scaling.factor"]),
    "rope NaN": ({"config.json": config(rope_theta=float("nan"))}, ["config.json"]),
    "vocab": ({"config.json": config(vocab_size=1537)}, [EMBED, "1537", "config.json"]),
    "eos negative": ({"config.json": config(eos_token_id=-1)}, ["config.json", "eos_token_id", "-1"]),
    "eos absent": ({"config.json": config(eos_token_id="absent"), "generation_config.json": None}, ["config.json", "eos_token_id", "missing"]),
    "eos null": ({"config.json": config(eos_token_id=None), "generation_config.json": {}}, ["config.json", "eos_token_id", "missing"]),
    "eos empty": ({"config.json": config(eos_token_id=[])}, ["config.json", "eos_token_id", "got 0"]),
    "eos beyond": ({"generation_config.json": {"eos_token_id": [3, 1536]}}, ["generation_config.json", "eos_token_id", "1536"]),
    "class": ({"config.json": config(architectures=["FooModel"])}, ["config.json", "FooModel", "LlamaForCausalLM"]),
    # L03: the rest is the router's, below
    "no tokenizer": ({"tokenizer.json": None}, ["tokenizer.json", "missing"]),
}


def test_worker_refuses_broken_files(tmp_path):
    for i, (name, (files, words)) in enumerate(WORKER_REFUSES.items()):
        folder = model_copy(tmp_path / str(i), files)
        status, line = one_line([BUILD / "weir-worker", folder, "--listen", f"ipc://{tmp_path}/s"])
        assert status == 1 and line.startswith("weir-worker: ") and all(w in line for w in words), (name, status, line[:400])
        assert not (tmp_path / "s").exists(), name


def test_worker_never_waits_on_a_pipe(tmp_path):
    folder = model_copy(tmp_path / "m", {"config.json": None})
    os.mkfifo(folder / "config.json")
    assert one_line([BUILD / "weir-worker", folder, "--listen", f"ipc://{tmp_path}/s"])[0] == 1


WORKER_FLAGS = {
    "--max-model-len=2049": "2048",
    "--kv-cache-memory-bytes=1000": "--kv-cache-memory-bytes",
    "--kv-cache-memory-bytes=100000000000000": "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override=1": "KV cache",
    "--num-gpu-blocks-override=16777216": "--num-gpu-blocks-override",
    "--hf-overrides=[]": "--hf-overrides",
    '--hf-overrides={"hidden_size": 0}': "hidden_size",
    "--listen=ipc:///nonexistent/s": "/nonexistent/s",
    "--listen=foo": "foo",
    "--device=cuda": "backend-cuda.so",
    "--cluster-token-file=/nonexistent": "No such file",
    "--cluster-token-file=/dev/null": "empty",
    "--no-enable-chunked-prefill --max-num-batched-tokens=16": "--max-num-batched-tokens must be at least the context",
    "--no-enable-chunked-prefill --long-prefill-token-threshold=9": "contradicts --long-prefill-token-threshold",
}


def test_worker_refuses_impossible_flags(tmp_path):
    for flag, words in WORKER_FLAGS.items():
        if flag == "--device=cuda" and (BUILD / "backend-cuda.so").exists():
            continue
        listen = [] if flag.startswith("--listen") else ["--listen", f"ipc://{tmp_path}/s"]
        status, line = one_line([BUILD / "weir-worker", TINY, *listen, *(flag.split() if " --" in flag else [flag])])
        want = 2 if flag == "--listen=foo" or "contradicts" in words else 1  # 2: wrong whatever the machine
        assert status == want and words in line, (flag, status, line)


def test_worker_refuses_a_taken_socket(tmp_path):
    url = f"ipc://{tmp_path}/s"
    first = subprocess.Popen([str(BUILD / "weir-worker"), str(TINY), "--mock", "--listen", url], stderr=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "s").exists, 10, "the socket")
        status, line = one_line([BUILD / "weir-worker", TINY, "--mock", "--listen", url])
        assert status == 1 and f"{tmp_path}/s: another process listens there" in line
    finally:
        first.terminate()
        assert first.wait(10 * SLOW) == 0
    assert not (tmp_path / "s").exists()


SERVE_REFUSES = {
    "not json": ({"tokenizer.json": "{"}, ["tokenizer.json"]),
    "empty": ({"tokenizer.json": ""}, ["tokenizer.json"]),
    "merge": ({"tokenizer.json": tokenizer("model", merges=TOKENIZER["model"]["merges"] + ["zzqq qqzz"])}, ["model.merges", "zzqq"]),
    "same id": ({"tokenizer.json": tokenizer("model", vocab={**VOCAB, LAST: 3})}, ["model.vocab", "same id 3"]),
    "id": ({"tokenizer.json": tokenizer("model", vocab={**VOCAB, "zzqq": 10**9})}, ["model.vocab", "zzqq"]),
    "added": ({"tokenizer.json": tokenizer(None, added_tokens=TOKENIZER["added_tokens"] * 2)}, ["added_tokens"]),
    "prefix": ({"tokenizer.json": tokenizer("model", continuing_subword_prefix="##")}, ["model.merges", "is not in model.vocab"]),
    "kind": ({"tokenizer.json": tokenizer("model", type="Chars")}, ["model.type", "Chars"]),
    "regex": ({"tokenizer.json": tokenizer(None, pre_tokenizer={"type": "Split", "pattern": {"Regex": r"(a+)\1"}, "behavior": "Isolated",
                                                                "invert": False})}, ["pre_tokenizer", r"(a+)\1"]),
    "part": ({"tokenizer.json": tokenizer(None, pre_tokenizer={"type": "Syllables"})}, ["pre_tokenizer", "Syllables"]),
    "worker": ({"config.json": config(hidden_size=0)}, ["config.json", "hidden_size"]),
    "weights": ({"model.safetensors": WEIGHTS[:-1]}, ["model.safetensors", "cut short"]),
}


def test_serve_refuses_broken_files(tmp_path):
    """One line and status 1, whether the worker or the router finds it; no child and no folder left."""
    for i, (name, (files, words)) in enumerate(SERVE_REFUSES.items()):
        folder = model_copy(tmp_path / str(i), files)
        status, line = one_line([BUILD / "weir", "serve", folder, "--port", 0])
        assert status == 1 and all(w in line for w in words), (name, status, line[:400])


def test_weights_cut_short_under_a_server(serve, tmp_path):
    """L04. What was loaded goes on; a restart says what is wrong, again and again, and succeeds once the file is back."""
    folder = model_copy(tmp_path / "m", {"model.safetensors": WEIGHTS})
    server = serve(model=folder)
    os.truncate(folder / "model.safetensors", 10000)
    assert server.client().completions.create(model="", prompt="x", max_tokens=2).usage.completion_tokens == 2
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    wait_for(lambda: server.output().count("cut short") >= 2, 20, "two attempts")
    assert server.status("/health") == 503 and server.proc.poll() is None
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    wait_for(lambda: server.status("/health") == 200, 20, "the restart")
    assert server.client().completions.create(model="", prompt="x", max_tokens=2).usage.completion_tokens == 2


def big_model(folder):
    """60 MB of zeros in one file: long enough to load for a test to come between."""
    sizes = {"hidden_size": 512, "intermediate_size": 4096, "head_dim": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
    header, at = {}, 0

    def add(name, *shape):
        nonlocal at
        n = 2
        for d in shape:
            n *= d
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n

    add(EMBED, 1536, 512)
    for i in range(4):
        layer = f"model.layers.{i}."
        for name, shape in {"input_layernorm": (512,), "self_attn.q_proj": (512, 512), "self_attn.k_proj": (512, 512),
                            "self_attn.v_proj": (512, 512), "self_attn.o_proj": (512, 512), "post_attention_layernorm": (512,),
                            "mlp.gate_proj": (4096, 512), "mlp.up_proj": (4096, 512), "mlp.down_proj": (512, 4096)}.items():
            add(layer + name + ".weight", *shape)
    add("model.norm.weight", 512)
    model_copy(folder, {"config.json": config(**sizes), "model.safetensors": safetensors(header, b"")})
    os.truncate(folder / "model.safetensors", os.path.getsize(folder / "model.safetensors") + at)
    return folder


def stopped_while_loading(folder, tmp_path):
    """A worker of the folder, stopped with its weights mapped but not loaded; None if it was too quick."""
    w = subprocess.Popen([str(BUILD / "weir-worker"), str(folder), "--listen", f"ipc://{tmp_path}/s"], stderr=subprocess.PIPE, text=True)
    maps = pathlib.Path(f"/proc/{w.pid}/maps")
    while w.poll() is None and "model.safetensors" not in maps.read_text():
        pass
    w.send_signal(signal.SIGSTOP)
    return w


def end_of_load(w):
    w.send_signal(signal.SIGCONT)
    try:
        status = w.wait(10 * SLOW)
    except subprocess.TimeoutExpired:
        w.kill()
        raise
    return status, w.stderr.read()


def test_weights_cut_short_while_loading(tmp_path):
    """L04. The mapping loses its pages in mid-load (SIGBUS): one line and status 1."""
    for i in range(20):
        folder = big_model(tmp_path / str(i))
        w = stopped_while_loading(folder, tmp_path)
        os.truncate(folder / "model.safetensors", 16384)
        w.send_signal(signal.SIGCONT)
        time.sleep(0.2 * SLOW)
        if w.poll() is None:
            w.terminate()
        status, text = end_of_load(w)
        shutil.rmtree(folder)
        if "ready" not in text:
            lines = [line for line in text.splitlines() if not line.startswith("20")]
            assert status == 1 and len(lines) == 1 and "model file was cut short" in lines[0], (status, text)
            return
    pytest.fail("it always loaded before it could be stopped")


def test_sigterm_while_loading(tmp_path):
    for i in range(20):
        folder = big_model(tmp_path / str(i))
        w = stopped_while_loading(folder, tmp_path)
        w.send_signal(signal.SIGTERM)
        status, text = end_of_load(w)
        shutil.rmtree(folder)
        assert status == 0, text
        assert not (tmp_path / "s").exists()
        if "ready" not in text:
            assert "stopped while loading" in text
            return
    pytest.fail("it always loaded before it could be stopped")


def start_pair(tmp_path, *flags):
    """A worker and a router apart from it."""
    url = f"ipc://{tmp_path}/pair"
    worker = subprocess.Popen([str(BUILD / "weir-worker"), str(TINY), "--listen", url, *flags], stderr=subprocess.DEVNULL)
    return worker, Server("--worker", url, command="router")


def read_stream(s, got=b""):
    while not got.endswith(b"0\r\n\r\n"):
        part = s.recv(65536)
        assert part, got[-300:]
        got += part
    return got


@pytest.mark.parametrize("engine", ["--mock", "--no-mock"])
def test_worker_alone_drains(tmp_path, engine):
    """SIGTERM to a worker: what runs finishes, to the last byte of the last stream; then it ends with status 0."""
    worker, router = start_pair(tmp_path, engine)
    try:
        streams = [stream_request(router.port, max_tokens=n) for n in (50, 200, 300)]
        got = [s.recv(4096) for s in streams]
        worker.send_signal(signal.SIGTERM)
        for s, g in zip(streams, got):
            text = read_stream(s, g)
            assert b'data: {"error"' not in text, text[-1000:]
            assert b'"finish_reason":"length"' in text and b"data: [DONE]" in text, text[-1000:]
        assert worker.wait(10 * SLOW) == 0
        wait_for(lambda: router.status("/health") == 503, 5, "the router to know")
    finally:
        worker.kill()
        router.stop()


def test_worker_twice_told_ends_at_once(tmp_path):
    worker, router = start_pair(tmp_path, "--mock", "--mock-step-ms=50")
    try:
        s = stream_request(router.port, max_tokens=1000)
        assert s.recv(100)
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.2 * SLOW)
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(2 * SLOW) == 0
        assert b'"error"' in read_stream(s, b"")
    finally:
        worker.kill()
        router.stop()


def sockets_folder(server):
    (worker,) = server.worker_pids()
    listen = next(a for a in pathlib.Path(f"/proc/{worker}/cmdline").read_text().split("\0") if a.startswith("--listen=ipc://"))
    return worker, pathlib.Path(listen.removeprefix("--listen=ipc://")).parent


def test_router_killed_takes_its_workers_along(serve):
    """kill -9 of weir: its workers end; their folder goes when the next server starts (another test's may be it), and that one
    leaves none."""
    server = serve()
    worker, folder = sockets_folder(server)
    stream_request(server.port)
    server.proc.kill()
    server.proc.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"), 5, "the worker's end")
    other, third = serve("--mock"), serve("--mock")
    assert not folder.exists()
    for s in (other, third):
        worker, folder = sockets_folder(s)
        assert folder.exists()
        s.proc.terminate()
        assert s.proc.wait(10 * SLOW) == 0
        assert not folder.exists() and not os.path.exists(f"/proc/{worker}")


def test_children_are_waited_for_whoever_started_us(tmp_path):
    """A parent that ignores SIGCHLD and blocks SIGTERM hands both down through exec."""
    def spoil():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    log = open(tmp_path / "log", "w+")
    p = subprocess.Popen([str(BUILD / "weir"), "serve", str(TINY), "--mock", "--port", "0"], cwd=ROOT, stderr=log, preexec_fn=spoil)
    try:
        wait_for(lambda: "ready in" in (tmp_path / "log").read_text(), 20, "ready")
        (worker,) = subprocess.run(["pgrep", "-P", str(p.pid), "-f", "weir-worker"], capture_output=True, text=True).stdout.split()
        os.kill(int(worker), signal.SIGKILL)
        wait_for(lambda: "signal 9" in (tmp_path / "log").read_text(), 10, "the death to be noticed")
        p.send_signal(signal.SIGTERM)
        assert p.wait(10 * SLOW) == 0
    finally:
        p.kill()


def test_restarts_back_off(serve):
    """A worker that dies at once after each start is started again, ever more slowly, and leaves no zombie."""
    server = serve("--mock")
    killed = []
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for pid in server.worker_pids():
            if pid not in killed:
                killed.append(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    assert 2 <= len(killed) <= 8, killed
    states = [line for pid in killed if os.path.exists(f"/proc/{pid}/status")
              for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("State:")]
    assert not any("zombie" in s for s in states), states
    wait_for(lambda: server.status("/health") == 200, 20, "the restart")


def test_frozen_worker(serve):
    """SIGSTOP: the stream ends in about two seconds, new requests are refused; SIGCONT: all as before, nothing mixed, nothing left."""
    server = serve()
    (worker,) = server.worker_pids()
    expected = server.client().completions.create(model="", prompt="tell me", max_tokens=40, temperature=0).choices[0].text
    s = stream_request(server.port)
    got = s.recv(4096)
    os.kill(worker, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        text = read_stream(s, got)
        assert time.monotonic() - begin < 4 * SLOW
        assert b'data: {"error"' in text and b"data: [DONE]" in text
        assert server.status("/health") == 503
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for(lambda: server.status("/health") == 200, 10, "the thaw")
    wait_for(lambda: gauges(server) == [0, 0, 0], 10, "gauges back at zero")
    assert server.client().completions.create(model="", prompt="tell me", max_tokens=40, temperature=0).choices[0].text == expected


def test_router_killed_alone(tmp_path):
    """kill -9 of a router apart from its worker: the worker frees its sequences, and serves the next router."""
    worker, router = start_pair(tmp_path)
    second = None
    try:
        for s in [stream_request(router.port) for _ in range(5)]:
            assert s.recv(100)
        router.proc.kill()
        router.proc.wait()
        begin = time.monotonic()
        second = Server("--worker", f"ipc://{tmp_path}/pair", command="router")
        wait_for(lambda: gauges(second) == [0, 0, 0], 5, "gauges back at zero")
        assert time.monotonic() - begin < 5 * SLOW and worker.poll() is None
        assert second.client().completions.create(model="", prompt="x", max_tokens=2).usage.completion_tokens == 2
    finally:
        if second:
            second.stop()
        worker.terminate()
        assert worker.wait(10 * SLOW) == 0
