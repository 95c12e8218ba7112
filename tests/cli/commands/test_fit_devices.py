"""What the trainer's settings say of a fit's devices."""

from typing import Any

import pytest
import torch

from guardreasoner.cli.commands._fit_devices import flags_without_gpu, mixed_dtype, process_count, sharded_dtype
from guardreasoner.errors import InputError


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({}, 1),
        ({"devices": 4}, 4),
        ({"devices": 4, "num_nodes": 2}, 8),
        ({"devices": [0, 2]}, 2),
        ({"devices": [3]}, 1),
        ({"devices": "0,1,2"}, 3),
        ({"devices": "0,"}, 1),
    ],
)
def test_processes_are_devices_times_nodes(trainer: dict[str, Any], count: int) -> None:
    assert process_count(trainer, "gpu") == count


def test_all_devices_are_the_gpus_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for devices in ("auto", -1, "-1"):
        assert process_count({"devices": devices}, "gpu") == 3
        assert process_count({"devices": devices}, "cpu") == 1
    assert flags_without_gpu({"accelerator": "gpu"}) == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"trainer\.devices: auto: plan needs the number of devices"):
        process_count({"devices": "auto"}, "gpu")
    assert "--trainer.accelerator" in flags_without_gpu({"accelerator": "gpu"})
    assert flags_without_gpu({"accelerator": "auto"}) == []


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-mixed", "bfloat16"), ("bf16", "bfloat16"), ("32-true", None), (None, None)],
)
def test_mixed_precision_names_a_data_type(precision: object, dtype: str | None) -> None:
    assert mixed_dtype({"precision": precision}) == dtype


def test_sharded_weights_compute_in_the_type_of_the_strategy_or_of_the_weights() -> None:
    name = "guardreasoner.training.sharding.ShardedStrategy"
    assert sharded_dtype({}, "float32") is None
    assert sharded_dtype({"strategy": "ddp"}, "float32") is None
    assert sharded_dtype({"strategy": name}, "float32") == "float32"
    assert (
        sharded_dtype({"strategy": {"class_path": name, "init_args": {"compute_dtype": None}}}, "float32") == "float32"
    )
    chosen = {"class_path": name, "init_args": {"compute_dtype": "bfloat16"}}
    assert sharded_dtype({"strategy": chosen}, "float32") == "bfloat16"


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_3", {"class_path": "mine.ShardedDataParallel"}])
def test_other_ways_to_shard_weights_are_refused(strategy: object) -> None:
    with pytest.raises(InputError, match=r"plan only knows guardreasoner\.ShardedStrategy"):
        sharded_dtype({"strategy": strategy}, "float32")
