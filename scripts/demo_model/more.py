"""More for training only: phrasings, words and messages that nothing can be guessed from, tools under many names. It teaches
to read what stands there instead of what stood there most often."""

import tools
import words
from words import table

PHRASES = {
    "sum": table("""
{n} found {a} {i} and then {b} more. How many {i} are there now?|Work out {a} plus {b} for me.
{n} had {a} {i} and then bought {b}. How many {i} does {n} have?|{n} got {a} {i} and later {b} more. How many is that?
First {n} had {a} {i}, then {b} more came. How many {i} does {n} have in the end?|I take {a} and {b}. What is the total?
{n} picked {a} {i} and {m} picked {b} more. How many {i} do they have now?|I add {a} to {b}. What comes out?
I add {a} and {b}. What do I get?|Work out the sum of {a} and {b}.|Please compute the sum of {a} and {b}.
What number do {a} and {b} make?|Tell me the total of {a} + {b}.|Find {a} plus {b}.|Please find the sum: {a} plus {b}.
{n} counted {a} {i}, and then {b} others. How many {i} did {n} count?|How much do we have with {a} and {b}?
In the morning {n} sold {a} {i}, in the evening {b}. How many {i} is that?|I put {a} to {b}. What is the result?
{n} carried {a} {i} and got another {b}. How many {i} does {n} carry now?|If you have {a} and get {b}, how much is it?
"""),
    "json": table("""
Answer in JSON with the fields {f}. {s}|Read the sentence and give {f} as JSON: {s}|Return {f} of this text in JSON: {s}
{s} Give me a JSON object of {f}.|{s} Return {f} as JSON.|{s} Answer with a JSON object: {f}.|Please give {f} from this as JSON: {s}
Extract the values of {f} and reply in JSON. {s}|Take {f} from this sentence, as JSON: {s}|Show {f} as JSON: "{s}"
Read this sentence: "{s}" Return {f} in JSON.|{s} Please return JSON with {f}.|{s} Which {f} are there? Answer in JSON.
Return a JSON object. Fields: {f}. Text: {s}|Fields: {f}. Write JSON. {s}|Put {f} into a JSON object: {s}
Read this message and write {f} as JSON: "{s}"|Please read: {s} Then answer with {f} as JSON.|List {f} as JSON for this text: {s}
"""),
    "person": table("""
{name} is a {job}, {age} years old.|{name} lives in {city} and works as a {job}.|{name} lives in {city} and is a {job}.
My neighbour {name} is {age} and comes from {city}.|Our friend {name} is a {job} in {city}.|I am {age} and I live in {city}.
The {job} {name} is {age} and comes from {city}.|I work as a {job} in {city} and my name is {name}.
They call me {name}, I am {age} years old.|{name} from {city} is a {job}.|Your {job} {name} lives in {city} and is {age}.
My {job} is {name}, who is {age}.|I am called {name} and I work as a {job} in {city}.|Now {name} is {age} and lives in {city}.
The {job} from {city} is {age} and is called {name}.|{age} years old, {name} works as a {job} in {city}.
"""),
    "order": table("""
{name} needs {quantity} {item} for {day}.|{name} wants {quantity} {item} for {price} euros.|I sent {quantity} {item} to {name}.
We bring {quantity} {item} to {name} in {city}.|They send {quantity} {item} to {city} on {day}.
{name} sold {quantity} {item} for {price} euros on {day}.|For {price} euros {name} gets {quantity} {item}.
{name} got {quantity} {item} on {day}.|We need {quantity} {item} in {city} on {day}.|Send {quantity} {item} to {city} by {day}.
{name} in {city} ordered {quantity} {item}.|The order: {quantity} {item} for {price} euros, for {name}.
{name} asked for {quantity} {item} and paid {price} euros.|On {day} we send {quantity} {item} to {name}.
"""),
    "event": table("""
{name} goes to a {event} in {city} on {day}.|On {day} {name} has a {event}.|There is a {event} with {name} in {city}.
On {day} there is a {event} in {city}.|The {event} in {city} begins on {day} at {hour}.|{name} gives a {event} in {city}.
At {hour} on {day} the {event} with {name} begins.|The {event} with {name} is on {day}.|{day} is the day of the {event} in {city}.
{name} and {city} have a {event} on {day} at {hour}.|We meet {name} at the {event} on {day}.
"""),
    "sentiment": table("""
Read this review and give its sentiment: {s}|Here is a text: "{s}" Is it positive or negative?|What mood has this text? "{s}"
Is this comment positive or negative? {s}|Decide if this text is positive or negative: {s}|{s} Decide: positive or negative.
"""),
    "good_bad": table("""
I found this {n} very {a}.|That {n} was {a}!|The {n} was {a} and also {b}.|To tell the truth, the {n} was {a}.|I find the {n} {a}.
"""),
    "loved": table("""
Last time I {v} the {n}.|I {v} all of the {n}.|To tell the truth, I {v} the {n}.
"""),
}
# By the first name of a tool.
REQUESTS = {
    "get_weather": table("""
Does it rain in {city} today?|What kind of weather is there in {city}?|Can you check if the sun shines in {city}?
What is the weather like in {city} today?|Can you tell me how warm it is in {city}?|How does the sky look in {city}?
"""),
    "get_time": table("""
What time do people in {city} have?|Please tell me what time it is in {city}.|Now in {city}: what time is it?|What does the clock say in {city}?
"""),
    "set_timer": table("""
Can you set a timer for {minutes} minutes?|The bread needs {minutes} minutes. Please start a timer.|Wait {minutes} minutes and tell me.
"""),
    "set_alarm": table("""
Wake me up at {hour}, please.|Please set an alarm clock for {hour}.|I have to get up at {hour}, wake me.
"""),
    "send_message": table("""
Please tell {name}: {message}|Send {name} this: {message}|Can you write to {name}: {message}|A message for {name}: {message}
Please send this message to {name}: {message}|Can you send {name} a text: {message}|Tell my friend {name}: {message}
"""),
    "call_person": table("""
Make a phone call to {name}.|Please make a call to {name} now.|Phone {name} now.|Can you phone {name}, please?|Get {name} on the phone.
"""),
    "play_music": table("""
I would like some {kind}.|Start some {kind}.|I would like to listen to {kind} music.|Can you start {kind} music?|Some {kind} music, please.
"""),
    "light_on": table("""
Can you switch on the lights in the {room}?|Please switch the lights of the {room} on.|Can you turn on the {room} light?|More light in the {room}.
"""),
    "add_to_list": table("""
Put {quantity} {item} on the shopping list, please.|Write down {quantity} {item}.|Can you add {quantity} {item} to the list?
On my list, please: {quantity} {item}.|Can you note {quantity} {item}?
"""),
    "translate": table("""
Can you give me {word} in {language}?|How would I say {word} in {language}?|Can you say {word} in {language}?|Turn {word} into {language}.
Please translate {word} into {language}.
"""),
    "book_table": table("""
Can you book a table on {day} for {people}?|Please reserve a table for {people} people on {day}.|I would like a table for {people} on {day}.
"""),
    "buy_ticket": table("""
Please get a train ticket to {city} for {day}.|I want a ticket to {city} on {day}.|Can you buy a ticket to {city} for {day}?
I need a train to {city} on {day}.
"""),
    "find_recipe": table("""
What could I make with {item}?|Please look for a recipe for {item}.|Please find a recipe that uses {item}.|What can be cooked with {item}?
"""),
    "add": table("""
Can you sum up {a} and {b}?|Tell me what {a} + {b} makes.|Can you add {a} to {b}?|Tell me how much {a} and {b} make.
"""),
    "count_people": table("""
How many inhabitants does {city} have?|Tell me how many live in {city}.|Tell me how big {city} is.|How many people are there in {city}?
"""),
    "open_door": table("""
Can you unlock the door of the {room}?|Please open the door to the {room}.|Can you open the {room}?|Please unlock the {room}.
"""),
}
# The same for the second round.
LAST_REQUESTS = {
    "get_weather": table("""
I am going to {city}, is it warm there?|What is the weather in {city} right now?|Will it snow in {city} today?|Is there rain in {city} now?
How is the weather over in {city}?|How is the weather now in {city}?|What is the weather today in {city}?|Can you see if it rains in {city}?
Can you tell me if it snows in {city}?|Tell me about the weather in {city} today.|Can you say how the weather is in {city}?
"""),
    "get_time": table("""
Please tell me the time of {city}.|What time do the clocks have in {city}?|Please give me the local time of {city}.|What time is it now in {city}?|Tell me what the time is in {city} now.|What is the time over there in {city}?|Is it late in {city} now?
Can you give me the local time in {city}?|What hour do they have in {city}?
"""),
    "set_timer": table("""
Can you start a timer of {minutes} minutes?|The rice needs {minutes} minutes, please start a timer.|Please start a timer for {minutes} minutes.
I need {minutes} minutes on the timer.|Count {minutes} minutes for me.|Let a timer run for {minutes} minutes.
"""),
    "set_alarm": table("""
Please get me up at {hour}.|I want to wake up at {hour}, please.|Please wake me at {hour}.|Put the alarm clock to {hour}.|Let the alarm ring at {hour}.|I want to be up at {hour}, set an alarm.
Can you set the alarm clock to {hour}?|Get me out of bed at {hour}.
"""),
    "send_message": table("""
Please give {name} this message: {message}|Can you say to {name}: {message}|Please bring {name} this message: {message}
Can you text {name}: {message}|Please write {name} this: {message}|Say to {name}: {message}|Please let {name} know this: {message}
I have a message for {name}: {message}|Can you let {name} know: {message}
"""),
    "call_person": table("""
Make a call to {name} now.|Can you ring {name}?|Give {name} a call, please.|Ring {name} now, please.|A call to {name}, please.
Now make the call to {name}, please.|Make a phone call to {name}, please.|Start the call to {name}, please.|I need to talk to {name}, call them.|Please phone my friend {name}.|Try to reach {name} by phone.
"""),
    "play_music": table("""
Please start some {kind} music.|I would like to hear {kind}.|Start playing {kind} music, please.|Let me hear some {kind} music.|Can you put on {kind}?
"""),
    "light_on": table("""
Please turn the light of the {room} on.|Can you switch on the {room} light?|Can you turn on the lights of the {room}?
I need light in the {room}.|Lights on in the {room}, please.
"""),
    "add_to_list": table("""
Write {quantity} {item} on the list.|Can you put {quantity} {item} on my list?|Put {quantity} {item} down for shopping.
We are out of {item}, note {quantity}.|Please write {quantity} {item} on the shopping list.
"""),
    "translate": table("""
How can I say {word} in {language}?|Can you translate {word} to {language}?|What would {word} be in {language}?
Say {word} in {language}, please.|What is the {language} word for {word}?
"""),
    "book_table": table("""
Can you reserve a table for {people} on {day}?|Please book us a table for {people} on {day}.|Book a table on {day} for {people} people, please.
We need a table for {people} people on {day}.|{people} of us want to eat out on {day}. Reserve a table.
"""),
    "buy_ticket": table("""
Please buy a ticket to {city} for {day}.|I need a train ticket to {city} for {day}.|Get a ticket for the train to {city} on {day}.
Can you get me to {city} by train on {day}?|One ticket to {city} for {day}, please.
"""),
    "find_recipe": table("""
What can I cook from {item}?|Please give me a recipe for {item}.|What could be made of {item}? Find a recipe.|Is there a recipe for {item}?
Find me something to cook with {item}.
"""),
    "add": table("""
Can you add {a} and {b} for me?|Tell me how much {a} plus {b} is.|How much is {a} + {b}? Use the tool.|Can you add up {a} + {b}?|Sum up {a} and {b}.
"""),
    "count_people": table("""
How many people has {city}?|Find the population of {city}.|Give me the population of {city}, please.
How many people are in {city}?|Tell me the number of people in {city}.|What population does {city} have?|How many live in {city}?
Can you tell me the population of {city}?
"""),
    "open_door": table("""
Can you open the {room} door?|Please unlock the door of the {room}.|Open up the door to the {room}.|Can you let me into the {room}?
Please open the door of the {room}.
"""),
}
LAST_SUMS = table("""
{n} saw {a} {i} and then saw {b} more. How many {i} has {n} seen now?|{n} won {a} {i} and later got {b} more. How many {i} does {n} have?
{n} bought {a} {i} and then got {b} others. How many {i} does {n} own now?|{n} made {a} {i} and then made {b} more. How many {i} are made?
{n} kept {a} {i} and then found {b} more. How many {i} does {n} keep now?|What number comes from {a} plus {b}?|I take {a} and add {b}. What is it?
Work out what {a} + {b} is.|Work {a} + {b} out for me.|How much is {a} and {b}?|{n} has found {a} {i}, and got {b} from {m}. How many {i} is that now?
""")
LAST_SAID = table("""
we need bread|we need a {i}|I need milk|do you need milk|the milk is cold|there is milk in the {p}|no milk today|milk and bread, please|we need more {i}
we need tea|they need water|you need a {i}|we have milk|please buy milk|we need {n} here|is there milk|bring milk and {q} {i}|we need help in the {p}
I will come late|I will come at {h}|we will come on {d}|I will bring milk on {d}|the train is here|the train is in the {p}|the car is late
""")
SAID = table("""
the {i} is in the {p}|we have no {i} left|I saw a {i} in the {p}|please bring the {i}|my {i} is broken|come to the {p} at {h}
there are {q} people in the {p}|{n} found the {i}|the {p} is closed on {d}|I lost my {i}|{n} waits in the {p}|we go to the {p}
the {i} costs {q} euros|do you want my {i}|I need the {i} now|{n} and I are in the {p}|tell {n} about the {i}|wait for me in the {p}
I will be in the {p} on {d}|we will come at {h}|{n} will be here on {d}|we meet on {d}|I will call on {d}|they will come on {d}|the {i} is late
the bus is late|the {i} is ready|the lunch is over|the {i} is in the {p} on {d}|I will come back on {d}|I come on {d}|{n} is late
""")
FIELDS_AGAIN = table("""
Now {f}.|And {f}?|Only {f}, please.|Give only {f}.|Now give {f} as JSON.|The same with {f}.|Please, {f} this time.|Once more, with {f}.
Do it again for {f}.|{f}, please.
""")
AFFIXES = table("my_{n}|{n}_tool|do_{n}|{n}_2|{n}_service|please_{n}|{n}_here|the_{n}|{n}_fn|call_{n}")


