"""Records and outputs with given verdicts, and hypothesis's draws of them."""

from hypothesis import strategies as st

from guardreasoner.mining import Pairing
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS

R, W, U = "harmful", "unharmful", None
"""A right, a wrong and an unparsable answer to a harmful request."""


def asked(name: str, source: str = "s", **labels: str | None) -> Record:
    return Record(name, f"prompt {name}", labels=labels or {"request": "harmful"}, source=source)


def output(name: str, word: str | None, index: int, model: str = "m", reasoning: str = "because") -> Rollout:
    answer = "no idea" if word is None else answer_block({"request": word}, GUARD_TASKS)
    return Rollout(name, model, "f", index, 0, f"{reasoning}\n\n{answer}")


def outputs(name: str, words: list[str | None], model: str = "m") -> list[Rollout]:
    return [output(name, word, index, model) for index, word in enumerate(words)]


def judged(name: str, index: int, **verdicts: str) -> Rollout:
    return Rollout(name, "m", "f", index, 0, answer_block(verdicts, GUARD_TASKS))


options = st.builds(
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


Given = tuple[list[Record], list[Rollout]]


@st.composite
def rollouts_of_records(draw: st.DrawFn) -> Given:
    records, rollouts = [asked("0")], outputs("0", [R, R])
    for number in range(1, draw(st.integers(1, 6))):
        name = str(number)
        records.append(asked(name, source=draw(st.sampled_from("ab"))))
        for model in draw(st.sampled_from([["m"], ["m", "n"]])):
            words = draw(st.lists(st.sampled_from([R, W, U]), max_size=5))
            lengths = [draw(st.integers(1, 3)) for _ in words]
            rollouts += [
                output(name, w, i, model, "x" * n) for i, (w, n) in enumerate(zip(words, lengths, strict=True))
            ]
    return records, rollouts
