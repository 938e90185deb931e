#!/usr/bin/env python3
"""What Jinja makes of chat templates, for router/tmpl.

    templates.py write            our templates with every context, and random ones: tests/golden/tmpl
                                  (bench_tmpl only says which random ones meet a limit of ours: left out)
    templates.py fuzz [SECONDS [SEED]]   random templates and changed ones of ours, Jinja against
                                  build/plain/tests/bench/bench_tmpl
    templates.py transformers     that our environment renders as transformers' own does
    templates.py table            which of our templates uses which construct: the table of tests/tmpl/README.md

Needs jinja2 3.1.6 (and transformers for the check of that name) and Python 3.11, whose Unicode
tables the goldens have.
"""
import copy
import datetime
import functools
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import jinja2
import jinja2.ext
import jinja2.sandbox

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from templates_random import Gen, contexts, mutant  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/tmpl"
MORE = ROOT / "tests/tmpl/templates"  # compared live, by tests/e2e/test_templates.py
TOOL = ROOT / "build/plain/tests/bench/bench_tmpl"
NOW_UNIX_S = 1753180200  # bench_tmpl's and the unit test's clock; both run with TZ=UTC
N_RANDOM = 280
OUTPUT_MAX = 600  # of a random case that is kept


class Generation(jinja2.ext.Extension):
    """`generation` blocks: call blocks around a function that returns what they render."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


class Namespace(jinja2.utils.Namespace):
    """Names of a namespace may not begin with an underscore."""

    def __init__(*args, **kwargs):
        self, attrs = args[0], dict(*args[1:], **kwargs)
        for name in attrs:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"underscore-prefixed attribute {name!r}")


class Dict:
    """dict() without the rest of the type."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


def environment():
    """The environment of transformers' apply_chat_template."""

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format):
        return datetime.datetime.fromtimestamp(NOW_UNIX_S, datetime.timezone.utc).replace(tzinfo=None).strftime(format)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals.update(raise_exception=raise_exception, strftime_now=strftime_now, dict=Dict(), namespace=Namespace)
    return env


ENV = environment()


class Timeout(Exception):
    pass


def on_alarm(signum, frame):
    raise Timeout


compiled = functools.lru_cache(64)(ENV.from_string)


def render(text, context):
    """{"output": text} or {"error": message}."""
    try:
        # A copy: Jinja's `indent` adds to a list in place.
        return {"output": compiled(text).render(**copy.deepcopy(context))}
    except Timeout:
        raise
    except Exception as e:  # whatever a template can raise: Jinja's errors, TypeError, ValueError, ...
        return {"error": f"{type(e).__name__}: {e}"}


def load(name):
    return json.loads((GOLDEN / name).read_text())


def dump(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=0, separators=(",", ":"))
    (GOLDEN / name).write_text(text + "\n")


# ---- our templates ----

def our_cases():
    chats = load("contexts.json")
    for path in sorted((GOLDEN / "templates").glob("*.jinja")):
        for name, context in chats.items():
            yield path.stem, name, path.read_text(), context


def write():
    expected = {}
    for template, name, text, context in our_cases():
        answer = render(text, context)
        if "error" in answer:
            answer = {"error": True}
        expected.setdefault(template, {})[name] = answer
    dump("expected.json", expected)
    cases, seed = [], 0
    shared, tool = contexts(), Tool()
    while len(cases) < N_RANDOM:
        seed += 1
        text = Gen(seed).template()
        which = seed % len(shared)
        answer = render(text, shared[which])
        if not comparable(text, answer, tool.render(text, shared[which])) or len(answer.get("output", "")) > OUTPUT_MAX or len(text) > 3 * OUTPUT_MAX:
            continue
        cases.append([text, which, answer.get("output")])  # None: an error
    dump("random.json", {"contexts": shared, "cases": cases})
    kept = sum(c[2] is not None for c in cases)
    print(f"{sum(len(v) for v in expected.values())} renderings of our templates; {kept} random outputs and "
          f"{len(cases) - kept} random errors")


# ---- comparing live ----

