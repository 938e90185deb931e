"""Templates of our own with chats of every kind: Jinja's output and ours, byte for byte, computed now.

Jinja has the settings of Hugging Face transformers (scripts/goldens/templates.py says how that is known). Ours are rendered by
bench_tmpl --stdin, a thin program around router/tmpl, and some again by a server that gets them in requests.
"""
import importlib.util
import json
import urllib.request

import pytest
from conftest import ROOT

TOOL = ROOT / "build/plain/tests/bench/bench_tmpl"
# What public templates use, by the names of `templates.py table`.
CONSTRUCTS = """%; *; +; -; /; //; ~; and; or; not; in; not in; a if b; a if b without else; comparison; chained comparison; slice; slice with a step;
tuple; dict literal; list literal; float literal; negative number; *args, **kwargs in calls; if; elif; for; for ... if; for ... else; for a, b;
for ... recursive; break; continue; set; set block; set ns.x; set a, b; with; macro; macro default; varargs; kwargs; caller; call block; call(x) block;
filter block; raw; generation; comment; - before; - behind; + beside a block"""
NAMES = {
    "filter": "abs attr batch capitalize count default dictsort e escape first float format groupby indent int items join last length list lower map "
              "max min reject rejectattr replace reverse round safe select selectattr slice sort string sum title tojson trim truncate unique upper "
              "wordcount indent(first=) map(attribute=) map(default=) sort(attribute=) sort(reverse=) tojson(ensure_ascii=) tojson(indent=) "
              "tojson(separators=) tojson(sort_keys=)",
    "test": "boolean callable defined divisibleby eq even false filter float ge gt in integer iterable le lower lt mapping ne none number odd sameas "
            "sequence string true undefined upper",
    "method": "capitalize copy count endswith find format get index isdigit items join keys lower lstrip partition removeprefix removesuffix replace "
              "rfind rsplit rstrip split splitlines startswith strip title upper values zfill",
    "function": "cycler dict joiner namespace raise_exception range strftime_now",
    "loop": "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0",
}


def load_templates():
    pytest.importorskip("jinja2", reason="the reference is Python's jinja2")
    spec = importlib.util.spec_from_file_location("templates", ROOT / "scripts/goldens/templates.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contexts():
    return json.loads((ROOT / "tests/golden/tmpl/contexts.json").read_text())


@pytest.mark.slow_sanitized
def test_equal_to_jinja():
    templates, n, wrong = load_templates(), 0, []
    ours, tool = templates.our_templates(), templates.Tool()
    assert len(ours) >= 40
    rendered = dict.fromkeys(ours, 0)
    for name, text in ours.items():
        for chat, context in contexts().items():
            answer, answer_of_ours = templates.render(text, context), tool.render(text, context)
            n += 1
            rendered[name] += "output" in answer
            if not templates.same(answer, answer_of_ours):
                wrong.append(f"{name} with {chat}: Jinja {answer}, Weir {answer_of_ours}")
    assert not wrong, "\n".join(wrong[:10])
    assert n >= 700 and min(rendered.values()) > 0, rendered


def test_table_is_current_and_complete():
    templates = load_templates()
    table = templates.table()
    readme = (ROOT / "tests/tmpl/README.md").read_text()
    assert "\n".join(table) in readme, "run scripts/goldens/templates.py table and put it into tests/tmpl/README.md"
    used = {line.split(" | ")[0].removeprefix("| ").replace("`", "").removesuffix("()") for line in table[2:]}
    wanted = {f"loop.{n}" if kind == "loop" else f"{kind} {n}" for kind, names in NAMES.items() for n in names.split()}
    wanted |= {c.strip() for c in CONSTRUCTS.split(";")}
    assert wanted <= used, wanted - used


def usable(context):
    """Chats that are requests as well, and mean the same there: content as it is, no variables of the test's own."""
    return (set(context) <= {"bos_token", "eos_token", "messages", "tools", "add_generation_prompt"} and context["messages"]
            and all(isinstance(m["content"], str) and set(m) <= {"role", "content"} for m in context["messages"]))


def test_through_a_server(tiny):
    templates, n = load_templates(), 0
    for name, text in templates.our_templates().items():
        for chat, context in contexts().items():
            if not usable(context) or "strftime_now" in text:
                continue
            tokens = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end|>"}
            answer = templates.render(text, {**context, **tokens, "documents": None})
            body = {k: context[k] for k in ("messages", "tools", "add_generation_prompt")}
            if "{% for part in" in text.replace("{%-", "{%") or not answer.get("output"):
                continue  # such a template gets lists of parts; an error, or nothing, is no prompt
            request = urllib.request.Request(tiny.url + "/tokenize", json.dumps({**body, "chat_template": text}).encode(),
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as r:
                ids = json.load(r)["tokens"]
            request = urllib.request.Request(tiny.url + "/detokenize", json.dumps({"tokens": ids}).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as r:
                assert json.load(r)["prompt"] == answer["output"], (name, chat)
            n += 1
    assert n >= 100
