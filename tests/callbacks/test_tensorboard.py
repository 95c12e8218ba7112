"""Curves, texts and images in the event files of R-SFT, HS-DPO and a test, run from the configs."""

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from guardreasoner import Qwen3GuardGen
from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.evaluation.scoring import score
from guardreasoner.generators import Completion
from guardreasoner.model.backbone import Backbone
from guardreasoner.report.plot import draw_figures
from guardreasoner.report.score_plots import score_plots
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.tasks import GUARD_TASKS
from tests.support.guard_models import QWEN_TOKENS, make_guard_model
from tests.support.tiny import Scripted, TinySource, answer, command, write_rollouts

pytestmark = pytest.mark.slow  # fits two models and tests one

LOGGER = ("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", "logs")
TEST = TinySource().records("test")
EVERY_FIT = {"grad_norm", "lr", "tokens_per_second", "memory_gb", "loss", "sft_loss"}
HSDPO = {"loss", "preference_loss", "sft_loss", "margin", "reward_chosen", "reward_rejected", "preferred", "weight"}
BETA, SFT_COEF = 0.1, 2.0
VERBS = {"rsft": "fit", "hsdpo": "fit", "evaluate": "test"}


class ScriptedGuard(Scripted):
    """Wrong on the first record and unparsed on the second; of several outputs only the first can be right."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(TEST, lambda record, index: "Hm." if record == TEST[1] else answer(record, record != TEST[0]))

    def generate_groups(self, requests: object) -> Iterator[list[Completion]]:
        """Make all but the first output unparsed."""
        for part in super().generate_groups(requests):  # type: ignore[arg-type]
            yield [c if c.index == 0 else Completion(c.record_id, c.index, "Hm.") for c in part]


class ScriptedQwen(Scripted):
    """Right in the published format, but for the first record."""

    def __init__(self, backbone: Backbone) -> None:
        format = Qwen3GuardGen()
        wrong = replace(TEST[0], labels={"request": "unharmful"})
        super().__init__(TEST, lambda record, _: format.answer(wrong if record == TEST[0] else record))


@pytest.fixture(scope="module")
def runs(
    tiny_base: Path, tiny_rollouts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, EventAccumulator]]:
    """The events of R-SFT, HS-DPO and a test."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    hard = write_rollouts(folder / "hard", TEST)
    more = {
        "rsft": ("--data.epochs", "2", "--trainer.log_every_n_steps", "2"),
        "hsdpo": ("--data.rollouts", f'["{tiny_rollouts}"]', "--data.batch_size", "4", "--data.epochs", "3"),
        "evaluate": ("--model.greedy", f"{__name__}.ScriptedGuard", "--model.generator", f"{__name__}.ScriptedGuard"),
    }
    # A stored reference, as in the config, is computed in other batches, so its margin is 0 only up to rounding.
    more["hsdpo"] += ("--model.reference", "guardreasoner.training.reference.FrozenCopy")
    more["hsdpo"] += ("--model.beta", str(BETA), "--model.sft_coef", str(SFT_COEF), "--data.validation_share", "0.2")
    more["evaluate"] += ("--data.rollouts", f'["{hard}"]')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage, flags in more.items():
            verb, *rest = command(stage, tiny_base, "--output", f"made/{stage}", *LOGGER, *flags)
            GuardCLI(verb, rest).run()
        events = {
            stage: EventAccumulator(f"logs/{verb}/{stage}/version_0", {"scalars": 0, "tensors": 0})
            for stage, verb in VERBS.items()
        }
        for accumulator in events.values():
            accumulator.Reload()
        yield events


def values_of(run: EventAccumulator, tag: str) -> list[float]:
    return [event.value for event in run.Scalars(tag)]


def tags_in(run: EventAccumulator, group: str, kind: str = "scalars") -> set[str]:
    """Return the tags of a group, without the group's name."""
    return {tag.removeprefix(f"{group}/") for tag in run.Tags()[kind] if tag.startswith(f"{group}/")}


def test_exactly_the_documented_curves_are_logged(runs: dict[str, EventAccumulator]) -> None:
    assert tags_in(runs["rsft"], "train") == EVERY_FIT
    assert tags_in(runs["rsft"], "val") == {"loss"}
    assert tags_in(runs["hsdpo"], "train") == EVERY_FIT | HSDPO
    assert tags_in(runs["hsdpo"], "val") == HSDPO
    assert {tag.split("/")[0] for run in runs.values() for tag in run.Tags()["scalars"]} == {
        *("train", "val", "test", "epoch")
    }


