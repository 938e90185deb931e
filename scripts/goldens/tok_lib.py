"""tok_lib.py: common/text as a shared library, for the scripts that compare it with Hugging Face tokenizers.

Builds build/tok_lib.so from the sources when they are newer, and wraps tok_load, tok_encode, tok_wrap_pair and
the decoder. One thread.
"""
import ctypes
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIB = ROOT / "build" / "tok_lib.so"


class Str(ctypes.Structure):
    _fields_ = [("p", ctypes.c_char_p), ("n", ctypes.c_size_t)]


class Files(ctypes.Structure):
    _fields_ = [(name, Str) for name in ("tokenizer_json", "tokenizer_config_json", "special_tokens_map_json",
                                         "tokenizer_model", "vocab_json", "merges_txt", "vocab_txt", "added_tokens_json")]


class Mark(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_size_t), ("end", ctypes.c_size_t)]


class Ids(ctypes.Structure):
    _fields_ = [("v", ctypes.POINTER(ctypes.c_uint32)), ("n", ctypes.c_size_t), ("cap", ctypes.c_size_t)]

    def take(self):
        out = self.v[: self.n]
        self.n = 0
        return out


class Err(ctypes.Structure):
    _fields_ = [("rc", ctypes.c_int), ("param", ctypes.c_char * 160), ("msg", ctypes.c_char * 1024)]


class Buf(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_char)), ("len", ctypes.c_size_t), ("cap", ctypes.c_size_t)]


class TextIds(ctypes.Structure):
    _fields_ = [("v", ctypes.POINTER(ctypes.c_uint32)), ("n", ctypes.c_size_t)]


def build():
    sources = sorted(ROOT.glob("common/text/*.c")) + [ROOT / "common" / f"{n}.c" for n in ("base", "buf", "err", "json", "json_scan", "jw", "utf8")]
    sources = [s for s in sources if s.exists()]
    newest = max(p.stat().st_mtime for p in list(ROOT.glob("common/**/*.[ch]")))
    if not LIB.exists() or LIB.stat().st_mtime < newest:
        LIB.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-std=c17", "-D_GNU_SOURCE", "-O2", "-g", "-shared", "-fPIC", "-I.", "-o", LIB, *sources, "-ljansson", "-lcrypto", "-lm"],
                       cwd=ROOT, check=True)
    lib = ctypes.CDLL(str(LIB))
    lib.tok_load.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(Files), ctypes.POINTER(Err)]
    lib.tok_free.argtypes = [ctypes.c_void_p]
    lib.tok_encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(Mark), ctypes.c_size_t,
                               ctypes.c_uint, ctypes.POINTER(Ids)]
    lib.tok_wrap_pair.argtypes = [ctypes.c_void_p, TextIds, TextIds, ctypes.POINTER(Ids), ctypes.POINTER(Ids)]
    lib.detok_all.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32), ctypes.c_size_t, ctypes.c_bool, ctypes.POINTER(Buf)]
    lib.buf_fini.argtypes = [ctypes.POINTER(Buf)]
    return lib


class Tok:
    lib = None

    def __init__(self, **files):
        """files: by the names of struct tok_files, as bytes."""
        Tok.lib = Tok.lib or build()
        self.t, err = ctypes.c_void_p(), Err()
        f = Files(**{k: Str(v, len(v)) for k, v in files.items()})
        if self.lib.tok_load(ctypes.byref(self.t), ctypes.byref(f), ctypes.byref(err)):
            raise ValueError(err.msg.decode())
        self.ids, self.types = Ids(), Ids()

    def __del__(self):
        if self.lib and self.t:
            self.lib.tok_free(self.t)

    def encode(self, text, special=False):
        raw = text.encode()
        self.lib.tok_encode(self.t, raw, len(raw), None, 0, int(special), ctypes.byref(self.ids))
        return self.ids.take()

    def encode_pair(self, a, b):
        """(ids, types)"""
        def array(ids):
            return TextIds((ctypes.c_uint32 * len(ids))(*ids), len(ids))
        self.lib.tok_wrap_pair(self.t, array(self.encode(a)), array(self.encode(b)), ctypes.byref(self.ids), ctypes.byref(self.types))
        return self.ids.take(), self.types.take()

    def decode(self, ids, skip_special=False):
        out = Buf()
        self.lib.detok_all(self.t, (ctypes.c_uint32 * len(ids))(*ids), len(ids), skip_special, ctypes.byref(out))
        text = ctypes.string_at(out.data, out.len).decode() if out.len else ""
        self.lib.buf_fini(ctypes.byref(out))
        return text
