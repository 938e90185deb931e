"""How people ask. Every measured task has phrasings to train on and phrasings held out for the measurement.

check_held_out.py proves that no held-out phrasing, whatever stands in its slots, occurs in the training text.
"""

from words import table

TRAIN = {
    "capital": table("""
What is the capital of {c}?|What's the capital of {c}?|Tell me the capital of {c}.|Name the capital of {c}.
Which city is the capital of {c}?|Capital of {c}?|{c}: capital?|Do you know the capital of {c}?
I need the capital of {c}.|What is the capital city of {c}?|Which capital does {c} have?
What is {c}'s capital?|What is the name of the capital of {c}?|Can you tell me the capital of {c}?
The capital of {c} is which city?|Give me the capital of {c}, please.|I forgot the capital of {c}. What is it?
My teacher asked for the capital of {c}.|In {c}, which city is the capital?
If I fly to {c}, what capital city do I visit?|What city do people in {c} call their capital?
For {c}, name the capital city.|What capital belongs to {c}?|I am going to {c}. What is its capital called?
Please name {c}'s capital.|capital of {c}|Which city is {c}'s capital?|Say the capital of {c}.
I want to know the name of {c}'s capital city.|and the capital of {c}?|Could you name the capital of {c}?
How is the capital of {c} called?|{c} has which capital?|Quiz: the capital of {c}?
Where is the government of {c}? I mean the capital.|Help me with the capital of {c}.
Would you know what {c}'s capital is?|What do they call the capital city in {c}?
Write down the capital of {c}.|I would like the capital of {c}.
"""),
    "sum": table("""
What is {a} + {b}?|{a} + {b}|{a}+{b}|{a} + {b} =|{a}+{b}=|{a} + {b}?|What is {a} plus {b}?|Add {a} and {b}.
Calculate {a} + {b}.|How much is {a} plus {b}?|What is the sum of {a} and {b}?|Sum {a} and {b}.
Compute {a} plus {b}.|What do you get if you add {a} to {b}?|{a} plus {b}|What's {a} + {b}?
What do {a} and {b} make?|Please add up {a} and {b}.|Tell me {a} plus {b}.|Total of {a} and {b}?
If I put {a} and {b} together, what is the total?|Can you add {a} and {b}?|How much is {a} + {b}?
I need the sum of {a} and {b}.|Solve {a} + {b}.|{a} and {b} together?|What is the result of {a} + {b}?
Please work out {a} plus {b}.|Start with {a} and add {b}. What comes out?|Give me {a} + {b}.
Which number is {a} plus {b}?|I have {a} {i} and get {b} more. How many {i} do I have now?
{n} has {a} {i} and buys {b} more. How many {i} is that?
There are {a} {i} here and {b} {i} there. How many {i} are there?
{n} has {a} {i} and {m} has {b}. How many do they have together?
One box holds {a} {i}, another holds {b}. How many are in both?
We had {a} {i} and found {b} more. How many are there now?
On {d} I sold {a} {i}, a day later {b}. How many did I sell?|Find the total of {a} and {b}.
Help me add {a} and {b}.
"""),
    "sentiment": table("""
Is this sentence positive or negative? "{s}"|Sentiment: {s}|What is the sentiment of this text? {s}
{s} Is that positive or negative?|Classify the review: {s}|Positive or negative: {s}|Sentiment of "{s}"?
Tell me if this is positive or negative: {s}|Does this sound positive or negative? {s}
Label the sentiment. {s}|Review: {s} Sentiment?|A guest wrote: "{s}" Is it positive or negative?
Please classify this sentence: "{s}"|What feeling does this show, positive or negative? {s}
Judge the sentiment of this review: "{s}"|I read this: {s} What is the sentiment?
Is the mood of this text positive or negative? {s}|Give the sentiment: {s}
Classify as positive or negative: {s}|Say positive or negative. {s}|"{s}" What is the sentiment here?
Decide: positive or negative? "{s}"|Here is a review: {s} Classify it.|Read this comment and label it: "{s}"
My friend said: "{s}" Was that positive or negative?|How does the writer feel, positive or negative? {s}
"""),
    "good_bad": table("""
The {n} was {a}.|The {n} is {a}.|What a {a} {n}!|I think the {n} was {a}.|The {n} was really {a}.|A {a} {n}.
The {n} was very {a} and {b}.|We found the {n} {a}.|It was a {a} {n}.|The {n} in this place is {a}.
So {a}, this {n}!|My family thought the {n} was {a}.|The {n} was {a}, the {m} was {b}.
Honestly, the {n} was quite {a}.|This {n} is so {a}!|The {n} seemed {a} to me.|Yesterday the {n} was {a}.
The {n} was {a} from start to end.|Such a {a} {n} and such a {b} {m}.
"""),
    "loved": table("""
I {v} the {n}.|I {v} this {n}.|I {v} the {n} and the {m}.|Yesterday I {v} the {n}.|Honestly, I {v} the {n}.
I {v} the {a} {n}.|I {v} the {n}, it was {a}.|I {v} this {a} {n} so much.
"""),
    "json": table("""
Extract {f} as JSON: {s}|Extract {f} from this text as JSON: {s}|Give me {f} as JSON. {s}
{s} Extract {f} as JSON.|Return {f} as JSON: {s}|Text: {s} Fields: {f}. Answer with JSON.
Write {f} as a JSON object: {s}|JSON with {f}: {s}|Find {f} in this sentence and answer in JSON: "{s}"
Read: {s} Now give {f} as JSON.|From "{s}" extract {f}. Use JSON.|Please extract {f} in JSON form: {s}
I need {f} as JSON from this: {s}|Turn this into JSON with {f}: {s}|{s} Give {f} in JSON.
Make a JSON object with the fields {f} from the text: {s}|Which {f} do you find? Answer as JSON. {s}
Parse this and return JSON with {f}: "{s}"|Get {f} out of this text, as JSON: {s}
Convert to JSON, fields {f}: {s}|What are {f} here? Reply in JSON. {s}|Fill in {f} as JSON: {s}
"""),
    "person": table("""
{name} is {age} years old and lives in {city}.|{name}, {age}, lives in {city} and works as a {job}.
My name is {name}. I am {age} and I live in {city}.|{name} works as a {job} in {city}.
This is {name} from {city}, aged {age}.|{name} is a {age}-year-old {job} from {city}.
In {city} there is a {job} called {name}.|At {age}, {name} moved to {city}.
I am {name}, a {job}, and I am {age}.|Our new {job} is {name} from {city}.
{name} from {city} is {age} years old.|The {job} is called {name} and is {age} years old.
{name} was born in {city} and is now {age}.|Meet {name}, {age}, from {city}.
{name} has lived in {city} for years and is a {job}.|Hello, I am {name} from {city}.
The {job} {name} lives in {city}.
"""),
    "order": table("""
{name} ordered {quantity} {item} on {day}.|{name} bought {quantity} {item} for {price} euros.
Please send {quantity} {item} to {name} in {city}.|On {day}, {name} wants {quantity} {item}.
{quantity} {item} for {name}, please.|{name} paid {price} euros for {quantity} {item}.
{name} from {city} needs {quantity} {item} by {day}.|We sold {quantity} {item} to {name}.
An order from {name}: {quantity} {item}, {price} euros.|{quantity} {item} cost {price} euros.
{day}: {quantity} {item} for {name}.|{name} took {quantity} {item} home on {day}.
I am {name} and I need {quantity} {item}.|The {quantity} {item} go to {city} on {day}.
"""),
    "event": table("""
The {event} is on {day} in {city}.|The {event} in {city} starts at {hour} on {day}.
{name} invites you to a {event} in {city}.|There is a {event} on {day} at {hour}.
{name} has a {event} on {day}.|On {day} we go to the {event} in {city}.
The {event} with {name} begins at {hour}.|Do not forget the {event} on {day} at {hour} in {city}.
{name} plans a {event} for {day}.|{city} holds a {event} on {day}.
"""),
}
HELD = {
    "capital": table("""
Could you say what the capital of {c} is?|Please give me {c}'s capital city.
Which city is the capital city of {c}?|I want to know the capital of {c}.|What do we call the capital of {c}?
Tell me what {c}'s capital is called.|Help me: what capital does {c} have?
The capital city of {c}, which one is it?
"""),
    "sum": table("""
Find the sum: {a} + {b}.|How much do {a} and {b} make?|What number is {a} plus {b}?|Work out {a} + {b} for me.
What is the total of {a} and {b}?|Please compute {a} + {b}.|I add {a} and {b}. What is the result?
{n} found {a} {i} and then got {b} more. How many {i} does {n} have now?
"""),
    "sentiment": table("""
Is this review positive or negative? {s}|Read the text and give its sentiment: {s}
Here is a comment: "{s}" Positive or negative?|Decide if the sentence is positive or negative: {s}
What is the mood of this review? "{s}"
"""),
    "good_bad": table("""
I found the {n} {a}.|That {n} was so {a}!|The {n} was both {a} and {b}.|To be honest, the {n} is {a}.
"""),
    "loved": table("""
This time I {v} the {n}.|I {v} that {n}.|To be honest, I {v} this {n}.
"""),
    "json": table("""
Please return {f} from this sentence as JSON: {s}|Extract the fields {f} and answer in JSON. {s}
Give {f} as a JSON object: {s}|Read this text and extract {f} as JSON: "{s}"
{s} Return a JSON object with {f}.
"""),
    "person": table("""
{name} lives in {city} and is {age} years old.|I am {name}, I am {age} and I work as a {job}.
{name} from {city} works as a {job}.|Our {job} {name} is {age} and lives in {city}.
"""),
    "order": table("""
{name} needs {quantity} {item} on {day}.|{name} ordered {quantity} {item} for {price} euros.
We send {quantity} {item} to {name} in {city}.
"""),
    "event": table("""
{name} has a {event} in {city} on {day}.|The {event} in {city} is on {day} at {hour}.
On {day} there is a {event} with {name}.
"""),
}