def test_steps_increase(runs: dict[str, EventAccumulator]) -> None:
    for stage, expected in (("rsft", [1, 3, 5]), ("hsdpo", list(range(9)))):
        for tag in (f"train/{name}" for name in tags_in(runs[stage], "train")):
            assert [event.step for event in runs[stage].Scalars(tag)] == expected, tag
        for tag in (f"val/{name}" for name in tags_in(runs[stage], "val")):
            assert [event.step for event in runs[stage].Scalars(tag)] == expected[-1:], tag
        steps = [event.step for event in runs[stage].Scalars("epoch")]
        assert steps == [*expected, expected[-1]]  # validation logs it once more


def test_margin_starts_at_zero_and_the_loss_is_the_sum_of_its_terms(runs: dict[str, EventAccumulator]) -> None:
    run = runs["hsdpo"]
    values = {name: values_of(run, f"train/{name}") for name in HSDPO}
    for name in ("margin", "reward_chosen", "reward_rejected", "preferred"):
        assert values[name][0] == 0, name
        assert values[name][-1] != 0, name
    assert values["preference_loss"][0] == pytest.approx(math.log(2) * values["weight"][0], rel=1e-5)
    for split in ("train", "val"):
        curves = {name: values_of(run, f"{split}/{name}") for name in HSDPO}
        for step in range(len(curves["loss"])):
            row = {name: values[step] for name, values in curves.items()}
            assert row["loss"] == pytest.approx(row["preference_loss"] + SFT_COEF * row["sft_loss"], rel=1e-5)
            assert row["reward_chosen"] - row["reward_rejected"] == pytest.approx(
                BETA * row["margin"], rel=1e-3, abs=1e-6
            )
            assert 0.5 <= row["weight"] <= 1.5
            assert 0 <= row["preferred"] <= 1
    assert values_of(runs["rsft"], "train/loss") == values_of(runs["rsft"], "train/sft_loss")


def test_learning_rate_epoch_memory_and_throughput_are_plausible(runs: dict[str, EventAccumulator]) -> None:
    for stage, peak, steps, epochs in (("rsft", 3e-3, 6, 2), ("hsdpo", 1e-3, 9, 3)):
        run = runs[stage]
        logged = [event.step for event in run.Scalars("train/lr")]
        expected = [peak * (1 + math.cos(math.pi * step / steps)) / 2 for step in logged]
        assert values_of(run, "train/lr") == pytest.approx(expected, rel=1e-5)
        assert values_of(run, "epoch") == pytest.approx([epochs * (step + 1) / steps for step in [*logged, logged[-1]]])
        memory = values_of(run, "train/memory_gb")
        assert memory == sorted(memory)  # it is the peak so far
        assert 0.05 < memory[0] < 100
        assert min(values_of(run, "train/tokens_per_second")) > 10
        assert min(values_of(run, "train/grad_norm")) > 0


def test_logged_test_scores_equal_those_of_score(runs: dict[str, EventAccumulator]) -> None:
    run = runs["evaluate"]
    names = tags_in(run, "test")
    logged = {name: event.value for name in names for event in run.Scalars(f"test/{name}")}
    predictions = read_predictions(Path("made/evaluate"))
    hard = {"hard_records": predictions.hard_records, "hard_answers": predictions.hard_rollouts}
    scored = score("m", predictions.records, predictions.rollouts, GUARD_TASKS, "strict", **hard)  # type: ignore[arg-type]
    assert logged["accuracy"] == pytest.approx(4 / 6)
    assert scored.accuracy.value == pytest.approx(100 * 4 / 6)
    # All 6 records have a request and 4 of them a response, 14 verdicts in all; the second record lacks its 3 verdicts.
    assert logged["unparsed"] == pytest.approx(3 / 14)
    assert sum(row.unparsed for row in scored.averages) == 3
    # The second, third and fourth record are hard; of four outputs each, the first one of the last two is right.
    assert scored.hard is not None
    assert (
        logged["hard_sample_accuracy"]
        == pytest.approx(2 / 12)
        == pytest.approx((scored.hard.accuracy.value or 0) / 100)
    )
    # Records 0, 2, 4 are harmful, and 0 is called unharmful; 1, 3, 5 are unharmful, and 1 is unparsed.
    assert [logged[f"f1/request/{label}"] for label in ("harmful", "unharmful")] == pytest.approx([4 / 6, 4 / 6])
    assert "f1/completion/refusal" not in logged  # no record has this class: undefined, not 0
    assert {event.step for name in names for event in run.Scalars(f"test/{name}")} == {0}


