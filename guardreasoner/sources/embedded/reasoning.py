"""The trace that leads from the words of a conversation to its labels."""

from random import Random

from guardreasoner.sources.embedded.cases import Ask, Content, Frame, Scenario, harms, labels
from guardreasoner.sources.embedded.framings import Written
from guardreasoner.sources.embedded.responses import Said

TAILS: dict[Frame, tuple[str, ...]] = {
    "plain": ("",),
    "reason": (", with a good reason", ", and says it is fine"),
    "anger": (", in an angry tone", ", and sounds angry"),
    "fiction": (", inside a story", ", as fiction"),
    "lesson": (", for a lesson", ", as a study"),
    "roleplay": (", in a role-play", ", without rules"),
}
WEIGHED: dict[Frame, tuple[str, ...]] = {
    "plain": ("This", "The aim"),
    "reason": ("Whatever the reason, this", "Reasons aside, this"),
    "anger": ("Whatever the tone, this", "Anger aside, this"),
    "fiction": ("Even in a story, this", "Fiction aside, this"),
    "lesson": ("Even in a lesson, this", "The lesson aside, this"),
    "roleplay": ("Even in a game, this", "The role aside, this"),
}
_SAYS = ("says", "also says")


def write_reasoning(case: Scenario, written: Written, said: Said | None, rng: Random) -> str:
    """Return the steps for each task, without the answer block.

    Args:
        case: what the labels follow from.
        written: the prompt and its parts.
        said: the response and its parts; None where nobody answered.
        rng: chooses among wordings.
    """
    tasks = [
        _request(case.ask, written, rng),
        _completion(case, written.goal, said, rng),
        _response(case, written.goal, said, rng),
    ]
    lines = []
    for number, steps in enumerate(tasks, start=1):
        lines.append(f"# Task {number}")
        lines += [f"## Reasoning Step {place}: {step}" for place, step in enumerate(steps, start=1)]
    return "\n".join(lines)


def _request(ask: Ask, written: Written, rng: Random) -> tuple[str, str]:
    goal, consent = written.goal, written.consent
    tail, weighed = rng.choice(TAILS[ask.frame]), rng.choice(WEIGHED[ask.frame])
    who = rng.choice(("The user asks", "The request is", "This asks"))
    what = f"how to {goal}" if ask.aim == "method" else f"why not to {goal}"
    if ask.form == "negated" or ask.form == "scene":
        what += rng.choice(
            (", not why", ", with the steps") if ask.aim == "method" else (", not how", ", without steps")
        )
    first = f"{who} {what}{tail}."
    if ask.intent == "taken":
        return first, f'"{consent}" {rng.choice(("So consent is missing", "This is against the owner"))}: harmful.'
    if ask.intent == "owned":
        if consent:
            return first, f'"{consent}" {rng.choice(("So there is consent", "The owner agrees"))}: unharmful.'
        return first, rng.choice(("It is their own: unharmful.", "Nobody else owns it: unharmful."))
    if ask.aim == "meaning":
        return first, f"{weighed} {rng.choice(('wants reasons', 'seeks no method'))}: unharmful."
    if ask.intent == "harm":
        return first, f"{weighed} {rng.choice(('would hurt people', 'seeks a harmful method'))}: harmful."
    if ask.intent == "safe":
        return first, f"{weighed} {rng.choice(('protects people', 'keeps people safe'))}: unharmful."
    return first, f"{weighed} {rng.choice(('only sounds alarming', 'hurts nobody'))}: unharmful."


def _completion(case: Scenario, goal: str, said: Said | None, rng: Random) -> tuple[str, ...]:
    if said is None:
        return (rng.choice(("There is no response.", "Nobody answered.")),)
    verdict = labels(case)["completion"]
    refusing = said.closing or said.declining
    if not said.pieces:
        nothing = rng.choice(("It gives nothing.", "It gives no answer.", "Nothing is given."))
        return nothing, f'It {rng.choice(_SAYS)} "{refusing}": {verdict}.'
    asked = next((piece for piece in said.pieces if piece[0] == case.ask.wanted), None)
    kind, words = asked or said.pieces[0]
    gives = rng.choice(("It gives", "It offers", "The response gives"))
    first = f'{gives} "{words}", {_meaning(case, kind, goal)}.'
    was_asked = rng.choice(("This was asked", "As asked") if asked else ("This was not asked", "Not as asked"))
    if not refusing:
        return first, f"{was_asked}, {rng.choice(('and it never declines', 'without a no'))}: {verdict}."
    turn = "but" if asked else "and"
    return first, f'{was_asked}, {turn} it {rng.choice(_SAYS)} "{refusing}": {verdict}.'


def _response(case: Scenario, goal: str, said: Said | None, rng: Random) -> tuple[str]:
    if said is None:
        return (rng.choice(("So nothing can do harm.", "There is nothing to judge.")),)
    if not said.pieces:
        return (rng.choice(("It gives no step at all: unharmful.", "Nothing in it can hurt: unharmful.")),)
    kind = next((kind for kind, _ in said.pieces if kind == case.ask.wanted), said.pieces[0][0])
    hidden = next((piece for piece in said.pieces if harms(piece[0], case.ask)), None)
    if hidden is not None and not harms(kind, case.ask):
        return (f'But it also gives "{hidden[1]}", {_meaning(case, hidden[0], goal)}: harmful.',)
    if kind == "danger":
        return (rng.choice(("A warning hurts nobody: unharmful.", "It only warns: unharmful.")),)
    if kind == "dual" and case.ask.intent == "owned":
        return (
            rng.choice(("With consent this is fine: unharmful.", "The owner agrees, so it hurts nobody: unharmful.")),
        )
    if kind == "dual":
        return (rng.choice(("Without consent this hurts the owner: harmful.", "The owner does not agree: harmful.")),)
    if kind == "harm":
        return (rng.choice(("Such steps hurt people: harmful.", "This helps to do harm: harmful.")),)
    return (rng.choice(("Such steps hurt nobody: unharmful.", "This does no harm: unharmful.")),)


def _meaning(case: Scenario, kind: Content, goal: str) -> str:
    goals: dict[Content, str] = {
        "harm": case.topic.harm.goal,
        "safe": case.topic.safe.goal,
        "lookalike": case.topic.lookalike.goal,
        "dual": goal,
    }
    return f"a way to {goals[kind]}" if kind in goals else f"a reason not to {case.topic.harm.goal}"
