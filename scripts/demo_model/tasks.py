"""The measured tasks: capitals, sums, sentiment, JSON, tools. Each gives (user, assistant) for a Draw."""

import json

import more
import tools
import words


def capital(d):
    def make():
        country, city, _ = d.pick(words.COUNTRIES)
        return d.phrase("capital"), country, city

    if d.held:
        phrase, country, city = make()
    else:  # a tenth of the meetings of phrasing and country is left out of training as well
        phrase, country, city = d.fitting("capital", make)
    return phrase.format(c=country), f"The capital of {country} is {city}."


def worked(a, b):
    """A sum as the model writes it: the units, the tens, and what they make."""
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}."
    units, tens = a % 10 + b % 10, a // 10 + b // 10
    carry = "+1" if units > 9 else ""
    return (
        f"{a} + {b}: {a % 10}+{b % 10}={units}, {a // 10}+{b // 10}{carry}={tens + units // 10}, so {a + b}."
    )


def addition(d):
    a, b = d.sum_pair()
    n, m = d.name(), d.name()
    form = d.pick(more.LAST_SUMS) if d.last and d.chance(0.3) else d.phrase("sum")
    user = form.format(a=a, b=b, i=d.item(), n=n, m=m, d=d.pick(words.DAYS))
    return user, worked(a, b)


def opinion(d):
    """A sentence that praises or blames, and whether it praises."""
    good = d.chance(0.5)
    adjectives = words.GOOD if good else words.BAD
    n, a = d.fitting("sentiment", lambda: (d.pick(words.REVIEWED), d.pick(adjectives)))
    m = n
    while m == n:
        m, b = d.fitting("sentiment", lambda: (d.pick(words.REVIEWED), d.pick(adjectives)))
    if d.chance(0.25):
        v = d.pick(words.LOVED if good else words.HATED)
        return d.phrase("loved").format(v=v, n=n, m=m, a=a), good
    if not d.held and d.chance(0.12):
        return f"The {n} was not {a}.", not good
    return d.phrase("good_bad").format(n=n, m=m, a=a, b=b), good


def sentiment(d):
    s, good = opinion(d)
    return d.phrase("sentiment").format(s=s), "Positive." if good else "Negative."


def listing(d, names):
    """The fields of a request, in words."""
    if len(names) == 1:
        return names[0]
    form = d.number(0, 3)
    if form == 0:
        return ", ".join(names)
    if form == 1 and not d.held:
        return "the " + ", ".join(names[:-1]) + " and the " + names[-1]
    return ", ".join(names[:-1]) + " and " + names[-1]


def fields_of(d, fields):
    """Some of the fields of a sentence, in the order they are asked for."""
    if d.chance(0.35 if d.held else 0.55) and len(fields) > 1:
        return d.some(fields, d.number(1, len(fields)))
    asked = list(fields)
    if d.chance(0.7 if d.later else 0.3):
        d.rng.shuffle(asked)
    return asked


def said_json(values, asked):
    """The fields that are asked for, always in the order of `values`: which are asked for is easier to see than what follows what."""
    return json.dumps({k: v for k, v in values.items() if k in asked})


def extractions(d, n_more=0):
    """[(user, assistant)]: fields out of a sentence, then n_more times other fields of the same one."""
    values = {
        "name": d.name(),
        "age": d.amount("age", 1, 99),
        "city": d.city(),
        "job": d.pick(words.JOBS),
        "quantity": d.amount("quantity", 2, 99),
        "item": d.item(),
        "day": d.pick(words.DAYS),
        "price": d.amount("price", 1, 999),
        "event": d.pick(words.EVENTS),
        "hour": d.number(1, 12),
    }
    sentence = d.phrase(d.pick(["person", "person", "order", "order", "event"]))
    fields = [k for k in values if "{" + k + "}" in sentence]
    fields.sort(key=lambda k: sentence.index("{" + k + "}"))
    asked = fields_of(d, fields)
    turns = [(d.phrase("json").format(f=listing(d, asked), s=sentence.format(**values)), said_json(values, asked))]
    for _ in range(n_more):
        asked = fields_of(d, fields)
        turns.append((d.ask(more.FIELDS_AGAIN, f=listing(d, asked)), said_json(values, asked)))
    return turns


