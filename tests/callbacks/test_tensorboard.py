"""What a person finds in TensorBoard after R-SFT, HS-DPO and a test by the configs: read from the event files."""

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.evaluation.scoring import score
from guardreasoner.generators import Completion
from guardreasoner.model.backbone import Backbone
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.tasks import GUARD_TASKS
from tests.support.tiny import Scripted, TinySource, answer, command, write_rollouts

LOGGER = ("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", "logs")
TEST = TinySource().records("test")
EVERY_FIT = {"grad_norm", "lr", "tokens_per_second", "memory_gb", "loss", "sft_loss"}
HSDPO = {"loss", "preference_loss", "sft_loss", "margin", "reward_chosen", "reward_rejected", "preferred", "weight"}
BETA, SFT_COEF = 0.1, 2.0
VERBS = {"rsft": "fit", "hsdpo": "fit", "evaluate": "test"}


class Says(Scripted):
    """Wrong on the first record, without a verdict on the second; of several outputs only the first is right."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(TEST, lambda record, index: "Hm." if record == TEST[1] else answer(record, record != TEST[0]))

    def generate_groups(self, requests: object) -> Iterator[list[Completion]]:
        """Spoil all but the first output."""
        for part in super().generate_groups(requests):  # type: ignore[arg-type]
            yield [one if one.index == 0 else Completion(one.record_id, one.index, "Hm.") for one in part]


@pytest.fixture(scope="module")
def runs(
    tiny_base: Path, tiny_rollouts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, EventAccumulator]]:
    """What R-SFT, HS-DPO and a test left."""
    place = tmp_path_factory.mktemp("runs")
    (place / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    hard = write_rollouts(place / "hard", TEST)
    more = {
        "rsft": ("--data.epochs", "2", "--trainer.log_every_n_steps", "2"),
        "hsdpo": ("--data.rollouts", f'["{tiny_rollouts}"]', "--data.batch_size", "4", "--data.epochs", "3"),
        "evaluate": ("--model.greedy", f"{__name__}.Says", "--model.generator", f"{__name__}.Says"),
    }
    # a stored reference, the config's own, is computed beside other pairs: its margin is 0 but for rounding
    more["hsdpo"] += ("--model.reference", "guardreasoner.training.reference.FrozenCopy")
    more["hsdpo"] += ("--model.beta", str(BETA), "--model.sft_coef", str(SFT_COEF), "--data.validation_share", "0.2")
    more["evaluate"] += ("--data.rollouts", f'["{hard}"]')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for stage, words in more.items():
            verb, *rest = command(stage, tiny_base, "--output", f"made/{stage}", *LOGGER, *words)
            GuardCLI(verb, rest).run()
        found = {
            stage: EventAccumulator(f"logs/{verb}/{stage}/version_0", {"scalars": 0, "tensors": 0})
            for stage, verb in VERBS.items()
        }
        for one in found.values():
            one.Reload()
        yield found


def curve(run: EventAccumulator, tag: str) -> list[float]:
    return [event.value for event in run.Scalars(tag)]


def group(run: EventAccumulator, name: str, kind: str = "scalars") -> set[str]:
    """Return the tags below a name."""
    return {tag.removeprefix(f"{name}/") for tag in run.Tags()[kind] if tag.startswith(f"{name}/")}


def test_every_curve_is_there_and_no_other(runs: dict[str, EventAccumulator]) -> None:
    assert group(runs["rsft"], "train") == EVERY_FIT
    assert group(runs["rsft"], "val") == {"loss"}
    assert group(runs["hsdpo"], "train") == EVERY_FIT | HSDPO
    assert group(runs["hsdpo"], "val") == HSDPO
    assert {tag.split("/")[0] for run in runs.values() for tag in run.Tags()["scalars"]} == {
        *("train", "val", "test", "epoch")
    }


def test_steps_only_go_on(runs: dict[str, EventAccumulator]) -> None:
    for stage, wanted in (("rsft", [1, 3, 5]), ("hsdpo", list(range(9)))):
        for tag in (f"train/{name}" for name in group(runs[stage], "train")):
            assert [event.step for event in runs[stage].Scalars(tag)] == wanted, tag
        for tag in (f"val/{name}" for name in group(runs[stage], "val")):
            assert [event.step for event in runs[stage].Scalars(tag)] == wanted[-1:], tag
        steps = [event.step for event in runs[stage].Scalars("epoch")]
        assert steps == [*wanted, wanted[-1]]  # once more with the validation


def test_preference_starts_where_the_reference_is_and_the_loss_is_its_parts(runs: dict[str, EventAccumulator]) -> None:
    run = runs["hsdpo"]
    values = {name: curve(run, f"train/{name}") for name in HSDPO}
    for name in ("margin", "reward_chosen", "reward_rejected", "preferred"):
        assert values[name][0] == 0, name
        assert values[name][-1] != 0, name
    assert values["preference_loss"][0] == pytest.approx(math.log(2) * values["weight"][0], rel=1e-5)
    for split in ("train", "val"):
        of = {name: curve(run, f"{split}/{name}") for name in HSDPO}
        for step in range(len(of["loss"])):
            at = {name: values[step] for name, values in of.items()}
            assert at["loss"] == pytest.approx(at["preference_loss"] + SFT_COEF * at["sft_loss"], rel=1e-5)
            assert at["reward_chosen"] - at["reward_rejected"] == pytest.approx(BETA * at["margin"], rel=1e-3, abs=1e-6)
            assert 0.5 <= at["weight"] <= 1.5
            assert 0 <= at["preferred"] <= 1
    assert curve(runs["rsft"], "train/loss") == curve(runs["rsft"], "train/sft_loss")


def test_the_rest_is_plausible(runs: dict[str, EventAccumulator]) -> None:
    for stage, peak, steps, epochs in (("rsft", 3e-3, 6, 2), ("hsdpo", 3e-4, 9, 3)):
        run = runs[stage]
        taken = [event.step for event in run.Scalars("train/lr")]
        wanted = [peak * (1 + math.cos(math.pi * step / steps)) / 2 for step in taken]
        assert curve(run, "train/lr") == pytest.approx(wanted, rel=1e-5)
        assert curve(run, "epoch") == pytest.approx([epochs * (step + 1) / steps for step in [*taken, taken[-1]]])
        memory = curve(run, "train/memory_gb")
        assert memory == sorted(memory)  # it is the highest so far
        assert 0.05 < memory[0] < 100
        assert min(curve(run, "train/tokens_per_second")) > 10
        assert min(curve(run, "train/grad_norm")) > 0


def test_a_test_is_what_score_finds_in_its_predictions(runs: dict[str, EventAccumulator]) -> None:
    run = runs["evaluate"]
    names = group(run, "test")
    found = {name: event.value for name in names for event in run.Scalars(f"test/{name}")}
    read = read_predictions(Path("made/evaluate"))
    scored = score("m", read.records, read.rollouts, GUARD_TASKS, "strict", read.hard_records, read.hard_rollouts)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert scored.accuracy.value == pytest.approx(100 * 4 / 6)
    # 6 records are asked about their request, 4 of them about their response, too; the second gets none of 3 verdicts
    assert found["unparsed"] == pytest.approx(3 / 14)
    assert sum(row.unparsed for row in scored.averages) == 3
    # the second, third and fourth are hard; of four outputs each, the first of the last two are right
    assert scored.hard is not None
    assert (
        found["hard_sample_accuracy"] == pytest.approx(2 / 12) == pytest.approx((scored.hard.accuracy.value or 0) / 100)
    )
    # harmful are 0, 2, 4, with 0 called unharmful; unharmful are 1, 3, 5, with 1 unparsed
    assert [found[f"f1/request/{label}"] for label in ("harmful", "unharmful")] == pytest.approx([4 / 6, 4 / 6])
    assert "f1/completion/refusal" not in found  # nobody refuses: undefined, not 0
    assert {event.step for name in names for event in run.Scalars(f"test/{name}")} == {0}


def test_texts(runs: dict[str, EventAccumulator]) -> None:
    for stage, split in (("rsft", "validation"), ("hsdpo", "validation"), ("evaluate", "test")):
        tags = group(runs[stage], "texts", "tensors")
        assert len(tags) == 4
        for tag in tags:
            (event,) = runs[stage].Tensors(f"texts/{tag}")
            shown = event.tensor_proto.string_val[0].decode()
            assert tag.startswith(f"{split}/")
            assert all(f"\n    {part}:\n" in f"\n{shown}" for part in ("Prompt", "Gold labels", "Output"))
            assert event.step == (0 if stage == "evaluate" else max(e.step for e in runs[stage].Scalars("epoch")) + 1)
    assert group(runs["hsdpo"], "mining", "tensors") == {"counts/text_summary"}


def test_plots(runs: dict[str, EventAccumulator]) -> None:
    confusions = {f"confusion-{task.name}" for task in GUARD_TASKS}
    assert group(runs["evaluate"], "test", "images") == {"f1", "hard", *confusions}
    assert group(runs["hsdpo"], "mining", "images") == {"growth", "outcomes", "votes", "weights"}
    assert runs["rsft"].Tags()["images"] == []
    for run in runs.values():
        for tag in run.Tags()["images"]:
            (event,) = run.Images(tag)
            assert event.step == 0
            picture = imread(io.BytesIO(event.encoded_image_string))
            assert picture.shape[:2] == (event.height, event.width)
            assert event.width == 750
            assert 150 < event.height < 1500
            colours = {tuple(pixel) for pixel in (picture[::3, ::3, :3] * 255).astype(int).reshape(-1, 3)}
            assert len(colours) > 3, f"{tag} is empty"


def test_a_test_without_a_logger_draws_nothing_and_ends_well(
    workplace: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *words = command("evaluate", tiny_base, "--model.greedy", f"{__name__}.Says", "--data.rollouts", "null")
    GuardCLI(verb, words).run()
    assert (workplace / "made" / "tiny-even" / "generated_predictions.jsonl").is_file()
    assert not list(workplace.rglob("events*"))
