"""``pairs --config``: mine and explain the pairs of a fit without torch."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from guardreasoner.cli.commands._fit_inputs import FitInputs
from guardreasoner.cli.main import main
from guardreasoner.mining import Pairing
from guardreasoner.records import Record, Split
from guardreasoner.sources.splits import unit_interval_hash
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.training_data import TrainingDataModule
from tests.support.preference_data import prepared
from tests.support.tiny import TinySource, write_rollouts

Refused = Callable[..., str]
SOURCE = ("--data.source", "tests.support.tiny.TinySource")


class Overlapping(TinySource):
    """A benchmark with the prompt of the third training record."""

    def records(self, split: Split) -> list[Record]:
        return TinySource().records("train")[2:3] if split == "test" else []


@pytest.fixture(autouse=True)
def _here(workplace: Path) -> None:
    """Work in a folder with the project's configs."""


def words(rollouts: Path | str, *more: str) -> list[str]:
    """Return the command with the config of a fit on tiny data."""
    return ["pairs", "--config", "configs/hsdpo.yaml", *SOURCE, "--data.rollouts", f'["{rollouts}"]', *more]


def mined(rollouts: Path, *more: str) -> list[dict[str, object]]:
    """Return the pairs that the command writes."""
    assert main(words(rollouts, "--out", "pairs.jsonl", *more)) == 0
    return [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]


def expected(data: PreferenceDataModule) -> list[tuple[str, float, int, int]]:
    return [(pair.id, pair.weight, pair.chosen.index, pair.rejected.index) for pair in data.pairs]


def found(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(r["id"], r["weight"], r["chosen"]["index"], r["rejected"]["index"]) for r in rows]  # type: ignore[index]


def test_the_pairs_equal_those_of_the_fit(tiny_base: Path, tmp_path: Path) -> None:
    source = TinySource()
    everything = write_rollouts(
        tmp_path / "all", [record for split in ("train", "validation", "test") for record in source.records(split)]
    )
    assert found(mined(everything)) == expected(prepared(tiny_base, [everything]))
    # a flag stands above the config, an overlay of the config too
    pairing = Pairing(gamma=0.2, chosen="all", cap=2)
    data = prepared(tiny_base, [everything], pairing=pairing)
    flags = ("--chosen", "all", "--cap", "2")
    assert found(mined(everything, "--gamma", "0.2", *flags)) == expected(data)
    assert found(mined(everything, "--data.pairing.gamma", "0.2", *flags)) == expected(data)
    Path("more.yaml").write_text("data: {init_args: {pairing: {chosen: all, cap: 2, gamma: 0.2}}}")
    assert found(mined(everything, "--config", "more.yaml")) == expected(data)
    assert found(mined(everything, "--config", "more.yaml", "--preset", "plan")) == found(mined(everything))


def test_a_record_of_the_fit_is_explained(
    tiny_rollouts: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    where = unit_interval_hash(TinySource().records("train")[2].prompt)
    for more, note in (
        (("--data.validation_share", str(0.5 * where)), "the fit trains on it"),
        (("--data.validation_share", str(0.5 + 0.5 * where)), "the fit uses it for validation"),
        (
            ("--data.benchmarks", '["tests.cli.commands.test_pairs_of_a_fit.Overlapping"]'),
            "the fit refuses it without --allow_contamination: similarity 1.00 to benchmark record train/02",
        ),
    ):
        assert main(words(tiny_rollouts, "--explain", "train/02", *more)) == 0
        assert f"note     {note}" in capsys.readouterr().out
    held = (
        "--data.benchmarks",
        '["tests.cli.commands.test_pairs_of_a_fit.Overlapping"]',
        "--data.skip_contaminated",
        "true",
    )
    assert main(words(tiny_rollouts, "--explain", "train/02", *held)) == 0
    assert "note     the fit skips it" in capsys.readouterr().out
    assert main(words(tiny_rollouts, "--explain", "train/00")) == 0
    assert "note" not in capsys.readouterr().out
    assert "no record 'test/00'" in refused(*words(tiny_rollouts, "--explain", "test/00"))


def test_a_config_without_rollouts_is_rejected(refused: Refused, tiny_rollouts: Path) -> None:
    assert "data.rollouts and data.source are missing" in refused(
        "pairs", "--config", "configs/rsft.yaml", "--out", "pairs.jsonl"
    )
    assert "absent.yaml: no such file" in refused("pairs", "--config", "absent.yaml", "--out", "pairs.jsonl")
    out = ("--out", "pairs.jsonl")
    assert "gamma must be in [0, 1), got 2" in refused(*words(tiny_rollouts, *out, "--data.pairing.gamma", "2"))
    assert "gamma" in refused(*words(tiny_rollouts, *out, "--data.pairing.gamma", "much"))
    assert "nowhere" in refused(*words(tiny_rollouts, *out, "--data.source", "nowhere.Source"))
    assert "logs/rollouts/rsft: no such file" in refused("pairs", "--config", "configs/hsdpo.yaml", *out)
    assert not Path("pairs.jsonl").exists()


def test_defaults_are_those_of_the_data_module() -> None:
    fit = {**inspect.signature(TrainingDataModule).parameters, **inspect.signature(PreferenceDataModule).parameters}
    inputs = FitInputs(*(fit[name].default for name in ("source", "rollouts")))  # both without a default
    assert asdict(inputs) == {field.name: fit[field.name].default for field in fields(FitInputs)} | {
        "pairing": asdict(fit["pairing"].default)
    }


def test_reading_a_config_imports_no_torch() -> None:
    code = (
        "import sys; from guardreasoner.cli.commands._fit_inputs import inputs_of_fit\n"
        "inputs_of_fit(['--config', 'configs/hsdpo.yaml'])\n"
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
