"""Records and outputs with given verdicts, and hypothesis strategies that draw them."""

from hypothesis import strategies as st

from guardreasoner.mining import Pairing
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS

R, W, U = "harmful", "unharmful", None
"""A right, a wrong and an unparsable answer to a harmful request."""


def make_record(record_id: str, source: str = "s", **labels: str | None) -> Record:
    """Return a record; without labels, its request is harmful."""
    return Record(record_id, f"prompt {record_id}", labels=labels or {"request": "harmful"}, source=source)


def make_output(
    record_id: str, request: str | None, index: int, model: str = "m", reasoning: str = "because"
) -> Rollout:
    """Return an output with the verdict ``request``; None gives an output without a verdict."""
    answer = "no idea" if request is None else answer_block({"request": request}, GUARD_TASKS)
    return Rollout(record_id, model, "f", index, 0, f"{reasoning}\n\n{answer}")


def make_outputs(record_id: str, requests: list[str | None], model: str = "m") -> list[Rollout]:
    """Return one output per verdict."""
    return [make_output(record_id, request, index, model) for index, request in enumerate(requests)]


def output_with_verdicts(record_id: str, index: int, **verdicts: str) -> Rollout:
    """Return an output with verdicts on several tasks."""
    return Rollout(record_id, "m", "f", index, 0, answer_block(verdicts, GUARD_TASKS))


pairings = st.builds(
    Pairing,
    pool=st.booleans(),
    unparsable=st.sampled_from(["wrong", "drop"]),
    chosen=st.sampled_from(["random", "longest", "shortest", "all"]),
    rejected=st.sampled_from(["random", "longest", "shortest", "all"]),
    cap=st.integers(1, 4),
    graded=st.sampled_from(["all", "first-mixed"]),
    gamma=st.floats(0, 0.99),
    seed=st.integers(0, 5),
)


RecordsAndRollouts = tuple[list[Record], list[Rollout]]


@st.composite
def records_with_rollouts(draw: st.DrawFn) -> RecordsAndRollouts:
    """Draw records of two sources with up to five outputs of one or two models each; record "0" has two outputs."""
    records, rollouts = [make_record("0")], make_outputs("0", [R, R])
    for number in range(1, draw(st.integers(1, 6))):
        record_id = str(number)
        records.append(make_record(record_id, source=draw(st.sampled_from("ab"))))
        for model in draw(st.sampled_from([["m"], ["m", "n"]])):
            verdicts = draw(st.lists(st.sampled_from([R, W, U]), max_size=5))
            lengths = [draw(st.integers(1, 3)) for _ in verdicts]
            rollouts += [
                make_output(record_id, verdict, index, model, "x" * length)
                for index, (verdict, length) in enumerate(zip(verdicts, lengths, strict=True))
            ]
    return records, rollouts
