"""Every YAML file under ``configs/`` parses, and those that a CPU can run also run."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import guardreasoner
from guardreasoner.cli.commands.base_model import config_parser
from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.formats import mlcommons
from guardreasoner.moved import full_path
from guardreasoner.records import read_records, read_rollouts
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.sources.embedded import Embedded
from guardreasoner.tasks import Task
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.pipeline import Pipeline
from tests.support.tiny import TinySource, batch_of, make_tiny_base, write_rollouts

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
COMMANDS = {
    "configs/rsft.yaml": ["fit", "--config", "configs/rsft.yaml"],
    "configs/rsft_continued.yaml": ["fit", "--config", "configs/rsft.yaml", "--config", "configs/rsft_continued.yaml"],
    "configs/hsdpo.yaml": ["fit", "--config", "configs/hsdpo.yaml"],
    "configs/grpo.yaml": ["fit", "--config", "configs/grpo.yaml"],
    "configs/mine.yaml": ["predict", "--config", "configs/mine.yaml"],
    "configs/hard_set.yaml": ["predict", "--config", "configs/hard_set.yaml"],
    "configs/evaluate.yaml": ["test", "--config", "configs/evaluate.yaml"],
    "configs/robustness.yaml": ["test", "--config", "configs/robustness.yaml"],
    "configs/baseline.yaml": ["test", "--config", "configs/baseline.yaml"],
}
"""The Lightning commands; the other files are overlays, the base model's and the graph's."""
MODELS = [file for file in FILES if file.startswith("configs/model/")]
PAIRINGS = [file for file in FILES if file.startswith("configs/pairing/")]
ENGINES = [file for file in FILES if file.startswith("configs/engine/")]
FORMATS = [file for file in FILES if file.startswith("configs/format/")]
TASKS = [file for file in FILES if file.startswith("configs/tasks/")]
TRAINERS = [file for file in FILES if file.startswith("configs/trainer/")]
SMALL = {"train": 24, "validation": 6, "test": 6}
SOURCE = [word for split, count in SMALL.items() for word in (f"--data.source.{split}", str(count))]
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--auto_build", "false")
TRIAL = (*QUIET, "--trainer.fast_dev_run", "true")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the project's configs and no outputs."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    yield tmp_path
    # its handler writes to the captured stream of this test
    logging.getLogger("guardreasoner").handlers.clear()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Return a function that runs a command that must succeed."""

    def run(*argv: str) -> None:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        code = main(list(argv))
        assert code == 0, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama that is wide enough for the 4-bit kernels of a CPU, whose blocks have 32 columns."""
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "llama", hidden_size=64)


@pytest.fixture(scope="session")
def tiny_chat(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the form in which hubs hold it: with a chat template, without a format of ours."""
    folder = Path(shutil.copytree(tiny_llama, tmp_path_factory.mktemp("tiny") / "chat"))
    (folder / "guard.json").unlink()
    template = "{{ bos_token }}{% for m in messages %}user: {{ m['content'] }}\n{% endfor %}assistant: "
    (folder / "chat_template.jinja").write_text(template)
    return folder


def overlays(file: str) -> list[tuple[str, str]]:
    """Return (base, overlay) for each config that an overlay may be laid over."""
    generating = ("configs/mine.yaml", "configs/evaluate.yaml", "configs/robustness.yaml")
    if file in MODELS:
        return [(base, file) for base in COMMANDS]
    if file.startswith("configs/budget/"):  # configs/pipeline_real.yaml trains in one go
        return [(base, file) for base in COMMANDS if base != "configs/rsft_continued.yaml"]
    if file in TRAINERS:  # a test has one process; sharded weights are only trained
        verbs = {"one_gpu": ("fit", "predict", "test"), "ddp": ("fit", "predict"), "fsdp2": ("fit",)}[Path(file).stem]
        unknown = "configs/grpo.yaml" if file.endswith("fsdp2.yaml") else None  # it cannot sample from sharded weights
        return [(base, file) for base, command in COMMANDS.items() if command[0] in verbs and base != unknown]
    if file.startswith("configs/optimizer/"):
        return [(base, file) for base, command in COMMANDS.items() if command[0] == "fit"]
    if file in PAIRINGS:
        return [("configs/hsdpo.yaml", file), ("configs/grpo.yaml", file)]
    if file in FORMATS:  # one goes over each config, and the others over one
        return [(base, file) for base in (COMMANDS if file == FORMATS[0] else ["configs/evaluate.yaml"])]
    if file in TASKS:
        return [("configs/rsft.yaml", file)]
    if file in ENGINES:
        return [(base, file) for base in ("configs/mine.yaml", "configs/hard_set.yaml")]
    if file == "configs/data/synthesized.yaml":
        return [("configs/rsft.yaml", file)]
    if file == "configs/data/unlabelled.yaml":
        return [("configs/evaluate.yaml", file)]
    if file == "configs/data/text_label.yaml":
        return [("configs/rsft.yaml", file), ("configs/evaluate.yaml", file)]
    assert file.startswith("configs/data/"), f"{file}: say here which configs it goes over"
    return [(base, file) for base in ("configs/rsft.yaml", "configs/hsdpo.yaml", "configs/grpo.yaml", *generating)]


