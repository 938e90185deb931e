"""A device's backend is a shared object beside the worker; one built here stands in for a GPU's."""
import os
import shutil
import subprocess

import pytest

from conftest import BUILD, ROOT, SANITIZED, TINY

PLUGIN = r"""
#include "worker/backend.h"
static struct be_ops ops;
__attribute__((visibility("default"))) const struct be_ops *be_plugin_ops(uint32_t abi) {
    ops = cpu_ops; /* the worker's own table, under another name and version */
    ops.name = "plugin";
    ops.abi = ABI;
    return abi == BE_ABI ? &ops : NULL;
}
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("weir", "weir-worker"):
        shutil.copy(BUILD / name, tmp_path / name)
    return tmp_path


def run(folder, *flags):
    args = [str(folder / "weir"), "serve", str(TINY), "--port", "0", "--dtype", "float32", *flags]
    return subprocess.run(["timeout", "-s", "TERM", "6" if SANITIZED else "3", *args], capture_output=True, text=True, env=os.environ)


def build(folder, abi):
    (folder / "plugin.c").write_text(PLUGIN)
    subprocess.run(["gcc", "-std=c17", "-shared", "-fPIC", f"-I{ROOT}", f"-DABI={abi}", str(folder / "plugin.c"), "-o",
                    str(folder / "backend-cuda.so")], check=True)


def test_cuda_without_its_backend_is_refused(folder):
    done = run(folder, "--device", "cuda")
    assert done.returncode == 1 and "make CUDA=1" in done.stderr, done.stderr


def test_a_backend_of_another_version_is_refused(folder):
    build(folder, "BE_ABI + 1")
    done = run(folder, "--device", "cuda")
    assert done.returncode == 1 and "another version" in done.stderr, done.stderr


def test_a_backend_is_loaded_and_serves(folder):
    build(folder, "BE_ABI")
    done = run(folder, "--device", "cuda")
    assert "weir: ready" in done.stderr, done.stderr


def test_auto_falls_back_to_the_cpu(folder):
    done = run(folder)
    assert "weir: ready" in done.stderr and "cpu" in done.stderr, done.stderr
