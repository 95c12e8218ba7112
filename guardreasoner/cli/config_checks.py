"""Check the values of a parsed config before anything is built, loaded or tokenized.

jsonargparse checks types. This adds what types do not say: ranges of numbers, values that contradict each other, and
what Lightning and torch would refuse later. Each error names the file and line, the key, the value and what is
expected.
"""

import importlib
import inspect
import math
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.imports import RequirementCache
from yaml import YAMLError

from guardreasoner.callbacks import Throughput
from guardreasoner.cli.machine_checks import check_machine
from guardreasoner.cli.source_splits import may_have_split
from guardreasoner.errors import InputError
from guardreasoner.tasks import Task
from guardreasoner.training.grpo import GRPOModule
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.rsft import RSFTModule
from guardreasoner.training.training_data import TrainingDataModule
from guardreasoner.workflow.config import flags, locate
from guardreasoner.workflow.ranges import hint_members, ranges_of
from guardreasoner.workflow.recipe import Recipe
from guardreasoner.workflow.recipe_conflicts import recipe_conflicts
from guardreasoner.workflow.strict_yaml import NotFinite, parse_yaml

_UNSUPPORTED = {
    "accumulate_grad_batches": (1, "data.batch_size (a step) and data.micro_batch_size (computed at once)"),
    "gradient_clip_val": (None, "model.max_grad_norm"),
}
"""Trainer settings that need automatic optimization: the only value, and the settings to use instead."""

_FLOAT16_MIXED = ("16", "16-mixed")
"""Precisions that scale the loss, which the clipping of gradients and the shared prefix do not know."""

TRUE_HALF = {"bf16-true": "bfloat16", "16-true": "float16"}
"""Precisions of the trainer with half-precision weights, and the ``model.backbone.dtype`` that they mean."""

_LARGEST_TRAINER_SEED = 2**32 - 1
"""Lightning also seeds numpy, which takes 32 bits."""


def check_values(config: Namespace, argv: Sequence[str]) -> None:
    """Check a parsed config of a Lightning verb.

    Args:
        config: the config, whose classes are not instantiated.
        argv: verb and flags that it was parsed from.

    Raises:
        InputError: a value is wrong.
    """
    checks = _Checks(config, argv)
    checks.numbers()
    checks.tasks()
    checks.recipe()
    checks.seed()
    checks.checkpoint()
    checks.sampling()
    checks.split()
    checks.epochs()
    checks.trainer()
    checks.monitors()
    checks.optimizer()


def check_flags(argv: Sequence[str]) -> None:
    """Check that the numbers among the flags of a command are finite.

    Args:
        argv: verb and flags.

    Raises:
        InputError: a number is NaN or infinite.
    """
    for name, text in flags(argv):
        try:
            parse_yaml(text or "")
        except NotFinite as error:
            raise InputError(f"--{name}: {error.problem}") from None
        except YAMLError:
            continue  # not YAML, so plain text


def check_numbers(config: Namespace, argv: Sequence[str], function: Any = None) -> None:
    """Check only that all numbers of a config are finite and in the ranges that signatures declare.

    Args:
        config: the config, whose classes are not instantiated.
        argv: verb and flags that it was parsed from.
        function: function whose arguments are top-level keys of the config.

    Raises:
        InputError: a number is wrong.
    """
    _Checks(config, argv).numbers(function)


