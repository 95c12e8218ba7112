"""LightningCLI for fit, validate, test and predict, with this project's keys, callbacks and error messages."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ActionYesNo
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from guardreasoner.callbacks import (
    HardSampleAccuracy,
    MiningFindings,
    PredictionWriter,
    RolloutWriter,
    SampleTexts,
    Throughput,
)
from guardreasoner.cli import LIGHTNING
from guardreasoner.cli.parse_errors import accept_old_names, config_error, find_input_error
from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import origin
from guardreasoner.mining.findings import HasFindings
from guardreasoner.moved import current_argv
from guardreasoner.records import HasRecords
from guardreasoner.synthesis import EstimatesCost, WritesOutput
from guardreasoner.training.training_data import TrainingDataModule
from guardreasoner.workflow.recipe import Recipe

_UNSUPPORTED = {
    "accumulate_grad_batches": "data.batch_size (a step) and data.micro_batch_size (computed at once)",
    "gradient_clip_val": "model.max_grad_norm",
}
"""Trainer settings that need automatic optimization, and the settings to use instead."""


class ParserError(Exception):
    """An error message of the parser, of many lines."""


log = logging.getLogger("guardreasoner")


class GuardParser(LightningArgumentParser):
    """A parser that raises ``ParserError`` instead of printing its usage; outer parsers extend the inner message."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ``ParserError``."""
        raise ParserError(message) from ex


