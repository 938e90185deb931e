"""Weights of tiny models that need not be stored: every value follows from the tensor's name and its place.

The golden maker gives them to transformers, a test writes them into a folder that a server then serves; so a golden is
a config, a list of shapes and the results.
"""
import json
import zlib

import numpy as np


def tensor(name, shape):
    """f32: uniform around 0, around 1 for norms; large enough that attention is uneven and every part matters."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):  # splitmix64 (Steele, Lea and Flood, 2014) of a counter
        x = np.uint64(zlib.crc32(name.encode())) * np.uint64(0x100000001B3) + np.arange(n, dtype=np.uint64)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    u = ((x >> np.uint64(40)).astype(np.float64) / 2 ** 23 - 1).reshape(shape)
    if len(shape) == 1:
        v = (1 if "norm" in name.lower() and name.endswith("weight") else 0) + 0.35 * u
    elif "embed" in name:
        v = 1.2 * u
    else:
        v = 2.4 / np.sqrt(shape[1]) * u
    return v.astype("<f4")


def unfolded(shapes, n_layers):
    """NAME.*.NAME stands for the tensors of all layers."""
    return {k.replace("*", str(i)): v for k, v in shapes.items() for i in range(n_layers if "*" in k else 1)}


def write_safetensors(path, shapes):
    head, data = {}, b""
    for name, shape in shapes.items():
        part = tensor(name, shape).tobytes()
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def pack(rows):
    """Rows of values within [-1, 1] as little-endian integers of 16 bits: within 1.6e-5 of what they were."""
    assert np.abs(rows).max() <= 1
    return np.round(np.asarray(rows, np.float64) * 32767).astype("<i2").tobytes()


def unpack(data, n_rows):
    return (np.frombuffer(data, "<i2").astype(np.float64) / 32767).reshape(n_rows, -1)