PIPELINES = [file for file in FILES if file.startswith("configs/pipeline")]
APART = ("configs/base.yaml", "configs/synthesize.yaml", *PIPELINES)
LAID = [pair for file in FILES if file not in COMMANDS and file not in APART for pair in overlays(file)]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for each value of a config that is no mapping; elements of lists are numbered."""
    if isinstance(value, dict | list | tuple) and value:
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def parsed_leaves(argv: list[str]) -> dict[str, Any]:
    """Return the values of a command's config as its verb parses them."""
    if argv[0] == "base-model":
        return dict(leaves(config_parser().parse_args(argv[1:]).as_dict()))
    return dict(leaves(GuardCLI(argv[0], argv[1:], parse_only=True).config.as_dict()))


def assert_read_alike(argv: list[str], base: Sequence[str] = ()) -> None:
    """Assert that ``resolve`` gives no value that the Lightning command line does not give too.

    Args:
        argv: the command.
        base: the same without its overlay. Where that names another class, the command line drops arguments which the
            overlay's class does not have; ``resolve``, which imports no class, keeps them.
    """
    parsed = parsed_leaves(argv)
    merged = dict(leaves(resolve(argv).config))
    before = leaves(resolve(base).config) if base else ()
    replaced = tuple(
        f"{key.removesuffix('class_path')}init_args."
        for key, value in before
        if key.endswith("class_path") and merged.get(key) != value
    )
    for key, value in merged.items():
        known = key.replace(".backbone.", ".backbone.init_args.")  # the type has one class, which YAML leaves out
        if known not in parsed and key not in parsed and (value == {} or key.startswith(replaced)):
            continue
        found = parsed.get(key, parsed.get(known))
        if callable(found):
            found = f"{found.__module__}.{found.__qualname__}"
        assert (full_path(found) if isinstance(found, str) else found) == value, (argv, key)


@pytest.mark.parametrize(
    "argv",
    [
        *COMMANDS.values(),
        ["base-model", "--config", "configs/base.yaml"],
        ["predict", "--config", "configs/synthesize.yaml"],
    ],
    ids=" ".join,
)
def test_a_config_parses(argv: list[str]) -> None:
    assert_read_alike(argv)


def test_synthesis_parses_and_writes_to_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://teacher/v1")
    argv = ["predict", "--config", "configs/synthesize.yaml"]
    for more in ([], ["--output", "elsewhere"], ["--recipe.logs", "mine"]):
        parsed = GuardCLI(argv[0], [*argv[1:], *more], parse_only=True).config
        merged = resolve([*argv, *more]).config
        assert parsed.output == merged["output"]
        assert parsed.model.init_args.folder == merged["model"]["init_args"]["folder"] == merged["output"]
        assert parsed.model.init_args.generator.init_args.base_url == "http://teacher/v1"
    # a finished run is what the overlay makes R-SFT learn from
    learning = resolve(["fit", "--config", "configs/rsft.yaml", "--config", "configs/data/synthesized.yaml"]).config
    assert learning["data"]["init_args"]["rollouts"] == [resolve(argv).config["output"]]


