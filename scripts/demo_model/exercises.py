"""Small exercises: numbers, comparing, sorting, counting, spelling, passages, stories."""

import facts
import more
import words
from draw import is_held
from tasks import worked
from words import table

MINUS = table("""
What is {a} - {b}?|{a} - {b}|{a}-{b}|What is {a} minus {b}?|Subtract {b} from {a}.|How much is {a} minus {b}?
Take {b} away from {a}.|Calculate {a} - {b}.|I have {a} {i} and give away {b}. How many are left?|What's {a} - {b}?
""")
TIMES = table("""
What is {a} times {b}?|{a} x {b}|{a} * {b}|What is {a} * {b}?|Multiply {a} by {b}.|How much is {a} times {b}?
What is {a} x {b}?
""")
FIRST_SUM = table("What is {a} + {b}?|{a} plus {b}|Add {a} and {b}.|{a}+{b}|What is {a} plus {b}?")
NEXT_SUM = table("And {c} more?|Add {c}.|Now add {c} to that.|Plus {c}?|plus {c}|And if I add {c}?")
TWICE = table("What is twice {a}?|Double {a}.|What is {a} doubled?|{a} times two?|What is the double of {a}?")
BIGGER = table("""
Which is bigger, {a} or {b}?|What is larger, {a} or {b}?|Which number is greater: {a} or {b}?|Is {a} or {b} more?
{a} or {b}, which is bigger?
""")
SMALLER = table("""
Which is smaller, {a} or {b}?|What is less, {a} or {b}?|Which number is smaller: {a} or {b}?
{a} or {b}, which is smaller?
""")
IS_BIGGER = table("Is {a} bigger than {b}?|Is {a} more than {b}?|Is {a} greater than {b}?|Is {a} larger than {b}?")
SORT_NUMBERS = table("Sort these numbers: {t}.|Sort {t}.|Put {t} in order.|Order these numbers: {t}")
EXTREME = table("Which is the {w}: {t}?|What is the {w} of {t}?|Find the {w} number: {t}|Which number is the {w}: {t}?")
LONGEST = table("Which word is the longest: {t}?|Find the longest word: {t}|What is the longest of {t}?")
SORT_WORDS = table("""
Sort these words: {t}.|Sort {t}.|Put these words in order: {t}|Sort by the alphabet: {t}|Order {t} from A to Z.
Sort these words: {t}|Which order do these words have in the alphabet: {t}?
""")
COUNT_BETWEEN = table("""
Count from {a} to {b}.|Count up from {a} to {b}.|Please count from {a} to {b}.|Say the numbers from {a} to {b}.
""")
COUNT_TO = table("Count to {n}.|Count up to {n}.|Please count to {n}.|count to {n}")
COUNT_DOWN = table("Count down from {n}.|Count backwards from {n}.|Count from {n} to 1.")
NUMBER_AFTER = table("What number comes after {n}?|Which number is after {n}?|What comes after {n}?")
NUMBER_BEFORE = table("What number comes before {n}?|Which number is before {n}?|What comes before {n}?")
EVEN = table("Is {n} even or odd?|Is {n} an even number?|Even or odd: {n}?|Is {n} odd?")
IN_WORDS = table("Write {n} as a word.|What is {n} in words?|Write the number {n} in letters.")
IN_DIGITS = table("Write {w} as a number.|Which number is {w}?|Write {w} in digits.")
COUNT_WORDS = table("""How many words are in "{t}"?|Count the words: {t}|How many words: {t}?""")
COUNT_THINGS = table("How many things are in this list: {t}?|Count these things: {t}|How many items: {t}?")
SPELL = table("""
Spell {w}.|How do you spell {w}?|Spell the word {w}.|Please spell {w}.|spell {w}|Can you spell {w}?
Write {w} letter by letter.
""")
FIRST_LETTER = table("""
What is the first letter of {w}?|Which letter does {w} begin with?|What letter does {w} start with?
""")
LAST_LETTER = table("What is the last letter of {w}?|Which letter does {w} end with?")
LETTERS = table("How many letters are in {w}?|How many letters does {w} have?|Count the letters in {w}.")
OWNS = table("{p} has {t}.|{p} owns {t}.|{p} bought {t}.")
IS_AT = table("{p} is in the {x}.|{p} went to the {x}.")
READ = table("{t} {q}|Read this: {t} {q}|{t} Question: {q}|Text: {t} {q}|{q} {t}")
TELL = table("""
Tell me a story{x}.|Tell a short story{x}.|Please tell me a story{x}.|I want to hear a story{x}.|Write a short story{x}.
A story{x}, please.|Can you tell me a story{x}?|Make up a story{x}.
""")
BEGINNINGS = table("""
Once upon a time {a} lived in the {p}.|There once was {a} in the {p}.|One day {a} walked through the {p}.
""")
PLOTS = table("""
It found {t} under a tree. {B} came by and said the {s} was lost. So the {f} gave the {s} back, and the two became friends.
It wanted {t} more than anything. {B} had one and did not need it. The {f} said thank you and was happy for many years.
It had lost its {s} and was very sad. {B} helped to look for it. At night they found the {s} and laughed together.
Every evening it carried {t} home. One night {b} was afraid of the dark. The {f} stayed with it until morning.
""")
REPEAT = table("""
Say {t}.|Repeat: {t}|Repeat after me: {t}|Please say: {t}|Write this again: {t}|Copy this: {t}|Repeat "{t}", please.
Say "{t}"|Echo: {t}|Say the same: {t}
""")
NUMBERS = "zero one two three four five six seven eight nine ten".split()


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def may_add(a, b):
    """Whether the sum of two numbers is small and not held out."""
    return a + b < 100 and not is_held("sum", min(a, b), max(a, b))