def message(d):
    """A short message: words that may stand together, or words in any order."""
    if d.chance(0.5):
        return " ".join([word(d)] + [d.pick(INNER) if d.chance(0.3) else word(d) for _ in range(d.number(0, 4))])
    return d.ask(
        LAST_SAID if d.last and d.chance(0.4) else SAID, i=d.pick(words.THINGS), p=d.pick(words.PLACES), h=d.number(1, 12),
        q=d.number(2, 30), n=d.name(), d=d.pick(words.DAYS),
    )


def word(d):
    """Any word that may have to be copied."""
    return d.pick(COPIED)(d)


COPIED = [
    lambda d: d.pick(words.SPELL), lambda d: d.pick(CLOSED), lambda d: d.pick(CLOSED), lambda d: d.made_up(), lambda d: d.name(),
    lambda d: d.city(), lambda d: d.item(), lambda d: str(d.number(1, 99)),
]


def tool_name(d, n):
    """A name for a tool that is usually called n: that, something like it, or words that say nothing."""
    kind = d.number(0, 9)
    if kind < (6 if d.later else 4):
        return n
    if kind < (9 if d.later else 7):
        return d.ask(AFFIXES, n=n)
    made = [d.made_up() if d.chance(0.5) else d.pick(words.SPELL) for _ in range(d.number(1, 2))]
    return "_".join(made)


def spliced(d):
    """Parts of two words of the lists: letters that a list of syllables would not bring together."""
    first = VOWELS if d.last and d.chance(0.3) else LISTED
    a, b = d.pick(first).lower(), d.pick(LISTED).lower()
    return a[: d.number(1, len(a) - 1)] + b[d.number(1, len(b) - 1) :]


LISTED = words.NAMES + words.TOWNS + words.ITEMS + words.SPELL
VOWELS = [w for w in LISTED if w[0] in "AEIOU"]
CLOSED = (
    words.JOBS + words.EVENTS + words.DAYS + words.COLOURS + words.THINGS + words.PLACES + tools.MUSIC + tools.ROOMS
    + tools.LANGUAGES + "I the we you my me to so not please come".split()
)  # the tokens of these are copied wherever they stand: make_tokenizer.py
INNER = "is are a am in at on with and of late ready home soon need here over from will are was back".split()
