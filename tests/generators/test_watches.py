"""Texts are reported while they are generated: whole characters, the same texts, and an end if nobody wants more."""

from pathlib import Path
from typing import Any

import pytest

from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.generators.text_pieces import TextPieces
from guardreasoner.model.backbone import Backbone
from tests.support.sampling import record_requests
from tests.support.tiny import load


@pytest.fixture(scope="module")
def backbone(tiny_base: Path) -> Backbone:
    return load(tiny_base)


class Pieces:
    """A watch that keeps the pieces, and wants no more than ``most`` of them."""

    def __init__(self, most: int = 10**6) -> None:
        self.most = most
        self.pieces: list[str] = []

    def __call__(self, piece: str) -> bool:
        self.pieces.append(piece)
        return len(self.pieces) < self.most


@pytest.mark.parametrize("text", ["", "plain words", "naïve – „gut“", "犬🐕‍🦺🇩🇪\u200d e\u0301", "a \n\n b\t ", "�x"])
def test_pieces_join_to_the_text_and_end_with_whole_characters(backbone: Backbone, text: str) -> None:
    tokenizer = backbone.prompt_tokenizer
    ids = tokenizer.completion(text)[:-1]
    pieces = TextPieces(tokenizer.decode)
    found = [pieces.add(ids[: end + 1]) for end in range(len(ids))]
    assert "".join(found) == text
    if text.startswith("犬"):
        assert "" in found  # a character of several tokens
        assert "�" not in "".join(found)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_watched_texts_are_the_same_bit_for_bit(backbone: Backbone, temperature: float) -> None:
    requests = record_requests(backbone, 6, (0, 1))
    generator = LocalGenerator(backbone, 24, temperature, batch_size=5)
    watches = {request.record_id: Pieces() for request in requests[::2]}
    watched = list(generator.generate_watched(requests, watches))
    assert watched == list(generator.generate(requests))
    for completion in watched:
        if completion.index == 0 and completion.record_id in watches:
            text = "".join(watches[completion.record_id].pieces)
            assert completion.text.startswith(text)
            assert len(watches[completion.record_id].pieces) in (completion.completion_tokens, 23)
    assert sum(len("".join(watch.pieces)) for watch in watches.values()) > 20


def test_who_wants_no_more_frees_a_row_and_changes_nothing_else(backbone: Backbone) -> None:
    requests = record_requests(backbone, 6)
    generator = LocalGenerator(backbone, 24, 0.0, batch_size=3)
    plain = {one.record_id: one for one in generator.generate(requests)}
    gone = Pieces(3)
    (first, *others) = requests
    watched = {one.record_id: one for one in generator.generate_watched(requests, {first.record_id: gone})}
    assert len(gone.pieces) == 3
    left = watched[first.record_id]
    assert (left.text, left.finish_reason, left.completion_tokens) == ("", "abandoned", 3)
    assert [watched[one.record_id] for one in others] == [plain[one.record_id] for one in others]


@pytest.mark.parametrize("engine", [PlainGenerator, LocalGenerator])
def test_an_engine_that_cannot_report_ignores_watches(
    backbone: Backbone, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "supports_packing", False)
    requests: list[Request] = record_requests(backbone, 3)
    generator = engine(backbone, 12, 0.0)
    pieces = Pieces(1)
    watched = list(generator.generate_watched(requests, {requests[0].record_id: pieces}))
    assert watched == list(generator.generate(requests))
    assert pieces.pieces == []
