"""A flipped bit in any artefact is found when it is read, or the artefact is made again with an equal result."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import RolloutLog
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Rollout, write_jsonl
from guardreasoner.sources.rollouts import read_rollout_folders
from guardreasoner.training.checkpoint_file import SealedCheckpointIO
from guardreasoner.training.reference import Precomputed
from guardreasoner.training.rsft import read_optimizer_state
from guardreasoner.workflow.integrity import changed_files
from guardreasoner.workflow.manifest import record_made
from tests.support.bit_flips import unnoticed_flips
from tests.support.starting import Start
from tests.support.tiny import TinySource, batch_of, examples, load


def finished(folder: Path, to: Path) -> Path:
    """Copy a folder and write its manifest, as a command does."""
    shutil.copytree(folder, to)
    record_made(to, ["fit"], {}, [])
    return to


def loads(folder: Path) -> Callable[[], bool]:
    """Return a function that loads a model, and says that it noticed nothing."""

    def read() -> bool:
        load(folder)
        return False

    return read


@pytest.mark.parametrize("kind", ["tiny_base", "tiny_adapter"])
def test_models(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = finished(request.getfixturevalue(kind), tmp_path / "model")
    assert unnoticed_flips(folder, loads(folder), 12, ignored=("manifest.json", "README.md")) == []
    load(folder)


@pytest.mark.parametrize(("old", "new"), [('"inputs"', '"inpuls"'), ('"command": [', '"command": {'), ("}", "]")])
def test_a_damaged_manifest_does_not_turn_the_check_off(old: str, new: str, tiny_base: Path, tmp_path: Path) -> None:
    manifest = finished(tiny_base, tmp_path / "model") / "manifest.json"
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        load(tmp_path / "model")


def test_tokenizer_and_prompt_format_are_checked_without_the_weights(tiny_base: Path, tmp_path: Path) -> None:
    folder = finished(tiny_base, tmp_path / "model")

    def read() -> bool:
        _ = Backbone(str(folder)).prompt_tokenizer
        return False

    assert unnoticed_flips(folder, read, 8, ignored=("manifest.json", "model.safetensors")) == []


def test_base_models_without_a_manifest_below_an_adapter(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    load(base, lora=LoRA(r=2)).save(tmp_path / "adapter")
    others = {path.name for path in base.iterdir()} - {"model.safetensors", "config.json", "tokenizer.json"}
    assert unnoticed_flips(base, loads(tmp_path / "adapter"), 6, ignored=others) == []


def test_optimizer_states(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    optimizer = torch.optim.AdamW(backbone.parameters())
    backbone.completion_logps(batch_of(backbone.prompt_tokenizer)).mean().backward()
    optimizer.step()
    shutil.copytree(tiny_base, tmp_path / "trained")
    state = tmp_path / "trained" / "optimizer.pt"
    torch.save(optimizer.state_dict(), state)
    record_made(tmp_path / "trained", ["fit"], {}, [])

    def read() -> bool:
        read_optimizer_state(str(state))
        return False

    assert unnoticed_flips(state, read, 6) == []
    assert read_optimizer_state(str(state))["state"]


def test_reference_values(tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = load(tiny_base)
    batch = batch_of(backbone.prompt_tokenizer)

    def values() -> torch.Tensor:
        reference = Precomputed(str(tmp_path / "stored"))
        reference.prepare(backbone, examples(backbone.prompt_tokenizer))
        return reference.sequence_logps(batch)

    expected = values()

    def read() -> bool:
        caplog.clear()
        return torch.equal(values(), expected) and "computed again" in caplog.text

    assert unnoticed_flips(tmp_path / "stored", read, 8) == []


def test_tokenized_examples(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl("train.jsonl", TinySource().records("train"))
    write_jsonl("validation.jsonl", TinySource().records("validation"))
    start = Start(tiny_base, lambda: 0)
    expected = list(start().train)

    def read() -> bool:
        caplog.clear()
        return list(start().train) == expected and "is damaged and is made again" in caplog.text

    (folder,) = (path for path in Path("kept").iterdir() if path.is_dir())
    assert unnoticed_flips(folder, read, 8) == []


def test_rollouts(tiny_rollouts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "guardreasoner")
    folder = finished(tiny_rollouts, tmp_path / "rollouts")
    read_rollout_folders([folder])
    assert caplog.text == ""

    def read() -> bool:
        caplog.clear()
        read_rollout_folders([folder])
        return "damaged or edited since it was made" in caplog.text

    assert unnoticed_flips(folder, read, 8) == []
    assert list(changed_files(folder)) == []


def test_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "step-000000002.ckpt"
    state = {"state_dict": {"weight": torch.arange(12.0)}}
    SealedCheckpointIO().save_checkpoint(state, path, {"log_sizes": {"events": 1234}})

    def read() -> bool:
        SealedCheckpointIO().load_checkpoint(path)
        return False

    assert unnoticed_flips(tmp_path, read, 12) == []
    assert SealedCheckpointIO().load_checkpoint(path)["state_dict"]["weight"].tolist() == list(range(12))


def test_rollout_logs(tmp_path: Path) -> None:
    records = TinySource().records("train")[:8]

    def opened() -> RolloutLog:
        rollout_log = RolloutLog(tmp_path / "out", {"setting": "same"}, {"rollouts": 1})
        rollout_log.prepare(records, PromptFormat())
        rollout_log.open(0, "cpu")
        return rollout_log

    def close(rollout_log: RolloutLog) -> set[str]:
        done = rollout_log.done("rollouts")
        rollout_log.close()
        rollout_log.release()
        return done

    rollout_log = opened()
    for record in records:
        rollout_log.append("rollouts", [Rollout(record.id, "tiny", "f", 0, 0, "So.")], 0.0, 1)
    assert close(rollout_log) == {record.id for record in records}
    (shard,) = rollout_log.folder.glob("rollouts-*.jsonl")
    assert unnoticed_flips(shard, lambda: close(opened()) < {record.id for record in records}, 12) == []
