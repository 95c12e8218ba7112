"""A packed row holds every token once, and each completion token is predicted from what stands before it."""

from collections.abc import Sequence

import torch
from hypothesis import given

from guardreasoner.model.batch import Example, two_row
from guardreasoner.model.packing import packed
from tests.support.micro_batches import micro_batches


def seen(batch: object, place: int) -> list[int]:
    """Return the ids that a token of a packed row sees, in their order, itself last."""
    segments, row = batch.segments, batch.input_ids[0].tolist()  # type: ignore[attr-defined]
    prefix = batch.prefix_ids.tolist()  # type: ignore[attr-defined]
    own = next(segment for segment in segments if segment.start <= place < segment.end)
    parents = [token for number in own.parents for token in row[segments[number].start : segments[number].end]]
    return prefix + parents + row[own.start : place + 1]


@given(micro_batches())
def test_every_completion_token_is_predicted_from_what_stands_before_it(examples: Sequence[Example]) -> None:
    batch = packed(examples, 0)
    assert batch.segments is not None
    at = 0
    for number in range(batch.sequences):
        example = examples[batch.example[number]]
        completion = example.completions[batch.number[number]]
        for place, token in enumerate(completion):
            assert batch.targets[at] == token
            assert batch.sequence[at] == number
            before = seen(batch, int(batch.predictors[at]))
            assert before == [*example.prompt, *completion[:place]]
            assert batch.position_ids[0, batch.predictors[at]] == len(before) - 1
            at += 1
    assert at == len(batch.targets)


@given(micro_batches())
def test_all_but_the_layout_is_that_of_two_rows(examples: Sequence[Example]) -> None:
    plain, context = two_row(examples, 0), packed(examples, 0)
    for name in ("targets", "sequence", "example", "number", "weight", "reference_logps"):
        assert torch.equal(getattr(plain, name), getattr(context, name)), name
    assert (plain.sequences, plain.ids, plain.tokens) == (context.sequences, context.ids, context.tokens)


@given(micro_batches())
def test_nothing_is_padded_and_a_prompt_stands_there_once(examples: Sequence[Example]) -> None:
    batch = packed(examples, 0)
    assert batch.segments is not None
    assert [s.start for s in batch.segments] == [0, *(s.end for s in batch.segments[:-1])]
    assert batch.segments[-1].end == batch.input_ids.shape[1]
    most = sum(len(e.prompt) + sum(len(c) - 1 for c in e.completions) for e in examples)
    assert batch.input_ids.shape[1] <= most


def test_what_all_prompts_begin_with_is_computed_once() -> None:
    prefix = tuple(range(100, 120))
    examples = [Example(str(n), (*prefix, n, n), ((7, 8), (9, 9, 9))) for n in range(3)]
    batch = packed(examples, 0)
    assert batch.prefix_ids is not None
    assert batch.prefix_ids.tolist() == list(prefix)
    assert batch.input_ids.shape[1] == 3 * (2 + 1 + 2)
    assert batch.position_ids[0, :2].tolist() == [20, 21]
    assert batch.segments is not None
    assert [segment.parents for segment in batch.segments[:4]] == [(), (0,), (0,), ()]
    short = [Example(e.id, e.prompt[10:], e.completions) for e in examples]
    assert packed(short, 0).input_ids.shape[1] == 3 * (12 + 1 + 2)
