"""The verb ``plan`` through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from guardreasoner.cli.main import main

Run = Callable[..., tuple[int, str, str]]
TINY = "tests.support.tiny.TinySource"
QLORA = ("--config", "configs/hsdpo.yaml", "--config", "configs/model/llama-3.2-3b-qlora.yaml")
FOUR_BITS = ("--model.backbone.quantization", "4bit", "--model.backbone.lora", "{r: 4}")
ON_GPUS = ("--device", "gpu", "--json", "p.json")


@pytest.fixture(autouse=True)
def _here(workplace: Path) -> None:
    """Work in a folder with the project's configs."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``plan`` and returns exit code, output and errors."""

    def planned(*words: str) -> tuple[int, str, str]:
        code = main(["plan", *words])
        message = capsys.readouterr()
        return code, message.out, message.err

    return planned


@pytest.fixture
def tiny(tiny_base: Path) -> tuple[str, ...]:
    """Flags of R-SFT of a tiny model on tiny data."""
    path = ("--model.backbone.path", str(tiny_base))
    return ("--config", "configs/rsft.yaml", *path, "--data.source", TINY, "--device", "cpu")


def test_a_fit_that_fits_ends_with_zero(run: Run, tiny: tuple[str, ...]) -> None:
    code, out, _ = run(
        *tiny, "--memory", "4GB", "--tokens_per_second", "100", "--price_per_hour", "3.6", "--json", "p.json"
    )
    plan = json.loads(Path("p.json").read_text())
    assert code == 0
    assert "fits in 4 GB: yes, 0." in out
    # 24 records in batches of 8, three epochs
    assert (plan["data"]["examples"], plan["data"]["steps"]) == (24, 9)
    assert plan["seconds"] == plan["data"]["tokens"] / 100
    assert plan["price"] == pytest.approx(plan["seconds"] / 1000)
    assert plan["data"]["characters_per_token"] is None
    assert plan["peak_bytes"] == pytest.approx(sum(plan["memory"].values()))


@pytest.mark.slow
def test_a_fit_that_does_not_fit_ends_with_one(run: Run, tiny: tuple[str, ...]) -> None:
    code, out, _ = run(*tiny, "--memory", "100MB")
    assert code == 1
    assert "fits in 0.1 GB: no" in out
    assert "not even with all changes" in out


def test_a_plan_loads_no_weights_and_writes_nothing(
    run: Run, tiny: tuple[str, ...], tiny_base: Path, tmp_path: Path
) -> None:
    shape = shutil.copytree(tiny_base, tmp_path / "shape", ignore=shutil.ignore_patterns("*.safetensors"))
    before = sorted(Path().rglob("*"))
    assert run(*tiny, "--model.backbone.path", str(shape))[0] == 0
    assert sorted(Path().rglob("*")) == before


def test_the_embedded_model_is_planned_before_it_is_built(run: Run) -> None:
    code, out, _ = run("--config", "configs/rsft.yaml", "--data.source", TINY)
    assert code == 0
    assert "checkpoints/base is not built; shape of configs/base.yaml" in " ".join(out.split())
    assert "tokens are estimated" in out


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("LocalGenerator", "ServerGenerator", "ServerGenerator is not the local engine"),
        ("recipe.temperature", "recipe.nothing", "recipe.nothing"),
        ("max_cache_tokens:", "cache:", "do not describe a run of mining"),
    ],
)
def test_a_plan_without_mining_says_why(run: Run, tiny: tuple[str, ...], old: str, new: str, reason: str) -> None:
    shutil.copytree(Path("configs").resolve(), "own")
    Path("configs").unlink()
    mine = Path("own").rename("configs") / "mine.yaml"
    assert "mining at most 0." in " ".join(run(*tiny)[1].split())
    mine.write_text(mine.read_text().replace(old, new))
    code, out, _ = run(*tiny)
    assert code == 0
    shown = " ".join(out.split())
    assert "mining not planned: " in shown
    assert reason in shown