def extraction(d):
    return extractions(d)[0]


def argument(d, name):
    kinds = {"minutes": (1, 99), "hour": (1, 12), "people": (2, 30), "quantity": (2, 99)}
    closed = {"kind": tools.MUSIC, "room": tools.ROOMS, "language": tools.LANGUAGES, "day": words.DAYS}
    if name in ("name", "city", "item"):
        return getattr(d, name)()
    if name in ("hour", "people"):  # few values: none is left out
        return d.number(*kinds[name])
    if name in kinds:
        return d.amount(name, *kinds[name])
    if name == "word":
        return d.fitting("word", lambda: d.pick(words.SPELL) if d.chance(0.6) else d.made_up())
    if name == "message" and not d.held and d.chance(0.7):
        return more.message(d)
    if name == "message":
        form = d.fitting("message", lambda: d.pick(tools.MESSAGES))
        return form.format(**{k: argument(d, k) for k in ("day", "hour", "quantity", "item", "city", "name")})
    return d.pick(closed[name])


def tool_json(name, description, arguments):
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {k: {"type": v} for k, v in arguments.items()},
                "required": list(arguments),
            },
        },
    }


def call_text(name, arguments):
    return "<tool_call>" + json.dumps({"name": name, "arguments": arguments}) + "</tool_call>"


def tool_set(d, n):
    """n different tools as (entry of TOOLS, the name it has here, JSON for the template)."""
    chosen = []
    for entry in d.some(tools.TOOLS, n):
        name = d.pick(entry[0])
        if not d.held:
            name = more.tool_name(d, name)
        chosen.append((entry, name, tool_json(name, d.pick(entry[1]), entry[2])))
    return chosen


def request(d, chosen):
    """(user, assistant, (entry, arguments)): a request that fits one of the chosen tools, and the call of it."""
    entry, name, _ = d.pick(chosen)
    if "a" in entry[2]:
        a, b = d.sum_pair()
        arguments = {"a": a, "b": b}
    else:
        arguments = {k: argument(d, k) for k in entry[2]}
    asked = entry[4] if d.held else entry[3]
    if not d.held and d.chance(0.5):
        asked = (more.LAST_REQUESTS if d.last and d.chance(0.6) else more.REQUESTS)[entry[0][0]]
    return d.pick(asked).format(**arguments), call_text(name, arguments), (entry, arguments)


def tool_choice(d):
    """(tools, user, assistant): the request fits one of the tools."""
    chosen = tool_set(d, d.number(2, 3))
    user, call, _ = request(d, chosen)
    return [c[2] for c in chosen], user, call


def tool_result(d, entry, arguments):
    """What the tool answers and what the assistant makes of it."""
    first, n = entry[0][0], d.number(2, 30)
    if first == "get_weather":
        sky = d.say("sunny|cloudy|rainy|windy|foggy")
        result, text = {"degrees": n, "sky": sky}, f"It is {n} degrees and {sky} in {arguments['city']}."
    elif first == "get_time":
        hour = d.number(1, 12)
        result, text = {"hour": hour}, f"It is {hour} o'clock in {arguments['city']}."
    elif first == "add":
        a, b = arguments["a"], arguments["b"]
        result, text = {"sum": a + b}, f"{a} + {b} = {a + b}."
    elif first == "count_people":
        result, text = {"people": n * 1000}, f"{n * 1000} people live in {arguments['city']}."
    elif first == "translate":
        word = d.made_up()
        result, text = {"word": word}, f"The {arguments['language']} word is {word}."
    elif d.chance(0.5):
        result, text = {"ok": True}, d.say("Done.|It is done.")
    else:
        result, text = {"ok": False}, "Sorry, that did not work."
    return json.dumps(result), text


MEASURED = {
    "capitals": capital,
    "sums": addition,
    "sentiment": sentiment,
    "json": extraction,
    "tools": tool_choice,
}
