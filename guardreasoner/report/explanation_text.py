"""Text lines that explain how one record was mined (``pairs --explain``), safe to print to a terminal."""

from collections.abc import Iterable, Iterator, Sequence

from guardreasoner.mining.explain import ExplainedGroup, ExplainedOutput, Explanation
from guardreasoner.mining.pairing import Pairing
from guardreasoner.records import Rollout
from guardreasoner.workflow.shown_parts import shown_parts
from guardreasoner.workflow.visible_text import visible_line

_HEAD, _TAIL = 70, 40
"""Characters kept from the beginning and the end of a long text; the end of an output holds its verdict."""

_PARSERS = {
    "final-block": "the answer block that ends it",
    "released": "the first match in its last 300 characters",
}


def explanation_lines(explanation: Explanation, verbose: bool = False, notes: Sequence[str] = ()) -> Iterator[str]:
    """Yield the steps of mining for one record.

    Args:
        explanation: The steps.
        verbose: Whether to print whole texts instead of their beginnings and ends.
        notes: Further remarks on the record, one line each.
    """
    record, pairing = explanation.record, explanation.pairing
    yield f"record   {visible_line(record.id)}" + (f" of source {visible_line(record.source)}" if record.source else "")
    for name, text in shown_parts(record, shorten=not verbose):
        yield from _text(f"{name:<8} ", text, verbose)
    yield "gold     " + ", ".join(f"{task}: {label}" for task, label in record.gold().items())
    yield ""
    read = _PARSERS[pairing.parser] if explanation.format is None else type(explanation.format).__name__ + "'s answer"
    yield f"outputs  {len(explanation.outputs)}; a verdict is read from {read}"
    for output in explanation.outputs:
        yield f"  {_rollout_name(output.rollout)}: {_verdicts(output, explanation.tasks)} -> {output.vote}"
        yield from _text("    ", output.rollout.completion, verbose)
    yield ""
    yield f"rule     {_rule(pairing)}"
    for group in explanation.groups:
        yield f"votes    {_votes(group)}"
        yield from _weight(group, pairing)
    yield from _pairs(explanation)
    for note in notes:
        yield f"note     {visible_line(note)}"


def _text(head: str, text: str, verbose: bool) -> Iterator[str]:
    if verbose:
        lines = [visible_line(line) for line in text.splitlines()] or [""]
        yield from (f"{head if not number else ' ' * len(head)}{line}" for number, line in enumerate(lines))
        return
    line = visible_line(" ".join(text.split()))
    short = line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} … {line[-_TAIL:]}"
    yield f"{head}{short}"


def _rollout_name(rollout: Rollout) -> str:
    return (
        f"{visible_line(rollout.model)}, fingerprint {visible_line(rollout.fingerprint)[:16]}, seed {rollout.seed}, "
        f"output {rollout.index}"
    )


def _verdicts(output: ExplainedOutput, tasks: Iterable[str]) -> str:
    grades = {True: "right", False: "wrong", None: "no verdict"}
    parts = []
    for task in tasks:
        verdict = output.verdicts[task]
        if task in output.grades:
            parts.append(f"{task} {verdict or 'None'} ({grades[output.grades[task]]})")
        elif verdict:
            parts.append(f"{task} {verdict} (no gold label)")
    return ", ".join(parts)


def _rule(pairing: Pairing) -> str:
    graded = {
        "all": "an output is right if it matches every gold label",
        "first-mixed": "tasks are graded one by one; the first with right and wrong outputs decides",
    }[pairing.graded]
    unparsed = {"wrong": "counts as wrong", "drop": "does not vote"}[pairing.unparsable]
    voters = "the outputs of all models vote together" if pairing.pool else "each model is mined separately"
    return f"{graded}; an output without a verdict {unparsed}; {voters}"


def _votes(group: ExplainedGroup) -> str:
    voters = visible_line(group.model) if group.model else "all models"
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
    decisive_task = f" on {group.task}" if group.task and group.task != "all" else ""
    return f"{voters}: {'; '.join(parts)}: {outcome}{decisive_task}"


def _weight(group: ExplainedGroup, pairing: Pairing) -> Iterator[str]:
    if group.excess_errors is None or group.scope is None or group.scope_key is None:
        return
    votes = group.votes_by_question[group.task]
    scope, excess = group.scope, group.excess_errors
    model, source = (visible_line(name) for name in group.scope_key)
    where = f"of {model} in {source or 'records without a source'}" if model else "of all models and sources"
    yield f"weight   excess errors: {votes.count(False)} wrong - {votes.count(True)} right = {excess}"
    low, high = scope.min_excess, scope.max_excess
    yield f"         among the {scope.hard:,} hard records {where}: minimum {low}, maximum {high}"
    if low == high:
        yield "         all are equally hard: alpha = 1"
        return
    fraction = f"({_signed(excess)} - {_signed(low)}) / ({_signed(high)} - {_signed(low)})"
    yield f"         alpha = 1 + {pairing.gamma:g} * (2 * {fraction} - 1) = {group.weight:.6g}"


def _signed(number: int) -> str:
    return f"({number})" if number < 0 else str(number)


def _pairs(explanation: Explanation) -> Iterator[str]:
    hard = [group for group in explanation.groups if group.task]
    if not explanation.pairs:
        yield f"no pair  {_reason_for_no_pair(explanation)}"
        return
    pairing, group = explanation.pairing, hard[0]
    rules = {
        "random": f"at random, seed {pairing.seed}",
        "longest": "the longest",
        "shortest": "the shortest",
        "all": "each one",
    }
    if pairing.chosen == "gold":
        chosen = "chosen: the record's own reasoning and labels"
    else:
        chosen = f"chosen from right outputs: {rules[pairing.chosen]}"
    count = len(explanation.pairs)
    yield f"pairs    {count}; {chosen}; rejected from wrong ones: {rules[pairing.rejected]}"
    for pair in explanation.pairs:
        yield f"  {visible_line(pair.id)}, weight {pair.weight:.6g}"
        yield f"    chosen   {_rollout_name(pair.chosen)}"
        yield f"    rejected {_rollout_name(pair.rejected)}"
    votes = group.votes_by_question[group.task]
    sides = ((pairing.chosen, True), (pairing.rejected, False))
    right, wrong = (votes.count(side) if rule == "all" else 1 for rule, side in sides)
    if right * wrong > len(explanation.pairs):
        yield f"         {right * wrong} combinations; cap {pairing.cap}: kept at random, seed {pairing.seed}"
    for other in hard[1:]:
        yield f"         also hard for {visible_line(other.model)}; only the first model's pairs (by name) are kept"


def _reason_for_no_pair(explanation: Explanation) -> str:
    if not explanation.outputs:
        return "the record has no output"
    if not explanation.groups:
        return "none of these models mines its source (pairing.sources_by_model)"
    if {group.outcome for group in explanation.groups} == {"too few"}:
        return "fewer than two votes"
    return "no model's outputs are mixed" if len(explanation.groups) > 1 else "the outputs are not mixed"
