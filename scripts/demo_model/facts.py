"""What the model knows of the world beside the capitals: countries, colours, days, months, opposites."""

import words
from words import table

COUNTRY_ASKED = table("""
Which country has the capital {city}?|{city} is the capital of which country?|What country is {city} the capital of?
Of which country is {city} the capital?|Where is {city}?|In which country is {city}?|Which country is {city} in?
""")
IS_CAPITAL = table("Is {x} the capital of {country}?|Is {country}'s capital {x}?|{x} is the capital of {country}, right?")
CONTINENT_ASKED = table("""
Which continent is {country} in?|On which continent is {country}?|What continent is {country} part of?|Where is {country}?
{country} is on which continent?|Tell me the continent of {country}.|Continent of {country}?|Where does {country} lie?
In what part of the world is {country}?
""")
IS_IN = table("Is {country} in {continent}?|Is {country} a country in {continent}?|Does {country} lie in {continent}?")
NAME_A_COUNTRY = table("""
Name a country in {continent}.|Tell me a country in {continent}.|Which country is in {continent}?
Give me a country of {continent}.
""")
CONTINENTS_ASKED = table("""
How many continents are there?|What are the continents?|List the continents.|Name all continents.
Which continents are there?
""")
MADE_UP_ASKED = table("""
What is the capital of {c}?|Capital of {c}?|Tell me the capital of {c}.|Which city is the capital of {c}?|Where is {c}?
""")
FIRST_CAPITAL = table("What is the capital of {c}?|Tell me the capital of {c}.|Capital of {c}?|what is the capital of {c}")
NEXT_CAPITAL = table("And of {c}?|And {c}?|What about {c}?|And the one of {c}?|and {c}|And what is it for {c}?")

COLOUR_ASKED = table("""
What colour is {t}?|Which colour does {t} have?|What is the colour of {t}?|Tell me the colour of {t}.|What color is {t}?
""")
MIX_ASKED = table("""
What do you get when you mix {a} and {b}?|Mix {a} and {b}.|What is {a} and {b} mixed?|Which colour do {a} and {b} make?
""")
THING_ASKED = table("Name something {c}.|What is {c}?|Tell me a thing that is {c}.|Which thing is {c}?")
COLOUR_NAMED = table("""
Name a colour.|Tell me a colour.|Say a colour.|Give me a colour.|Which colour do you like?|What is your favourite colour?
""")

DAY_AFTER = table("""
What day comes after {x}?|Which day is after {x}?|What is the day after {x}?|Today is {x}. What is tomorrow?
{x} is followed by which day?|If today is {x}, what day is tomorrow?
""")
DAY_BEFORE = table("""
What day comes before {x}?|Which day is before {x}?|What is the day before {x}?|Today is {x}. What was yesterday?
If today is {x}, what day was yesterday?
""")
DAYS_LISTED = table("""
Name the days of the week.|What are the days of the week?|List the days.|Tell me all weekdays.|days of the week
Which days are in a week?
""")
DAYS_COUNTED = table("How many days are in a week?|How many days does a week have?|Days in a week?")
WEEKEND_ASKED = table("Is {x} on the weekend?|Is {x} part of the weekend?|Does {x} belong to the weekend?")
MONTH_AFTER = table("""
What month comes after {x}?|Which month is after {x}?|What is the month after {x}?|It is {x}. Which month is next?
What is the next month after {x}?
""")
MONTH_BEFORE = table("What month comes before {x}?|Which month is before {x}?|What is the month before {x}?")
MONTH_DAYS = table("How many days does {x} have?|How many days are in {x}?|How long is {x}?|Days in {x}?")
MONTH_NUMBER = table("What is the {nth} month?|Which month is the {nth}?|Name the {nth} month of the year.|What is month {i}?")
MONTHS_LISTED = table("""
Name the months.|What are the months of the year?|List the months.|Tell me all months.|List all months of the year.
""")
MONTHS_COUNTED = table("How many months are in a year?|How many months does a year have?|Months in a year?")
SEASONS_ASKED = table("What are the seasons?|Name the seasons.|How many seasons are there?|List the four seasons.")
NTH = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()

OPPOSITE_ASKED = table("""
What is the opposite of {a}?|Opposite of {a}?|Give me the opposite of {a}.|What is the antonym of {a}?|Antonym of {a}
The opposite of {a} is|Tell me the opposite of {a}.|Which word is the opposite of {a}?|what's the opposite of {a}
""")


def capital_text(country, city):
    return f"The capital of {country} is {city}."


