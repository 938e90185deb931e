"""Random schemas, random walks through their grammars, and the walks changed a little: Python's jsonschema is
the judge. Seeds are fixed; TEST_SCALE multiplies the counts."""

import copy
import json
import os
import random

import jsonschema

import probe
import suite

SCHEMAS = int(400 * float(os.environ.get("TEST_SCALE", "1")))
WALKS = 4
FORMATS = ["date", "ipv4", "ipv6", "uuid"]  # those that Python's jsonschema judges as the RFCs do
PATTERNS = ["^a", "b$", "^[a-c]+$", "a.b", "^(x|yz){1,3}$", "\\d{2}", "^[^a]*$", "é|\\n"]
NAMES = ["a", "b", "c", "d\"\n"]


class Maker:
    """Schemas of all keywords that grammars hold."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def value(self, depth=1):
        r = self.r
        number = r.choice([0.5, -1.25, 3.0, 1e-3, r.randint(-5, 20)])
        kinds = [None, True, False, number, r.choice(["", "ab", "é\n"])]
        if depth and r.random() < 0.3:
            kinds = [[self.value(0)], {r.choice(NAMES): self.value(0)}, [], {}]
        return r.choice(kinds)

    def maybe(self, out, key, make, p=0.4):
        if self.r.random() < p:
            out[key] = make()

    def number(self):
        r = self.r
        out = {"type": r.choice(["integer", "number"])}
        bound = lambda: r.choice([r.randint(-30, 30), r.randint(-300, 300) / 100])
        self.maybe(out, r.choice(["minimum", "exclusiveMinimum"]), bound)
        self.maybe(out, r.choice(["maximum", "exclusiveMaximum"]), lambda: bound() + 20)
        self.maybe(out, "multipleOf", lambda: r.choice([2, 3, 7, 0.5, 0.25, 10, 12]), 0.25)
        return out

    def string(self):
        r = self.r
        out = {"type": "string"}
        self.maybe(out, "minLength", lambda: r.randint(0, 4))
        self.maybe(out, "maxLength", lambda: r.randint(3, 8))
        self.maybe(out, "pattern", lambda: r.choice(PATTERNS))
        return out if r.random() < 0.8 else {"type": "string", "format": r.choice(FORMATS)}

    def array(self, depth):
        r = self.r
        out = {"type": "array"}
        self.maybe(out, "prefixItems", lambda: [self.schema(depth - 1) for _ in range(r.randint(1, 2))], 0.3)
        self.maybe(out, "items", lambda: self.schema(depth - 1), 0.6)
        self.maybe(out, "minItems", lambda: r.randint(0, 3))
        self.maybe(out, "maxItems", lambda: r.randint(2, 4))
        if r.random() < 0.2:
            out["contains"] = self.schema(0)
            self.maybe(out, "minContains", lambda: r.randint(0, 2))
            self.maybe(out, "maxContains", lambda: r.randint(1, 3))
        if r.random() < 0.15:
            out = {"type": "array", "items": self.scalar(), "uniqueItems": True, "maxItems": r.randint(1, 4)}
        return out

    def object(self, depth):
        r = self.r
        out = {"type": "object"}
        names = r.sample(NAMES, r.randint(0, 3))
        if names:
            out["properties"] = {n: self.schema(depth - 1) for n in names}
        some = names or NAMES
        self.maybe(out, "required", lambda: r.sample(some, r.randint(0, min(2, len(some)))), 0.5)
        self.maybe(out, "additionalProperties", lambda: r.choice([True, False, self.schema(0)]))
        self.maybe(out, "patternProperties", lambda: {r.choice(PATTERNS): self.schema(0)}, 0.15)
        keys = [{"maxLength": 3}, {"pattern": "^[a-f]"}, {"enum": NAMES}]
        self.maybe(out, "propertyNames", lambda: r.choice(keys), 0.1)
        self.maybe(out, "minProperties", lambda: r.randint(0, 2), 0.2)
        self.maybe(out, "maxProperties", lambda: r.randint(1, 3), 0.2)
        self.maybe(out, "dependentRequired", lambda: {r.choice(NAMES): [r.choice(NAMES)]}, 0.1)
        self.maybe(out, "dependentSchemas", lambda: {r.choice(NAMES): self.object(0)}, 0.1)
        return out

    def scalar(self):
        r = self.r
        return r.choice([self.number, self.string, lambda: {"type": r.choice(["null", "boolean"])},
                         lambda: {"enum": [self.value(0) for _ in range(r.randint(1, 4))]}])()

    def mixed(self, depth):
        r = self.r
        sub = lambda: self.schema(depth - 1)
        return r.choice([
            lambda: {"anyOf": [sub(), sub()]},
            lambda: {"oneOf": [sub(), sub()]},
            lambda: {"allOf": [sub(), sub()]},
            lambda: {**sub(), "not": self.schema(0)},
            lambda: {"if": self.schema(0), "then": sub(), "else": sub()},
            lambda: {**self.object(depth), "if": {"properties": {"a": self.scalar()}}, "then": sub()},
            lambda: {"const": self.value()},
            lambda: {"enum": [self.value() for _ in range(3)]},
            lambda: {"$ref": "#/$defs/" + r.choice("xy")},
        ])()

    def schema(self, depth):
        x = self.r.random()
        if depth <= 0:
            return self.scalar() if x < 0.9 else {}
        if x < 0.3:
            return self.scalar()
        if x < 0.5:
            return self.array(depth)
        return self.object(depth) if x < 0.8 else self.mixed(depth)

    def document(self):
        defs = {"x": self.object(1), "y": {"anyOf": [self.array(1), self.scalar()]}}
        return {**self.schema(3), "$defs": defs}


def change(r, value):
    """The value with one thing changed."""
    value = copy.deepcopy(value)
    if isinstance(value, dict) and value and r.random() < 0.8:
        key = r.choice(list(value))
        how = r.random()
        if how < 0.3:
            del value[key]
        elif how < 0.5:
            value[r.choice(NAMES + ["zz"])] = r.choice([1, "a", None, []])
        else:
            value[key] = change(r, value[key])
    elif isinstance(value, list) and value and r.random() < 0.8:
        i = r.randrange(len(value))
        before, after = value[:i], value[i + 1 :]
        value = r.choice([before + after, value + [value[i]], before + [change(r, value[i])] + after])
    elif isinstance(value, str):
        value = r.choice([value[1:], value + "a", value[::-1], 1])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = r.choice([value + 1, value - 1, value * 2, -value, value + 0.5, str(value)])
    else:
        value = r.choice([None, True, [], {}, 0, "a"])
    return value


def exact(value):
    """Numbers that Python's arithmetic judges as it should: not too long, of few binary digits."""
    if isinstance(value, dict):
        return all(exact(v) for v in value.values())
    if isinstance(value, list):
        return all(exact(v) for v in value)
    return not isinstance(value, (int, float)) or (abs(value) < 1e15 and (value == 0 or abs(value) > 1e-6))


