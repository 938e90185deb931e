#!/usr/bin/env python3
"""llguidance and XGrammar over the schemas and the vocabulary of bench_grammar: the same JSON lines as its own.

Usage: bench_grammar_peers.py FILE, written by `bench_grammar 200 FILE`; tests/requirements-grammar.txt lists the packages.

For each schema: compiled, then a mask before each token of the instance, as in bench_grammar: first_mask is from the
schema's text to the first mask, mask_* are all others. One thread, and no schema twice, so no cache of whole schemas
helps. Each engine's own way of reading a schema is its default (XGrammar: any white space); an instance that it refuses
is counted in params.unfinished and its masks up to there count. A call from Python costs about half a microsecond,
which is in the figures of the two."""
import importlib.machinery
import json
import os
import sys
import time
import types


def stand_in(name):
    """A module that has every name: xgrammar imports torch and transformers for tensors and models, which masks over
    numpy arrays never touch."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    module.__getattr__ = lambda attribute: type(attribute, (), {"__init__": lambda self, *args, **kwargs: None})
    sys.modules[name] = module


class LLGuidance:
    def __init__(self, tokens, eos):
        import llguidance
        import llguidance.numpy
        import numpy

        ids = {t: i for i, t in enumerate(tokens) if t}
        longest = max(map(len, ids))

        class Tokenizer:
            eos_token_id = eos
            bos_token_id = None
            special_token_ids = [eos]

            def __call__(self, text):
                """By longest match; asked for what the grammar forces."""
                text, out = text if isinstance(text, bytes) else text.encode(), []
                while text:
                    n = next(n for n in range(min(len(text), longest), 0, -1) if text[:n] in ids)
                    out.append(ids[text[:n]])
                    text = text[n:]
                return out

        Tokenizer.tokens = [t or f"<hole {i}>".encode() for i, t in enumerate(tokens)]
        Tokenizer.special_token_ids += [i for i, t in enumerate(tokens) if not t and i != eos]
        self.name = "llguidance " + __import__("importlib.metadata").metadata.version("llguidance")
        self.lib = llguidance
        wrapper = llguidance.TokenizerWrapper(Tokenizer())
        self.tokenizer = llguidance.LLTokenizer(wrapper, slices=llguidance.LLTokenizer.json_slices())
        self.bits = numpy.zeros((1, (len(tokens) + 31) // 32), dtype=numpy.int32)
        self.fill = llguidance.numpy.fill_next_token_bitmask

    def compile(self, schema):
        grammar = self.lib.LLMatcher.grammar_from_json_schema(schema)
        self.matcher = self.lib.LLMatcher(self.tokenizer, grammar, log_level=0)
        if self.matcher.is_error():
            raise ValueError(self.matcher.get_error())

    def mask(self):
        self.fill(self.matcher, self.bits)

    def accept(self, token):
        return self.matcher.consume_token(token)


class XGrammar:
    def __init__(self, tokens, eos):
        import tvm_ffi  # before the stand-in, which it would take for the real one
        assert tvm_ffi
        stand_in("torch")
        stand_in("transformers")
        import numpy
        import xgrammar

        self.name = "xgrammar " + __import__("importlib.metadata").metadata.version("xgrammar")
        self.lib = xgrammar
        info = xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.RAW, vocab_size=len(tokens), stop_token_ids=[eos])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.bits = numpy.zeros((1, (len(tokens) + 31) // 32), dtype=numpy.int32)

    def compile(self, schema):
        self.matcher = self.lib.GrammarMatcher(self.compiler.compile_json_schema(schema))

    def mask(self):
        self.matcher.fill_next_token_bitmask(self.bits)

    def accept(self, token):
        return self.matcher.accept_token(token)


def allowed(bits, token):
    return int(bits[0, token // 32]) >> token % 32 & 1


def quantile(values, q):
    values = sorted(values)
    return values[min(int(q * len(values)), len(values) - 1)] if values else 0


def measure(engine, cases, limit_s):
    masks, first, refused, unfinished, until = [], [], 0, 0, time.monotonic() + limit_s
    done = 0
    for case in cases:
        if time.monotonic() > until:
            break
        done += 1
        schema = json.dumps(case["schema"])
        start = time.perf_counter()
        try:
            engine.compile(schema)
        except Exception as error:
            refused += 1
            print(f"bench_grammar_peers: {engine.name}: {str(error)[:200]}", file=sys.stderr)
            continue
        for i, token in enumerate(case["tokens"]):
            before = time.perf_counter()
            engine.mask()
            now = time.perf_counter()
            if i:
                masks.append(now - before)
            else:
                first.append(now - start)
            if not allowed(engine.bits, token) or not engine.accept(token):
                unfinished += 1
                break
    return masks, first, {"engine": engine.name, "schemas": done, "refused": refused, "unfinished": unfinished,
                          "masks": len(masks)}


def main():
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as f:
        head = json.loads(f.readline())
        cases = [json.loads(line) for line in f]
    tokens = [bytes.fromhex(t) for t in head["vocab"]]
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "")
    machine = {"cpu": cpu, "cores": len(os.sched_getaffinity(0))}
    for kind in (LLGuidance, XGrammar):
        masks, first, params = measure(kind(tokens, head["eos"]), cases, float(os.environ.get("PEER_SECONDS", "300")))
        name = params["engine"].split()[0]
        for what, value, unit in (("mask_p50_us", quantile(masks, 0.5) * 1e6, "us"),
                                  ("mask_p99_us", quantile(masks, 0.99) * 1e6, "us"),
                                  ("mask_max_us", quantile(masks, 1) * 1e6, "us"),
                                  ("first_mask_p50_ms", quantile(first, 0.5) * 1e3, "ms"),
                                  ("first_mask_p99_ms", quantile(first, 0.99) * 1e3, "ms")):
            print(json.dumps({"case": f"grammar.{name}.{what}", "value": round(value, 3), "unit": unit, "params": params,
                              "machine": machine}), flush=True)


if __name__ == "__main__":
    main()
