"""``pairs``: on rollout folders, and with the config of a fit."""

import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from guardreasoner.cli.commands._fit_inputs import FitInputs
from guardreasoner.cli.main import main
from guardreasoner.mining import Pairing
from guardreasoner.records import Record, Split, write_jsonl
from guardreasoner.sources.splits import unit_interval_hash
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.training_data import TrainingDataModule
from guardreasoner.workflow.manifest import Manifest, content_hash
from tests.support.output_files import rollouts
from tests.support.pages import Reader
from tests.support.preference_data import prepared
from tests.support.tiny import TinySource, write_rollouts

BENCHMARKS = {
    "AegisSafetyTest": 28,
    "HarmBenchPrompt": 44,
    "HarmBenchResponse": 40,
    "SimpleSafetyTests": 2,
    "XSTestReponseHarmful": 13,
    "XSTestResponseRefusal": 38,
}
"""Hard records of the two published models; in the released reading HarmBenchResponse has one more."""


def test_pairs_are_counted_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    folders = [rollouts(tmp_path / "1", "HH HU UU H-"), rollouts(tmp_path / "2", "HH UU UU HH", "n")]
    assert main(["pairs", "--rollouts", *folders, "--out", str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split("  ")[0] == "source"
    assert shown[1].split() == ["[corpus]", "1", "2", "1", "1", "2"]
    assert shown[2].split() == ["total", "1", "2", "1", "1", "2"]
    assert shown[3].startswith("16 outputs of 4 records: 2 hard records, weights 0.5 to 1.5; written: ")
    pairs = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(pair["record"]["id"], pair["excess_errors"], pair["weight"]) for pair in pairs] == [
        ("1", 2, 1.5),
        ("3", -2, 0.5),
    ]


def test_options_override_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollouts(tmp_path / "1", "HHHU HHUU HUUU H-"), rollouts(tmp_path / "2", "HHHU HHHH HHHH H-", "n")]
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", "--rollouts", *folders, "--out", str(out), "--preset", "released"]) == 0
    assert "duplicates" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["rule"], row["task"], row["weight"]) for row in rows] == [
        ("longest/longest", "request", pytest.approx(weight)) for weight in (0.8, 1.0, 1.2)
    ]
    more = ["--gamma", "0.4", "--chosen", "shortest", "--pool", "--seed", "7"]
    assert main(["pairs", "--rollouts", *folders, "--out", str(out), "--preset", "released", *more]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["rule"] for row in rows} == {"shortest/longest"}
    assert {len(row["votes"]) for row in rows} == {8}


