"""Examples on the disk are those that were written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.model.batch import Example
from guardreasoner.training.example_store import ExampleStore, write_examples

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)
EXAMPLES = st.builds(
    Example,
    id=st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    prompt=IDS,
    completions=st.lists(IDS, min_size=1, max_size=3).map(tuple),
    weights=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
    token_weights=st.lists(st.lists(st.floats(allow_nan=False), max_size=5).map(tuple), max_size=3).map(tuple),
)


def example(number: int) -> Example:
    """Return one of many different examples."""
    return Example(f"e{number}", tuple(range(number % 7)), ((number, 1), (2,) * (number % 5)), (number / 4, 1.0))


@settings(max_examples=50)
@given(examples=st.lists(EXAMPLES, max_size=6))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, examples: list[Example]) -> None:
    path = tmp_path_factory.mktemp("store") / "examples.arrow"
    assert write_examples(path, iter(examples)) == len(examples)
    store = ExampleStore(path)
    assert list(store) == examples
    assert store.lengths.tolist() == [one.length for one in examples]
    assert store.lengths.dtype == np.int64


def test_places_across_the_parts_of_a_file(tmp_path: Path) -> None:
    examples = [example(number) for number in range(2500)]
    write_examples(tmp_path / "store", examples)
    store = ExampleStore(tmp_path / "store")
    assert len(store) == len(store.lengths) == 2500
    for place in (0, 15, 16, 1023, 1024, 2047, 2048, 2499, -1, -452, -2500, np.int64(1500)):
        assert store[place] == examples[place]
    for part in (
        slice(1020, 1030),
        slice(None, 3),
        slice(-2, None),
        slice(9, 0, -4),
        slice(5, 5),
        slice(None, None, 999),
    ):
        assert store[part] == examples[part]
    for place in (2500, -2501, 10**9):
        with pytest.raises(IndexError):
            store[place]
    assert examples[1234] in store
    assert store.index(examples[1234]) == 1234
    assert type(store[8].prompt[0]) is int


def test_nothing_can_be_kept_too(tmp_path: Path) -> None:
    assert write_examples(tmp_path / "store", []) == 0
    store = ExampleStore(tmp_path / "store")
    assert (len(store), list(store), store[:], store.lengths.tolist()) == (0, [], [], [])
    with pytest.raises(IndexError):
        store[0]
    with pytest.raises(IndexError):
        store[-1]


def test_reference_values_are_not_kept(tmp_path: Path) -> None:
    write_examples(tmp_path / "store", [replace(example(1), reference_logps=(-1.0, -2.0))])
    assert ExampleStore(tmp_path / "store")[0] == example(1)


def foreign(path: Path) -> None:
    """Write an Arrow file of other columns."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.schema({"id": pa.string()})) as writer:
        writer.write_batch(pa.record_batch({"id": ["a"]}))


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store"
    # what TrainingDataModule takes for damage
    damage = (OSError, ValueError, pa.ArrowException)
    with pytest.raises(damage):
        ExampleStore(path)
    foreign(path)
    with pytest.raises(pa.ArrowInvalid, match="other columns than id, prompt, completions, weights"):
        ExampleStore(path)
    write_examples(path, [example(number) for number in range(2000)])
    whole = path.read_bytes()
    for content in (
        b"",
        b"ARROW1",
        b"not examples" * 99,
        whole[:-1],
        whole[:-9],
        whole[: len(whole) // 2],
        whole[100:],
    ):
        path.write_bytes(content)
        with pytest.raises(damage):
            ExampleStore(path)