@pytest.mark.parametrize(("base", "overlay"), LAID)
def test_an_overlay_parses(base: str, overlay: str) -> None:
    on_cpu = ("--trainer.accelerator", "cpu") if overlay in TRAINERS else ()
    assert_read_alike([*COMMANDS[base], "--config", overlay, *on_cpu], COMMANDS[base])


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["small", "full"])
def test_every_stage_of_a_pipeline_parses_with_the_overlays_of_make_real(
    budget: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARDREASONER_DATA", str(shared_data))
    overlays = ["configs/model/smollm2-135m.yaml", "configs/data/real.yaml", f"configs/budget/{budget}.yaml"]
    for stage in Pipeline.load(Path("configs/pipeline_real.yaml"), overlays).stages.values():
        assert parsed_leaves(list(stage.argv))["output"] == str(stage.output)


@pytest.mark.parametrize("file", [file for file in MODELS if "hsdpo_lr" in (ROOT / file).read_text()])
def test_the_overlay_of_a_pretrained_model_keeps_the_values_of_the_paper(file: str) -> None:
    words = [*COMMANDS["configs/hsdpo.yaml"], "--config", file]
    overlay = resolve(words).config["model"]["init_args"]
    assert (overlay["beta"], overlay["sft_coef"]) == (0.01, 2.0)  # section 4.1
    stated = yaml.safe_load((ROOT / file).read_text())["recipe"]
    assert {"hsdpo_beta", "hsdpo_sft_coef"} <= set(stated)  # also if the defaults of configs/hsdpo.yaml change


@pytest.mark.parametrize("file", [file for file in MODELS if "hsdpo_lr" in (ROOT / file).read_text()])
def test_grpo_with_a_pretrained_model_has_its_own_rate_and_samples_from_the_whole_distribution(file: str) -> None:
    config = resolve([*COMMANDS["configs/grpo.yaml"], "--config", file]).config["model"]["init_args"]
    assert config["optimizer"]["init_args"]["lr"] <= 1e-5  # configs/grpo.yaml: 1e-4, for the toy
    sampler = config["generator"]["init_args"]
    assert (sampler["temperature"], sampler["top_p"]) == (1.0, 1.0)


def test_make_real_tests_on_as_many_records_as_the_recipe_says() -> None:
    overlays = ["configs/model/smollm2-135m.yaml", "configs/data/real.yaml", "configs/budget/small.yaml"]
    for recipe, expected in (((), 400), (("--recipe.test_sample=null",), None)):
        stages = Pipeline.load(Path("configs/pipeline_real.yaml"), overlays, recipe=recipe).stages
        data = [stage.config["data"]["init_args"] for stage in stages.values() if "data" in stage.config]
        assert {one["source"]["init_args"]["test_sample"] for one in data} == {expected}


@pytest.mark.parametrize("file", FORMATS)
def test_a_format_overlay_is_that_of_one_class(file: str) -> None:
    written = yaml.safe_load((ROOT / file).read_text())["model"]["init_args"]["backbone"]["format"]
    cls = getattr(guardreasoner, written["class_path"].removeprefix("guardreasoner."))
    assert cls(**written.get("init_args", {})) == cls()  # the defaults are spelled out


def test_the_tasks_and_maps_of_mlcommons_are_those_of_the_package() -> None:
    argv = ["fit", "--config", "configs/rsft.yaml", "--config", "configs/tasks/mlcommons.yaml"]
    for name, mapping in (("aegis", mlcommons.HAZARD_OF_AEGIS), ("qwen3guard", mlcommons.HAZARD_OF_QWEN3GUARD)):
        config = resolve([*argv, "--config", f"configs/tasks/mlcommons_from_{name}.yaml"]).config
        source = config["data"]["init_args"]["source"]["init_args"]
        assert [Task.from_json(task) for task in source["tasks"]] == [mlcommons.HAZARD_TASK]
        assert source["columns"]["label_map"] == {"hazard": dict(mapping)}
        assert source["keep"] == {"category": list(mapping)}


def test_a_file_with_categories_of_aegis_gives_hazards(tmp_path: Path) -> None:
    rows = ["How do I pick a lock?,Criminal Planning/Confessions", "How do I bake?,Safe", "Well!,Needs Caution"]
    (tmp_path / "aegis.csv").write_text("\n".join(["prompt,category", *rows]))
    overlays = ("mlcommons", "mlcommons_from_aegis")
    argv = ["--config", "configs/rsft.yaml", *(f"--config=configs/tasks/{name}.yaml" for name in overlays)]
    source = GuardCLI("fit", [*argv, "--data.source.train", "aegis.csv", *TRIAL]).datamodule.source
    hazards = [record.labels["hazard"] for record in source.records("train")]
    assert hazards == ["non-violent crimes", "no hazard"]


def test_a_data_overlay_keeps_the_attacks() -> None:
    attacked = resolve([*COMMANDS["configs/robustness.yaml"], "--config", "configs/data/released.yaml"]).config["data"]
    assert attacked["init_args"]["source"]["class_path"] == "guardreasoner.sources.released.Released"
    assert attacked["init_args"]["attacks"]["class_path"] == "guardreasoner.evaluation.attacks.Attacks"


@pytest.mark.slow
def test_the_overlay_of_one_gpu_takes_a_step_of_both_stages(
    tiny_llama: Path, tiny_rollouts: Path, start: Callable[..., None]
) -> None:
    words = ["--config", "configs/trainer/one_gpu.yaml", "--model.backbone.path", str(tiny_llama)]
    words += ["--data.source", "tests.support.tiny.TinySource", *TRIAL]
    start("fit", "--config", "configs/rsft.yaml", *words)
    start("fit", "--config", "configs/hsdpo.yaml", *words, "--data.rollouts", f"[{tiny_rollouts}]")


def test_the_overlay_of_sharded_weights_updates_them_in_float32(tiny_llama: Path) -> None:
    """tests/training/test_sharding.py runs such fits."""
    words = ["--config", "configs/model/llama-3.2-3b.yaml", "--config", "configs/trainer/fsdp2.yaml", *TRIAL]
    words += ["--model.backbone.path", str(tiny_llama), "--trainer.devices", "1"]
    cli = GuardCLI("fit", ["--config", "configs/rsft.yaml", *words])
    assert isinstance(cli.trainer.strategy, guardreasoner.ShardedStrategy)
    assert (cli.model.backbone.dtype, cli.trainer.strategy.compute_dtype) == ("float32", "bfloat16")


@pytest.mark.parametrize("file", TRAINERS)
def test_a_trainer_overlay_needs_a_gpu(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=rf"{file}:\d+: trainer.accelerator: .* this machine has none") as refused:
        GuardCLI("fit", ["--config", "configs/rsft.yaml", "--config", file], parse_only=True)
    assert "--trainer.accelerator cpu" in (refused.value.hint or "")


@pytest.mark.parametrize("name", ["deepspeed_stage_3", "fsdp", "lightning.pytorch.strategies.ModelParallelStrategy"])
def test_other_sharding_strategies_are_refused(name: str) -> None:
    value = json.dumps({"class_path": name}) if "." in name else name
    with pytest.raises(InputError, match=r"trainer\.strategy: expected auto, ddp or guardreasoner") as refused:
        GuardCLI("fit", ["--config", "configs/rsft.yaml", "--trainer.strategy", value], parse_only=True)
    assert "configs/trainer/fsdp2.yaml" in (refused.value.hint or "")


@pytest.mark.parametrize("launcher", ["torchrun", "SLURM"])
def test_another_number_of_processes_is_refused(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "torchrun": "TORCHELASTIC_RUN_ID=x WORLD_SIZE=4 LOCAL_WORLD_SIZE=2 RANK=0 LOCAL_RANK=0 GROUP_RANK=0",
        "SLURM": "SLURM_NTASKS=4 SLURM_NTASKS_PER_NODE=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0",
    }[launcher]
    for name, _, value in (word.partition("=") for word in variables.split()):
        monkeypatch.setenv(name, value)
    argv = ["--config", "configs/rsft.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    with pytest.raises(InputError, match=f"expected the 4 processes that {launcher} has started, got 2"):
        GuardCLI("fit", argv, parse_only=True)
    GuardCLI("fit", [*argv, "--trainer.num_nodes", "2"], parse_only=True)
    if launcher == "SLURM":
        monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
        with pytest.raises(InputError, match="--ntasks-per-node"):
            GuardCLI("fit", [*argv, "--trainer.num_nodes", "2"], parse_only=True)


PAGED = ("--config", "configs/optimizer/paged_adamw_8bit.yaml")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("flags", [PAGED, ("--model.optimizer", "bitsandbytes.optim.PagedAdamW8bit")])
@pytest.mark.parametrize("stage", ["rsft", "hsdpo"])
def test_the_paged_optimizer_trains_4bit_weights_at_the_rate_of_the_stage(
    stage: str, flags: tuple[str, ...], tiny_llama: Path, tiny_rollouts: Path, start: Callable[..., None]
) -> None:
    argv = ["fit", "--config", f"configs/{stage}.yaml", "--config", "configs/model/qlora.yaml", *flags]
    argv += ["--model.backbone.path", str(tiny_llama), f"--recipe.{stage}_lr", "0.002", *QUIET]
    argv += ["--data.source", "tests.support.tiny.TinySource", "--trainer.max_steps", "2"]
    if stage == "hsdpo":
        argv += ["--data.rollouts", f"[{tiny_rollouts}]"]
    made = GuardCLI("fit", argv[1:]).model.optimizer([torch.nn.Parameter(torch.zeros(2))])
    assert type(made).__name__ == "PagedAdamW8bit"
    assert (made.defaults["lr"], made.defaults["weight_decay"]) == (0.002, 0.0)
    assert tuple(made.defaults["betas"]) == ((0.9, 0.95) if stage == "rsft" else (0.9, 0.999))
    start(*argv)
    assert Path("checkpoints/qlora", stage, "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("file", MODELS)
def test_a_model_overlay_builds_and_takes_a_step(
    file: str, tiny_llama: Path, tiny_chat: Path, start: Callable[..., None]
) -> None:
    written = yaml.safe_load((ROOT / file).read_text())
    named = written["recipe"].get("base", "checkpoints/base")  # the default is built by the stage base
    of_a_hub = not named.startswith("checkpoints/")
    assert written.get("auto_build", True) is not of_a_hub
    base = tiny_chat if of_a_hub else tiny_llama
    argv = ["fit", "--config", "configs/rsft.yaml", "--config", file, "--recipe.base", str(base)]
    argv += ["--data.source", "tests.support.tiny.TinySource"]
    cli = GuardCLI("fit", [*argv[1:], *TRIAL])
    cli.model.backbone.load()
    options = written.get("model", {"init_args": {"backbone": {}}})["init_args"]["backbone"]
    network = cli.model.backbone.network
    assert cli.model.backbone.has_adapter == ("lora" in options)
    assert getattr(network, "is_loaded_in_4bit", False) == (options.get("quantization") == "4bit")
    assert cli.model.backbone.prompt_tokenizer.format.chat_template == ("format" in options)
    dtype = getattr(torch, options.get("dtype", "float32"))
    assert (
        network.config.quantization_config.bnb_4bit_compute_dtype if "quantization" in options else network.dtype
    ) == dtype
    start(*argv, *TRIAL)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["configs/model/lora.yaml", "configs/model/llama-3.2-3b-qlora.yaml"])
def test_a_model_overlay_runs_through_the_stages(
    file: str, tiny_llama: Path, tiny_chat: Path, start: Callable[..., None]
) -> None:
    folder = yaml.safe_load((ROOT / file).read_text())["recipe"]["checkpoints"]
    base = tiny_llama if file.endswith("/lora.yaml") else tiny_chat
    changes = ("--config", file, "--recipe.base", str(base), "--data.source", "tests.support.tiny.TinySource", *QUIET)
    start("fit", "--config", "configs/rsft.yaml", *changes, "--data.epochs", "1", "--trainer.logger", "false")
    assert json.loads(Path(folder, "rsft", "adapter_config.json").read_text())["r"] == 16
    write_rollouts(Path("scripted"), TinySource().records("train"))
    rollouts = ("--data.rollouts", "[scripted]", "--trainer.fast_dev_run", "true")
    start("fit", "--config", "configs/hsdpo.yaml", *changes, *rollouts)
    short = ("--model.generator.max_new_tokens", "4", "--trainer.fast_dev_run", "true")
    start("predict", "--config", "configs/mine.yaml", *changes, *short)


@pytest.mark.slow
def test_the_stages_run_one_after_the_other(start: Callable[..., None]) -> None:
    counts = "\n".join(f"        {split}: {count}" for split, count in SMALL.items())
    Path("small.yaml").write_text(
        "hidden_size: 16\nintermediate_size: 24\nlayers: 2\nheads: 2\nkv_heads: 1\nrecipe: {vocabulary: 400}\n"
        "data:\n  init_args:\n    source:\n      class_path: guardreasoner.sources.embedded.Embedded\n"
        f"      init_args:\n{counts}\n"
    )
    start("base-model", "--config", "configs/base.yaml", "--config", "small.yaml")
    small = (*SOURCE, *QUIET, "--trainer.logger", "false")

    start("fit", "--config", "configs/rsft.yaml", *small, "--trainer.fast_dev_run", "true")
    assert not Path("checkpoints/rsft").exists()
    first = ("--data.epochs", "1", "--save_optimizer", "true", "--output", "checkpoints/rsft-1epoch")
    start("fit", "--config", "configs/rsft.yaml", *small, *first)
    assert Path("checkpoints/rsft-1epoch/optimizer.pt").is_file()
    start("fit", "--config", "configs/rsft.yaml", "--config", "configs/rsft_continued.yaml", *small)
    assert json.loads(Path("checkpoints/rsft/manifest.json").read_text())["inputs"].keys() == {
        "checkpoints/rsft-1epoch",
        "checkpoints/rsft-1epoch/optimizer.pt",
    }

    short = ("--recipe.max_new_tokens", "8")
    start("predict", "--config", "configs/mine.yaml", *small, *short)
    train = Embedded(**SMALL).records("train")
    assert {record.id for record in read_records("logs/rollouts/rsft/records.jsonl")} == {r.id for r in train}
    assert len(read_rollouts("logs/rollouts/rsft/rollouts.jsonl")) == 4 * len(train)

    # eight tokens hold no verdict, so the pairs come from scripted outputs
    shutil.rmtree("logs/rollouts/rsft")
    write_rollouts(Path("logs/rollouts/rsft"), train)
    start("fit", "--config", "configs/hsdpo.yaml", *small, "--trainer.fast_dev_run", "true")
    start("fit", "--config", "configs/hsdpo.yaml", *small)
    assert Path("checkpoints/hsdpo/model.safetensors").is_file()
    start("fit", "--config", "configs/grpo.yaml", *small, *short)
    assert Path("checkpoints/grpo/model.safetensors").is_file()

    start("predict", "--config", "configs/hard_set.yaml", *small, *short)
    test = Embedded(**SMALL).records("test")
    assert {record.id for record in read_records("logs/rollouts/hard-set/records.jsonl")} == {r.id for r in test}
    shutil.rmtree("logs/rollouts/hard-set")
    write_rollouts(Path("logs/rollouts/hard-set"), test)
    start("test", "--config", "configs/evaluate.yaml", *small, *short)
    folder = Path("logs/predictions/hsdpo")
    answered = [row for file in folder.rglob("generated_predictions.jsonl") for row in read_jsonl(file)]
    sampled = [row for file in folder.rglob("hard_samples.jsonl") for row in read_jsonl(file)]
    assert len(answered) == len(test)
    assert len(sampled) == 3 * 4  # the second to the fourth record are mixed


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rsft", "hsdpo", "evaluate"])
def test_stages_run_on_the_released_records(
    stage: str, tiny_base: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GUARDREASONER_DATA", str(shared_data))
    command = [*COMMANDS[f"configs/{stage}.yaml"], "--config", "configs/data/released.yaml"]
    verb, *words = [*command, "--model.backbone.path", str(tiny_base), *TRIAL]
    cli = GuardCLI(verb, [*words, "--data.max_length", "100000"] if verb == "fit" else words)
    cli.trainer.strategy.connect(cli.model)
    cli.datamodule.trainer = cli.trainer
    with caplog.at_level(logging.INFO, "guardreasoner"):
        cli.datamodule.setup(verb)
    data, source = cli.datamodule, cli.datamodule.source
    held = {" ".join(record.prompt.casefold().split()) for record in source.records("test")}
    if stage == "evaluate":
        assert {record.source for record in data.records} == {"AegisSafetyTest"}
        assert data.hard
        return
    used = {record.id: record for record in source.records("train")}
    assert {record.source for record in used.values()} == set(source.train)
    assert len(source.train) == 5
    assert not [r.id for r in used.values() if " ".join(r.prompt.casefold().split()) in held]
    examples = [example.id for example in data.train]
    assert examples
    assert set(examples) <= set(used)
    assert len(examples) == len(set(examples)) < len(used)


def test_a_4bit_model_has_the_same_gradients_after_an_evaluation(tiny_llama: Path) -> None:
    argv = ["--config", "configs/rsft.yaml", "--config", "configs/model/qlora.yaml", "--recipe.base", str(tiny_llama)]
    backbone = GuardCLI("fit", [*argv, *TRIAL]).model.backbone
    backbone.load()
    backbone.eval()
    batch = batch_of(backbone.prompt_tokenizer)

    def gradients() -> dict[str, torch.Tensor]:
        backbone.zero_grad()
        backbone.completion_logps(batch).sum().backward()
        return {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}

    before = gradients()
    with torch.no_grad():
        backbone.completion_logps(batch)
    after = gradients()
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, msg=name)
