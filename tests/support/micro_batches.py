"""Random micro-batches, for property tests."""

from hypothesis import strategies as st

from guardreasoner.model.batch import Example

ids = st.lists(st.integers(3, 99), max_size=30).map(tuple)
some = st.lists(st.integers(3, 99), min_size=1, max_size=12).map(tuple)


@st.composite
def micro_batches(draw: st.DrawFn, pairs: bool = False) -> list[Example]:
    """Examples with and without a shared prefix; equal prompts and completions occur.

    Args:
        draw: given by hypothesis.
        pairs: all examples have one completion (R-SFT) or all have two (HS-DPO); otherwise their numbers may differ.
    """
    completions = draw(st.integers(1, 2))
    prefix = draw(ids)
    count = st.integers(1, 3) if draw(st.booleans()) and not pairs else st.just(completions)
    alike = draw(st.lists(some, min_size=1, max_size=3))
    return [
        Example(
            id=str(number),
            prompt=prefix + draw(st.sampled_from(alike) | some),
            completions=tuple(draw(st.sampled_from(alike) | some) for _ in range(size)),
            weights=tuple(draw(st.floats(0.1, 2)) for _ in range(size)),
            reference_logps=tuple(draw(st.floats(-9, 0)) for _ in range(size)),
        )
        for number, size in enumerate(draw(st.lists(count, min_size=1, max_size=5)))
    ]