class _Checks:
    """The checks; each raises ``InputError`` at the first fault."""

    def __init__(self, config: Namespace, argv: Sequence[str]) -> None:
        self.config = config
        self.argv = argv
        self.verb = argv[0]

    def numbers(self, function: Any = None) -> None:
        hints = {**(_hints(function) if function else {}), "recipe": Recipe}
        # The recipe first: where a wrong value was interpolated, the error should name the key to change.
        keys = sorted(vars(self.config), key=lambda name: name != "recipe")
        for key in keys:
            for path, value, hint in _numbers(self.config[key], hints.get(key), key):
                if isinstance(value, float) and not math.isfinite(value):
                    raise self._error(path, value, "a finite number")
                for allowed in ranges_of(hint):
                    if not allowed.allows(value):
                        raise self._error(path, value, allowed.expected)

    def tasks(self) -> None:
        for task in self.config.recipe.tasks or []:
            try:
                if isinstance(task, Namespace):
                    Task(**vars(task))
            except InputError as error:
                raise InputError(f"{locate(self.argv, 'recipe.tasks')}recipe.tasks: {error}", error.hint) from None

    def recipe(self) -> None:
        for conflict in recipe_conflicts(self.argv):
            if conflict.by_flags:
                raise InputError(
                    f"--{conflict.key} {conflict.value} and --recipe.{conflict.name} "
                    f"{conflict.recipe_value} set the same value",
                    "give one of them",
                )
            print(f"warning: {conflict}", file=sys.stderr)

    def seed(self) -> None:
        seed = self.config.get("seed_everything")
        if isinstance(seed, int) and not isinstance(seed, bool) and not 0 <= seed <= _LARGEST_TRAINER_SEED:
            raise self._error("seed_everything", seed, f"a whole number from 0 to {_LARGEST_TRAINER_SEED}")

    def checkpoint(self) -> None:
        path = self.config.get("ckpt_path")
        if path is not None and not os.path.isfile(path):
            raise self._error("ckpt_path", path, "an existing checkpoint file")

    def sampling(self) -> None:
        """Refuse k equal outputs of each record, of which none could be mixed."""
        k = self.config.get("model.init_args.k")
        samples = self.verb != "test" or self.config.get("data.init_args.rollouts")
        key, engine = "model.init_args.generator", self.config.get("model.init_args.generator")
        while isinstance(engine, Namespace) and isinstance(engine.get("init_args.engine"), Namespace):
            key, engine = f"{key}.init_args.engine", engine.get("init_args.engine")
        if samples and isinstance(k, int) and k > 1 and isinstance(engine, Namespace):
            temperature = engine.get("init_args.temperature")
            if temperature == 0:
                raise self._error(
                    f"{key}.init_args.temperature",
                    temperature,
                    f"a number above 0, since model.k is {k}",
                    "greedy outputs of a record are all equal; set model.k 1 or raise the temperature",
                )

    def split(self) -> None:
        """Refuse a split that has no records, before the hard set of such a test is sampled."""
        split, source = self.config.get("data.init_args.split"), self.config.get("data.init_args.source")
        if self.verb in ("test", "predict") and isinstance(split, str) and not may_have_split(source, split):
            raise InputError(
                f"{locate(self.argv, 'data.source')}data.source: the {split} split is empty",
                f"set data.source.{split}, or data.source.{split}_share to take it from the training files",
            )

    def epochs(self) -> None:
        data = self.config.get("data.init_args") or Namespace()
        start, epochs = data.get("start_epoch"), data.get("epochs")
        if isinstance(start, int) and isinstance(epochs, int) and start >= epochs:
            raise self._error("data.init_args.start_epoch", start, f"a whole number below data.epochs, {epochs}")
        module = _imported(self.config.get("data.class_path"))
        if self.verb == "fit" and inspect.isclass(module) and issubclass(module, TrainingDataModule):
            max_epochs = self.config.trainer.max_epochs
            if max_epochs != 1:
                raise self._error(
                    "trainer.max_epochs",
                    max_epochs,
                    "1: the loader yields the steps of all epochs",
                    "set data.epochs instead",
                )

    def trainer(self) -> None:
        """Create a trainer without what only a run has: it refuses wrong combinations of its arguments."""
        config = self.config.trainer
        self._strategy(config.strategy)
        check_machine(config, locate(self.argv, "trainer.accelerator"))
        for name, (default, instead) in _UNSUPPORTED.items():
            if config[name] not in (None, default):
                raise self._error(f"trainer.{name}", config[name], f"no value but {default}", f"set {instead} instead")
        if isinstance(config.log_every_n_steps, int) and config.log_every_n_steps < 1:
            raise self._error("trainer.log_every_n_steps", config.log_every_n_steps, "a whole number of at least 1")
        for logger in config.logger if isinstance(config.logger, list) else [config.logger]:
            if isinstance(logger, Namespace) and (missing := _missing_package(logger.class_path)):
                raise self._error("trainer.logger", logger.class_path, f"an installed package: {missing}")
        if self.argv[0] == "fit" and str(config.precision) in _FLOAT16_MIXED:
            raise self._error("trainer.precision", config.precision, "bf16-mixed, 32-true or bf16-true")
        if any(isinstance(value, Namespace) for value in (config.strategy, config.accelerator)):
            return  # objects, which the run creates
        backbone = self.config.get("model.init_args.backbone") or Namespace()
        dtype = backbone.get("init_args.dtype") or backbone.get("dtype")
        meant = TRUE_HALF.get(config.precision)
        if meant and dtype not in (None, "float32", meant):
            raise self._error(
                "trainer.precision", config.precision, f"one that agrees with model.backbone.dtype, {dtype}"
            )
        given = {name: value for name, value in vars(config).items() if _is_plain(value)}
        if error := _trainer_error(given):
            defaults = inspect.signature(Trainer.__init__).parameters
            # The argument without which there is no error.
            cause = next((n for n in given if not _trainer_error({**given, n: defaults[n].default})), None)
            key = "trainer" if cause is None else f"trainer.{cause}"
            raise InputError(f"{locate(self.argv, key)}{key}: {_first_line(error)}") from error

    def _strategy(self, strategy: Any) -> None:
        """Refuse strategies under which the training step does not see whole gradients, such as FSDP1 and DeepSpeed."""
        name = strategy.class_path if isinstance(strategy, Namespace) and "class_path" in strategy else str(strategy)
        if any(
            word in name.lower() for word in ("fsdp", "deepspeed", "modelparallel")
        ):  # ModelParallelStrategy leaves the sharding to the module
            raise self._error(
                "trainer.strategy",
                name,
                "auto, ddp or guardreasoner.ShardedStrategy",
                "configs/trainer/fsdp2.yaml divides weights, gradients and optimizer state, as FSDP and ZeRO-3 do",
            )

    def monitors(self) -> None:
        """Refuse callbacks that watch a value which this module never logs."""
        module = _imported(self.config.get("model.class_path"))
        if module not in (RSFTModule, HSDPOModule, GRPOModule):
            return
        logged = sorted({*module.LOGGED, *Throughput.LOGGED})
        for callback in self.config.trainer.callbacks or []:
            monitor = callback.get("init_args.monitor") if isinstance(callback, Namespace) else None
            if monitor is not None and monitor not in logged:
                raise self._error("trainer.callbacks.monitor", monitor, f"a logged value: {', '.join(logged)}")

    def optimizer(self) -> None:
        """Create the optimizer for one weight: it knows the ranges of its arguments."""
        key, config = "model.init_args.optimizer", self.config.get("model.init_args.optimizer")
        cls = _imported(config.class_path) if isinstance(config, Namespace) and "class_path" in config else None
        if cls is None:
            return
        arguments = vars(config.get("init_args") or Namespace())
        lr = arguments.get("lr")
        if isinstance(lr, int | float) and not lr > 0:
            raise self._error(f"{key}.init_args.lr", lr, "a number above 0")
        try:
            cls([torch.nn.Parameter(torch.zeros(1))], **arguments)
        except (ValueError, TypeError) as error:
            raise InputError(f"{locate(self.argv, key)}{key}: {_first_line(error)}") from error

    def _error(self, key: str, value: Any, expected: str, hint: str | None = None) -> InputError:
        return InputError(f"{locate(self.argv, key)}{key}: expected {expected}, got {value}", hint)


