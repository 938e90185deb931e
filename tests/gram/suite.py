"""The JSON-Schema-Test-Suite against our grammars.

Where it comes from: the source package of Python's jsonschema, pinned in tests/requirements-suite.txt,
unpacked by scripts/setup.sh into build/schema-suite.

What must hold: no invalid instance is accepted. Every valid instance that has a canonical form (api.md 9.3)
is accepted in that form. A schema said to have no value has no valid instance in the suite. Everything else
is counted by reason; tests/golden/schema_suite_counts.json holds the counts.

    python tests/gram/suite.py          prints what differs from the counts
    python tests/gram/suite.py --write  writes them
"""

import collections
import json
import pathlib
import re
import sys

import jsonschema

import probe

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUITE = ROOT / "build" / "schema-suite"
COUNTS = ROOT / "tests" / "golden" / "schema_suite_counts.json"
DRAFTS = {
    "draft7": ("http://json-schema.org/draft-07/schema#", jsonschema.Draft7Validator),
    "draft2020-12": ("https://json-schema.org/draft/2020-12/schema", jsonschema.Draft202012Validator),
}


class Canon:
    """The canonical form of a valid instance, if it has one."""

    def __init__(self, schema, validator_class):
        self.root = schema
        self.validator = validator_class(schema, format_checker=validator_class.FORMAT_CHECKER)
        self.old = validator_class is jsonschema.Draft7Validator

    def valid(self, schema, instance):
        try:
            return self.validator.evolve(schema=schema).is_valid(instance)
        except Exception:  # a reference that leads out of the schema
            return True

    def target(self, ref):
        """A local reference, as far as the suite uses them; True, which says nothing, if it is not found."""
        head, _, fragment = ref.partition("#")
        at = self.root
        if head:
            at = self.find(at, lambda node: self.tail(node.get("$id")) == self.tail(head))
        if fragment and not fragment.startswith("/"):
            names = ("$anchor", "$dynamicAnchor")
            return self.find(
                at, lambda n: n.get("$id") == "#" + fragment or fragment in [n.get(k) for k in names]
            )
        for word in fragment.split("/")[1:]:
            word = re.sub("%([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), word)
            word = word.replace("~1", "/").replace("~0", "~")
            at = at[int(word)] if isinstance(at, list) else at.get(word, {})
        return at

    def tail(self, uri):
        return uri.rstrip("#").rsplit("/", 1)[-1] if isinstance(uri, str) else None

    def find(self, node, wanted):
        if isinstance(node, dict) and wanted(node):
            return node
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        found = (self.find(child, wanted) for child in children)
        return next((f for f in found if f is not True), True)

    def ways(self, schemas, instance):
        """Lists of the subschemas that hold in place: one list per choice of members of anyOf and oneOf."""
        flat, choices = [], []

        def take(s):
            if not isinstance(s, dict) or any(s is f for f in flat):
                return
            ref = s.get("$ref", s.get("$dynamicRef", s.get("$recursiveRef")))
            if not (self.old and "$ref" in s):
                flat.append(s)
            if isinstance(ref, str):
                take(self.target(ref))
                if self.old and "$ref" in s:
                    return
            for sub in s.get("allOf", []):
                take(sub)
            for key in ("anyOf", "oneOf"):
                if key in s:
                    choices.append([sub for sub in s[key] if self.valid(sub, instance)])
            if "if" in s:
                yes = self.valid(s["if"], instance)
                choices.append([{"allOf": [s["if"], s.get("then", True)] if yes else [s.get("else", True)]}])
            for key in ("dependentSchemas", "dependencies"):
                for name, sub in s.get(key, {}).items():
                    if isinstance(instance, dict) and name in instance and isinstance(sub, dict):
                        choices.append([sub])

        for s in schemas:
            take(s)
        if not choices:
            yield flat
            return
        first, rest = choices[0], choices[1:]
        for sub in first:
            # The other choices are made again from the schema they stand in, with this one settled.
            yield from self.ways_with(flat, sub, rest, instance)

    def ways_with(self, flat, sub, rest, instance):
        for more in self.ways([sub], instance):
            if not rest:
                yield flat + more
                continue
            for other in rest[0]:
                yield from self.ways_with(flat + more, other, rest[1:], instance)

    def form(self, schemas, instance):
        """(True, form) or (False, None)"""
        for flat in self.ways(schemas, instance):
            for s in flat:
                for value in [s["const"]] if "const" in s else s.get("enum", []):
                    if self.same(value, instance):
                        return True, value
            ok, form = self.of_way(flat, instance)
            if ok:
                return True, form
        return False, None

    def same(self, a, b):
        return jsonschema.Draft202012Validator({"const": a}).is_valid(b)

    def of_way(self, flat, instance):
        if isinstance(instance, float) and instance.is_integer():
            return True, int(instance)
        if isinstance(instance, list):
            forms = [self.form(self.item(flat, i) + self.counted(flat, v), v) for i, v in enumerate(instance)]
            return all(ok for ok, _ in forms), [f for _, f in forms]
        if not isinstance(instance, dict):
            return True, instance
        declared = [k for s in flat for k in s.get("properties", {})]
        closed = any("properties" in s for s in flat) and not any("additionalProperties" in s for s in flat)
        out = {}
        for key in sorted(instance, key=lambda k: declared.index(k) if k in declared else len(declared)):
            subs, matched = self.member(flat, key)
            if closed and key not in declared and not matched:
                return False, None
            ok, out[key] = self.form(subs, instance[key])
            if not ok:
                return False, None
        return True, out

    def member(self, flat, key):
        subs, matched = [], False
        for s in flat:
            here = [s["properties"][key]] if key in s.get("properties", {}) else []
            by_pattern = [v for p, v in s.get("patternProperties", {}).items() if re.search(p, key)]
            matched = matched or bool(by_pattern)
            here += by_pattern
            subs += here or [s.get("additionalProperties", True)]
        return subs, matched

    def counted(self, flat, v):
        """What says how a number is written that `contains` counts: enum and const have a spelling."""
        if isinstance(v, bool) or not isinstance(v, (int, float)):
            return []
        return [s["contains"] for s in flat if "contains" in s and self.valid(s["contains"], v)]

    def item(self, flat, i):
        subs = []
        for s in flat:
            items = s.get("items", True)
            prefix = s.get("prefixItems", items if isinstance(items, list) else [])
            rest = s.get("additionalItems", True) if isinstance(items, list) else items
            subs.append(prefix[i] if i < len(prefix) else rest)
        return subs


def reason(error):
    """Why a schema was refused, without its own names."""
    m = re.match(r'JSON Schema keyword "([^"]*)" at "[^"]*": (.*)', error)
    if not m:
        return error
    text = re.sub(r'"[^"]*"', "...", m[2])
    return f"{m[1]}: {re.sub(r'[0-9.]+ has', 'it has', text)}"


def groups(draft):
    uri, _ = DRAFTS[draft]
    for path in sorted((SUITE / draft).glob("*.json")):
        for group in json.loads(path.read_text()):
            schema = group["schema"]
            if isinstance(schema, dict) and "$schema" not in schema:
                schema = {"$schema": uri, **schema}
            yield path.name, group, schema


def run(draft):
    """(counts, failures)"""
    _, validator = DRAFTS[draft]
    counts = {"schemas": 0, "schemas refused": collections.Counter(), "invalid instances, not accepted": 0,
              "valid instances": collections.Counter()}
    failures = []
    todo = list(groups(draft))
    refused = ["error" in a for a in probe.ask([{"schema": schema} for _, _, schema in todo])]
    asked = []
    for (_, group, schema), no in zip(todo, refused, strict=True):
        canon, texts = Canon(schema, validator), []
        for test in group["tests"]:
            ok, form = canon.form([schema], test["data"]) if test["valid"] and not no else (False, None)
            texts += [probe.dumps(test["data"]), probe.dumps(form) if ok else ""]
        asked.append({"schema": schema, "texts": texts})
    for (name, group, schema), question, answer in zip(todo, asked, probe.ask(asked), strict=True):
        counts["schemas"] += 1
        where = f"{draft}/{name}: {group['description']}"
        if "error" in answer:
            counts["schemas refused"][reason(answer["error"])] += 1
            if "no value satisfies" in answer["error"] and any(t["valid"] for t in group["tests"]):
                failures.append(f"{where}: refused, but it has values: {answer['error']}")
            continue
        for i, test in enumerate(group["tests"]):
            given, in_form = answer["accept"][2 * i : 2 * i + 2]
            what = f"{where}: {test['description']}: {question['texts'][2 * i]}"
            if not test["valid"]:
                counts["invalid instances, not accepted"] += not given
                if given:
                    failures.append(f"{what}: invalid, but accepted")
                continue
            if given:
                kind = "accepted as given"
            elif in_form:
                kind = "accepted in canonical form, not as given: order of keys, spelling of numbers"
            elif question["texts"][2 * i + 1] == "":
                kind = "not accepted: keys that a closed object does not declare"
            elif name == "format.json":
                kind = "not accepted: formats are assertions here"
            elif name == "vocabulary.json":
                kind = "not accepted: the meta-schema that switches keywords off is not read"
            else:
                failures.append(f"{what}: valid, canonical form {question['texts'][2 * i + 1]} not accepted")
                continue
            counts["valid instances"][kind] += 1
    for key in ("schemas refused", "valid instances"):
        counts[key] = dict(sorted(counts[key].items()))
    return counts, failures


def main():
    found = {}
    for draft in DRAFTS:
        found[draft], failures = run(draft)
        print(*failures, sep="\n")
    if "--write" in sys.argv:
        COUNTS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    elif found != json.loads(COUNTS.read_text()):
        print(json.dumps(found, indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