def test_a_few_steps_measure_the_rate(run: Run, tiny: tuple[str, ...]) -> None:
    code, _, _ = run(*tiny, "--measure", "--json", "p.json")
    plan = json.loads(Path("p.json").read_text())
    assert code == 0
    assert "measured here in 3 steps" in plan["rate"]
    assert plan["seconds"] > 0
    assert plan["peak_measured_here"] > 1e8


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "code"), [("24GB", 0), ("8GB", 0), ("5GB", 1)])
def test_a_gated_model_is_planned_from_its_published_shape(run: Run, memory: str, code: int) -> None:
    done, _, err = run(*QLORA, "--memory", memory, "--json", "p.json")
    plan = json.loads(Path("p.json").read_text())
    assert (done, err) == (code, "")
    assert plan["parameters"] == {"total": 3_212_749_824 + 24_313_856, "trained": 24_313_856}
    assert plan["device"] == "gpu"
    assert "published shape of meta-llama/Llama-3.2-3B-Instruct" in plan["model"]
    if code:
        assert plan["changes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "24"), "--memory: expected a size above 0 with a unit"),
        (("--memory", "24XB"), "--memory: expected a size above 0 with a unit"),
        (("--memory", "0GB"), "--memory: expected a size above 0 with a unit"),
        (("--tokens_per_second", "9", "--price_per_hour", "-1"), "--price_per_hour: expected a number of at least 0"),
        (("--tokens_per_second", "nan"), "--tokens_per_second: expected a number above 0"),
        (("--tflops", "100", "--mfu", "1.5"), "--mfu: expected a share"),
        (("--tflops", "100", "--measure"), "not allowed with"),
        (("--price_per_hour", "2"), "--price_per_hour needs a rate"),
        (
            ("--config", "configs/trainer/fsdp2.yaml", "--trainer.devices", "2", *FOUR_BITS),
            "cannot shard 4-bit weights",
        ),
        (("--trainer.strategy", "deepspeed_stage_3"), "expected auto, ddp or guardreasoner.ShardedStrategy"),
        (("--data.collate", "guardreasoner.model.batch.two_row"), "plan only knows packed rows"),
        (("--data.max_length", "3"), "no training example of at most data.max_length 3 tokens"),
        (("--memry", "24GB"), "did you mean --memory?"),
    ],
)
def test_wrong_values_are_one_line(run: Run, tiny: tuple[str, ...], words: tuple[str, ...], said: str) -> None:
    code, out, err = run(*tiny, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) <= 2


def test_one_gpu_is_planned_with_copies_in_16_bits(run: Run, tiny: tuple[str, ...]) -> None:
    code, out, _ = run(*tiny, "--config", "configs/trainer/one_gpu.yaml", *ON_GPUS)
    plan = json.loads(Path("p.json").read_text())
    assert code == 0
    assert (plan["device"], plan["devices"], plan["mixed"], plan["sharded"]) == ("gpu", 1, "bfloat16", None)
    assert plan["memory"]["16-bit copies"] > 0
    assert "full, float32, matrix products in bfloat16" in " ".join(out.split())


def test_every_gpu_has_all_weights_with_ddp_and_a_share_with_fsdp(run: Run, tiny: tuple[str, ...]) -> None:
    parts = {}
    for name in ("ddp", "fsdp2"):
        code, out, _ = run(*tiny, "--config", f"configs/trainer/{name}.yaml", "--trainer.devices", "4", *ON_GPUS)
        plan = json.loads(Path("p.json").read_text())
        assert (code, plan["devices"]) == (0, 4)
        parts[name] = plan["memory"]
    assert "4 processes, sharded weights that compute in bfloat16" in " ".join(out.split())
    assert "mining not planned: ShardedStrategy only trains" in " ".join(out.split())
    assert parts["fsdp2"]["weights"] == pytest.approx(parts["ddp"]["weights"] / 4, rel=0.01)
    assert parts["fsdp2"]["gathered weights"] > 0
    assert parts["ddp"]["DDP buckets"] > 0
    assert "DDP buckets" not in parts["fsdp2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_all_gpus_of_a_machine_without_any_are_no_number(run: Run, tiny: tuple[str, ...]) -> None:
    code, out, err = run(*tiny, "--config", "configs/trainer/ddp.yaml", *ON_GPUS)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: trainer.devices: auto: plan needs the number of devices, since this machine has no GPU",
        "hint: --trainer.devices 8",
    ]


def test_references_that_run_beside_the_policy_are_refused_with_sharded_weights(run: Run, tiny_base: Path) -> None:
    fit = ("--config", "configs/hsdpo.yaml", "--model.backbone.path", str(tiny_base), "--data.source", TINY)
    sharded = ("--config", "configs/trainer/fsdp2.yaml", "--trainer.devices", "2")
    code, out, err = run(*fit, *sharded, "--model.reference", "guardreasoner.FrozenCopy")
    assert (code, out) == (2, "")
    assert err.startswith("error: model.reference: FrozenCopy does not work with sharded weights")


def test_an_unknown_shape_asks_for_a_config(run: Run) -> None:
    code, _, err = run("--config", "configs/rsft.yaml", "--data.source", TINY, "--recipe.base", "nobody/knows-it")
    assert code == 2
    assert err.startswith("error: recipe.base: nobody/knows-it: no such model here")
    assert "config.json" in err.splitlines()[1]


def test_a_config_that_trains_nothing_is_refused(run: Run) -> None:
    code, _, err = run("--config", "configs/mine.yaml")
    assert code == 2
    assert len(err.splitlines()) <= 2
