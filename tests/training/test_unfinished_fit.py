"""A fit that is stopped or killed: what it leaves, what it says, and how the same command continues."""

import errno
import json
import math
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.workflow.output_lock import locked_output
from guardreasoner.workflow.sealed_file import beside
from tests.support.event_files import scalars
from tests.support.tiny import TinySource, command

pytestmark = pytest.mark.slow

Start = Callable[..., str]
STEPS = 8
TENSORBOARD = json.dumps(
    {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "logs"}}
)
LORA = ("--model.backbone.lora", '{"r": 2, "alpha": 4, "dropout": 0.3}')


class SignalAfter(Callback):
    """Send a signal to this process within a step.

    Args:
        step: number of the step, from 0.
        number: the signal.
    """

    def __init__(self, step: int, number: int) -> None:
        self.step = step
        self.number = number

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Send it."""
        if index == self.step:
            os.kill(os.getpid(), self.number)


class Broken(Callback):
    """Make a weight not a number before some steps.

    Args:
        steps: numbers of the steps, from 0.
    """

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        """Break the weight, or mend it."""
        weight = next(p for p in module.parameters() if p.requires_grad)
        with torch.no_grad():
            if index in self.steps:
                self.kept = weight.clone()
                weight.fill_(float("nan"))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Mend the weight."""
        if index in self.steps:
            with torch.no_grad():
                next(p for p in module.parameters() if p.requires_grad).copy_(self.kept)


class Failing(Callback):
    """Fail at the start if there is a file ``fail``."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Fail or not."""
        if Path("fail").exists():
            raise InputError("it fails")


class Notify(Callback):
    """Hold the token of a service.

    Args:
        token: the token.
    """

    def __init__(self, token: str) -> None:
        self.token = token


class Downloaded(TinySource):
    """Records of a service.

    Args:
        github_token: key of the service.
    """

    def __init__(self, github_token: str) -> None:
        super().__init__()


@pytest.fixture
def argv(tiny_base: Path, workplace: Path) -> tuple[str, ...]:
    """The words of an R-SFT of eight steps, with a validation after every third."""
    return (
        *command("rsft", tiny_base, "--data.batch_size", "6", "--data.epochs", "2", *LORA),
        *("--output", "made/guard", "--trainer.logger", TENSORBOARD, "--trainer.log_every_n_steps", "1"),
        *("--trainer.val_check_interval", "3"),
    )


def with_callback(name: str, **arguments: Any) -> tuple[str, ...]:
    """Return the flags that add a callback of this file."""
    return ("--trainer.callbacks", json.dumps([{"class_path": f"{__name__}.{name}", "init_args": arguments}]))


