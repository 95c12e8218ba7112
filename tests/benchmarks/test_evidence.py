"""Studies: their files, resuming, the figures of results, and what only some arms use."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evidence.__main__ import STUDIES
from evidence.always_failed import AlwaysFailed
from evidence.campaign import Unit, run
from evidence.costs import GENERATED, TOKENS, stage_cost
from evidence.curves import logged_figures
from evidence.figures import read_figures
from evidence.results import read_result, read_results, write_result
from evidence.study import Study, stage_of_test

from guardreasoner.errors import InputError
from guardreasoner.sources.embedded import Embedded
from guardreasoner.workflow.config import resolve
from tests.support.output_files import predictions
from tests.support.studies import STUDY, THREE_ARMS, result, start, store, study_file

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(STUDIES.glob("*.yaml"))


def test_a_data_set_runs_its_own_arms_only(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file(workplace, data={"toy": {}, "part": {"arms": ["a", "b"]}}, arms=THREE_ARMS)
    study = Study.load(path)
    pipeline = study.pipeline("part", 1)
    assert stage_of_test("c") not in pipeline.stages
    assert stage_of_test("c") in study.pipeline("toy", 1).stages
    assert Unit(study, pipeline, workplace, "part", 1).missing(["c", "a"]) == ["a"]
    assert start(monkeypatch, path, "--data", "part", "--arms", "c") == 2
    assert capsys.readouterr().err == "error: --arms: no arm 'c'\nhint: there are a, b\n"


def test_a_data_set_runs_its_own_seeds_only(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file(workplace, data={"toy": {}, "part": {"seeds": [8, 9]}})
    study = Study.load(path)
    begun: list[tuple[str, int]] = []
    monkeypatch.setattr(Unit, "make", lambda unit, arms: begun.append((unit.data, unit.seed)) or True)
    assert run(study, ["toy", "part"], [1, 3, 9], ["a"], workplace / "results")
    assert begun == [("toy", 1), ("toy", 3), ("part", 9)]
    assert start(monkeypatch, path, "--data", "part", "--seeds", "1") == 2
    assert capsys.readouterr().err == "error: --seeds: no seed 1\nhint: there are 8, 9\n"


def test_a_damaged_result_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    store(tmp_path)
    path = tmp_path / "toy" / "toy" / "a-1.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"outputs": "many"}))
    with pytest.raises(InputError, match=r"a-1\.json: not a result: outputs"):
        list(read_results(tmp_path / "toy"))
    path.write_text("{")
    argv = ["--page-only", "--results", tmp_path, "--page", tmp_path / "page.md"]
    assert start(monkeypatch, study_file(tmp_path), *argv) == 2
    assert capsys.readouterr().err == f"error: {path}: not a result: not valid JSON\n"
    assert not (tmp_path / "page.md").exists()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"seed": [1]}, "seed: unknown key"),
    "key of an arm": ({"arms": {**STUDY["arms"], "a": {"title": "A", "flags": "x"}}}, "arms.a.flags: unknown key"),
    "compared arm": ({"compare": "c"}, "compare: no arm 'c'"),
    "arm of a claim": ({"claims": [{"text": "x", "better": "a", "than": "c"}]}, "claims.0: no arm 'c'"),
    "arm of a data set": ({"data": {"toy": {"arms": ["a", "c"]}}}, "data.toy.arms: no arm 'c'"),
    "data set without the compared arm": ({"data": {"toy": {"arms": ["b"]}}}, "data.toy.arms: no arm 'a'"),
    "compared arm of a data set": ({"data": {"toy": {"compare": "c"}}}, "data.toy.arms: no arm 'c'"),
    "claim without data": (
        {
            "arms": {**STUDY["arms"], "c": {"title": "C"}},
            "data": {"toy": {"arms": ["a", "b"]}},
            "claims": [{"text": "x", "better": "a", "than": "c"}],
        },
        "claims.0: no data set has a and c",
    ),
    "key of a claim": (
        {"claims": [{"text": "x", "better": "a", "then": "b"}]},
        "the keys are text, better, than, figure",
    ),
    "claim without an arm or a limit": (
        {"claims": [{"text": "x", "better": "a"}]},
        "claims.0: needs either than or at_most",
    ),
    "claim with both": (
        {"claims": [{"text": "x", "better": "a", "than": "b", "at_most": 1}]},
        "claims.0: needs either than or at_most",
    ),
    "sampled arm": ({"sampled": ["a", "c"]}, "sampled: no arm 'c'"),
    "undefined text": ({"test": "{tset}"}, "stage test-a: {tset} is not defined"),
    "stage given twice": ({"arms": {**STUDY["arms"], "b": {"title": "B", "stages": {"rsft": "x"}}}}, "a stage 'rsft'"),
    "config": ({"test": "test --config configs/evalaute.yaml"}, "--config configs/evalaute.yaml: no such file"),
    "flag": ({"test": f"{STUDY['test']} --model.kk 3"}, "stage test-a: "),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_study_ends_in_one_line(
    fault: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = WRONG[fault]
    argv = ["--results", workplace / "results", "--page", workplace / "page.md"]
    assert start(monkeypatch, study_file(workplace, **changes), *argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert [line.split(":")[0] for line in error.splitlines()] in (["error"], ["error", "hint"])
    assert not list(workplace.rglob("checkpoints"))
    assert not (workplace / "page.md").exists()


@pytest.mark.parametrize("only_page", [True, False])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_of_results_that_cannot_be_used_is_refused_at_once(
    place: str, only_page: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "file").write_text("")
    argv = ["--results", workplace / place, *(["--page-only"] if only_page else [])]
    assert start(monkeypatch, study_file(workplace), *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --results {workplace / place}: ")
    assert error.count("\n") == 1
    assert not (workplace / "logs").exists()


def test_a_page_that_cannot_be_written_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path)
    (tmp_path / "file").write_text("")
    argv = ["--page-only", "--results", tmp_path, "--page", tmp_path / "file" / "page.md"]
    assert start(monkeypatch, study_file(tmp_path), *argv) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_study_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, "nosuch.yaml") == 2
    hint = "hint: benchmarks/evidence/studies has arms.yaml, real.yaml, settings.yaml"
    assert capsys.readouterr().err == f"error: nosuch.yaml: no such study\n{hint}\n"


def test_a_start_from_another_folder_names_the_right_one(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = "benchmarks/evidence/overlays/embedded.yaml"
    path = study_file(workplace, data={"toy": {"overlays": [overlay]}})
    assert start(monkeypatch, path, "--results", workplace / "results") == 2
    found = f"study toy: data.toy.overlays: no file {overlay} in {workplace}"
    assert capsys.readouterr().err == f"error: {found}\nhint: the root of the repository is {ROOT}\n"
    assert not (workplace / "logs").exists()


@pytest.mark.parametrize(("flag", "value"), [("--arms", "c"), ("--data", "other"), ("--seeds", "9")])
def test_unknown_names_on_the_command_line_are_refused(
    flag: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, study_file(tmp_path), flag, value) == 2
    assert capsys.readouterr().err.startswith(f"error: {flag}: no ")


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_resolve(path: Path, workplace: Path) -> None:
    (workplace / "benchmarks").symlink_to(ROOT / "benchmarks")
    study = Study.load(path)
    for data in study.data:
        pipeline = study.pipeline(data, seed := study.seeds_of(data)[0])
        for arm in study.arms_of(data):
            stages = pipeline.upstream([stage_of_test(arm)])
            assert stages[0] == "base"
            assert study.arms[arm].stages.keys() <= set(stages)
            for name in stages:
                options = (pipeline.stages[name].config.get("data") or {}).get("init_args") or {}
                assert isinstance(options.get("rollouts") or [], list), name
            assert "hard-set" in stages
            assert all(f"/{seed}/" in str(pipeline.stages[name].output) for name in stages)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_configs_of_shipped_studies_are_right(path: Path, workplace: Path) -> None:
    from guardreasoner.cli.lightning_cli import check_config

    (workplace / "benchmarks").symlink_to(ROOT / "benchmarks")
    study = Study.load(path)
    for data in study.data:
        for stage in study.pipeline(data, study.seeds_of(data)[0]).stages.values():
            if stage.verb != "base-model":
                check_config(list(stage.argv))


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_stored_results_have_the_present_configs_or_are_named_as_former_ones(path: Path, workplace: Path) -> None:
    (workplace / "benchmarks").symlink_to(ROOT / "benchmarks")
    study = Study.load(path)
    folder = ROOT / "benchmarks" / "results" / "evidence" / study.name
    stored = list(read_results(folder))
    former: dict[str, set[str]] = {data: set() for data in study.data}
    for data, seed in sorted({(one.data, one.seed) for one in stored}):
        unit = Unit(study, study.pipeline(data, seed), folder, data, seed)
        own = [one for one in stored if (one.data, one.seed) == (data, seed)]
        former[data] |= {one.arm for one in own if one.config != unit.config_hash(one.arm)}
    assert former == {name: set(data.former) for name, data in study.data.items()}


def test_the_cost_of_a_fit_that_samples_has_its_generated_tokens(workplace: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    values = {"grpo": {TOKENS: 20.0, GENERATED: 12.0}, "hsdpo": {TOKENS: 30.0}}
    for name, logged in values.items():
        logger = TensorBoardLogger("logs", f"fit/{name}", version=0)
        logger.log_metrics(dict.fromkeys(logged, 5.0), 0)
        logger.log_metrics(logged, 1)
        logger.finalize("success")
    costs = [stage_cost(resolve(["fit", "--config", f"configs/{name}.yaml"]), Path("no file")) for name in values]
    assert costs[0] == {"wall": 0, "cpu": 0, "starts": 0, "trained": 20, "generated": 12}
    assert costs[1] == {"wall": 0, "cpu": 0, "starts": 0, "trained": 30}


def test_what_fits_log_about_chosen_outputs_and_groups_becomes_figures(workplace: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    groups, after_a_kill = {0: 1.0, 1: 0.5, 2: 0.75}, {1: 0.25, 2: 0.25}
    logged: dict[str, list[dict[int, dict[str, float]]]] = {
        "hsdpo": [{0: {"val/reward_chosen": -0.02, "val/sft_loss": 0.125}}],
        "simpo": [{0: {"val/sft_loss": 0.25, "train/sft_loss": 9.0}}],
        "rsft": [{0: {"train/sft_loss": 9.0, "val/loss": 9.0}}],
        "grpo": [{step: {"train/no_signal": value} for step, value in run.items()} for run in (groups, after_a_kill)],
    }
    for name, runs in logged.items():
        for number, curves in enumerate(runs):
            logger = TensorBoardLogger("logs", f"fit/{name}", version=0)
            for step, values in curves.items():
                logger.log_metrics(values, step)
            logger.finalize("success")
            (file,) = Path(logger.log_dir).glob("events.out.*")
            file.rename(file.with_name(f"events.{number}.out.tfevents"))  # in the order of the runs
    to = ["--output", "checkpoints/simpo", "--model.objective", "guardreasoner.training.losses.simpo"]
    flags = {"hsdpo": ["--model.beta", "0.01"], "simpo": to}

    def figures(name: str) -> dict[str, float]:
        config = "hsdpo" if name == "simpo" else name
        return logged_figures(resolve(["fit", "--config", f"configs/{config}.yaml", *flags.get(name, ())]))

    # -0.02 / 0.01 nats an output; SimPO keeps no reference, so only its value after the fit is known.
    assert figures("hsdpo") == {"log-likelihood of chosen, change": -2.0, "NLL of chosen": 0.125}
    assert figures("simpo") == {"NLL of chosen": 0.25}
    assert figures("rsft") == {}
    # Steps 0, 1 and 2 have 1, 0.25 and 0.25: steps 1 and 2 ran again after the kill.
    assert figures("grpo") == {"groups without signal": 50.0}


@pytest.mark.parametrize(("flags", "installs"), [("--seeds 1", True), ("", True), ("--page-only", False)])
def test_make_evidence_installs_what_an_arm_is_compared_with_but_not_for_the_page(
    flags: str, installs: bool, tmp_path: Path
) -> None:
    options = ["--dry-run", "--no-print-directory", "--file", str(ROOT / "Makefile"), "--old-file", ".venv/installed"]
    argv = ["make", *options, "evidence"]
    done = subprocess.run([*argv, f"FLAGS={flags}"], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, _, after = done.stdout.partition(" -m evidence ")
    assert after.split() == flags.split()
    assert ("pip install --quiet --constraint constraints.txt --editable '.[bench]'" in before) == installs


def test_a_result_is_made_again_if_its_configs_or_shared_models_changed(workplace: Path) -> None:
    study = Study.load(study_file(workplace))
    unit = Unit(study, study.pipeline("toy", 1), workplace / "results", "toy", 1)
    assert unit.missing(["a"]) == ["a"]
    write_result(unit.folder, result("a", 1, "1", "4", config=unit.config_hash("a")))
    assert unit.missing(["a"]) == []  # no model is here, and none is needed
    other = unit.pipeline.stages["rsft"].output
    assert other is not None
    other.mkdir(parents=True)
    (other / "manifest.json").write_text(json.dumps({"command": [], "fingerprint": "", "inputs": {}, "content": "y"}))
    assert unit.missing(["a"]) == ["a"]
    longer = Study.load(study_file(workplace, shared={"rsft": "fit --config configs/rsft.yaml --data.epochs 9"}))
    changed = Unit(longer, longer.pipeline("toy", 1), unit.folder, "toy", 1)
    assert changed.config_hash("a") != unit.config_hash("a")


def test_an_arm_that_could_not_be_compared_with_the_stored_ones_is_not_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.load(study_file(workplace, arms=THREE_ARMS))
    unit = Unit(study, study.pipeline("toy", 1), workplace / "results", "toy", 1)
    built: list[str] = []
    monkeypatch.setattr(Unit, "_build", lambda unit, names: built.extend(names) or True)
    monkeypatch.setattr(Unit, "_result", lambda unit, arm: result(arm, 1, "1", "4", config=unit.config_hash(arm)))
    assert unit.make(["a", "b"])
    capsys.readouterr()
    assert unit.make(["a", "b"])
    assert capsys.readouterr().out == "toy, seed 1: all results are there; --results FOLDER makes your own\n"
    write_result(unit.folder, result("a", 1, "1", "4", lineage={"rsft": {"content": "of another processor"}}))
    rsft = unit.pipeline.stages["rsft"].output
    assert rsft is not None
    rsft.mkdir(parents=True)
    (rsft / "manifest.json").write_text(json.dumps({"command": [], "fingerprint": "", "inputs": {}, "content": "x"}))
    built.clear()
    assert not unit.make(["c"])
    assert built == ["rsft"]
    found = "rsft is not the one that the stored results have: another kind of processor trains other models"
    assert capsys.readouterr().out == f"toy, seed 1: {found}; run these arms too, or use --results FOLDER: a\n"
    assert unit.make(["a", "c"])


def test_votes_answer_with_the_most_frequent_verdict(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "run", "HH HH UU")  # all right, one task
    file = next(folder.glob("*/generated_predictions.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    shares = [{"harmful": 0.625, "unharmful": 0.375}, {"harmful": 0.25, "unharmful": 0.5}, {}]
    for row, share in zip(rows, shares, strict=True):
        row["scores"] = {"votes": {"request": share} if share else {}}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hard = [
        {"record_id": row["record_id"], "labels": row["labels"], "index": i, "seed": 0, "predict": row["predict"]}
        for row in rows[:2]
        for i in range(4)
    ]
    (file.parent / "hard_samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hard))
    greedy, voted = read_figures(folder, "greedy"), read_figures(folder, "votes")
    assert (greedy["right"], greedy["hard"], greedy["outputs"]) == ("111", "44.", 4)
    assert (voted["right"], voted["hard"], voted["outputs"]) == ("10?", "10.", 1)
    assert (voted["figures"]["all"], voted["figures"]["unparsed"]) == pytest.approx((33.3333, 33.3333))
    assert (greedy["figures"]["hard, greedy"], voted["figures"]["hard"]) == (100.0, 50.0)


def test_always_failed_keeps_the_records_that_no_output_is_right_about(tmp_path: Path) -> None:
    from tests.support.tiny import write_rollouts  # loads torch

    records = Embedded(train=12, validation=3, test=3).records("train")
    folder = write_rollouts(tmp_path / "rollouts", records)  # all four outputs of every fifth record are wrong
    source = AlwaysFailed(str(folder), train=12, validation=3, test=3)
    assert [record.id for record in source.records("train")] == [records[4].id, records[9].id]
    assert len(source.records("test")) == 3


def test_preference_terms_of_the_controls() -> None:
    import torch
    from evidence.objectives import no_preference, random_direction

    from guardreasoner.model.log_probs import CompletionLogps

    policy = torch.tensor([-2.0, -3.0], requires_grad=True)
    chosen = CompletionLogps(policy, torch.tensor([3, 4]), torch.tensor([-3.0, -4.0]))
    values = torch.tensor([-5.0, -5.0005])
    rejected = CompletionLogps(values, torch.tensor([2, 2]), values)
    no_preference(chosen, rejected, 0.1).sum().backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == [0.0, 0.0]
    # Both margins are 1. 1000 · (-3 - 5) is even, ⌊1000 · (-4 - 5.0005)⌋ is odd: log(1 + e^{∓0.5}).
    assert random_direction(chosen, rejected, 0.5).tolist() == pytest.approx([0.474077, 0.974077])


def test_pairs_of_equal_length_are_turned_half_of_the_time() -> None:
    import torch
    from evidence.objectives import random_direction

    from guardreasoner.model.log_probs import CompletionLogps

    lengths, generator = torch.full((4000,), 90), torch.Generator().manual_seed(0)
    references = -50 + 5 * torch.randn(2, 4000, generator=generator)
    chosen = CompletionLogps(references[0] + 1, lengths, references[0])
    loss = random_direction(chosen, CompletionLogps(references[1], lengths, references[1]), 0.5)
    assert 0.45 < (loss > math.log(2)).float().mean() < 0.55


@pytest.fixture
def tiny_study(workplace: Path, tiny_base: Path) -> Callable[..., subprocess.Popen]:
    """Return a function that starts a study of two equal arms on tiny things in a process group of its own."""
    from tests.support.tiny import TinySource, write_rollouts  # loads torch

    hard_set = write_rollouts(workplace / "hard-set", TinySource().records("test"))
    source = "--data.source tests.support.tiny.TinySource --auto_build false --trainer.accelerator cpu"
    fit = f"fit --config configs/rsft.yaml --config {ROOT}/benchmarks/evidence/overlays/fit.yaml {source}"
    fit += f" --model.backbone.path {tiny_base} --data.batch_size 6 --data.epochs 100 --checkpoint_every 5"
    path = study_file(
        workplace,
        seeds=[1],
        shared={},
        test=f"test --config configs/evaluate.yaml {source} --data.rollouts [{hard_set}] --recipe.max_new_tokens 4",
        arms={
            name: {
                "title": name,
                "stages": {name: f"{fit} --output ${{recipe.checkpoints}}/{name}"},
                "test": f"--model.backbone.path ${{recipe.checkpoints}}/{name}",
            }
            for name in ("a", "b")
        },
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    argv = [sys.executable, "-m", "evidence", str(path), "--results", "results", "--page", "page.md"]

    def begin() -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(argv, env=environment, start_new_session=True, **pipes)

    return begin


@pytest.mark.slow
def test_a_killed_study_goes_on_and_repeats_nothing(tiny_study: Callable[..., subprocess.Popen]) -> None:
    first = tiny_study()
    unfinished = Path("checkpoints/evidence/toy/toy/1/.b.fit")
    while not list(unfinished.glob("*.ckpt")):  # the first arm is done, the second is halfway
        assert first.poll() is None, first.stdout and first.stdout.read()
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    stored = Path("results/toy/toy/a-1.json")
    before = stored.read_bytes()
    assert not Path("results/toy/toy/b-1.json").exists()

    second = tiny_study()
    output, _ = second.communicate()
    assert second.returncode == 0, output
    assert output.count("building") == 2, output  # the second fit, and its test
    assert f"continuing an unfinished fit from {unfinished}" in output
    assert stored.read_bytes() == before
    whole, resumed = read_result(stored), read_result(Path("results/toy/toy/b-1.json"))
    assert whole is not None
    assert resumed is not None
    assert (whole.costs["a"]["starts"], resumed.costs["b"]["starts"]) == (1, 2)
    assert whole.costs["a"]["trained"] == resumed.costs["b"]["trained"] > 0
    assert (whole.right, whole.hard) == (resumed.right, resumed.hard)
    assert whole.lineage["a"]["content"] == resumed.lineage["b"]["content"]

    third = tiny_study()
    output, _ = third.communicate()
    told = "toy, seed 1: all results are there; --results FOLDER makes your own\nwritten: page.md\n"
    assert (third.returncode, output) == (0, told)