def _numbers(value: Any, hint: Any, key: str) -> Iterator[tuple[str, int | float, Any]]:
    """Yield (dotted key, number, type hint) for each number below a value of a config."""
    if isinstance(value, Namespace | dict):
        items = dict(value) if isinstance(value, dict) else vars(value)
        if "class_path" in items:
            hints = _hints(_imported(items["class_path"]))
            for part in ("init_args", "dict_kwargs"):
                arguments = items.get(part) or {}
                arguments = vars(arguments) if isinstance(arguments, Namespace) else arguments
                for name, inner in arguments.items():
                    yield from _numbers(inner, hints.get(name), f"{key}.{part}.{name}")
        else:
            hints = next((_hints(one) for one in hint_members(hint) if inspect.isclass(one) and is_dataclass(one)), {})
            for name, inner in items.items():
                yield from _numbers(inner, hints.get(name), f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, hint, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value, hint


@cache
def _hints(target: Any) -> dict[str, Any]:
    """Return the type hints of the arguments of a class, with those that it passes on to its parents, or a function."""
    if not inspect.isclass(target):
        return _own_hints(target)
    hints: dict[str, Any] = {}
    for cls in inspect.getmro(target):
        own = _own_hints(cls) if is_dataclass(cls) else _own_hints(vars(cls).get("__init__"))
        hints = {**own, **hints}
    return hints


def _own_hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (TypeError, NameError):
        return {}  # no signature, or names that only a type checker imports


def _imported(path: Any) -> Any:
    """Return the object of a dotted path; None if it cannot be imported, which the parser has reported."""
    module, _, name = str(path or "").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None


def _is_plain(value: Any) -> bool:
    """Return whether a value of the trainer is a number or text, not a class that may open a folder or connection."""
    return value is None or isinstance(value, bool | int | float | str)


def _trainer_error(arguments: dict[str, Any]) -> Exception | None:
    """Return why a trainer cannot be created; None if it can."""
    try:
        Trainer(**{**arguments, "logger": False, "enable_progress_bar": False})
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        return error
    return None


def _missing_package(class_path: str) -> str | None:
    """Return why a logger of Lightning lacks its package; None if it does not."""
    module = sys.modules.get(class_path.rpartition(".")[0])
    if not class_path.startswith("lightning.pytorch.loggers.") or module is None:
        return None
    module = sys.modules.get(getattr(_imported(class_path), "__module__", ""), module)
    # The first requirement of the module is the logger's own package; further ones belong to options.
    needed = next((value for value in vars(module).values() if isinstance(value, RequirementCache)), None)
    return None if needed is None or needed else str(needed).splitlines()[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