def weights(folder: str) -> dict[str, torch.Tensor]:
    """Return the weights of a model or adapter folder."""
    return {name: value for file in Path(folder).glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_continues(
    number: int, exit_code: int, argv: tuple[str, ...], start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start(*argv)
    whole, whole_log = weights("made/guard"), scalars(Path("logs/fit/guard/version_0"))
    shutil.rmtree("made")
    callback = with_callback("SignalAfter", step=2, number=int(number))
    assert main([*argv, *callback]) == exit_code
    name = signal.Signals(number).name
    assert (
        f"stopped by {name}: 3 of {STEPS} steps are done; run the same command again to resume after step 3\n"
        in capsys.readouterr().err
    )
    assert [path.name for path in Path("made").iterdir()] == [".guard.fit"]
    # The same command, in which step 2 does not occur again.
    start(*argv, *callback)
    resumed = weights("made/guard")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert scalars(Path("logs/fit/guard/version_1")) == whole_log
    assert [path.name for path in Path("made").iterdir()] == ["guard"]


def test_secrets_of_a_fit_are_written_nowhere(argv: tuple[str, ...], start: Start) -> None:
    key = "canary-7f3a91c05d"
    callbacks = [
        {"class_path": f"{__name__}.Notify", "init_args": {"token": key}},
        {"class_path": f"{__name__}.SignalAfter", "init_args": {"step": 2, "number": int(signal.SIGTERM)}},
    ]
    source = ("--data.source", f"{__name__}.Downloaded", "--data.source.github_token", key)
    argv = (*argv, *source, "--trainer.callbacks", json.dumps(callbacks))

    def require_no_key() -> None:
        files = [path for path in Path().rglob("*") if path.is_file()]
        assert {"run.json", "config.yaml"} & {path.name for path in files}
        assert not [path for path in files if key.encode() in path.read_bytes()]

    assert main(list(argv)) == 143
    require_no_key()
    assert "continuing" in start(*argv)
    require_no_key()


def test_the_time_limit_saves_too(argv: tuple[str, ...], start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2):  # at least one step each time
        assert main([*argv, "--trainer.max_time", "00:00:00:00"]) == 124
        assert f"stopped by max_time: {step} of {STEPS} steps are done" in capsys.readouterr().err
    start(*argv)
    assert [path.name for path in Path("made").iterdir()] == ["guard"]


def test_another_config_is_refused_with_the_difference(
    argv: tuple[str, ...], start: Start, refused: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    capsys.readouterr()
    message = refused(*argv, *callback, "--model.optimizer.lr", "0.5")
    assert "made/guard" in message
    assert "optimizer.init_args.lr was 0.003, is 0.5" in message
    assert ".guard.fit" in message
    assert "continuing an unfinished fit" in start(*argv, *callback)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(argv: tuple[str, ...], start: Start) -> None:
    argv = (*argv, *with_callback("SignalAfter", step=4, number=int(signal.SIGTERM)), "--checkpoint_every", "2")
    assert main(list(argv)) == 143
    before, last = sorted(Path("made/.guard.fit").glob("*.ckpt"))
    assert (before.stem, last.stem) == ("step-000000004", "step-000000005")
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    assert main(list(argv)) == 143  # step 4 is repeated, and its signal
    assert f"continuing an unfinished fit from {last}" in start(*argv)


@pytest.mark.parametrize("damage", ["its SHA-256 is missing", "it belongs to another fit"])
def test_a_checkpoint_that_is_not_certain_is_not_used(damage: str, argv: tuple[str, ...], start: Start) -> None:
    argv = (*argv, *with_callback("SignalAfter", step=4, number=int(signal.SIGTERM)), "--checkpoint_every", "2")
    if damage == "it belongs to another fit":
        assert main([*argv, "--seed_everything", "5"]) == 143
        Path("made/.guard.fit").rename("foreign")
    assert main(list(argv)) == 143
    before, last = sorted(Path("made/.guard.fit").glob("*.ckpt"))
    if damage == "it belongs to another fit":
        for path in Path("foreign").glob(f"{last.name}*"):
            shutil.copy(path, last.parent)
    else:
        beside(last).unlink()
    Path("made/.guard.fit/step-000000004 (copy).ckpt").touch()
    assert main(list(argv)) == 143
    assert sorted(Path("made/.guard.fit").glob("step-?????????.ckpt")) == [before, last]


def test_without_a_usable_checkpoint_the_fit_starts_from_the_beginning(argv: tuple[str, ...], start: Start) -> None:
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    (checkpoint,) = Path("made/.guard.fit").glob("*.ckpt")
    checkpoint.write_bytes(b"")
    assert main([*argv, *callback]) == 143  # step 2 is repeated
    assert {path.name for path in Path("made/.guard.fit").glob("*.unusable")} == {
        f"{checkpoint.name}.unusable",
        f"{checkpoint.name}.json.unusable",
    }
    assert "continuing" in start(*argv, *callback)
    assert [path.name for path in Path("made").iterdir()] == ["guard"]


def test_checkpoints_that_cannot_be_used_outlive_a_fit_that_fails(
    argv: tuple[str, ...], refused: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = {"class_path": f"{__name__}.SignalAfter", "init_args": {"step": 2, "number": int(signal.SIGTERM)}}
    argv = (*argv, "--trainer.callbacks", json.dumps([stop, {"class_path": f"{__name__}.Failing"}]))
    assert main(list(argv)) == 143
    (checkpoint,) = Path("made/.guard.fit").glob("*.ckpt")
    content = checkpoint.read_bytes()
    beside(checkpoint).unlink()
    Path("fail").touch()
    capsys.readouterr()
    assert "it fails" in refused(*argv)
    assert checkpoint.with_name(f"{checkpoint.name}.unusable").read_bytes() == content


@pytest.mark.parametrize("name", ["run.json", "step-000000003.ckpt", "step-000000003.ckpt.json"])
def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(
    name: str, argv: tuple[str, ...], start: Start, refused: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    unreadable = Path("made/.guard.fit", name)
    unreadable.rename("away")
    unreadable.symlink_to(name)  # to itself: the system refuses to read it
    capsys.readouterr()
    assert f"{unreadable}: cannot be read" in refused(*argv, *callback)
    unreadable.unlink()
    Path("away").rename(unreadable)
    assert "continuing" in start(*argv, *callback)


def test_a_kill_while_the_folder_is_removed_leaves_nothing_that_stops_the_next_fit(
    argv: tuple[str, ...], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    with monkeypatch.context() as patch:
        patch.setattr("guardreasoner.workflow.unfinished_fit.shutil.rmtree", killed)
        assert main([*argv, *callback]) == 130
    assert len(list(Path("made").iterdir())) > 1
    assert main([*argv, *callback]) == 143
    start(*argv, *callback)
    assert [path.name for path in Path("made").iterdir()] == ["guard"]


@pytest.mark.parametrize("content", ["", "[]", '{"config": 1, "inputs": 2, "code": {}}'])
def test_checkpoints_of_an_unknown_config_are_refused(
    content: str, argv: tuple[str, ...], refused: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    Path("made/.guard.fit/run.json").write_text(content)
    capsys.readouterr()
    assert "run.json is missing or damaged" in refused(*argv, *callback)


def test_an_edited_class_of_the_user_is_another_config(
    argv: tuple[str, ...], refused: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_source.py").write_text("from tests.support.tiny import TinySource\n\nclass Own(TinySource):\n    pass\n")
    monkeypatch.syspath_prepend(".")
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    argv = (*argv, *callback, "--data.source", "own_source.Own")
    assert main(list(argv)) == 143
    with Path("own_source.py").open("a") as file:
        file.write("    edited = True\n")
    capsys.readouterr()
    assert "own_source.Own has changed" in refused(*argv)


def test_a_checkpoint_of_the_users_choice_does_not_replace_an_unfinished_fit(
    argv: tuple[str, ...], start: Start, refused: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = with_callback("SignalAfter", step=4, number=int(signal.SIGTERM))
    assert main([*argv, *callback, "--checkpoint_every", "2"]) == 143
    chosen = shutil.copy("made/.guard.fit/step-000000004.ckpt", "chosen.ckpt")
    capsys.readouterr()
    assert "chosen.ckpt is used by only one of them" in refused(*argv, *callback, "--ckpt_path", chosen)
    # A fit that starts from it continues from its own checkpoints.
    other = (*argv, "--output", "other/guard", "--ckpt_path", chosen)
    other += with_callback("SignalAfter", step=5, number=int(signal.SIGTERM))
    assert main(list(other)) == 143
    assert "continuing an unfinished fit from other/.guard.fit/step-000000006.ckpt" in start(*other)


@pytest.mark.parametrize("killed", [False, True])
def test_the_log_of_another_run_is_left_alone(killed: bool, argv: tuple[str, ...], start: Start) -> None:
    argv = (*argv, "--trainer.logger.init_args.version", "0")
    start(*argv)
    folder = Path("logs/fit/guard/version_0")
    (events,) = folder.glob("events.*")
    first = folder / events.name.replace(f".{os.getpid()}.", ".1.")  # written by another process
    content = events.rename(first).read_bytes()
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    if killed:  # before its first checkpoint
        for path in Path("made/.guard.fit").glob("*.ckpt"):
            path.unlink()
        assert main([*argv, *callback]) == 143
    start(*argv, *callback)
    assert first.read_bytes() == content
    first.unlink()
    assert [step for tag, step, _ in scalars(folder) if tag == "train/loss"] == list(range(STEPS))


def test_a_damaged_checkpoint_is_not_loaded(
    argv: tuple[str, ...], refused: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, *with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))]) == 143
    (checkpoint,) = Path("made/.guard.fit").glob("*.ckpt")
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[:-1])
    capsys.readouterr()
    assert f"ckpt_path: {checkpoint.absolute()}: damaged" in refused(
        *argv, "--output", "other", "--ckpt_path", str(checkpoint)
    )
    pickled = Path("other.ckpt")
    pickled.write_bytes(pickle.dumps({"state_dict": Path}))
    for name in ("other.ckpt", "absent.ckpt"):
        message = refused(*argv, "--output", "other", "--ckpt_path", name)
        assert "ckpt_path: " in message
        assert name in message


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_fit(
    argv: tuple[str, ...], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("guardreasoner.training.checkpoint_file.torch.save", full)
    output = start(*argv, "--checkpoint_every", "3")
    assert "step 3: no checkpoint: " in output
    assert "No space left on device" in output
    assert [path.name for path in Path("made").iterdir()] == ["guard"]


def test_a_finished_fit_trains_anew_and_replaces_its_folder(argv: tuple[str, ...], start: Start) -> None:
    start(*argv)
    first = os.stat("made/guard").st_ino
    assert "continuing" not in start(*argv)
    assert os.stat("made/guard").st_ino != first
    assert [path.name for path in Path("made").iterdir()] == ["guard"]


@pytest.mark.parametrize("verb", ["rsft", "mine", "evaluate"])
def test_a_second_command_into_the_same_folder_is_refused(
    verb: str, tiny_base: Path, workplace: Path, refused: Start
) -> None:
    with locked_output("made/guard"):
        message = refused(*command(verb, tiny_base), "--output", "made/guard")
        assert "made/guard: another run is writing here" in message
        assert Path("made/.guard.lock").exists()
    assert not Path("made").exists()


def test_steps_that_are_not_finite_are_skipped_and_counted(argv: tuple[str, ...], start: Start) -> None:
    output = start(*argv, *with_callback("Broken", steps=[1, 4]), "--model.max_skipped_steps", "2")
    assert "step 1: the loss is nan; skipped (1 of at most 2); records: train/" in output
    assert "step 4: the loss is nan; skipped (2 of at most 2); records: train/" in output
    values = scalars(Path("logs/fit/guard/version_0"))
    assert [value for tag, _, value in values if tag == "train/skipped_steps"] == [0, 1, 1, 1, 2, 2, 2, 2]
    losses = [(step, value) for tag, step, value in values if tag == "train/loss"]
    assert [step for step, value in losses if math.isnan(value)] == [1, 4]


def test_too_many_of_them_stop_the_fit_with_all_ids_and_the_last_checkpoint(
    argv: tuple[str, ...], refused: Start
) -> None:
    argv = (*argv, *with_callback("Broken", steps=[4]))
    message = refused(*argv, "--checkpoint_every", "2")
    assert "step 4: the loss is nan; stopped before the update" in message
    assert message.count("train/") == 6  # all records of the step
    names = sorted(path.stem for path in Path("made/.guard.fit").glob("*.ckpt"))
    assert names == ["step-000000002", "step-000000004"]


@pytest.mark.parametrize("text", ["0", "often", "-3", "10s", "0m", "nan"])
def test_a_wrong_interval_is_refused(text: str, argv: tuple[str, ...], refused: Start) -> None:
    assert "checkpoint_every: expected steps such as 500, or minutes such as 10m" in refused(
        *argv, "--checkpoint_every", text
    )


def test_a_half_written_checkpoint_of_a_killed_fit_is_removed(argv: tuple[str, ...]) -> None:
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    assert main([*argv, *callback]) == 143
    (checkpoint,) = Path("made/.guard.fit").glob("step-*.ckpt")
    checkpoint.write_bytes(b"")  # so that step 2 is repeated, and its signal
    half = Path("made/.guard.fit/.step-000000005.ckpt.0123abcd.partial")
    half.write_bytes(b"half")
    assert main([*argv, *callback]) == 143
    assert not half.exists()


def test_a_fit_resumed_within_a_second_by_a_process_of_the_same_id_keeps_its_curves(
    argv: tuple[str, ...], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.summary.writer import event_file_writer

    start(*argv)
    whole_log = scalars(Path("logs/fit/guard/version_0"))
    shutil.rmtree("made")
    begun, real = time.time(), time.time
    monkeypatch.setattr(time, "time", lambda: int(begun) + (real() - begun) / 15)  # a second lasts 15
    callback = with_callback("SignalAfter", step=2, number=int(signal.SIGTERM))
    counter = type(event_file_writer._global_uid)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter(0))  # as in a new process
    assert main([*argv, *callback]) == 143
    monkeypatch.setattr(event_file_writer, "_global_uid", counter(0))
    start(*argv, *callback)
    assert scalars(Path("logs/fit/guard/version_1")) == whole_log
