"""Templates of our own with chats of every kind: Jinja's output and ours, byte for byte, computed now.

Jinja has the settings of Hugging Face transformers (scripts/goldens/templates.py says how that is known). Ours are rendered by
bench_tmpl --stdin, a thin program around router/tmpl, and some again by a server that gets them in requests.
"""
import importlib.util
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

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


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as r:
            return r.status, json.load(r)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


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
            ids = post(tiny, "/tokenize", {**body, "chat_template": text})[1]["tokens"]
            assert post(tiny, "/detokenize", {"tokens": ids})[1]["prompt"] == answer["output"], (name, chat)
            n += 1
    assert n >= 100


# ---- templates of requests, and messages that are continued, through whole servers --------------------------------------------

HOSTILE = [
    ("{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}", "5000000 (--max-template-steps)"),
    ("{{ 'x' * 99999999 }}", "16777216 bytes (--max-template-output)"),
    ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "64 (--max-template-depth)"),
    ("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "--max-template-output"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "64 (--max-template-depth)"),
    ("{% include '/etc/passwd' %}", "include"),
    ("{{ messages.__class__.__mro__ }}", "unsafe"),
    ("{{ raise_exception('no') }}", "no (line 1)"),
    ("{% if %}", "line 1"),
    ("x" * 300000, "262144 (--max-template-bytes)"),
]


def test_hostile_templates(tiny):
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    for path in ("/v1/chat/completions", "/tokenize"):
        for template, says in HOSTILE:
            status, answer = post(tiny, path, {**body, "chat_template": template})
            assert status == 400 and answer["error"]["param"] == "chat_template" and says in answer["error"]["message"], (template[:80], answer)
            assert post(tiny, path, body)[0] == 200


def test_many_templates_at_once(tiny):
    def one(i):
        body = {"messages": [{"role": "user", "content": f"number {i}"}], "chat_template": f"{{# {i % 97} #}}{{{{ messages[0].content }}}} {i % 97}"}
        status, answer = post(tiny, "/tokenize", body)
        assert status == 200, answer
        return post(tiny, "/detokenize", {"tokens": answer["tokens"]})[1]["prompt"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(300))) == [f"number {i} {i % 97}" for i in range(300)]


def test_no_request_chat_template(serve):
    server = serve("--no-request-chat-template")
    status, answer = post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "chat_template": "x"})
    assert status == 400 and "--no-request-chat-template" in answer["error"]["message"]


@pytest.mark.parametrize("content", ["Once upon a", "Sure. ", "", [{"type": "text", "text": "One,"}, {"type": "text", "text": "two"}]])
def test_continue_final_message(tiny, content):
    """The continuation is what a completion of the prompt gives, streamed or not, and has the message's role."""
    messages = [{"role": "user", "content": "Tell me a story."}, {"role": "assistant", "content": content}]
    extra = {"continue_final_message": True}
    ids = post(tiny, "/tokenize", {"messages": messages, **extra})[1]["tokens"]
    prompt = post(tiny, "/detokenize", {"tokens": ids})[1]["prompt"]
    assert prompt.endswith(content.strip() if isinstance(content, str) else "One,two")  # the template strips, and joins parts
    client = tiny.client()
    want = client.completions.create(model="", prompt=prompt, max_tokens=24, temperature=0, extra_body={"add_special_tokens": False})
    args = {"model": "", "messages": messages, "max_tokens": 24, "temperature": 0, "extra_body": extra}
    got = client.chat.completions.create(**args)
    assert (got.choices[0].message.content, got.choices[0].message.role) == (want.choices[0].text, "assistant")
    assert got.usage.prompt_tokens == len(ids)
    stream = list(client.chat.completions.create(**args, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == want.choices[0].text
