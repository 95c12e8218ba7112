"""An explanation of one record's pairs as lines for a terminal: data are shown as text, whatever they hold."""

from collections.abc import Iterable, Iterator, Sequence

from guardreasoner.mining.explain import ExplainedGroup, ExplainedOutput, Explanation
from guardreasoner.mining.pairing import Pairing
from guardreasoner.records import Rollout

_HEAD, _TAIL = 70, 40
"""Characters of a shortened text; its end is shown too, where an output gives its verdict."""

_READINGS = {
    "final-block": "the answer block that ends it",
    "released": "the first match in its last 300 characters",
}


def explanation_lines(found: Explanation, verbose: bool = False, notes: Sequence[str] = ()) -> Iterator[str]:
    """Yield the steps of mining for one record.

    Args:
        found: what happened.
        verbose: whole texts instead of their beginnings and ends.
        notes: what else is to be said of the record, a line each.
    """
    record, pairing = found.record, found.pairing
    yield f"record   {plain(record.id)}" + (f" of source {plain(record.source)}" if record.source else "")
    yield from _text("prompt   ", record.prompt, verbose)
    if record.response is not None:
        yield from _text("response ", record.response, verbose)
    yield "gold     " + ", ".join(f"{task}: {label}" for task, label in record.gold().items())
    yield ""
    yield f"outputs  {len(found.outputs)}; a verdict is read from {_READINGS[pairing.parser]}"
    for output in found.outputs:
        yield f"  {_called(output.rollout)}: {_verdicts(output, found.tasks)} -> {output.vote}"
        yield from _text("    ", output.rollout.completion, verbose)
    yield ""
    yield f"rule     {_rule(pairing)}"
    for group in found.groups:
        yield f"votes    {_votes(group)}"
        yield from _weight(group, pairing)
    yield from _pairs(found)
    for note in notes:
        yield f"note     {plain(note)}"


def plain(text: str) -> str:
    """Return a text in one line, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))


def _text(head: str, text: str, verbose: bool) -> Iterator[str]:
    if verbose:
        lines = [plain(line) for line in text.splitlines()] or [""]
        yield from (f"{head if not number else ' ' * len(head)}{line}" for number, line in enumerate(lines))
        return
    line = plain(text)
    short = line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} … {line[-_TAIL:]}"
    yield f"{head}{short}"


def _called(rollout: Rollout) -> str:
    return (
        f"{plain(rollout.model)}, fingerprint {plain(rollout.fingerprint)[:16]}, seed {rollout.seed}, "
        f"output {rollout.index}"
    )


def _verdicts(output: ExplainedOutput, tasks: Iterable[str]) -> str:
    words = {True: "right", False: "wrong", None: "no verdict"}
    said = []
    for task in tasks:
        verdict = output.verdicts[task]
        if task in output.grades:
            said.append(f"{task} {verdict or 'None'} ({words[output.grades[task]]})")
        elif verdict:
            said.append(f"{task} {verdict} (no gold label)")
    return ", ".join(said)


def _rule(pairing: Pairing) -> str:
    graded = {
        "all": "an output is right when it meets every gold label",
        "first-mixed": "tasks are graded one by one, and the first with right and wrong outputs decides",
    }[pairing.graded]
    without = {"wrong": "counts as wrong", "drop": "is no vote"}[pairing.unparsable]
    voters = "the outputs of all models vote together" if pairing.pool else "each model is mined alone"
    return f"{graded}; one without a verdict {without}; {voters}"


def _votes(group: ExplainedGroup) -> str:
    who = plain(group.model) if group.model else "all models"
    parts = []
    for question, votes in group.votes_by_question.items():
        dropped = votes.count(None)
        count = f"{votes.count(True)} right, {votes.count(False)} wrong" + (f", {dropped} dropped" if dropped else "")
        parts.append(count if question == "all" else f"{question} {count}")
    outcome = {
        "mixed": "mixed, so the record is hard",
        "all right": "all right",
        "all wrong": "all wrong" if len(group.votes_by_question) == 1 else "none mixed, one always wrong",
        "too few": "fewer than two votes",
    }[group.outcome]
    decides = f" on {group.task}" if group.task and group.task != "all" else ""
    return f"{who}: {'; '.join(parts)}: {outcome}{decides}"


def _weight(group: ExplainedGroup, pairing: Pairing) -> Iterator[str]:
    if group.excess_errors is None or group.scope is None or group.scope_key is None:
        return
    votes = group.votes_by_question[group.task]
    scope, excess = group.scope, group.excess_errors
    model, source = (plain(name) for name in group.scope_key)
    where = f"of {model} in {source or 'records without a source'}" if model else "of all models and sources"
    yield f"weight   excess errors: {votes.count(False)} wrong - {votes.count(True)} right = {excess}"
    yield f"         among the {scope.hard:,} hard ones {where}: least {scope.min_excess}, most {scope.max_excess}"
    if scope.min_excess == scope.max_excess:
        yield "         all are equally hard: alpha = 1"
        return
    low, high = _signed(scope.min_excess), _signed(scope.max_excess)
    unit = f"({_signed(excess)} - {low}) / ({high} - {low})"
    yield f"         alpha = 1 + {pairing.gamma:g} * (2 * {unit} - 1) = {group.weight:.6g}"


def _signed(number: int) -> str:
    return f"({number})" if number < 0 else str(number)


def _pairs(found: Explanation) -> Iterator[str]:
    hard = [group for group in found.groups if group.task]
    if not found.pairs:
        yield f"no pair  {_why_none(found)}"
        return
    pairing, kept = found.pairing, hard[0]
    rules = {
        "random": f"drawn, seed {pairing.seed}",
        "longest": "the longest",
        "shortest": "the shortest",
        "all": "each one",
    }
    chosen, rejected = rules[pairing.chosen], rules[pairing.rejected]
    yield f"pairs    {len(found.pairs)}; chosen among the right outputs: {chosen}; rejected among the wrong: {rejected}"
    for pair in found.pairs:
        yield f"  {plain(pair.id)}, weight {pair.weight:.6g}"
        yield f"    chosen   {_called(pair.chosen)}"
        yield f"    rejected {_called(pair.rejected)}"
    votes = kept.votes_by_question[kept.task]
    sides = ((pairing.chosen, True), (pairing.rejected, False))
    one, other = (votes.count(side) if rule == "all" else 1 for rule, side in sides)
    if one * other > len(found.pairs):
        yield f"         {one * other} combinations; {pairing.cap} are kept (cap), drawn, seed {pairing.seed}"
    for group in hard[1:]:
        yield f"         hard for {plain(group.model)} too; the pairs of the first model by name are kept"


def _why_none(found: Explanation) -> str:
    if not found.outputs:
        return "the record has no output"
    if not found.groups:
        return "its source is mined by none of these models (pairing.sources_by_model)"
    if {group.outcome for group in found.groups} == {"too few"}:
        return "nothing to compare: fewer than two votes"
    return "no model's outputs are mixed" if len(found.groups) > 1 else "the outputs are not mixed"
