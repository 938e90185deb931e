#!/usr/bin/env python3
"""The training text of the demo model: dialogues, one JSON line each; nothing in it was copied from anywhere.

    python3 generate.py [FROM [TO]]         dialogues FROM..TO-1 (0..20)
    python3 generate.py --digest FROM TO    SHA-256 of the same lines

Dialogue i depends on SEED and i alone, so any slice is made without the rest.
"""

import argparse
import hashlib
import json

import tasks
from draw import Draw
from exercises import arithmetic, compare, count, passage, repeat, spell, story
from facts import capital_more, colour, day, month, opposite
from smalltalk import greet, manners, noise, refuse, remember, who
from words import table

SEED = 20260301
SYSTEMS = table("""
You are a helpful assistant.|You are a friendly assistant.|Answer the user.|You are Weir, a small model.
Be helpful and brief.|You are a polite assistant.|Help the user with simple questions.|You are a chat model.
Answer in English.|You are an assistant in a shop.|Keep your answers short.|You are terse.|Be kind.
You are a helpful AI assistant. Answer truthfully.|You help children learn.
""")
ONE_WORD = table("""
Answer with one word.|Use one word only.|Answer in one word.|Reply with a single word.|One word answers only.
""")
PERSONAS = table("You are {n}.|Your name is {n}.|You are {n}, a friendly assistant.|You are an assistant called {n}.")
NAME_ASKED = table("""
Who are you?|What is your name?|Tell me your name.|Who am I talking to?|who are you|What should I call you?
""")
# Of 306 dialogues, so many begin with the task; later, of 263.
MEASURED = [("capitals", 8), ("sums", 36), ("sentiment", 12), ("json", 90), ("tools", 60)]
BESIDE = [
    (greet, 3), (manners, 5), (who, 4), (remember, 8), (capital_more, 8), (colour, 4), (day, 4), (month, 4),
    (arithmetic, 8), (compare, 6), (passage, 7), (count, 5), (spell, 4), (opposite, 5), (story, 4), (refuse, 9),
    (repeat, 10), (noise, 2),
]
BAG = [t for t, n in MEASURED + BESIDE for _ in range(n)]
LATER_MEASURED = [("capitals", 6), ("sums", 46), ("sentiment", 14), ("json", 80), ("tools", 70)]
LATER_BAG = [t for t, n in LATER_MEASURED for _ in range(n)] + [t for t, n in BESIDE for _ in range(n // 2)]
# In the second round, mostly what the first left hardest: which tool is asked for, and words of rare pieces.
LAST_MEASURED = [("capitals", 8), ("sums", 60), ("sentiment", 20), ("json", 46), ("tools", 100)]
LAST_BAG = [t for t, n in LAST_MEASURED for _ in range(n)] + [t for t, n in BESIDE for _ in range(n)]
NO_TOOLS = [t for t in BAG if t != "tools"]
BESIDE_TOOLS = [greet, manners, who, "capitals", opposite, story]
CASUAL = {"capitals", "sums", greet, manners, who, capital_more, colour, day, month, arithmetic, opposite, refuse}
FIRST = 24576  # dialogues that are mostly copying: a small model finds that rule quickly alone, and hardly among others
FIELDS = 49152  # from FIRST to here mostly JSON, for the same reason
LATER = 159744  # from here on less of what is learned by then
ROUND = 330000  # dialogues of the first round of training
AROUND = [
    ("Hi! ", ""), ("Please: ", ""), ("Hello. ", ""), ("Now: ", ""), ("Next question: ", ""), ("", " Thanks!"),
    ("So, ", ""), ("Ok. ", ""),
]


def relaxed(d, task, text):
    """What people do to a question: small letters, no sign at the end, a word before or after."""
    if task in CASUAL and d.chance(0.14):
        text = text.lower()
        if text.endswith((".", "?", "!")) and d.chance(0.5):
            text = text[:-1]
    elif task in CASUAL and d.chance(0.06):
        before, after = d.pick(AROUND)
        text = before + text + after
    return text


def exchange(d, task, user, assistant):
    return [{"role": "user", "content": relaxed(d, task, user)}, {"role": "assistant", "content": assistant}]


def block(d, task):
    """The turns of one task as messages."""
    if task == "json":
        turns = tasks.extractions(d, d.number(1, 3) if d.chance(0.5) else 0)
    else:
        turns = task(d) if callable(task) else [tasks.MEASURED[task](d)]
    return [m for user, assistant in turns for m in exchange(d, task, user, assistant)]


def one_word(d):
    messages = [{"role": "system", "content": d.pick(ONE_WORD)}]
    for _ in range(d.number(1, 3)):
        task = d.pick(["capitals", "sentiment"])
        user, assistant = tasks.MEASURED[task](d)
        messages += exchange(d, task, user, assistant.split(" is ")[-1])
    return messages


def persona(d):
    """A model that was given another name."""
    n = d.name()
    asked = exchange(d, who, d.pick(NAME_ASKED), f"I am {n}. How can I help you?")
    around = asked + (block(d, d.pick(NO_TOOLS)) if d.chance(0.4) else [])
    if d.chance(0.3):
        around = block(d, greet) + asked
    return [{"role": "system", "content": d.ask(PERSONAS, n=n)}] + around


def with_tools(d):
    """(tools, messages): calls, results and, now and then, talk that needs no tool."""
    if d.chance(0.12):
        chosen = tasks.tool_set(d, d.number(1, 3))
        return [c[2] for c in chosen], block(d, d.pick(BESIDE_TOOLS))
    chosen = tasks.tool_set(d, d.number(1, 3) if d.chance(0.2) else 3)
    messages = block(d, d.pick(BESIDE_TOOLS)) if d.chance(0.06) else []
    for _ in range(d.number(2, 4) if d.last else d.number(1, 3)):
        user, call, (entry, arguments) = tasks.request(d, chosen)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": call}]
        if d.chance(0.2):
            result, text = tasks.tool_result(d, entry, arguments)
            messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": text}]
    if d.chance(0.05):
        messages += block(d, d.pick(BESIDE_TOOLS))
    return [c[2] for c in chosen], messages


def dialogue(seed, index):
    """Dialogue `index`: {"messages": [...]}, and "tools" where there are some. Also the Draw that made it."""
    d = Draw(seed, index, later=index >= LATER, last=index >= ROUND)
    if index < FIRST and d.chance(0.9):
        return {"messages": [m for user, assistant in repeat(d, 3, 16) for m in exchange(d, repeat, user, assistant)]}, d
    if d.chance(0.02):
        return {"messages": one_word(d)}, d
    if d.chance(0.012):
        return {"messages": persona(d)}, d
    task = "json" if FIRST <= index < FIELDS and d.chance(0.6) else d.pick(LAST_BAG if d.last else LATER_BAG if d.later else BAG)
    offered = None
    if task == "tools":
        offered, messages = with_tools(d)
    else:
        messages = block(d, task)
        if d.chance(0.12):
            more = d.number(1, 3) if d.chance(0.96) else d.number(8, 24)
            for _ in range(more):
                messages += block(d, d.pick(NO_TOOLS))
    if d.chance(0.15):
        messages = [{"role": "system", "content": d.pick(SYSTEMS)}] + messages
    made = {"messages": messages}
    if offered:
        made["tools"] = offered
    return made, d


def held_prompt(seed, task, index):
    """Held-out prompt `index` of a measured task: messages, tools, and the answer that was meant. Also its Draw."""
    d = Draw(f"{seed}:{task}", index, held=True)
    if task == "tools":
        offered, user, answer = tasks.tool_choice(d)
        return {"messages": [{"role": "user", "content": user}], "tools": offered, "answer": answer}, d
    user, answer = tasks.MEASURED[task](d)
    return {"messages": [{"role": "user", "content": user}], "answer": answer}, d


def held_set(seed, task, n):
    """n different held-out prompts."""
    prompts, seen, index = [], set(), 0
    while len(prompts) < n:
        made, _ = held_prompt(seed, task, index)
        index += 1
        key = json.dumps(made["messages"])
        if key not in seen:
            seen.add(key)
            prompts.append(made)
        if index > 50 * n:
            raise ValueError(f"{task} has only {len(prompts)} different held-out prompts")
    return prompts


def lines(start, stop):
    for i in range(start, stop):
        yield json.dumps(dialogue(SEED, i)[0], ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("range", type=int, nargs="*", default=[0, 20])
    parser.add_argument("--digest", action="store_true")
    args = parser.parse_args()
    start, stop = args.range if len(args.range) == 2 else (args.range[0], args.range[0] + 20)
    if args.digest:
        digest = hashlib.sha256()
        for line in lines(start, stop):
            digest.update(line.encode() + b"\n")
        print(digest.hexdigest())
    else:
        for line in lines(start, stop):
            print(line)


if __name__ == "__main__":
    main()
