"""``plan``: tell whether a fit fits into memory, how long it takes and what it costs, before it is paid for."""

import argparse
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.commands._fit_devices import (
    flags_without_gpu,
    mixed_dtype,
    process_count,
    sharded_dtype,
)
from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.workflow.terminal import show_line

if TYPE_CHECKING:
    from guardreasoner.diagnosis.data_sizes import DataSizes
    from guardreasoner.diagnosis.model_shape import ModelShape
    from guardreasoner.diagnosis.run_plan import MemoryModel, Schedule, Settings

HELP = "tell whether a fit fits into memory, how long it takes and what it costs, before it runs"

OVERRIDES = (
    *("--data", "--model", "--trainer", "--recipe", "--output", "--overwrite", "--auto_build", "--allow_contamination"),
    *("--seed_everything", "--save_optimizer"),
)
"""Flags of ``fit``, also dotted ones, to pass on to its parser."""

_UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_MEASURED_STEPS = 4
_DOES_NOT_FIT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        *("-c", "--config"),
        action="append",
        required=True,
        metavar="YAML",
        help="config of a fit (configs/rsft.yaml or configs/hsdpo.yaml), then overlays; takes flags of fit, such as "
        "--data.max_length 300",
    )
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", type=_size, metavar="SIZE", help="memory of one device, such as 24GB or 16GiB")
    parser.add_argument(
        "--device",
        choices=("cpu", "gpu"),
        help="kind of device; default: trainer.accelerator, or where that is auto, gpu if this machine has one or the "
        "weights are 16-bit, else cpu",
    )
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--measure", action="store_true", help=f"run {_MEASURED_STEPS} steps here to measure the rate")
    rate.add_argument(
        "--tokens_per_second",
        type=_positive,
        metavar="N",
        help="rate of one device, as in train/tokens_per_second of an earlier run",
    )
    rate.add_argument("--tflops", type=_positive, metavar="N", help="peak of one device, in 10^12 operations a second")
    parser.add_argument("--mfu", type=_share, default=0.4, metavar="SHARE", help="share of --tflops (default 0.4)")
    parser.add_argument("--price_per_hour", type=_not_negative, metavar="N", help="price of all devices per hour")
    parser.add_argument(
        "--chars_per_token", type=_positive, metavar="N", help="characters per token without the tokenizer (default 4)"
    )
    parser.add_argument(
        "--hard_share", type=_share, metavar="SHARE", help="pairs per record without rollouts (default 0.11)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Plan a fit, print and write the plan.

    Args:
        args: the arguments that :func:`configure` declares, and ``argv``: all flags, including those for ``fit``.

    Returns:
        0, or 1 if the fit does not fit into ``--memory``.

    Raises:
        InputError: a config or value is wrong, the shape of the model is unknown, or a file cannot be written.
    """
    require_files("plan", json=args.json)
    if args.price_per_hour is not None and not (args.measure or args.tokens_per_second or args.tflops):
        raise InputError(
            "plan: --price_per_hour needs a rate", "give --tokens_per_second, --tflops (with --mfu), or --measure"
        )
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_options(own)
    flags = own.parse_known_args(args.argv)[1]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a plan downloads nothing
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    from guardreasoner.report.plan_text import show_plan

    plan = _plan(args, flags)
    show_plan(plan)
    if args.json:
        write(args.json, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    show_line(plan["verdict"])
    return _DOES_NOT_FIT if plan["fits"] is False else 0


def plan_of(flags: list[str], device: str, memory: float | None) -> dict[str, Any]:
    """Return all numbers of the plan of a fit, by name, as ``--json`` writes them.

    Args:
        flags: the arguments of ``fit``.
        device: "cpu" or "gpu".
        memory: bytes of one device; None for no limit.

    Raises:
        InputError: the fit is of a kind that cannot be planned.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_options(own)
    args = own.parse_args(["--device", device])
    args.memory = memory
    return _plan(args, flags)


def _plan(args: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """Return all numbers of the plan, by name."""
    from guardreasoner.cli.lightning_cli import instantiate_fit
    from guardreasoner.diagnosis.data_sizes import CHARACTERS_PER_TOKEN, HARD_SHARE, read_sizes
    from guardreasoner.diagnosis.model_shape import find_shape
    from guardreasoner.diagnosis.run_cost import disk, operations
    from guardreasoner.diagnosis.run_plan import MemoryModel, trained_dtype
    from guardreasoner.diagnosis.step_memory import optimizer_bytes, optimizer_runs
    from guardreasoner.report.plan_text import plan_verdict
    from guardreasoner.training.hsdpo import HSDPOModule
    from guardreasoner.training.rsft import RSFTModule
    from guardreasoner.training.training_data import TrainingDataModule
    from guardreasoner.workflow.config import resolve

    argv = ["fit", *flags]
    config = resolve(argv).config
    trainer = config["trainer"] if isinstance(config.get("trainer"), dict) else {}
    data, module, allowed = instantiate_fit([*flags, *flags_without_gpu(trainer)])
    if not (isinstance(data, TrainingDataModule) and isinstance(module, RSFTModule | HSDPOModule)):
        raise InputError(
            f"plan: cannot plan {type(module).__name__}, only R-SFT and HS-DPO",
            "use the config of a fit, such as rsft.yaml",
        )
    data.allow_contamination = allowed
    shape = find_shape(module.backbone.path, config["recipe"]["base"], argv, module.backbone.base_path)
    settings = _settings(args, trainer, data, module, shape)
    tokenizer = _tokenizer(module.backbone, shape, args.chars_per_token or CHARACTERS_PER_TOKEN)
    sizes = read_sizes(data, tokenizer, HARD_SHARE if args.hard_share is None else args.hard_share)
    schedule_of = _schedules(trainer, data, sizes)
    model = MemoryModel(shape, module.optimizer, schedule_of)
    memory, schedule = model.memory(settings), schedule_of(settings)
    state = optimizer_bytes(module.optimizer, trained_dtype(settings))
    work = operations(shape.config, settings, schedule, memory.parameters)
    seconds, rate_source, peak_here = _seconds(args, flags, schedule, work.total, settings.world)
    mining, mining_note = _mining(flags, settings, model)
    fits = None if args.memory is None else memory.peak <= args.memory
    plan: dict[str, Any] = {
        "model": shape.source,
        "device": settings.device,
        "devices": settings.world,
        "parameters": {
            "total": memory.parameters.base + memory.parameters.adapter,
            "trained": memory.parameters.trained,
        },
        "tuning": settings.tuning,
        "dtype": settings.dtype,
        "mixed": settings.mixed,
        "sharded": settings.sharded,
        "phase": memory.phase,
        "memory": dict(memory.parts),
        "peak_bytes": memory.peak,
        "phases": {name: sum(parts.values()) for name, parts in memory.phases.items()},
        "mining": mining,
        "mining_bytes": None if mining is None else sum(mining.values()),
        "mining_note": mining_note,
        "data": {
            "source": sizes.source,
            "examples": len(sizes.prompts),
            "left_out": sizes.too_long,
            "characters_per_token": sizes.characters,
            "longest": max(sizes.lengths),
            "tokens": schedule.tokens,
            "computed_tokens": schedule.packed_tokens,
            "steps": schedule.steps,
        },
        "has_pairs": any(len(lengths) > 1 for lengths in sizes.completions),
        "skips_too_long": data.skip_too_long,
        "max_length": data.max_length,
        "optimizer_runs_here": optimizer_runs(module.optimizer, trained_dtype(settings)),
        "operations": work.total,
        "seconds": seconds,
        "rate": rate_source,
        "peak_measured_here": peak_here,
        "disk": disk(shape.config, settings, schedule, memory.parameters, state),
        "price": None if args.price_per_hour is None or seconds is None else seconds / 3600 * args.price_per_hour,
        "limit_bytes": args.memory,
        "fits": fits,
        "changes": [],
    }
    if fits is False and args.memory is not None:
        changes, enough = model.changes(settings, args.memory)
        plan["changes"] = [{"flags": one.flags, "effect": one.effect, "peak_bytes": one.peak} for one in changes]
        plan["changes_are_enough"] = enough
    plan["verdict"] = plan_verdict(plan)
    return plan


def _settings(
    args: argparse.Namespace, trainer: Mapping[str, Any], data: Any, module: Any, shape: "ModelShape"
) -> "Settings":
    """Return what determines the memory of a fit."""
    from guardreasoner.diagnosis.run_plan import Settings
    from guardreasoner.model.packing import packed
    from guardreasoner.training.hsdpo import HSDPOModule
    from guardreasoner.training.losses import needs_reference
    from guardreasoner.training.reference import Precomputed

    backbone = module.backbone
    lora = shape.adapter or backbone.lora
    reference, reference_batch = None, 1
    if isinstance(module, HSDPOModule) and needs_reference(module.objective):
        reference = type(module.reference).__name__ if module.reference else "FrozenAdapter" if lora else "FrozenCopy"
        if isinstance(module.reference, Precomputed):
            reference_batch = module.reference.batch_size
    if data.collate is not packed:
        raise InputError("data.collate: plan only knows packed rows (guardreasoner.model.packing.packed)")
    sharded = sharded_dtype(trainer, backbone.dtype)
    if sharded and backbone.quantization:
        raise InputError(
            "trainer.strategy: ShardedStrategy cannot shard 4-bit weights",
            "use configs/trainer/ddp.yaml, or leave model.backbone.quantization out",
        )
    if sharded and reference in ("FrozenCopy", "FrozenAdapter"):
        raise InputError(
            f"model.reference: {reference} does not work with sharded weights", "use guardreasoner.Precomputed"
        )
    device = args.device or _device(str(trainer.get("accelerator", "auto")), backbone)
    return Settings(
        dtype=backbone.dtype,
        quantization=backbone.quantization,
        lora=lora,
        checkpointing=backbone.gradient_checkpointing,
        batch_size=data.batch_size,
        micro_batch_size=data.micro_batch_size or data.batch_size,
        micro_batch_tokens=data.micro_batch_tokens,
        max_length=data.max_length,
        reference=reference,
        reference_batch=reference_batch,
        dropout=not isinstance(module, HSDPOModule),
        world=process_count(trainer, device),
        device=device,
        mixed=mixed_dtype(trainer),
        sharded=sharded,
    )


def _device(accelerator: str, backbone: Any) -> str:
    if accelerator != "auto":
        return "cpu" if accelerator == "cpu" else "gpu"
    import torch

    is_small = backbone.dtype != "float32"
    return "gpu" if torch.cuda.is_available() or is_small else "cpu"


def _tokenizer(backbone: Any, shape: "ModelShape", characters: float) -> Any:
    """Return the model's tokenizer, or one that counts characters if there is none here."""
    from guardreasoner.diagnosis.data_sizes import CharacterTokenizer

    if shape.folder is not None:
        found = backbone.unloaded()
        found.path = shape.folder
        try:
            return found.prompt_tokenizer
        except InputError:
            if Path(shape.folder, "tokenizer.json").is_file() or Path(shape.folder, "tokenizer_config.json").is_file():
                raise  # it is here and faulty
    return CharacterTokenizer(backbone.configured_format, characters)


def _schedules(trainer: Mapping[str, Any], data: Any, sizes: "DataSizes") -> "Callable[[Settings], Schedule]":
    """Return a function that makes the steps of a fit with changed settings."""
    from guardreasoner.diagnosis.run_plan import Schedule

    def limit_of(total: int) -> int:
        limits = [total]
        batches, steps = trainer.get("limit_train_batches"), trainer.get("max_steps", -1)
        if isinstance(batches, int | float) and not isinstance(batches, bool):
            limits.append(batches if isinstance(batches, int) else int(total * batches))
        if isinstance(steps, int) and steps >= 0:
            limits.append(steps)
        return max(1, min(limits))

    @cache
    def made(max_length: int) -> Schedule:
        kept = sizes.shortened(max_length)
        if not kept.prompts:
            raise InputError(f"data: no training example of at most data.max_length {max_length} tokens")
        total = -(-len(kept.prompts) // data.batch_size) * (data.epochs - data.start_epoch)
        options = data.batch_size, data.epochs, data.start_epoch, data.seed, data.bucket_steps
        return Schedule(kept, *options, limit=limit_of(total))

    return lambda settings: made(settings.max_length)


def _seconds(
    args: argparse.Namespace, flags: list[str], schedule: "Schedule", operations: float, world: int
) -> tuple[float | None, str | None, int | None]:
    """Return the seconds of a fit, where the rate comes from, and the peak memory of the steps that ran here."""
    if args.tokens_per_second:
        source = f"stated: {args.tokens_per_second:,.0f} tokens/s a device"
        return schedule.tokens / args.tokens_per_second / world, source, None
    if args.tflops:
        source = f"stated: {args.tflops:g} TFLOP/s a device, MFU {args.mfu:g}"
        return operations / (args.tflops * 1e12 * args.mfu * world), source, None
    if args.measure:
        rate, peak = _measured(flags)
        source = f"measured here in {_MEASURED_STEPS - 1} steps: {rate:,.0f} tokens/s"
        return schedule.tokens / rate / world, source, peak
    return None, None, None


def _measured(flags: list[str]) -> tuple[float, int]:
    """Run a few steps of the fit; return tokens per second without the first step, and the peak memory in bytes."""
    from guardreasoner.callbacks.throughput import StepTimer
    from guardreasoner.cli.lightning_cli import GuardCLI
    from guardreasoner.cli.log_output import show_log

    show_log()
    steps = ["--trainer.fast_dev_run", str(_MEASURED_STEPS), "--trainer.limit_val_batches", "0"]
    cli = GuardCLI("fit", [*flags, *steps, "--trainer.enable_progress_bar", "false"])
    timer = StepTimer()
    cli.trainer.callbacks.append(timer)  # type: ignore[attr-defined]
    cli.run()
    return timer.tokens / timer.seconds, timer.peak


def _mining(
    flags: Sequence[str], settings: "Settings", model: "MemoryModel"
) -> tuple[dict[str, float] | None, str | None]:
    """Return the memory of mining with the local engine by part, or None and the reason why it is not planned."""
    import torch

    from guardreasoner.diagnosis.run_plan import Mining
    from guardreasoner.generators.local import prefill_tokens
    from guardreasoner.generators.paged_states import page_tokens
    from guardreasoner.workflow.config import config_files, resolve
    from guardreasoner.workflow.config import flags as flags_of

    if settings.sharded:
        return None, "not planned: ShardedStrategy only trains; plan mining with another overlay of configs/trainer"
    argv = ["fit", *flags]
    words = ["predict", "--config", "configs/mine.yaml"]
    words += [word for file in config_files(argv)[1:] for word in ("--config", file)]
    words += [f"--{name}={value}" for name, value in flags_of(argv) if name.startswith("recipe.")]
    try:
        module = resolve(words).config["model"]["init_args"]
        generator = str(module["generator"].get("class_path"))
        if not generator.endswith("LocalGenerator"):
            return None, f"not planned: {generator} is not the local engine"
        options = module["generator"]["init_args"]
        mining = Mining(
            k=module["k"],
            batch_size=options["batch_size"],
            max_new_tokens=options["max_new_tokens"],
            max_cache_tokens=options["max_cache_tokens"],
            workers=options.get("workers") or (torch.get_num_threads() if settings.device == "cpu" else 1),
            dtype=module["backbone"]["dtype"],
            page=page_tokens(on_cpu=settings.device == "cpu"),
            prefill=prefill_tokens(on_cpu=settings.device == "cpu"),
        )
    except InputError as error:
        return None, f"not planned: {error}"
    except (KeyError, TypeError, AttributeError):  # an overlay of the fit does not apply to mining
        return None, "not planned: these configs, with configs/mine.yaml, do not describe a run of mining"
    return dict(model.mining(settings, mining)), None


def _size(text: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if not found or found[2].upper() not in _UNITS or not float(found[1]):
        units = "MB, GB, TB, MiB, GiB or TiB"
        raise argparse.ArgumentTypeError(f"expected a size above 0 with a unit ({units}), such as 24GB, got {text!r}")
    return float(found[1]) * _UNITS[found[2].upper()]


def _number(text: str, accept: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and accept(value)):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def _positive(text: str) -> float:
    return _number(text, lambda value: value > 0, "a number above 0")


def _not_negative(text: str) -> float:
    return _number(text, lambda value: value >= 0, "a number of at least 0")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 < value <= 1, "a share above 0 and at most 1")