def arithmetic(d):
    kind = d.number(0, 5)
    if kind <= 2:
        while True:
            b, a = sorted((d.number(1, 99), d.number(1, 99)))
            if may_add(b, a - b):
                return [(d.ask(MINUS, a=a, b=b, i=d.item()), f"{a} - {b} = {a - b}.")]
    if kind == 3:
        a, b = d.number(1, 10), d.number(1, 10)
        return [(d.ask(TIMES, a=a, b=b), f"{a} x {b} = {a * b}.")]
    if kind == 4:
        while True:
            (a, b), c = d.sum_pair(), d.number(1, 20)
            if may_add(a + b, c):
                return [(d.ask(FIRST_SUM, a=a, b=b), worked(a, b)), (d.ask(NEXT_SUM, c=c), worked(a + b, c))]
    while True:
        a = d.number(1, 49)
        if may_add(a, a):
            return [(d.ask(TWICE, a=a), worked(a, a))]


def listed(values):
    return ", ".join(map(str, values))


def compare(d):
    kind = d.number(0, 5)
    low, high = sorted(d.some(range(1, 100), 2))
    a, b = (low, high) if d.chance(0.5) else (high, low)
    bigger, smaller = f"{high} is bigger than {low}.", f"{low} is smaller than {high}."
    if kind == 0:
        return [(d.ask(BIGGER, a=a, b=b), bigger)] if d.chance(0.5) else [(d.ask(SMALLER, a=a, b=b), smaller)]
    if kind == 1:
        return [(d.ask(IS_BIGGER, a=a, b=b), ("Yes. " if a > b else "No. ") + bigger)]
    if kind == 2:
        numbers = d.some(range(1, 100), d.number(3, 4))
        return [(d.ask(SORT_NUMBERS, t=listed(numbers)), listed(sorted(numbers)) + ".")]
    if kind == 3:
        numbers = d.some(range(1, 100), 3)
        word, value = ("biggest", max(numbers)) if d.chance(0.5) else ("smallest", min(numbers))
        return [(d.ask(EXTREME, w=word, t=listed(numbers)), f"The {word} is {value}.")]
    if kind == 4:
        while True:
            pool = d.some(words.SPELL, d.number(2, 4))
            longest = max(pool, key=len)
            if sum(len(w) == len(longest) for w in pool) == 1:
                return [(d.ask(LONGEST, t=listed(pool)), f"The longest word is {longest}.")]
    pool = d.some(words.SPELL, d.number(2, 4))
    return [(d.ask(SORT_WORDS, t=listed(pool)), listed(sorted(pool)) + ".")]