@pytest.mark.parametrize(
    ("words", "hint"),
    [("HH HH", "outputs agree"), ("UU UU", "no output is right"), ("-- --", "most outputs give no verdict")],
)
def test_no_file_is_written_without_hard_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, hint: str
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", "--rollouts", rollouts(tmp_path / "r", words), "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith("total")
    error, advice = shown.err.splitlines()
    assert error.startswith("error: no record is hard")
    assert hint in advice
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "flags", "what"),
    [
        ("H U", [], "with k = 1 nothing can be mixed"),
        ("HU", ["--gamma", "1"], "gamma must be in [0, 1), got 1.0"),
        ("HU", ["--gamma", "nan"], "gamma must be in [0, 1), got nan"),
        ("HU", ["--gamma", "much"], "invalid float value"),
        ("HU", ["--parser", "strict"], "invalid choice"),
        ("HU", ["--unparsed", "wrong"], "unknown option --unparsed"),
        ("HU", ["--out", "."], "expected a file"),
        ("HU", ["--html", "."], "--html"),
        ("HU", ["--cap", "0"], "cap must be a whole number, at least 1, got 0"),
        ("HU", ["--sources_by_model", "m"], "--sources_by_model m: expected MODEL=SOURCE,SOURCE"),
        ("HU", ["--sources_by_model", "n="], "no rollouts of model 'n'; there are: m"),
        ("HU", ["--sources_by_model", "m=other"], "m: no records of source 'other'; there are: [corpus]"),
        (
            "HU",
            ["--sources_by_model", "m="],
            "of those that pairing.sources_by_model leaves): with k = 1 nothing can be mixed",
        ),
        ("HU", ["--explain", "0"], "--explain"),
        ("HU", ["--data.pairing.gamma", "0.1"], "--data.pairing.gamma needs --config"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, flags: list[str], what: str
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", "--rollouts", rollouts(tmp_path / "r", words), "--out", str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert len(error.splitlines()) <= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_missing_rollouts_name_their_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "--rollouts", str(tmp_path / "r"), "--out", str(tmp_path / "pairs.jsonl")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "no such file or folder" in error
    command = "python -m guardreasoner predict --config configs/mine.yaml (or configs/synthesize.yaml)"
    assert hint == f"hint: {command} writes rollouts"


def test_missing_options_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, what in (([], "--rollouts or --config"), (["--rollouts", rollouts(tmp_path / "r", "HU")], "--out")):
        assert main(["pairs", *words]) == 2
        assert f"required: {what}" in capsys.readouterr().err


def test_sources_by_model_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollouts(tmp_path / "1", "HH HU", source="a/b"), rollouts(tmp_path / "2", "HH UU", "n", "a/b")]
    start = ["pairs", "--rollouts", *folders, "--out", str(tmp_path / "pairs.jsonl")]
    assert main([*start, "--sources_by_model", "n=", "--sources_by_model", "m=a"]) == 0
    head, row = capsys.readouterr().out.splitlines()[:2]
    assert "not mined" in head
    assert row.split() == ["a/b", "1", "1", "0", "0", "4", "1"]
    assert (
        main([*start, "--preset", "paper", "--sources_by_model", "n=a/b,a", "--rejected", "all", "--chosen", "all"])
        == 0
    )
    assert "not mined" not in capsys.readouterr().out


def test_several_pairs_of_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    start = ["pairs", "--rollouts", rollouts(tmp_path / "r", "HHHUU HHHHH HUHHH"), "--out", str(out)]
    assert main([*start, "--chosen", "all", "--rejected", "all", "--cap", "5"]) == 0
    message = capsys.readouterr().out
    assert "beyond cap" in message.splitlines()[0]
    assert "2 hard records, 9 pairs, weights 0.5 to 1.5" in message
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [*(f"0#{n}" for n in range(1, 6)), *(f"2#{n}" for n in range(1, 5))]
    assert {row["weight"] for row in rows[:5]} == {1.5}


def test_explaining_a_record_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["pairs", "--rollouts", rollouts(tmp_path / "r", "HU HH"), "--explain"]
    assert main([*start, "0"]) == 0
    message = capsys.readouterr().out
    assert "record   0 of source [corpus]" in message
    assert "votes    all models: 1 right, 1 wrong: mixed, so the record is hard" in message
    assert main([*start, "1", "--verbose"]) == 0
    assert "no pair  the outputs are not mixed" in capsys.readouterr().out
    assert main([*start, "7"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: no record '7' among the 2 that were mined"
    assert hint == "hint: ids are like 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_details_page_and_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollouts(tmp_path / "1", "HHU UUH HHH"), rollouts(tmp_path / "2", "HHH UUU UUH", "<b>n")]
    start = ["pairs", "--rollouts", *folders, "--out", str(tmp_path / "pairs.jsonl")]
    assert main(start) == 0
    brief = capsys.readouterr().out
    assert "-seconds" not in brief
    assert len(brief.splitlines()) <= 8
    assert "expected hard records by outputs per model: 1.3 with 1, 2.3 with 2, 3.0 with 3" in brief
    assert "models agree on the majority for 66.7 % (<b>n and m, kappa 0.40) of the records" in brief
    for folder, seconds in zip(folders, (30, 60), strict=True):
        cost = {"seconds": seconds, "device": "cuda", "devices": 1, "tokens": 900, "outputs": 9}
        Path(folder, "cost.manifest.json").write_text(json.dumps(cost))
    page = tmp_path / "pages" / "mining.html"
    assert main([*start, "--details", "--html", str(page)]) == 0
    details = capsys.readouterr().out
    assert "sampling took 90 GPU-seconds, 20 tokens per second, 30.00 GPU-seconds per pair" in details
    for title in ("by source and task", "by right outputs", "by weight", "with fewer outputs", "agreement of models"):
        assert title in details
    read = Reader(page.read_text())
    assert "3 hard records of 3, 3 pairs." in " ".join(read.text.split())
    assert "b" not in read.tags
    Path(folders[0], "cost.manifest.json").write_text("{")
    assert main(start) == 2
    assert "cost.manifest.json: " in capsys.readouterr().err


def test_two_models_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollouts(tmp_path / name, "HU") for name in "ab"]
    text = Path(folders[1], "rollouts.jsonl").read_text()
    Path(folders[1], "rollouts.jsonl").write_text(text.replace('"fingerprint": "f"', '"fingerprint": "e"'))
    assert main(["pairs", "--rollouts", *folders, "--out", str(tmp_path / "pairs.jsonl")]) == 2
    assert "two models under the name 'm': fingerprints e and f" in capsys.readouterr().err


def test_a_truncated_rollout_is_reported_once(tmp_path: Path) -> None:
    folder = rollouts(tmp_path / "r", "HU HU")
    with Path(folder, "rollouts.jsonl").open("a") as lines:
        lines.write('{"record_id": "1", "mod')
    words = [
        sys.executable,
        "-m",
        "guardreasoner",
        "pairs",
        "--rollouts",
        folder,
        "--out",
        str(tmp_path / "pairs.jsonl"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == f"{folder}/rollouts.jsonl:5: truncated line skipped; 4 rollouts read\n"
    assert "4 outputs of 2 records: 2 hard records" in done.stdout


@pytest.mark.parametrize(("flags", "hard"), [([], 165), (["--parser", "released"], 166)])
def test_the_published_models(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], hard: int
) -> None:
    out = tmp_path / "pairs.jsonl"
    folders = [str(shared_data / "predictions" / name) for name in ("1B", "3B")]
    began = time.monotonic()
    assert main(["pairs", "--rollouts", *folders, "--out", str(out), *flags]) == 0
    assert time.monotonic() - began < 10
    assert len(out.read_text().splitlines()) == hard
    message = capsys.readouterr().out
    assert f"{hard} hard records" in message
    pairs = {line.split()[0]: int(line.split()[-1]) for line in message.splitlines() if re.match(r"\w+ .* \d+$", line)}
    expected = BENCHMARKS | ({} if hard == 165 else {"HarmBenchResponse": 41})
    assert {name: pairs[name] for name in BENCHMARKS} == expected


Refused = Callable[..., str]
SOURCE = ("--data.source", "tests.support.tiny.TinySource")


class Overlapping(TinySource):
    """A benchmark with the prompt of the third training record."""

    def records(self, split: Split) -> list[Record]:
        return TinySource().records("train")[2:3] if split == "test" else []


def fit_argv(rollouts: Path | str, *more: str) -> list[str]:
    """Return the command with the config of a fit on tiny data."""
    return ["pairs", "--config", "configs/hsdpo.yaml", *SOURCE, "--data.rollouts", f'["{rollouts}"]', *more]


def written_pairs(rollouts: Path, *more: str) -> list[dict[str, object]]:
    """Return the pairs that the command writes."""
    assert main(fit_argv(rollouts, "--out", "pairs.jsonl", *more)) == 0
    return [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]


def pairs_of(data: PreferenceDataModule) -> list[tuple[str, float, int, int]]:
    return [(pair.id, pair.weight, pair.chosen.index, pair.rejected.index) for pair in data.pairs]


def pairs_in(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(r["id"], r["weight"], r["chosen"]["index"], r["rejected"]["index"]) for r in rows]  # type: ignore[index]


@pytest.mark.usefixtures("workplace")
def test_the_pairs_equal_those_of_the_fit(tiny_base: Path, tmp_path: Path) -> None:
    source = TinySource()
    everything = write_rollouts(
        tmp_path / "all", [record for split in ("train", "validation", "test") for record in source.records(split)]
    )
    assert pairs_in(written_pairs(everything)) == pairs_of(prepared(tiny_base, [everything]))
    # a flag stands above the config, an overlay of the config too
    pairing = Pairing(gamma=0.2, chosen="all", cap=2)
    data = prepared(tiny_base, [everything], pairing=pairing)
    flags = ("--chosen", "all", "--cap", "2")
    assert pairs_in(written_pairs(everything, "--gamma", "0.2", *flags)) == pairs_of(data)
    assert pairs_in(written_pairs(everything, "--data.pairing.gamma", "0.2", *flags)) == pairs_of(data)
    Path("more.yaml").write_text("data: {init_args: {pairing: {chosen: all, cap: 2, gamma: 0.2}}}")
    assert pairs_in(written_pairs(everything, "--config", "more.yaml")) == pairs_of(data)
    assert pairs_in(written_pairs(everything, "--config", "more.yaml", "--preset", "plan")) == pairs_in(
        written_pairs(everything)
    )


@pytest.mark.usefixtures("workplace")
def test_the_files_of_the_source_are_inputs_of_the_pairs(tmp_path: Path) -> None:
    records = TinySource().records("train")
    rollouts = write_rollouts(tmp_path / "rollouts", records)
    write_jsonl(Path("train.jsonl"), records)
    files = ("--data.source", "guardreasoner.Files", "--data.source.train", "train.jsonl")
    written_pairs(rollouts, *files, "--audit", "doubted.jsonl")
    for artefact in ("pairs.jsonl", "doubted.jsonl"):
        manifest = Manifest.read(artefact)
        assert manifest is not None
        assert manifest.inputs == {str(path): content_hash(path) for path in (rollouts, "train.jsonl")}


@pytest.mark.usefixtures("workplace")
def test_a_record_of_the_fit_is_explained(
    tiny_rollouts: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    where = unit_interval_hash(TinySource().records("train")[2].prompt)
    for more, note in (
        (("--data.validation_share", str(0.5 * where)), "the fit trains on it"),
        (("--data.validation_share", str(0.5 + 0.5 * where)), "the fit uses it for validation"),
        (
            ("--data.benchmarks", '["tests.cli.commands.test_pairs.Overlapping"]'),
            "the fit refuses it without --allow_contamination: similarity 1.00 to benchmark record train/02",
        ),
    ):
        assert main(fit_argv(tiny_rollouts, "--explain", "train/02", *more)) == 0
        assert f"note     {note}" in capsys.readouterr().out
    held = (
        "--data.benchmarks",
        '["tests.cli.commands.test_pairs.Overlapping"]',
        "--data.skip_contaminated",
        "true",
    )
    assert main(fit_argv(tiny_rollouts, "--explain", "train/02", *held)) == 0
    assert "note     the fit skips it" in capsys.readouterr().out
    assert main(fit_argv(tiny_rollouts, "--explain", "train/00")) == 0
    assert "note" not in capsys.readouterr().out
    assert "no record 'test/00'" in refused(*fit_argv(tiny_rollouts, "--explain", "test/00"))


@pytest.mark.usefixtures("workplace")
def test_a_config_without_rollouts_is_rejected(refused: Refused, tiny_rollouts: Path) -> None:
    assert "data.rollouts and data.source are missing" in refused(
        "pairs", "--config", "configs/rsft.yaml", "--out", "pairs.jsonl"
    )
    assert "absent.yaml: no such file" in refused("pairs", "--config", "absent.yaml", "--out", "pairs.jsonl")
    out = ("--out", "pairs.jsonl")
    assert "gamma must be in [0, 1), got 2" in refused(*fit_argv(tiny_rollouts, *out, "--data.pairing.gamma", "2"))
    assert "gamma" in refused(*fit_argv(tiny_rollouts, *out, "--data.pairing.gamma", "much"))
    assert "nowhere" in refused(*fit_argv(tiny_rollouts, *out, "--data.source", "nowhere.Source"))
    assert "logs/rollouts/rsft: no such file" in refused("pairs", "--config", "configs/hsdpo.yaml", *out)
    assert not Path("pairs.jsonl").exists()


@pytest.mark.usefixtures("workplace")
def test_defaults_are_those_of_the_data_module() -> None:
    fit = {**inspect.signature(TrainingDataModule).parameters, **inspect.signature(PreferenceDataModule).parameters}
    inputs = FitInputs(*(fit[name].default for name in ("source", "rollouts")))  # both without a default
    assert asdict(inputs) == {field.name: fit[field.name].default for field in fields(FitInputs)} | {
        "pairing": asdict(fit["pairing"].default)
    }


@pytest.mark.usefixtures("workplace")
def test_reading_a_config_imports_no_torch() -> None:
    code = (
        "import sys; from guardreasoner.cli.commands._fit_inputs import inputs_of_fit\n"
        "inputs_of_fit(['--config', 'configs/hsdpo.yaml'])\n"
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