class GuardCLI(LightningCLI):
    """Run one trainer verb, with the keys ``output``, ``auto_build`` and ``recipe`` beside Lightning's.

    The parser knows one verb, not all four subcommands: help is faster, and ``${recipe.base}`` has the same meaning in
    every config.

    Args:
        verb: fit, validate, test or predict.
        argv: the arguments after the verb.
        parse_only: only parse the config, instantiate nothing.
    """

    def __init__(self, verb: str, argv: list[str], parse_only: bool = False) -> None:
        self.verb = verb
        self.parse_only = parse_only
        accept_old_names()
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"max_epochs": 1, "use_distributed_sampler": False},
            parser_class=GuardParser,
            parser_kwargs={
                "parser_mode": "omegaconf+",
                "allow_abbrev": False,
                "prog": f"python -m guardreasoner {verb}",
                "description": LIGHTNING[verb],
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            run=False,
            args=current_argv([verb, *argv])[1:],
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; raise ``InputError`` with the innermost cause and, for an unknown key, a suggestion."""
        try:
            super().parse_arguments(parser, args)
        except ParserError as error:
            raise config_error(str(error), parser, [self.verb, *args]) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this project's keys and the arguments of the verb."""
        skip: set[str | int] = {*self.subcommands()[self.verb]}
        self.verb_arguments = parser.add_method_arguments(Trainer, self.verb, skip=skip)
        if self.verb == "predict":
            parser.set_defaults({"return_predictions": False})  # they are written while they are generated
        if self.verb in ("test", "validate"):
            parser.set_defaults({"verbose": False})
        parser.add_argument(
            "--output", type=str | None, default=None, help="folder to write: the model, rollouts or predictions"
        )
        parser.add_argument(
            "--auto_build",
            type=bool,
            default=True,
            help="build missing and outdated inputs first (configs/pipeline.yaml)",
        )
        parser.add_argument(
            "--allow_contamination",
            action=ActionYesNo(),
            nargs="?",
            default=False,
            help="allow training records that also occur in a benchmark; recorded in every manifest that depends on it",
        )
        if self.verb == "predict":
            parser.add_argument(
                "--dry_run", action=ActionYesNo(), nargs="?", default=False, help="only estimate the cost of the run"
            )
        if self.verb == "fit":
            parser.add_argument(
                "--save_optimizer",
                type=bool,
                default=False,
                help="save optimizer.pt with the model, to continue training from it",
            )
        parser.add_class_arguments(Recipe, "recipe", instantiate=False)

    def before_instantiate_classes(self) -> None:
        """Name the TensorBoard run after the output unless the config names it."""
        logger = self.config.trainer.logger
        if self.config.output and "init_args" in (logger or {}) and logger.init_args.get("name") == "lightning_logs":
            logger.init_args.name = f"{self.verb}/{Path(self.config.output).name}"

    def instantiate_classes(self) -> None:
        """Instantiate data module, module and trainer."""
        if not self.parse_only:
            try:
                super().instantiate_classes()
            except ValueError as error:
                raise find_input_error(error) or error from error
            if isinstance(self.datamodule, TrainingDataModule):
                self.datamodule.allow_contamination = self.config.allow_contamination

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks of the verb."""
        config = self.config_init.trainer
        for name, instead in _UNSUPPORTED.items():
            if config[name] not in (None, 1):
                raise InputError(f"trainer.{name}: not supported, got {config[name]}", f"set {instead} instead")
        if config.use_distributed_sampler:
            raise InputError(
                "trainer.use_distributed_sampler: not supported, got true",
                "data and models share the records among the processes themselves",
            )
        callbacks = list(config.callbacks or [])
        # Such a module writes each answer when it arrives, which a callback after each batch could not.
        model = self.model
        writes_itself = self._is_dry_run or (isinstance(model, WritesOutput) and model.writes_output)
        if self.verb == "fit":
            callbacks += [Throughput(), SampleTexts()]
            if isinstance(self.datamodule, HasFindings):
                callbacks.append(MiningFindings())
        if self.verb == "test":
            callbacks += [HardSampleAccuracy(), SampleTexts()]
        if self.config.output and not config.fast_dev_run:
            if self.verb == "test":
                callbacks.append(PredictionWriter(self.config.output, self.config.ckpt_path))
            if self.verb == "predict" and not writes_itself:
                callbacks.append(RolloutWriter(self.config.output, self.config.ckpt_path))
        shows_progress = writes_itself or any(isinstance(callback, RolloutWriter) for callback in callbacks)
        if config.enable_progress_bar is not False and not shows_progress:
            callbacks.append(RichProgressBar())
        if shows_progress:
            kwargs["enable_progress_bar"] = False
        if config.logger is False or self._is_dry_run:
            self.save_config_callback = None  # the run has no folder to save it in
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def run(self) -> None:
        """Run the verb and, after a fit, export the model."""
        arguments = {name: self.config[name] for name in self.verb_arguments}
        module = self._estimator() if self._is_dry_run else self.model
        getattr(self.trainer, self.verb)(module, datamodule=self.datamodule, **arguments)
        if self.verb in ("test", "validate"):
            self._report_metrics()
        if self.verb == "fit" and self.config.output and not self.config.trainer.fast_dev_run:
            self._export(self.config.output)

    @property
    def _is_dry_run(self) -> bool:
        return self.verb == "predict" and self.config.dry_run

    def _estimator(self) -> LightningModule:
        """Return the module that runs instead of the configured one in a dry run."""
        if not isinstance(self.model, EstimatesCost):
            raise InputError(f"--dry_run: {type(self.model).__name__} cannot estimate its cost")
        return self.model.estimator()

    def _report_metrics(self) -> None:
        values = {name.split("/", 1)[1]: float(value) for name, value in self.trainer.logged_metrics.items()}
        log.info("%s", ", ".join(f"{name.split('/dataloader')[0]} {value:.4f}" for name, value in values.items()))
        if self.config.output:
            records = self.datamodule.records if isinstance(self.datamodule, HasRecords) else ()
            attacks = any(map(origin, records))
            command = f"python -m guardreasoner {'robustness' if attacks else 'score'} {self.config.output}"
            log.info("written to %s; %s", self.config.output, command)

    def _export(self, output: str) -> None:
        """Write the trained model as a Hugging Face folder."""
        if self.trainer.is_global_zero:
            self.model.backbone.save(output)
            if self.config.save_optimizer:
                torch.save(self.trainer.optimizers[0].state_dict(), Path(output) / "optimizer.pt")


def check_config(argv: list[str]) -> None:
    """Parse the config of a Lightning verb without instantiating anything.

    Args:
        argv: verb and flags.

    Raises:
        InputError: a key or value is wrong.
    """
    _quiet()
    GuardCLI(argv[0], argv[1:], parse_only=True)


def instantiate_fit(argv: list[str]) -> tuple[LightningDataModule, Any, bool]:
    """Return the data module and the module of a fit, and whether ``allow_contamination`` is set.

    This creates no trainer, loads no weights and writes nothing.

    Args:
        argv: the arguments after the verb.

    Raises:
        InputError: a key or value is wrong.
    """
    _quiet()
    cli = GuardCLI("fit", argv, parse_only=True)
    config = cli.config.clone()
    for name in ("logger", "callbacks", "plugins", "profiler"):
        config.trainer[name] = None  # they may need a service or a folder that only a run has
    try:
        instantiated = cli.parser.instantiate_classes(config)
    except ValueError as error:
        raise find_input_error(error) or error from error
    return instantiated.data, instantiated.model, bool(config.allow_contamination)


def run_lightning(argv: list[str]) -> None:
    """Run a Lightning verb.

    Args:
        argv: verb and flags.

    Raises:
        InputError: a user error, such as a wrong key or a missing file.
    """
    _quiet()
    try:
        GuardCLI(argv[0], argv[1:]).run()
    except MisconfigurationException as error:
        raise InputError(str(error).splitlines()[0]) from error


def _quiet() -> None:
    """Show this project's log lines; hide library warnings that a user cannot act on."""
    for name in ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in (
        "does not have many workers",
        "Total length of .DataLoader. across ranks is zero",
        "LeafSpec",
        "LightningCLI's args parameter",
        "log_every_n_steps",
        "overridden `transfer_batch",
        "in eval mode at the start",
    ):
        warnings.filterwarnings("ignore", f".*{message}")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    show_log()


def show_log() -> None:
    """Print this project's log lines to stdout."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
