from collections.abc import Iterator

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import Identified
from guardreasoner.sources.concat import Concat


class Few:
    """Yields what it was given: prompts by split; a record's id is its prompt, or what stands before "|" in it."""

    def __init__(self, **prompts: str) -> None:
        self.prompts = {split: text.split() for split, text in prompts.items()}
        self.read = 0

    def records(self, split: Split) -> Iterator[Record]:
        self.read += 1
        for text in self.prompts.get(split, ()):
            identity, _, prompt = text.rpartition("|")
            yield Record(identity or prompt, prompt, labels={"request": "harmful"})


class Known(Few):
    def identity(self) -> object:
        return self.prompts


class Leaving(Few):
    excluded_ids = ("x", "y")


def ids(source: Concat, split: Split) -> list[str]:
    return [record.id for record in source.records(split)]


def test_splits_follow_one_another() -> None:
    source = Concat([Few(train="a b", test="c"), Few(test="d e"), Few(train="f", validation="g")])
    for _ in range(2):
        assert ids(source, "train") == ["a", "b", "f"]
        assert ids(source, "validation") == ["g"]
        assert ids(source, "test") == ["c", "d", "e"]


def test_records_come_one_by_one() -> None:
    members = [Few(train="a b"), Few(train="c")]
    records = iter(Concat(members).records("train"))
    assert members[0].read == 0
    assert next(records).id == "a"
    assert members[1].read == 0


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ({"train": "a"}, {"train": "b a"}, "sources[0] (Few) and sources[1] (Known)"),
        ({"test": "a"}, {"train": "b a"}, "sources[0] (Few) and sources[1] (Known)"),
        ({"train": "b"}, {"train": "a a"}, "sources[1] (Known)"),
    ],
)
def test_an_id_is_there_once(first: dict[str, str], second: dict[str, str], where: str) -> None:
    source = Concat([Few(**first), Known(**second)])
    with pytest.raises(InputError) as raised:
        [ids(source, split) for split in ("train", "validation", "test", "train")]
    assert str(raised.value) == f"record id 'a' occurs twice, in {where}; ids must be unique"


def test_it_has_an_identity_when_all_have_one() -> None:
    source = Concat([Known(train="a"), Known(test="b")])
    assert isinstance(source, Identified)
    assert source.identity() == {"class": "Concat", "sources": [{"train": ["a"]}, {"test": ["b"]}]}
    assert isinstance(Concat([source]), Identified)
    assert not isinstance(Concat([Known(train="a"), Few(test="b")]), Identified)


def test_what_a_member_leaves_out_is_known() -> None:
    assert Concat([Few(train="1"), Leaving(test="4")]).excluded_ids == ["x", "y"]


def test_there_must_be_a_source() -> None:
    with pytest.raises(InputError, match="Concat: sources must be one or more"):
        Concat([])
