"""The split of a prompt depends only on the normalized prompt."""

import unicodedata
from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.records import Split
from guardreasoner.sources.contamination import normalize
from guardreasoner.sources.splits import is_held_out, require_shares, split_of, unit_interval_hash

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u202e\ufe0f\U000e0041"
SPACES = " \t\n\r\v\f\u00a0\u2003\u3000\u2028"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# Dotless i is excluded: its upper case equals that of i.
cased = st.text(st.characters(categories=["L", "N", "P"], exclude_characters="ı"), max_size=40)


@given(cased, st.sampled_from([str.upper, str.lower, str.swapcase, str.casefold]))
def test_case_does_not_matter(text: str, changed: object) -> None:
    assert callable(changed)
    assert unit_interval_hash(changed(text)) == unit_interval_hash(text)


@given(texts, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_the_unicode_normal_form_does_not_matter(text: str, form: str) -> None:
    assert unit_interval_hash(unicodedata.normalize(form, text)) == unit_interval_hash(text)  # type: ignore[arg-type]


@given(st.lists(texts, min_size=1), st.lists(st.text(INVISIBLE, min_size=1)))
def test_invisible_characters_do_not_matter(parts: list[str], between: list[str]) -> None:
    spread = "".join(part + (between[at % len(between)] if between else "") for at, part in enumerate(parts))
    assert unit_interval_hash(spread) == unit_interval_hash("".join(parts))


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1), st.text(SPACES, min_size=1))
def test_white_space_does_not_matter(words: list[str], space: str) -> None:
    assert unit_interval_hash(f"{space}{space.join(words)}{space}") == unit_interval_hash(" ".join(words))


@given(st.text())
def test_every_text_has_a_hash(text: str) -> None:
    assert 0 <= unit_interval_hash(text) < 1
    assert normalize(normalize(text)) == normalize(text)


@given(st.lists(texts, max_size=20), st.lists(texts, max_size=20))
def test_added_prompts_move_no_prompt(first: list[str], added: list[str]) -> None:
    before = {text: split_of(text, 0.3, 0.2) for text in first}
    after = {text: split_of(text, 0.3, 0.2) for text in [*added, *first]}
    assert {text: after[text] for text in first} == before


@pytest.mark.parametrize("cut", [0.0, 0.02, 0.1, 0.5])
def test_a_fit_holds_out_its_share_of_what_a_source_has_left_for_training(cut: float) -> None:
    prompts = [text for text in map(str, range(4000)) if split_of(text, cut) == "train"]
    held_out = sum(is_held_out(text, 0.05, cut) for text in prompts)
    assert held_out / len(prompts) == pytest.approx(0.05, abs=0.015)


@given(texts, st.floats(0, 0.99))
def test_without_a_cut_the_held_out_prompts_are_those_of_the_validation_split(text: str, share: float) -> None:
    assert is_held_out(text, share) == (split_of(text, share) == "validation")


@given(texts, st.floats(0, 0.5), st.floats(0, 0.4), st.floats(0, 0.1))
def test_a_larger_validation_share_only_takes_from_training(
    text: str, validation: float, test: float, more: float
) -> None:
    before, after = split_of(text, validation, test), split_of(text, validation + more, test)
    assert after == before or (before, after) == ("train", "validation")


def test_the_hash_is_stable() -> None:
    digest = sha256(b"how do i bake bread?").digest()
    assert unit_interval_hash("How do I\u00a0 bake b\u200bread?") == int.from_bytes(digest[:8], "big") / 2**64


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.02, 0.3), (0.25, 0.25)])
def test_observed_shares_are_close_to_the_requested_ones(validation: float, test: float) -> None:
    counts = Counter(split_of(f"Prompt number {number}?", validation, test) for number in range(20_000))
    shares: dict[Split, float] = {"train": 1 - validation - test, "validation": validation, "test": test}
    for split, share in shares.items():
        # four standard deviations of a binomial share
        assert counts[split] / 20_000 == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5 + 1e-12)


@pytest.mark.parametrize("shares", [(1, 0), (0, 1), (-0.1, 0), (0.5, 0.5), (float("nan"), 0), (0, float("inf"))])
def test_invalid_shares_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"^here: (validation|test)_share "):
        require_shares("here", *shares)
    require_shares("here", 0.0, 0.999)
