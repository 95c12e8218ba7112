"""Fits with weights sharded over two processes: the losses, weights, files and checkpoints of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guardreasoner.model.batch import Example, StepCollator
from guardreasoner.model.packing import packed
from tests.support.sharded_fits import fits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fitted(tiny_base: Path, tiny_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The folder that one process has filled, that of two sharded ones, and what the first of these printed."""
    one, two = tmp_path_factory.mktemp("sharding") / "one", tmp_path_factory.mktemp("sharding") / "two"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.sharded_fits", str(tiny_base), str(tiny_rollouts), str(two), "2"],
            env={**common, "TORCHELASTIC_RUN_ID": "tests", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    try:
        fits(tiny_base, tiny_rollouts, one, None, 1)
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1][-3000:]
    return one, two, outputs[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsft", "resumed", "lora", "hsdpo"])
def test_sharded_fits_equal_those_of_one_process(name: str, fitted: tuple[Path, Path, str]) -> None:
    one, two = (torch.load(folder / f"{name}.pt") for folder in fitted[:2])
    assert len(one["curve"]) == {"resumed": 2, "hsdpo": 3}.get(name, 4)
    for values, expected in zip(two["curve"], one["curve"], strict=True):
        assert values == pytest.approx(expected, rel=1e-4)
    assert two["optimizer"]["state"].keys() == one["optimizer"]["state"].keys()
    for index, state in one["optimizer"]["state"].items():
        torch.testing.assert_close(two["optimizer"]["state"][index], state, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsft", "resumed", "lora", "hsdpo"])
def test_sharded_fits_write_the_same_model_folder(name: str, fitted: tuple[Path, Path, str]) -> None:
    one, two = (folder / name for folder in fitted[:2])
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    file = "adapter_model.safetensors" if name == "lora" else "model.safetensors"
    weights, expected = load_file(two / file), load_file(one / file)
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.slow
def test_a_resumed_sharded_fit_equals_an_uninterrupted_one(fitted: tuple[Path, Path, str]) -> None:
    whole, resumed = (torch.load(fitted[1] / f"{name}.pt")["curve"] for name in ("rsft", "resumed"))
    for values, expected in zip(resumed, whole[2:], strict=True):
        assert values == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_sharded_checkpoint_holds_whole_weights(fitted: tuple[Path, Path, str]) -> None:
    one, two = (torch.load(folder / "rsft.ckpt", weights_only=True)["state_dict"] for folder in fitted[:2])
    assert {name: value.shape for name, value in two.items()} == {name: value.shape for name, value in one.items()}
    assert type(next(iter(two.values()))) is torch.Tensor


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exact"), [("half", "rsft"), ("hsdpo-half", "hsdpo")])
def test_layers_that_compute_in_bfloat16_have_nearly_the_same_losses(
    name: str, exact: str, fitted: tuple[Path, Path, str]
) -> None:
    half, full = (torch.load(fitted[1] / f"{fit}.pt")["curve"] for fit in (name, exact))
    assert half != full
    assert [loss for loss, _ in half] == pytest.approx([loss for loss, _ in full], rel=0.03)
    assert load_file(fitted[1] / name / "model.safetensors").popitem()[1].dtype == torch.float32


@pytest.mark.slow
def test_what_does_not_work_with_shares_is_refused(fitted: tuple[Path, Path, str]) -> None:
    refusals = [line for line in fitted[2].splitlines() if line.startswith("refused: ")]
    assert ["FrozenCopy" in refusals[0], "FrozenAdapter" in refusals[1]] == [True, True]
    assert "guardreasoner.Precomputed" in refusals[0]
    assert "it cannot predict" in refusals[2]
    assert "configs/trainer/ddp.yaml" in refusals[2]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("tokens", [None, 24])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(world: int, tokens: int | None) -> None:
    prefix = tuple(range(20))
    examples = [Example(str(n), (*prefix, 30 + n), (tuple(range(1, 2 + n)),)) for n in range(7)]
    steps = [StepCollator(0, 2, packed, rank, world, tokens)(examples) for rank in range(world)]
    counted = [name for step in steps for batch in step.batches[: step.counted] for name in batch.ids]
    assert sorted(counted) == [str(n) for n in range(7)]
    assert {(step.tokens, step.examples) for step in steps} == {(28, 7)}
    # Sharded forward passes are collective: as many everywhere, also of the shared prefix.
    assert len({len(step.batches) for step in steps}) == 1
    assert {len(batch.prefix_ids) for step in steps for batch in step.batches if batch.prefix_ids is not None} == {20}