class Tool:
    """bench_tmpl --stdin"""

    def __init__(self):
        self.p = subprocess.Popen([str(TOOL), "--stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env={"TZ": "UTC", "PATH": "/usr/bin:/bin"})

    def render(self, text, context):
        self.p.stdin.write((json.dumps({"template": text, "context": context}) + "\n").encode())
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise SystemExit(f"bench_tmpl died on {text!r}")
        return json.loads(line)


# Texts that hold an address or belong to Python alone, and errors that only we have: limits, integers
# beyond 64 bits, parts of Python that are refused by name.
OPAQUE = re.compile(r"<(built-in|function|bound|generator|method|class|jinja2|list_reverse|dict_|str_|tuple|range_iter|map|"
                    r"reversed|transformers|__main__)| at 0x")
OWN_ERRORS = re.compile(r"64 bits|budget|over its limit|nested (deeper|too)|not available in chat|is not supported|"
                        r"are not supported|too large|surrogate|cannot be sliced|invalid conversion|expected an expression, got 'in'")
BIG = re.compile(r"\d{19,}")


def comparable(text, answer, ours):
    """False where the two may differ by design."""
    output = answer.get("output", "")
    if OPAQUE.search(output) or BIG.search(output):
        return False
    try:
        output.encode()
    except UnicodeEncodeError:
        return False
    if "error" in answer and re.search(r"RecursionError|unknown to the frame|OverflowError|int string conversion", answer["error"]):
        return False
    return not (ours and OWN_ERRORS.search(ours.get("error", "")))


def same(a, b):
    return ("error" in a and "error" in b) or a.get("output", 0) == b.get("output", 1)


def fuzz(seconds, seed):
    tool, shared, chats, ours_all = Tool(), contexts(), list(load("contexts.json").values()), list(our_templates().values())
    end, n, errors, skipped, wrong = time.time() + seconds, 0, 0, 0, 0
    signal.signal(signal.SIGALRM, on_alarm)
    while time.time() < end:
        seed += 1
        if seed % 3:
            text, context = Gen(seed).template(), shared[seed % len(shared)]
        else:
            text, context = mutant(seed, ours_all), chats[seed // 3 % len(chats)]
        try:
            signal.alarm(5)
            answer = render(text, context)
        except Timeout:
            skipped += 1
            continue
        finally:
            signal.alarm(0)
        ours = tool.render(text, context)
        n += 1
        errors += "error" in answer
        if not comparable(text, answer, ours):
            skipped += 1
        elif not same(answer, ours):
            wrong += 1
            print(f"seed {seed}\n{text!r}\njinja {answer}\nweir  {ours}\n", flush=True)
            if wrong >= 20:
                break
    print(f"{n} templates, {errors} with errors, {skipped} not compared, {wrong} different; last seed {seed}")
    return 1 if wrong else 0


def transformers_check():
    from transformers.utils.chat_template_utils import _compile_jinja_template
    wrong = n = 0
    for template, name, text, context in our_cases():
        if "strftime_now" in text:
            continue  # reads the clock
        n += 1
        try:
            theirs = {"output": _compile_jinja_template(text).render(**context)}
        except Exception as e:
            theirs = {"error": str(e)}
        if not same(render(text, context), theirs):
            wrong += 1
            print(f"{template} {name}: transformers renders otherwise: {theirs}")
    print(f"{n} renderings equal transformers', {wrong} do not")
    return 1 if wrong else 0


def constructs(text):
    """Names of the constructs of a template."""
    n = jinja2.nodes
    kinds = {n.For: "`for`", n.If: "`if`", n.Macro: "`macro`", n.FilterBlock: "`filter` block", n.With: "`with`",
             n.AssignBlock: "`set` block", n.Assign: "`set`", n.Break: "`break`", n.Continue: "`continue`", n.CondExpr: "`a if b`",
             n.Slice: "slice", n.Concat: "`~`", n.Dict: "dict literal", n.List: "list literal", n.NSRef: "`set ns.x`",
             n.Not: "`not`", n.Or: "`or`", n.And: "`and`", n.Add: "`+`", n.Sub: "`-`", n.Mul: "`*`", n.Mod: "`%`", n.Neg: "negative number",
             n.Div: "`/`", n.FloorDiv: "`//`", n.Pow: "`**`", n.CallBlock: "`call` block"}
    found = set()
    for node in ENV.parse(text).find_all(n.Node):
        found |= {name for kind, name in kinds.items() if type(node) is kind}
        if isinstance(node, n.Filter) and node.name:
            found.add(f"filter `{node.name}`")
        if isinstance(node, n.Test):
            found.add(f"test `{node.name}`")
        if isinstance(node, n.Call) and isinstance(node.node, n.Getattr):
            found.add(f"method `{node.node.attr}()`")
        if isinstance(node, n.Call) and isinstance(node.node, n.Name) and node.node.name in ENV.globals:
            found.add(f"function `{node.node.name}()`")
        if isinstance(node, n.Getattr) and isinstance(node.node, n.Name) and node.node.name == "loop":
            found.add(f"`loop.{node.attr}`")
        if isinstance(node, n.Name) and node.name in ("caller", "varargs", "kwargs"):
            found.add(f"`{node.name}`")
        if isinstance(node, n.Operand):
            found.add({"in": "`in`", "notin": "`not in`"}.get(node.op, "comparison"))
        if isinstance(node, n.For):
            found |= {"`for ... if`"} if node.test else set()
            found |= {"`for ... else`"} if node.else_ else set()
            found |= {"`for a, b`"} if isinstance(node.target, n.Tuple) else set()
        if isinstance(node, n.If) and node.elif_:
            found.add("`elif`")
        if isinstance(node, n.Macro) and node.defaults:
            found.add("macro default")
        if isinstance(node, n.CallBlock) and node.args:
            found.add("`call(x)` block")
        if isinstance(node, n.For) and node.recursive:
            found.add("`for ... recursive`")
        if isinstance(node, n.Compare) and len(node.ops) > 1:
            found.add("chained comparison")
        if isinstance(node, n.Tuple) and node.ctx == "load":
            found.add("tuple")
        if isinstance(node, n.Const) and isinstance(node.value, float):
            found.add("float literal")
        if isinstance(node, (n.Call, n.Filter)) and (node.dyn_args or node.dyn_kwargs):
            found.add("`*args`, `**kwargs` in calls")
        if isinstance(node, n.Slice) and node.step is not None:
            found.add("slice with a step")
        if isinstance(node, n.Filter) and node.kwargs:
            found |= {f"filter `{node.name}({k.key}=)`" for k in node.kwargs}
        if isinstance(node, n.Assign) and isinstance(node.target, n.Tuple):
            found.add("`set a, b`")
        if isinstance(node, n.Name) and node.name in ("cycler", "joiner") and node.ctx == "load":
            found.add(f"function `{node.name}()`")
        if isinstance(node, n.CondExpr) and node.expr2 is None:
            found.add("`a if b` without `else`")
    for pattern, name in ((r"\{%-|\{\{-|\{#-", "`-` before"), (r"-%\}|-\}\}|-#\}", "`-` behind"), (r"\{#", "comment"),
                          (r"\{%\+|\+%\}", "`+` beside a block"), (r"\{%-?\s*raw", "`raw`"), (r"\{%-?\s*generation", "`generation`")):
        if re.search(pattern, text):
            found.add(name)
    return found


def our_templates():
    """{name: text} of all templates of our own."""
    return {p.stem: p.read_text() for folder in (GOLDEN / "templates", MORE) for p in sorted(folder.glob("*.jinja"))}


def table():
    """Who uses what, as lines of Markdown."""
    uses = {name: constructs(text) for name, text in our_templates().items()}
    lines = ["| construct | templates |", "|---|---|"]
    for name in sorted(set.union(*uses.values()), key=lambda x: (x.replace("`", ""), x)):
        who = [template for template, used in uses.items() if name in used]
        lines.append(f"| {name.replace('|', chr(92) + '|')} | {', '.join(who) if len(who) <= 6 else f'{len(who)} of {len(uses)}'} |")
    return lines


def main(args):
    if args[:1] == ["write"]:
        return write()
    if args[:1] == ["fuzz"]:
        return fuzz(float(args[1]) if len(args) > 1 else 60, int(args[2]) if len(args) > 2 else 1000000)
    if args[:1] == ["table"]:
        return print("\n".join(table()))
    if args[:1] == ["transformers"]:
        return transformers_check()
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
