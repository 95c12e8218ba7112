"""The greedy sequence, found from the probabilities of a few sequences."""

from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.guard.direct import greedy_sequence

END, TOKENS, DEPTH = 0, (0, 1, 2), 3


@st.composite
def models(draw: st.DrawFn) -> dict[tuple[int, ...], tuple[float, ...]]:
    """Draw the probabilities of the next token after each sequence of up to two tokens."""
    nodes = [(), *((one,) for one in TOKENS[1:]), *((one, two) for one in TOKENS[1:] for two in TOKENS[1:])]
    weights = st.tuples(*(st.sampled_from([0.0, 1.0, 2.0, 50.0]) for _ in TOKENS)).filter(any)
    return {node: tuple(w / sum(drawn) for w in drawn) for node in nodes for drawn in [draw(weights)]}


def sequences(model: dict[tuple[int, ...], tuple[float, ...]]) -> dict[tuple[int, ...], float]:
    """Return the probability of each sequence with its end token; a third token is always the end."""
    found, pending = {}, [((), 1.0)]
    while pending:
        prefix, mass = pending.pop()
        for token, probability in enumerate(model.get(prefix, (1.0, 0.0, 0.0))):
            if token == END:
                found[(*prefix, END)] = mass * probability
            elif probability:
                pending.append(((*prefix, token), mass * probability))
    return found


@given(models(), st.data())
def test_it_is_what_greedy_decoding_writes(
    model: dict[tuple[int, ...], tuple[float, ...]], data: st.DataObject
) -> None:
    masses = sequences(model)
    given_sequences = data.draw(st.lists(st.sampled_from(sorted(masses)), min_size=1, unique=True))
    index = greedy_sequence(given_sequences, [log(masses[one]) if masses[one] else -inf for one in given_sequences])
    if index is None:
        return
    prefix: tuple[int, ...] = ()
    while END not in prefix:
        probabilities = model.get(prefix, (1.0, 0.0, 0.0))
        prefix = (*prefix, max(TOKENS, key=lambda token: probabilities[token]))
    assert given_sequences[index] == prefix


def test_it_is_found_although_no_sequence_is_likely() -> None:
    branches = [(one, two, END) for one in (1, 2) for two in (1, 2)]
    assert greedy_sequence(branches, [log(mass) for mass in (0.3, 0.22, 0.25, 0.229)]) == 0


@pytest.mark.parametrize("logps", [[log(0.3), log(0.2)], [log(0.45), log(0.45)], [float("nan"), log(0.9)]])
def test_it_is_not_guessed(logps: list[float]) -> None:
    assert greedy_sequence([(1, END), (2, END)], logps) is None
