from collections.abc import Iterator

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import Identified
from guardreasoner.sources.concat import Concat


class ListSource:
    """A source of given prompts by split; "id|prompt" sets a record's id, which is otherwise the prompt."""

    def __init__(self, **prompts: str) -> None:
        self.prompts = {split: text.split() for split, text in prompts.items()}
        self.read = 0

    def records(self, split: Split) -> Iterator[Record]:
        self.read += 1
        for text in self.prompts.get(split, ()):
            identity, _, prompt = text.rpartition("|")
            yield Record(identity or prompt, prompt, labels={"request": "harmful"})


class WithIdentity(ListSource):
    def identity(self) -> object:
        return self.prompts


class Excluding(ListSource):
    excluded_ids = ("x", "y")


def ids(source: Concat, split: Split) -> list[str]:
    return [record.id for record in source.records(split)]


def test_splits_are_concatenated() -> None:
    source = Concat([ListSource(train="a b", test="c"), ListSource(test="d e"), ListSource(train="f", validation="g")])
    for _ in range(2):
        assert ids(source, "train") == ["a", "b", "f"]
        assert ids(source, "validation") == ["g"]
        assert ids(source, "test") == ["c", "d", "e"]


def test_records_are_read_lazily() -> None:
    members = [ListSource(train="a b"), ListSource(train="c")]
    records = iter(Concat(members).records("train"))
    assert members[0].read == 0
    assert next(records).id == "a"
    assert members[1].read == 0


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ({"train": "a"}, {"train": "b a"}, "sources[0] (ListSource) and sources[1] (WithIdentity)"),
        ({"test": "a"}, {"train": "b a"}, "sources[0] (ListSource) and sources[1] (WithIdentity)"),
        ({"train": "b"}, {"train": "a a"}, "sources[1] (WithIdentity)"),
    ],
)
def test_a_duplicate_id_is_refused(first: dict[str, str], second: dict[str, str], where: str) -> None:
    source = Concat([ListSource(**first), WithIdentity(**second)])
    with pytest.raises(InputError) as raised:
        [ids(source, split) for split in ("train", "validation", "test", "train")]
    assert str(raised.value) == f"record id 'a' occurs twice, in {where}; ids must be unique"


def test_it_has_an_identity_if_all_sources_have_one() -> None:
    source = Concat([WithIdentity(train="a"), WithIdentity(test="b")])
    assert isinstance(source, Identified)
    assert source.identity() == {"class": "Concat", "sources": [{"train": ["a"]}, {"test": ["b"]}]}
    assert isinstance(Concat([source]), Identified)
    assert not isinstance(Concat([WithIdentity(train="a"), ListSource(test="b")]), Identified)


def test_excluded_ids_are_collected() -> None:
    assert Concat([ListSource(train="1"), Excluding(test="4")]).excluded_ids == ["x", "y"]


def test_no_source_is_refused() -> None:
    with pytest.raises(InputError, match="Concat: sources must be one or more"):
        Concat([])