def passage(d):
    """A short passage and one to three questions about it."""
    people = [d.name()]
    while len(people) < 2:
        people = list(dict.fromkeys(people + [d.name()]))
    things, colours, places = d.some(words.THINGS, 2), d.some(words.COLOURS, 2), d.some(words.PLACES, 2)
    owned = [f"{article(c)} {t}" for c, t in zip(colours, things)]
    text = " ".join(d.ask(OWNS, p=p, t=t) for p, t in zip(people, owned))
    with_places = d.chance(0.5)
    if with_places:
        text += " " + " ".join(d.ask(IS_AT, p=p, x=x) for p, x in zip(people, places))

    def question():
        i = d.number(0, 1)
        p, t, c, x, has = people[i], things[i], colours[i], places[i], f"{people[i]} has {owned[i]}."
        asks = [
            (f"Who has the {t}?", f"{p} has the {t}."),
            (f"What colour is the {t}?", f"The {t} is {c}."),
            (f"What does {p} have?", has),
            (f"Does {p} have {article(t)}?", f"Yes, {has}"),
            (f"Does {p} have {article(things[1 - i])}?", f"No, {has}"),
            (f"Is the {t} {c}?", f"Yes, the {t} is {c}."),
            (f"Is the {t} {colours[1 - i]}?", f"No, the {t} is {c}."),
        ]
        if with_places:
            is_at = f"{p} is in the {x}."
            asks += [
                (f"Where is {p}?", is_at),
                (f"Is {p} in the {x}?", f"Yes, {is_at}"),
                (f"Is {p} in the {places[1 - i]}?", f"No, {is_at}"),
                (f"Who is in the {x}?", is_at),
            ]
        return d.pick(asks)

    first, said = question()
    return [(d.ask(READ, t=text, q=first), said)] + [question() for _ in range(d.number(0, 2) * d.number(0, 1))]


def count(d):
    kind = d.number(0, 6)
    if kind == 0:
        a = d.number(0, 90)
        b = a + d.number(2, 9)
        return [(d.ask(COUNT_BETWEEN, a=a, b=b), listed(range(a, b + 1)) + ".")]
    if kind == 1:
        n = d.number(2, 15)
        if d.chance(0.5):
            return [(d.ask(COUNT_TO, n=n), listed(range(1, n + 1)) + ".")]
        return [(d.ask(COUNT_DOWN, n=n), listed(range(n, 0, -1)) + ".")]
    if kind == 2:
        n = d.number(1, 99)
        if d.chance(0.5):
            return [(d.ask(NUMBER_AFTER, n=n), f"{n + 1} comes after {n}.")]
        return [(d.ask(NUMBER_BEFORE, n=n), f"{n - 1} comes before {n}.")]
    if kind == 3:
        n = d.number(1, 99)
        return [(d.ask(EVEN, n=n), f"{n} is {'odd' if n % 2 else 'even'}.")]
    if kind == 4:
        n = d.number(1, 10)
        if d.chance(0.5):
            return [(d.ask(IN_WORDS, n=n), f"{n} is {NUMBERS[n]}.")]
        return [(d.ask(IN_DIGITS, w=NUMBERS[n]), f"{facts.start(NUMBERS[n])} is {n}.")]
    pool = d.some(words.SPELL, d.number(2, 6))
    if kind == 5:
        return [(d.ask(COUNT_WORDS, t=" ".join(pool)), f"There are {len(pool)} words.")]
    return [(d.ask(COUNT_THINGS, t=listed(pool)), f"There are {len(pool)} things.")]


def spell(d):
    w, kind = d.pick(words.SPELL), d.number(0, 5)
    if kind <= 2:
        return [(d.ask(SPELL, w=w), "-".join(w) + ".")]
    if kind == 3:
        return [(d.ask(FIRST_LETTER, w=w), f"The first letter of {w} is {w[0]}.")]
    if kind == 4:
        return [(d.ask(LAST_LETTER, w=w), f"The last letter of {w} is {w[-1]}.")]
    return [(d.ask(LETTERS, w=w), f"{'-'.join(w)}: {len(w)} letters.")]


def story(d):
    a, b = d.some(words.ANIMALS, 2)
    t, p = d.pick(words.THINGS), d.pick(words.PLACES)
    about = d.pick(["", f" about {article(a)}", f" about {article(a)} and {article(t)}", f" about {article(a)} and {article(b)}"])
    plot = d.ask(PLOTS, t=article(t), s=t, f=a, b=article(b), B=facts.start(article(b)))
    return [(d.ask(TELL, x=about), d.ask(BEGINNINGS, a=article(a), p=p) + " " + plot)]


def repeat(d, least=1, most=5):
    """Copying and nothing else: what taking names and goods out of a sentence is learned from."""
    text = " ".join(more.word(d) for _ in range(d.number(least, most)))
    return [(d.ask(REPEAT, t=text), text + ".")]
