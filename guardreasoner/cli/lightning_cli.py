"""LightningCLI for fit, validate, test and predict: what it adds to Lightning's own."""

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
from guardreasoner.cli.parse_errors import accept_old_names, config_error, find_input_error
from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import origin
from guardreasoner.mining.findings import HasFindings
from guardreasoner.moved import current_argv
from guardreasoner.records import HasRecords
from guardreasoner.synthesis import EstimatesCost, WritesOutput
from guardreasoner.training.training_data import TrainingDataModule
from guardreasoner.workflow.recipe import Recipe

_NOT_OURS = {
    "accumulate_grad_batches": "data.batch_size (a step) and data.micro_batch_size (computed at once)",
    "gradient_clip_val": "model.max_grad_norm",
}
"""Trainer settings of automatic optimization, and what takes their place."""


class ParserError(Exception):
    """What the parser has to say, over many lines."""


log = logging.getLogger("guardreasoner")


class GuardParser(LightningArgumentParser):
    """A parser that raises its errors instead of printing its usage; parsers within it add to the message."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ``ParserError``."""
        raise ParserError(message) from ex


class GuardCLI(LightningCLI):
    """One verb of the trainer, with ``output``, ``auto_build`` and ``recipe`` beside Lightning's own keys.

    It parses for its verb alone, not for all four: help is faster, and ``${recipe.base}`` means the same in every
    config.

    Args:
        verb: fit, validate, test or predict.
        words: the arguments after the verb.
        parse_only: read the config and make nothing of it.
    """

    def __init__(self, verb: str, words: list[str], parse_only: bool = False) -> None:
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
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            run=False,
            args=current_argv([verb, *words])[1:],
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; an error names the innermost cause and, for a misspelt key, the nearest right one."""
        try:
            super().parse_arguments(parser, args)
        except ParserError as error:
            raise config_error(str(error), parser, [self.verb, *args]) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our keys and those of the verb."""
        skip: set[str | int] = {*self.subcommands()[self.verb]}
        self.verb_arguments = parser.add_method_arguments(Trainer, self.verb, skip=skip)
        if self.verb == "predict":
            parser.set_defaults({"return_predictions": False})  # they are written as they come
        if self.verb in ("test", "validate"):
            parser.set_defaults({"verbose": False})
        parser.add_argument("--output", type=str | None, default=None, help="model folder, rollouts or predictions")
        parser.add_argument(
            "--auto_build", type=bool, default=True, help="build what is missing (configs/pipeline.yaml)"
        )
        parser.add_argument(
            "--allow_contamination",
            action=ActionYesNo(),
            nargs="?",
            default=False,
            help="train or mine on records that a benchmark of the run holds; stamped on all that is made from it",
        )
        if self.verb == "predict":
            parser.add_argument(
                "--dry_run", action=ActionYesNo(), nargs="?", default=False, help="say what a run would cost"
            )
        if self.verb == "fit":
            parser.add_argument(
                "--save_optimizer", type=bool, default=False, help="keep optimizer.pt, to continue from"
            )
        parser.add_class_arguments(Recipe, "recipe", instantiate=False)

    def before_instantiate_classes(self) -> None:
        """Name the run's curves after what it makes, where the config does not."""
        logger = self.config.trainer.logger
        if self.config.output and "init_args" in (logger or {}) and logger.init_args.get("name") == "lightning_logs":
            logger.init_args.name = f"{self.verb}/{Path(self.config.output).name}"

    def instantiate_classes(self) -> None:
        """Make data module, module and trainer."""
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
        for name, instead in _NOT_OURS.items():
            if config[name] not in (None, 1):
                raise InputError(f"trainer.{name} is not used here, got {config[name]}", f"set {instead} instead")
        callbacks = list(config.callbacks or [])
        # a module with a stream of its own knows better than a callback what is done, and keeps it as it comes
        model = self.model
        writes_by_itself = self._is_dry_run or (isinstance(model, WritesOutput) and model.writes_output)
        if self.verb == "fit":
            callbacks += [Throughput(), SampleTexts()]
            if isinstance(self.datamodule, HasFindings):
                callbacks.append(MiningFindings())
        if self.verb == "test":
            callbacks += [HardSampleAccuracy(), SampleTexts()]
        if self.config.output and not config.fast_dev_run:
            if self.verb == "test":
                callbacks.append(PredictionWriter(self.config.output))
            if self.verb == "predict" and not writes_by_itself:
                callbacks.append(RolloutWriter(self.config.output))
        shows_by_itself = writes_by_itself or any(isinstance(callback, RolloutWriter) for callback in callbacks)
        if config.enable_progress_bar is not False and not shows_by_itself:
            callbacks.append(RichProgressBar())
        if shows_by_itself:
            kwargs["enable_progress_bar"] = False
        if config.logger is False or self._is_dry_run:
            self.save_config_callback = None  # there is no folder of the run to keep it in
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def run(self) -> None:
        """Run the verb and, after a fit, export the model."""
        arguments = {name: self.config[name] for name in self.verb_arguments}
        module = self._estimator() if self._is_dry_run else self.model
        getattr(self.trainer, self.verb)(module, datamodule=self.datamodule, **arguments)
        if self.verb in ("test", "validate"):
            self._say_what_was_measured()
        if self.verb == "fit" and self.config.output and not self.config.trainer.fast_dev_run:
            self._export(self.config.output)

    @property
    def _is_dry_run(self) -> bool:
        return self.verb == "predict" and self.config.dry_run

    def _estimator(self) -> LightningModule:
        """Return what the module puts in its own place when nothing shall be sent or written."""
        if not isinstance(self.model, EstimatesCost):
            raise InputError(f"--dry_run: {type(self.model).__name__} has no estimate to give", "run it without")
        return self.model.estimator()

    def _say_what_was_measured(self) -> None:
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
    """Parse a Lightning verb's config, and make nothing.

    Raises:
        InputError: a key or value is wrong.
    """
    _quiet()
    GuardCLI(argv[0], argv[1:], parse_only=True)


def fitted_on(argv: list[str]) -> tuple[LightningDataModule, Any, bool]:
    """Return data module and module of a fit, and whether it may train on what a benchmark holds.

    No trainer is made, no weights are loaded, nothing is written.

    Args:
        argv: the words after the verb.

    Raises:
        InputError: a key or value is wrong.
    """
    _quiet()
    cli = GuardCLI("fit", argv, parse_only=True)
    config = cli.config.clone()
    for name in ("logger", "callbacks", "plugins", "profiler"):
        config.trainer[name] = None  # they may ask for a service, or for a folder, that only a run needs
    try:
        made = cli.parser.instantiate_classes(config)
    except ValueError as error:
        raise find_input_error(error) or error from error
    return made.data, made.model, bool(config.allow_contamination)


def run_lightning(argv: list[str]) -> None:
    """Run a Lightning verb.

    Args:
        argv: the verb and its arguments.

    Raises:
        InputError: whatever the user can mend.
    """
    _quiet()
    verb, *words = argv
    try:
        GuardCLI(verb, words).run()
    except MisconfigurationException as error:
        raise InputError(str(error).splitlines()[0]) from error


def _quiet() -> None:
    """Show our own lines and warnings, not those that a user of this program cannot act on."""
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
    """Show our own lines on the screen."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
