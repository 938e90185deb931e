"""Templates of a folder, TEMPLATES=, with our chats: Jinja's output and ours, byte for byte.

The folder holds *.jinja files, or tokenizer_config.json files with a chat_template. Without it the test is
skipped, and says so.
"""
import importlib.util
import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("TEMPLATES")
TOOL = ROOT / "build/plain/tests/bench/bench_tmpl"


def sources(folder):
    """(name, template) of every template below folder."""
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.suffix in (".jinja", ".jinja2", ".j2"):
            yield str(path), path.read_text()
        elif path.name == "tokenizer_config.json":
            found = json.loads(path.read_text()).get("chat_template")
            for entry in found if isinstance(found, list) else [{"name": "default", "template": found}]:
                if isinstance(entry["template"], str):
                    yield f"{path}:{entry['name']}", entry["template"]


@pytest.mark.skipif(not FOLDER, reason="TEMPLATES= names no folder with chat templates")
def test_public_templates():
    pytest.importorskip("jinja2", reason="the reference is Python's jinja2")
    if not TOOL.exists():
        pytest.skip(f"{TOOL} is not built (make bench-bin)")
    spec = importlib.util.spec_from_file_location("templates", ROOT / "scripts/goldens/templates.py")
    templates = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(templates)
    chats = json.loads((ROOT / "tests/golden/tmpl/contexts.json").read_text())
    tool, n, wrong = templates.Tool(), 0, []
    for name, text in sources(FOLDER):
        for chat, context in chats.items():
            answer, ours = templates.render(text, context), tool.render(text, context)
            n += 1
            if templates.comparable(text, answer, ours) and not templates.same(answer, ours):
                wrong.append(f"{name} with {chat}: Jinja {answer}, Weir {ours}")
    assert n, f"no templates in {FOLDER}"
    assert not wrong, "\n".join(wrong[:20])
