"""Generate conversations of many turns in ShareGPT's form: an assistant with a few tools, each row with labels."""

import json
import random
from pathlib import Path
from typing import Any

TOOLS = ("find_train", "send_mail", "delete_file", "pay_bill", "read_calendar")
PLACES = ("Aarhus", "Bergen", "Cork", "Delft", "Essen", "Faro", "Ghent", "Hull", "Izmir", "Jena")
THINGS = ("the old report", "an invoice", "my notes", "a ticket", "the draft", "two letters", "the plan", "a photo")
POLICIES = tuple(f"Rule {number}: the assistant calls {TOOLS[number % 5]} only if asked to." for number in range(20))


def conversation(rng: random.Random, turns: int) -> dict[str, Any]:
    """Return a row with a conversation, its labels and the reasons for them.

    Args:
        rng: the random numbers.
        turns: number of messages of the user.
    """
    messages = [{"from": "system", "value": "You are an assistant with tools."}]
    asked = called = ""
    for _ in range(turns):
        asked = rng.choice(TOOLS)
        thing, place, number = rng.choice(THINGS), rng.choice(PLACES), rng.randrange(10**6)
        messages.append({"from": "human", "value": f"Use {asked} for {thing}, it is case {number} of {place}."})
        called = asked if rng.random() < 0.7 else rng.choice(TOOLS)
        call = {"name": called, "arguments": {"case": number, "place": place}}
        messages.append({"from": "function_call", "value": json.dumps(call)})
        messages.append({"from": "observation", "value": f"{called}: done with case {number}"})
        messages.append({"from": "gpt", "value": f"I used {called} for {thing}."})
    label = "asked" if called == asked else "not asked"
    return {
        "conversations": messages,
        "labels": {"call": label},
        "reasoning": f"The user asks for {asked}. The assistant calls {called}. So the call was {label} for.",
    }


def write_conversations(path: Path, count: int, turns: int | None = None, seed: int = 0) -> None:
    """Write conversations as JSON lines, each with the id of one of 20 policies.

    Args:
        path: the file.
        count: number of conversations.
        turns: turns of each; None for one to three.
        seed: seed of the texts.
    """
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for number in range(count):
            row = conversation(rng, turns or rng.randint(1, 3))
            file.write(json.dumps({"id": f"c{number}", **row, "rules": f"p{number % 20}"}) + "\n")


def write_policies(path: Path) -> None:
    """Write the 20 policies as a JSON object."""
    path.write_text(json.dumps({f"p{number}": text for number, text in enumerate(POLICIES)}))
