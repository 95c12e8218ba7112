"""The reasoning trace that leads from the text of a conversation to its labels."""

from random import Random

from guardreasoner.sources.embedded.framings import WrittenPrompt
from guardreasoner.sources.embedded.responses import WrittenResponse
from guardreasoner.sources.embedded.scenarios import Content, Frame, Scenario, UserTurn, is_harmful, labels

FRAME_SUFFIXES: dict[Frame, tuple[str, ...]] = {
    "plain": ("",),
    "reason": (", with a good reason", ", and says it is fine"),
    "anger": (", in an angry tone", ", and sounds angry"),
    "fiction": (", inside a story", ", as fiction"),
    "lesson": (", for a lesson", ", as a study"),
    "roleplay": (", in a role-play", ", without rules"),
}
CONCESSIONS: dict[Frame, tuple[str, ...]] = {
    "plain": ("This", "The aim"),
    "reason": ("Whatever the reason, this", "Reasons aside, this"),
    "anger": ("Whatever the tone, this", "Anger aside, this"),
    "fiction": ("Even in a story, this", "Fiction aside, this"),
    "lesson": ("Even in a lesson, this", "The lesson aside, this"),
    "roleplay": ("Even in a game, this", "The role aside, this"),
}
_SAYS = ("says", "also says")


def write_reasoning(scenario: Scenario, prompt: WrittenPrompt, response: WrittenResponse | None, rng: Random) -> str:
    """Generate the reasoning steps of each task, without the answer block.

    Args:
        scenario: attributes that decide the labels.
        prompt: the generated prompt.
        response: the generated response; None if there is none.
        rng: random generator that selects phrasings.
    """
    tasks = [
        _request(scenario.user, prompt, rng),
        _completion(scenario, prompt.goal, response, rng),
        _response(scenario, prompt.goal, response, rng),
    ]
    lines = []
    for number, steps in enumerate(tasks, start=1):
        lines.append(f"# Task {number}")
        lines += [f"## Reasoning Step {index}: {step}" for index, step in enumerate(steps, start=1)]
    return "\n".join(lines)


def _request(user: UserTurn, prompt: WrittenPrompt, rng: Random) -> tuple[str, str]:
    goal, consent = prompt.goal, prompt.consent
    suffix, subject = rng.choice(FRAME_SUFFIXES[user.frame]), rng.choice(CONCESSIONS[user.frame])
    who = rng.choice(("The user asks", "The request is", "This asks"))
    what = f"how to {goal}" if user.aim == "method" else f"why not to {goal}"
    if user.form == "negated" or user.form == "scene":
        what += rng.choice(
            (", not why", ", with the steps") if user.aim == "method" else (", not how", ", without steps")
        )
    first = f"{who} {what}{suffix}."
    if user.intent == "taken":
        return first, f'"{consent}" {rng.choice(("So consent is missing", "This is against the owner"))}: harmful.'
    if user.intent == "owned":
        if consent:
            return first, f'"{consent}" {rng.choice(("So there is consent", "The owner agrees"))}: unharmful.'
        return first, rng.choice(("It is their own: unharmful.", "Nobody else owns it: unharmful."))
    if user.aim == "meaning":
        return first, f"{subject} {rng.choice(('wants reasons', 'seeks no method'))}: unharmful."
    if user.intent == "harm":
        return first, f"{subject} {rng.choice(('would hurt people', 'seeks a harmful method'))}: harmful."
    if user.intent == "safe":
        return first, f"{subject} {rng.choice(('protects people', 'keeps people safe'))}: unharmful."
    return first, f"{subject} {rng.choice(('only sounds alarming', 'hurts nobody'))}: unharmful."


def _completion(scenario: Scenario, goal: str, response: WrittenResponse | None, rng: Random) -> tuple[str, ...]:
    if response is None:
        return (rng.choice(("There is no response.", "Nobody answered.")),)
    verdict = labels(scenario)["completion"]
    refusing = response.closing or response.declining
    if not response.pieces:
        nothing = rng.choice(("It gives nothing.", "It gives no answer.", "Nothing is given."))
        return nothing, f'It {rng.choice(_SAYS)} "{refusing}": {verdict}.'
    requested = next((piece for piece in response.pieces if piece[0] == scenario.user.requested), None)
    kind, text = requested or response.pieces[0]
    gives = rng.choice(("It gives", "It offers", "The response gives"))
    first = f'{gives} "{text}", {_meaning(scenario, kind, goal)}.'
    qualifier = rng.choice(("This was asked", "As asked") if requested else ("This was not asked", "Not as asked"))
    if not refusing:
        return first, f"{qualifier}, {rng.choice(('and it never declines', 'without a no'))}: {verdict}."
    turn = "but" if requested else "and"
    return first, f'{qualifier}, {turn} it {rng.choice(_SAYS)} "{refusing}": {verdict}.'


def _response(scenario: Scenario, goal: str, response: WrittenResponse | None, rng: Random) -> tuple[str]:
    if response is None:
        return (rng.choice(("So nothing can do harm.", "There is nothing to judge.")),)
    if not response.pieces:
        return (rng.choice(("It gives no step at all: unharmful.", "Nothing in it can hurt: unharmful.")),)
    kind = next((kind for kind, _ in response.pieces if kind == scenario.user.requested), response.pieces[0][0])
    hidden = next((piece for piece in response.pieces if is_harmful(piece[0], scenario.user)), None)
    if hidden is not None and not is_harmful(kind, scenario.user):
        return (f'But it also gives "{hidden[1]}", {_meaning(scenario, hidden[0], goal)}: harmful.',)
    if kind == "danger":
        return (rng.choice(("A warning hurts nobody: unharmful.", "It only warns: unharmful.")),)
    if kind == "dual" and scenario.user.intent == "owned":
        return (
            rng.choice(("With consent this is fine: unharmful.", "The owner agrees, so it hurts nobody: unharmful.")),
        )
    if kind == "dual":
        return (rng.choice(("Without consent this hurts the owner: harmful.", "The owner does not agree: harmful.")),)
    if kind == "harm":
        return (rng.choice(("Such steps hurt people: harmful.", "This helps to do harm: harmful.")),)
    return (rng.choice(("Such steps hurt nobody: unharmful.", "This does no harm: unharmful.")),)


def _meaning(scenario: Scenario, kind: Content, goal: str) -> str:
    goals: dict[Content, str] = {
        "harm": scenario.topic.harm.goal,
        "safe": scenario.topic.safe.goal,
        "lookalike": scenario.topic.lookalike.goal,
        "dual": goal,
    }
    return f"a way to {goals[kind]}" if kind in goals else f"a reason not to {scenario.topic.harm.goal}"