def capital_more(d):
    country, city, continent = d.pick(words.COUNTRIES)
    other, wrong, _ = d.pick([c for c in words.COUNTRIES if c[0] != country])
    kind = d.number(0, 9)
    if kind <= 1:
        return [(d.ask(COUNTRY_ASKED, city=city), f"{city} is the capital of {country}.")]
    if kind == 2:
        return [(d.ask(IS_CAPITAL, x=city, country=country), "Yes. " + capital_text(country, city))]
    if kind == 3:
        return [(d.ask(IS_CAPITAL, x=wrong, country=country), "No. " + capital_text(country, city))]
    if kind <= 5:
        return [(d.ask(CONTINENT_ASKED, country=country), f"{country} is in {continent}.")]
    if kind == 6:
        asked = d.pick(words.CONTINENTS[:6])
        if d.chance(0.5):
            is_in = "Yes" if asked == continent else "No"
            return [(d.ask(IS_IN, country=country, continent=asked), f"{is_in}. {country} is in {continent}.")]
        known = d.pick([c[0] for c in words.COUNTRIES if c[2] == asked])
        return [(d.ask(NAME_A_COUNTRY, continent=asked), f"{known} is in {asked}.")]
    if kind == 7:
        listed = ", ".join(words.CONTINENTS[:-1]) + " and Antarctica"
        return [(d.ask(CONTINENTS_ASKED), f"There are seven continents: {listed}.")]
    if kind == 8:
        made = d.made_up().capitalize()
        return [(d.ask(MADE_UP_ASKED, c=made), f"I do not know a country called {made}.")]
    return [
        (d.ask(FIRST_CAPITAL, c=country), capital_text(country, city)),
        (d.ask(NEXT_CAPITAL, c=other), capital_text(other, wrong)),
    ]


def start(thing):
    """A thing at the start of a sentence."""
    return thing[0].upper() + thing[1:]


def colour(d):
    kind = d.number(0, 4)
    thing, c = d.pick(words.THING_COLOURS)
    if kind <= 1:
        return [(d.ask(COLOUR_ASKED, t=thing), f"{start(thing)} is {c}.")]
    if kind == 2:
        a, b, mixed = d.pick(words.MIXES)
        if d.chance(0.5):
            a, b = b, a
        return [(d.ask(MIX_ASKED, a=a, b=b), f"{start(a)} and {b} make {mixed}.")]
    if kind == 3:
        return [(d.ask(THING_ASKED, c=c), f"{start(thing)} is {c}.")]
    return [(d.ask(COLOUR_NAMED), f"I like {d.pick(words.COLOURS)}.")]


def day(d):
    i, kind = d.number(0, 6), d.number(0, 6)
    x, after, before = words.DAYS[i], words.DAYS[(i + 1) % 7], words.DAYS[i - 1]
    if kind <= 1:
        return [(d.ask(DAY_AFTER, x=x), f"{after} comes after {x}.")]
    if kind <= 3:
        return [(d.ask(DAY_BEFORE, x=x), f"{before} comes before {x}.")]
    if kind == 4:
        return [(d.ask(DAYS_LISTED), ", ".join(words.DAYS) + ".")]
    if kind == 5:
        return [(d.ask(DAYS_COUNTED), "A week has 7 days.")]
    return [(d.ask(WEEKEND_ASKED, x=x), ("Yes" if i > 4 else "No") + ". The weekend is Saturday and Sunday.")]


def month(d):
    i, kind = d.number(0, 11), d.number(0, 9)
    x, after, before = words.MONTHS[i], words.MONTHS[(i + 1) % 12], words.MONTHS[i - 1]
    if kind <= 1:
        return [(d.ask(MONTH_AFTER, x=x), f"{after} comes after {x}.")]
    if kind <= 3:
        return [(d.ask(MONTH_BEFORE, x=x), f"{before} comes before {x}.")]
    if kind <= 5:
        return [(d.ask(MONTH_DAYS, x=x), f"{x} has {words.MONTH_DAYS[i]} days.")]
    if kind == 6:
        return [(d.ask(MONTH_NUMBER, nth=NTH[i], i=i + 1), f"{x} is the {NTH[i]} month.")]
    if kind == 7:
        return [(d.ask(MONTHS_LISTED), ", ".join(words.MONTHS) + ".")]
    if kind == 8:
        return [(d.ask(MONTHS_COUNTED), "A year has 12 months.")]
    return [(d.ask(SEASONS_ASKED), "There are four seasons: spring, summer, autumn and winter.")]


def opposite(d):
    a, b = d.pick(words.OPPOSITES)
    if d.chance(0.5):
        a, b = b, a
    return [(d.ask(OPPOSITE_ASKED, a=a), f"The opposite of {a} is {b}.")]
