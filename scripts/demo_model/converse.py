#!/usr/bin/env python3
"""Holds the conversation of the model card with a running server, and prints it as Markdown.

    python3 converse.py http://127.0.0.1:8000/v1

All turns are one conversation: what the model said before stands in front of the next question. Greedy.
"""

import sys

from openai import OpenAI

USER = """Hello!
Who are you?
My name is Fabian and I live in Bruges.
what is the capital of norway
And of Peru?
What is 47 + 38?
And 9 more?
Which is bigger, 71 or 17?
Sort these words: winter, apple, mirror
Is this positive or negative? The soup was cold and the waiter was rude.
Extract name and city as JSON: Greta from Linz is a baker.
Who won the football game yesterday?
Can you write a program in Python that sorts a list?
What do you think about love?
How do you spell garden?
Today is Sunday. What is tomorrow?
Tell me a story about a fox and a lantern.
asdf qwer
What is my name?
Thank you, goodbye!""".split("\n")


def main():
    client = OpenAI(base_url=sys.argv[1], api_key="none")
    messages = []
    for text in USER:
        messages.append({"role": "user", "content": text})
        answer = client.chat.completions.create(
            model="weir-demo", messages=messages, temperature=0, max_tokens=128
        ).choices[0]
        said = answer.message.content
        messages.append({"role": "assistant", "content": said})
        print(
            f"> **{text}**\n>\n> {said}"
            + ("" if answer.finish_reason == "stop" else f" ({answer.finish_reason})")
            + "\n"
        )


if __name__ == "__main__":
    main()
