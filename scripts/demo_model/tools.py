"""The tools that the demo model is taught to call: names, descriptions, arguments, requests."""

from words import table

# Per tool: names, descriptions, arguments and their types, requests to train on, requests held out.
# What an argument may be is decided by its name, in tasks.argument.
TOOLS = [
    (["get_weather", "weather", "weather_now"], ["Get the weather in a city", "Tells the weather of a place"],
     {"city": "string"},
     table("""
What is the weather in {city}?|How is the weather in {city}?|Is it raining in {city}?
Do I need an umbrella in {city}?|Tell me the weather for {city}.|Weather in {city}?
Is it cold in {city} today?|How warm is it in {city}?|Will the sun shine in {city}?
I travel to {city}. What will the weather be?|Please check the weather in {city}.
"""),
     table("What weather does {city} have today?|Can you tell me if it is raining in {city}?|How is the weather today in {city}?")),
    (["get_time", "local_time", "clock"], ["Get the local time in a city", "Tells what time it is in a place"],
     {"city": "string"},
     table("""
What time is it in {city}?|Tell me the time in {city}.|How late is it in {city}?
What is the local time in {city}?|Time in {city}?|I want to call someone in {city}. What time is it there?
Please check the clock in {city}.|Is it night in {city}? Check the time.
"""),
     table("What time do they have in {city} now?|Please tell me the local time of {city}.")),
    (["set_timer", "start_timer", "timer"], ["Start a timer", "Sets a timer for some minutes"],
     {"minutes": "integer"},
     table("""
Set a timer for {minutes} minutes.|Start a timer of {minutes} minutes.|Timer: {minutes} minutes.
Tell me when {minutes} minutes are over.|Please set a timer, {minutes} minutes.
My tea needs {minutes} minutes. Set a timer.|I want a timer for {minutes} minutes.
"""),
     table("Can you start a timer for {minutes} minutes?|The cake needs {minutes} minutes, please set a timer.")),
    (["set_alarm", "alarm", "wake_me"], ["Set an alarm clock", "Wakes the user at an hour"],
     {"hour": "integer"},
     table("""
Wake me at {hour}.|Set an alarm for {hour}.|Please set the alarm to {hour}.
I must get up at {hour}. Set an alarm.|Alarm at {hour}, please.|Can you wake me at {hour}?
I need an alarm at {hour}.
"""),
     table("Please wake me up at {hour}.|Set the alarm clock for {hour}.")),
    (["send_message", "write_message", "text"], ["Send a short message to a person", "Sends a text to somebody"],
     {"name": "string", "message": "string"},
     table("""
Tell {name}: {message}|Send {name} a message: {message}|Write to {name}: {message}
Please text {name}: {message}|Message to {name}: {message}|Let {name} know: {message}
I want to write to {name}: {message}|Send "{message}" to {name}.
"""),
     table("Please send {name} this message: {message}|Can you tell {name}: {message}")),
    (["call_person", "phone", "make_call"], ["Call a person on the phone", "Starts a phone call"],
     {"name": "string"},
     table("""
Call {name}.|Phone {name}, please.|I want to talk to {name} on the phone.|Please call {name} now.
Can you call {name}?|Ring {name}.|Start a call with {name}.|I must speak with {name}. Call, please.
"""),
     table("Please phone {name} now.|Make a call to {name}, please.")),
    (["play_music", "play", "music_player"], ["Play music", "Plays music of some kind"],
     {"kind": "string"},
     table("""
Play some {kind}.|I want to hear {kind}.|Put on some {kind} music.|Please play {kind} music.
Let us listen to {kind}.|Music: {kind}.|Can you play {kind}?
"""),
     table("I would like to hear some {kind} music.|Start some {kind} music, please.")),
    (["light_on", "switch_light", "lights"], ["Switch on the light in a room", "Turns on the lights of a room"],
     {"room": "string"},
     table("""
Switch on the light in the {room}.|It is dark in the {room}.|Turn on the lights in the {room}.
Light in the {room}, please.|Make the {room} bright.|Please turn on the {room} light.
I cannot see anything in the {room}. Light, please.
"""),
     table("Please switch on the lights of the {room}.|Can you turn on the light in the {room}?")),
    (["add_to_list", "shopping_list", "note_item"], ["Put something on the shopping list", "Adds an item to the list"],
     {"item": "string", "quantity": "integer"},
     table("""
Put {quantity} {item} on my list.|Add {quantity} {item} to the shopping list.
We need {quantity} {item}. Write it down.|Note: buy {quantity} {item}.
I have to buy {quantity} {item}. Add that.|Shopping list: {quantity} {item}.
Please add {quantity} {item} to my list.
"""),
     table("Can you put {quantity} {item} on the shopping list?|Write {quantity} {item} on my list.")),
    (["translate", "translate_word", "dictionary"], ["Translate a word", "Translates a word into a language"],
     {"word": "string", "language": "string"},
     table("""
Translate {word} into {language}.|What is {word} in {language}?|How do you say {word} in {language}?
{word} in {language}?|Give me the {language} word for {word}.|I need the word {word} in {language}.
Please translate the word {word} to {language}.
"""),
     table("Can you translate {word} into {language}?|How do I say {word} in {language}?")),
    (["book_table", "reserve_table", "restaurant"], ["Book a table in a restaurant", "Reserves a table for some people"],
     {"people": "integer", "day": "string"},
     table("""
Book a table for {people} on {day}.|Reserve a table for {people} people on {day}.
We are {people} and want to eat out on {day}.|I need a table on {day} for {people} people.
On {day} we need a table for {people}.|Table for {people}, {day}, please.
"""),
     table("Can you reserve a table on {day} for {people}?|Please book a table for {people} people on {day}.")),
    (["buy_ticket", "train_ticket", "tickets"], ["Buy a train ticket", "Buys a ticket to a city"],
     {"city": "string", "day": "string"},
     table("""
Buy a ticket to {city} for {day}.|I want to go to {city} on {day} by train.
Get me a train ticket to {city} on {day}.|On {day} I travel to {city}. I need a ticket.
A ticket to {city} on {day}, please.|Please book a train to {city} for {day}.
"""),
     table("Please buy a train ticket to {city} for {day}.|I need a ticket to {city} on {day}.")),
    (["find_recipe", "recipe", "cook_book"], ["Find a recipe", "Looks for a recipe with an ingredient"],
     {"item": "string"},
     table("""
What can I cook with {item}?|Find a recipe with {item}.|I have {item} and want to cook.|Recipe for {item}?
Give me a recipe with {item}.|Look for a recipe that uses {item}.|How do I cook {item}?
"""),
     table("Please find me a recipe for {item}.|What could I cook with {item}?")),
    (["add", "calculator", "add_numbers"], ["Add two numbers", "Computes the sum of two numbers"],
     {"a": "integer", "b": "integer"},
     table("""
Use the tool to add {a} and {b}.|What is {a} + {b}?|Add {a} and {b}.|How much is {a} plus {b}?|{a} + {b}
Compute {a} plus {b}.|Sum of {a} and {b}?
"""),
     table("Can you add up {a} and {b}?|Tell me how much {a} + {b} is.")),
    (["count_people", "population", "inhabitants"], ["Get the number of people in a city", "Tells how many people live in a place"],
     {"city": "string"},
     table("""
How many people live in {city}?|What is the population of {city}?|How big is {city}?
Is {city} a big city? Count the people.|Population of {city}?|Tell me how many people {city} has.
"""),
     table("How many people does {city} have?|Tell me the population of {city}.")),
    (["open_door", "door", "unlock_door"], ["Open a door", "Unlocks the door of a room"],
     {"room": "string"},
     table("""
Open the door of the {room}.|Unlock the {room}.|I want to go into the {room}. Open it.
Please open the {room} door.|Let me into the {room}.|The {room} is locked. Open it, please.
"""),
     table("Can you open the door of the {room}?|Please unlock the door to the {room}.")),
]
MESSAGES = table("""
I am late|see you soon|happy birthday|the food is ready|please call me|I am at home|good night|thank you
I love you|the train is late|we need milk|come to the garden|where are you|the meeting is over
I will come on {day}|dinner is at {hour}|bring {quantity} {item}|meet me in {city}|{name} is here
I found the key
""")
MUSIC = "jazz rock pop folk classical piano guitar dance film country soul blues happy sad quiet".split()
ROOMS = table("kitchen|bathroom|bedroom|garage|cellar|hall|office|garden|attic|library|living room|dining room")
LANGUAGES = "French Spanish German Italian Polish Greek Dutch Swedish Turkish Japanese".split()
