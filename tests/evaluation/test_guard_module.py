from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.cli.parse_errors import find_input_error
from guardreasoner.errors import InputError, machine_error
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import parse
from guardreasoner.records import Answer
from guardreasoner.training.reasoning_data import ReasoningDataModule
from tests.support.tiny import Scripted, TinySource, answer, command, quiet_trainer, write_rollouts

TRAIN, TEST = TinySource().records("train"), TinySource().records("test")


def sampling_module(base: Path, **arguments: int) -> GuardModule:
    return GuardModule(Backbone(str(base)), lambda backbone: LocalGenerator(backbone, 6, batch_size=16), **arguments)


def predict(module: GuardModule, source: TinySource | None = None) -> list[Answer]:
    data = ReasoningDataModule(source or TinySource(), chunk_size=7)
    chunks = quiet_trainer().predict(module, datamodule=data)
    assert chunks is not None
    return [one for chunk in chunks for one in chunk]  # type: ignore[union-attr]


def test_predict_answers_every_training_record_k_times(tiny_base: Path) -> None:
    answers = predict(sampling_module(tiny_base, k=3, seed=5))
    assert sorted((a.record.id, a.rollout.index) for a in answers) == [(r.id, n) for r in TRAIN for n in range(3)]
    tasks = Backbone(str(tiny_base)).prompt_tokenizer.format.tasks
    for one in answers:
        assert one.record in TRAIN
        assert (one.rollout.record_id, one.rollout.seed) == (one.record.id, 5)
        assert one.verdicts == parse(one.rollout.completion, tasks)
    assert len({one.rollout.completion for one in answers}) > len(TRAIN)


class Cut(Scripted):
    """The limit on tokens ends each first output, in the middle of a character."""

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the outputs of each request."""
        for group in super().generate_groups(requests):
            yield [replace(one, finish_reason="stop" if one.index else "length") for one in group]


def test_mined_outputs_say_whether_the_limit_on_tokens_ended_them(tiny_base: Path) -> None:
    engine = Cut(TRAIN, lambda record, index: "Hm \ufffd")
    rollouts = [one.rollout for one in predict(GuardModule(Backbone(str(tiny_base)), lambda _: engine, k=3))]
    assert {(one.index, one.truncated, one.completion) for one in rollouts} == {
        (0, True, "Hm "),
        (1, False, "Hm \ufffd"),
        (2, False, "Hm \ufffd"),
    }


@pytest.mark.slow
def test_outputs_depend_on_the_seed(tiny_base: Path) -> None:
    first, again, other = (
        {
            (a.record.id, a.rollout.index): a.rollout.completion
            for a in predict(sampling_module(tiny_base, k=2, seed=seed))
        }
        for seed in (1, 1, 2)
    )
    assert first == again
    assert sum(first[key] != other[key] for key in first) > 0.9 * len(first)


def test_test_counts_greedy_answers(tiny_base: Path, tmp_path: Path) -> None:
    def greedy_output(record: object, index: int) -> str:
        """Return a wrong answer for the first record, none for the second, correct answers for the others."""
        number = TEST.index(record)  # type: ignore[arg-type]
        return "Hm." if number == 1 else answer(TEST[number], number > 0)

    hard = write_rollouts(tmp_path / "hard", TEST)
    sampled = Scripted(TEST, lambda record, index: "never counted")
    module = GuardModule(Backbone(str(tiny_base)), lambda _: sampled, lambda _: Scripted(TEST, greedy_output))
    trainer = quiet_trainer()
    trainer.test(module, datamodule=BenchmarkDataModule(TinySource(), [str(hard)], chunk_size=4), verbose=False)
    named = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert named["test/accuracy"] == pytest.approx(4 / 6)
    # Records 1, 2, 4 and 5 of six have labels for all three tasks: 6 + 4 + 4 verdicts are expected.
    assert named["test/unparsed"] == pytest.approx(3 / 14)
    # request: 0, 2, 4 are harmful (0 is judged unharmful); 1, 3, 5 are unharmful (1 is unparsed, which is wrong, too):
    # for each label 2 hits, 1 miss, 1 false positive
    assert named["test/f1/request/harmful"] == pytest.approx(4 / 6)
    assert named["test/f1/request/unharmful"] == pytest.approx(4 / 6)
    assert named["test/accuracy/request"] == pytest.approx(4 / 6)
    # completion: all four are compliance, one of them without a verdict
    assert named["test/f1/completion/compliance"] == pytest.approx(6 / 7)
    assert "test/f1/completion/refusal" not in named


def test_k_below_1_is_refused(tiny_base: Path) -> None:
    with pytest.raises(InputError, match=r"model\.k must be at least 1, got 0"):
        sampling_module(tiny_base, k=0)


@pytest.mark.parametrize("name", ["generator", "greedy"])
def test_an_engine_of_null_is_refused_in_one_line(
    tiny_base: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command("evaluate", tiny_base), "--data.rollouts", "null", f"--model.{name}", "null"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: model.{name}: found null, expected an engine"


def test_causes_that_form_a_cycle_end() -> None:
    first, second = ValueError("a"), TypeError("b")
    first.__cause__, second.__cause__ = second, first
    assert machine_error(first) is None
    assert find_input_error(first) is None
