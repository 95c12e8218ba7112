"""Real pairs for the benchmarks: published predictions, or pairs of the embedded corpus, also behind policies."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import growth
import hsdpo_vs_trl
import mining_vs_transformers
import pytest
import rsft_vs_trl
import scoring
import two_speeds
from peers import flags
from peers.policy_instruction import policy_tokens
from peers.ratios import Target
from peers.real_pairs import prepare, tokenized_pairs

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone


def prepared(folder: Path, base: Path, **changes: Any) -> list[dict[str, Any]]:
    folder.mkdir()
    values = {"stage": "hsdpo", "pairs": 4, "limit": 4096, "instruction_tokens": 0, "lora": 0, "base": base} | changes
    paths = prepare(folder, folder / "none", Namespace(**values))
    examples: list[dict[str, Any]] = json.loads(Path(paths["examples"]).read_text())
    return examples


@pytest.mark.slow
def test_without_predictions_the_embedded_corpus_is_paired(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    rows = tokenized_pairs(tmp_path / "none", tokenizer)
    assert len({row["id"] for row in rows}) == len(rows) > 100
    for one, other in pairwise(rows):
        assert one["completions"][1] == other["completions"][0]  # the target of the next record
    assert "Answers:" in tokenizer.decode(rows[0]["completions"][0])


def test_a_made_model_needs_the_predictions(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of published predictions"):
        tokenized_pairs(tmp_path / "none", Backbone(str(tiny_base)).prompt_tokenizer, embedded=False)


@pytest.mark.parametrize("count", [0, 1, 300, 2000])
def test_an_instruction_has_as_many_tokens_of_policies_as_wanted(tiny_base: Path, count: int) -> None:
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    ids = policy_tokens(tokenizer, count)
    assert len(ids) == count
    assert tokenizer.end not in ids
    assert policy_tokens(tokenizer, 2500)[:count] == ids
    if count > 1:
        assert tokenizer.decode(ids).startswith("1. ")


@pytest.mark.slow
def test_the_same_policies_stand_in_front_of_every_prompt(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    plain = prepared(tmp_path / "plain", tiny_base)
    behind = prepared(tmp_path / "behind", tiny_base, limit=4096 + 50, instruction_tokens=50)
    start, policies = len(tokenizer.frame[0]), policy_tokens(tokenizer, 50)
    for one, other in zip(plain, behind, strict=True):
        assert other["prompt"] == [*one["prompt"][:start], *policies, *one["prompt"][start:]]
        assert other["completions"] == one["completions"]


@pytest.mark.slow
def test_the_length_limit_counts_the_policies(tiny_base: Path, tmp_path: Path) -> None:
    longest = max(len(example["prompt"]) for example in prepared(tmp_path / "plain", tiny_base))
    with pytest.raises(InputError, match=f"only 0 pairs have at most {longest} tokens"):
        prepared(tmp_path / "behind", tiny_base, limit=longest, instruction_tokens=longest)


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed (pip install -e '.[bench]')")
def test_the_flag_raises_the_length_limit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--instruction-tokens", "30", "--limit", "100"])
    arguments = flags.read("")
    assert (arguments.instruction_tokens, arguments.limit) == (30, 130)
    monkeypatch.setattr(sys, "argv", ["x", "--instruction-tokens", "-1"])
    with pytest.raises(SystemExit):
        flags.read("")
    assert "--instruction-tokens must be at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (rsft_vs_trl.main, ("--batches", "1", "0"), "--batches must be at least 1"),
        (mining_vs_transformers.main, ("--batches", "0"), "--batches must be at least 1"),
        (scoring.main, ("--batches", "0"), "--batches must be at least 1"),
        (growth.main, ("--pairs", "0"), "--pairs must be at least 1"),
        (growth.main, ("--overhead", "--epochs", "1", "--real-pairs", "8"), "--real-pairs must be above --batch"),
        (two_speeds.main, ("model", "--rounds", "0"), "--rounds: found '0', expected a whole number from 1"),
    ],
)
def test_counts_that_leave_nothing_to_measure_are_one_error_line(
    main: Callable[[], None],
    argv: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *argv])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed (pip install -e '.[bench]')")
def test_a_relative_base_is_found_from_other_folders(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_base.parent)
    monkeypatch.setattr(sys, "argv", ["x", "--base", tiny_base.name])
    base = flags.read("").base
    monkeypatch.chdir(tmp_path)  # the measured processes run in a folder of their own
    assert (base / "config.json").is_file()


def test_policies_have_a_target_of_their_own() -> None:
    plain = {"quick": False, "device": "cpu", "dtype": "fp32", "vocabulary": 12_000, "lora": 0, "base": None}
    with_policies = Namespace(**plain, instruction_tokens=1500)
    assert hsdpo_vs_trl.targets(with_policies) == [Target("speed", "best", 4.0)]
    assert rsft_vs_trl.targets(with_policies) == []
    assert Target("share", "limit", 0.85) in hsdpo_vs_trl.targets(Namespace(**plain, instruction_tokens=0))
    lora = Namespace(**plain | {"lora": 16}, instruction_tokens=0)
    assert Target("share", "limit", 0.8) in hsdpo_vs_trl.targets(lora)