def test_random():
    schemas = [Maker(seed).document() for seed in range(SCHEMAS)]
    answers = probe.ask([{"schema": s, "walks": WALKS, "seed": i} for i, s in enumerate(schemas)])
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    kind = jsonschema.Draft202012Validator
    second, judged, refused = [], [], 0
    for i, (schema, answer) in enumerate(zip(schemas, answers, strict=True)):
        refused += "error" in answer
        validator = kind(schema, format_checker=checker)
        texts, valid = [], []
        for walk in filter(None, answer.get("walks", [])):
            value = json.loads(walk)
            if not exact(value):
                continue
            assert validator.is_valid(value), (schema, walk)
            r = random.Random(i)
            for other in [change(r, value) for _ in range(4)]:
                ok = validator.is_valid(other)
                canon, form = suite.Canon(schema, kind).form([schema], other) if ok else (True, other)
                if canon and exact(form):
                    texts.append(probe.dumps(form))
                    valid.append(ok)
        second.append({"schema": schema, "texts": texts})
        judged.append(valid)
    n = [0, 0]
    for schema, question, valid, answer in zip(schemas, second, judged, probe.ask(second), strict=True):
        for text, ok, accepted in zip(question["texts"], valid, answer.get("accept", []), strict=False):
            n[ok] += 1
            assert ok == accepted, ("valid" if ok else "invalid", schema, text)
    assert refused < SCHEMAS / 3 and min(n) > SCHEMAS / 2, (refused, n)