def test_plots_of_another_format_agree_with_score(workplace: Path, tiny_base: Path) -> None:
    base = make_guard_model(tiny_base, Path("hub"), QWEN_TOKENS, "<|im_end|>")
    format = ("--config", "configs/format/qwen3guard_gen.yaml", "--model.scores", "false")
    flags = (*format, "--model.greedy", f"{__name__}.ScriptedQwen", "--data.rollouts", "null")
    verb, *argv = command("evaluate", base, *LOGGER, *flags)
    GuardCLI(verb, argv).run()
    read = read_predictions("made")
    scored = score("hub", read.records, read.rollouts, read.tasks, format=read.format)
    (row,) = scored.averages
    assert (row.accuracy.value, row.unparsed) == (pytest.approx(100 * 5 / 6), 0)
    with SummaryWriter("expected") as writer:
        for name, figure in draw_figures(score_plots([scored], read.tasks), width=5.0).items():
            figure.set_dpi(150)
            writer.add_figure(f"test/{name}", figure, 0)
    logged, expected = (EventAccumulator(str(path)) for path in ("logs/test/made/version_0", "expected"))
    for events in (logged, expected):
        events.Reload()
    assert logged.Scalars("test/f1/request/harmful")[0].value == pytest.approx((row.positive_f1.value or 0) / 100)
    assert logged.Tags()["images"] == expected.Tags()["images"]
    for tag in expected.Tags()["images"]:
        images = [events.Images(tag)[0].encoded_image_string for events in (logged, expected)]
        assert images[0] == images[1], tag


def test_sample_texts_are_logged(runs: dict[str, EventAccumulator]) -> None:
    for stage, split in (("rsft", "validation"), ("hsdpo", "validation"), ("evaluate", "test")):
        tags = tags_in(runs[stage], "texts", "tensors")
        assert len(tags) == 4
        for tag in tags:
            (event,) = runs[stage].Tensors(f"texts/{tag}")
            text = event.tensor_proto.string_val[0].decode()
            assert tag.startswith(f"{split}/")
            assert all(f"\n    {part}:\n" in f"\n{text}" for part in ("Prompt", "Gold labels", "Output"))
            assert event.step == (0 if stage == "evaluate" else max(e.step for e in runs[stage].Scalars("epoch")) + 1)
    assert tags_in(runs["hsdpo"], "mining", "tensors") == {"counts/text_summary"}


def test_plots_are_logged_as_images(runs: dict[str, EventAccumulator]) -> None:
    confusions = {f"confusion-{task.name}" for task in GUARD_TASKS}
    assert tags_in(runs["evaluate"], "test", "images") == {"f1", "hard", *confusions}
    assert tags_in(runs["hsdpo"], "mining", "images") == {"growth", "outcomes", "votes", "weights"}
    assert runs["rsft"].Tags()["images"] == []
    for run in runs.values():
        for tag in run.Tags()["images"]:
            (event,) = run.Images(tag)
            assert event.step == 0
            image = imread(io.BytesIO(event.encoded_image_string))
            assert image.shape[:2] == (event.height, event.width)
            assert event.width == 750
            assert 150 < event.height < 1500
            colours = {tuple(pixel) for pixel in (image[::3, ::3, :3] * 255).astype(int).reshape(-1, 3)}
            assert len(colours) > 3, f"{tag} is empty"


def test_a_test_without_a_logger_draws_no_plots(
    workplace: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *argv = command(
        "evaluate", tiny_base, "--model.greedy", f"{__name__}.ScriptedGuard", "--data.rollouts", "null"
    )
    GuardCLI(verb, argv).run()
    assert (workplace / "made" / "tiny-even" / "generated_predictions.jsonl").is_file()
    assert not list(workplace.rglob("events*"))
