"""LightningCLI for fit, validate, test and predict, with this project's keys, callbacks and error messages."""

import logging
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ActionYesNo, Namespace, set_parsing_settings
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from guardreasoner.callbacks import (
    FitCheckpoints,
    FreeSpace,
    HardSampleAccuracy,
    Interval,
    MiningFindings,
    PredictionWriter,
    RolloutWriter,
    SampleTexts,
    SharedFolder,
    StepProgress,
    Throughput,
)
from guardreasoner.callbacks.fit_checkpoints import tensorboard_folder
from guardreasoner.callbacks.tensorboard import LastingTensorBoardLogger, hide_writer_thread_errors
from guardreasoner.cli import LIGHTNING
from guardreasoner.cli.checkpoint_path import local_checkpoint
from guardreasoner.cli.config_checks import TRUE_HALF, check_flags, check_values
from guardreasoner.cli.everyday_help import opening
from guardreasoner.cli.log_output import show_log
from guardreasoner.cli.metric_lines import metric_lines
from guardreasoner.cli.out_of_memory import is_out_of_memory, out_of_memory
from guardreasoner.cli.parse_errors import accept_old_names, config_error, find_input_error
from guardreasoner.errors import InputError, MachineFault
from guardreasoner.mining.findings import HasFindings
from guardreasoner.moved import current_argv
from guardreasoner.synthesis import EstimatesCost, WritesOutput
from guardreasoner.training.checkpoint_file import SealedCheckpointIO
from guardreasoner.training.sharding import whole_optimizer_state, whole_weights
from guardreasoner.training.training_data import TrainingDataModule
from guardreasoner.workflow.config import config_files, resolve, with_config_files
from guardreasoner.workflow.config_file import load_yaml
from guardreasoner.workflow.recipe import Recipe
from guardreasoner.workflow.redaction import without_secrets
from guardreasoner.workflow.rescue import write_or_rescue
from guardreasoner.workflow.staleness import StageState
from guardreasoner.workflow.stop_signals import is_later_process
from guardreasoner.workflow.unfinished_fit import UnfinishedFit


class ParserError(Exception):
    """An error message of the parser, of many lines."""


log = logging.getLogger("guardreasoner")

_UNNAMED = "lightning_logs"
"""Name of a run in Lightning's loggers unless the config sets one."""

_NEGATIVE_NUMBER = re.compile(r"-(\d|\.\d|\.inf|inf).*", re.I)


class GuardParser(LightningArgumentParser):
    """A parser that raises ``ParserError`` instead of printing its usage; outer parsers extend the inner message."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ``ParserError``."""
        raise ParserError(message) from ex

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the help; that of a verb opens with the verb's line and its everyday flags."""
        verb = next((verb for verb, line in LIGHTNING.items() if self.description == line), None)
        return (opening(verb) if verb else "") + str(super().format_help(*args, **kwargs))


class ConfigWriter(SaveConfigCallback):
    """Save the config of a run in its log folder, without secrets."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **kwargs: Any) -> None:
        super().__init__(parser, without_secrets(config), **kwargs)


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
        self.argv = (verb, *argv)
        self.parse_only = parse_only
        self.unfinished: UnfinishedFit | None = None
        self.resumed_from: Path | None = None
        accept_old_names()
        # A config can name any class to import; Lightning would also read one from a URL.
        set_parsing_settings(config_read_mode_urls_enabled=False, config_read_mode_fsspec_enabled=False)
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=ConfigWriter,
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
        """Parse the arguments and check their values.

        Raises:
            InputError: a key or value is wrong, with the innermost cause and, for an unknown key, a suggestion.
        """
        argv = [self.verb, *args]
        for path in config_files(argv):
            load_yaml(path)  # names the line of a duplicate key, which jsonargparse's own message would not
        check_flags(argv)
        try:
            super().parse_arguments(parser, _with_attached_numbers(with_config_files(args)))
        except ParserError as error:
            raise config_error(str(error), parser, argv) from error
        self.config.ckpt_path = local_checkpoint(self.config.ckpt_path)
        if self.verb == "fit":
            self.checkpoint_every = Interval.parse(self.config.checkpoint_every)
        if self.config.get("all"):
            raise InputError("all: expected the flag --all, not a key of a config")
        check_values(self.config, argv)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this project's keys and the arguments of the verb."""
        # A checkpoint that is not "weights only" can run code while it is loaded, so there is no flag for it.
        skip: set[str | int] = {*self.subcommands()[self.verb], "weights_only"}
        self.verb_arguments = parser.add_method_arguments(Trainer, self.verb, skip=skip)
        if self.verb == "predict":
            parser.set_defaults({"return_predictions": False})  # they are written while they are generated
        if self.verb in ("test", "validate"):
            parser.set_defaults({"verbose": False})
        if self.verb == "test":
            # Only a flag: guardreasoner.workflow.every_model replaces it by one test per model.
            parser.add_argument(
                "--all", action="store_true", help="test every model that fit has written to recipe.checkpoints"
            )
        parser.add_argument(
            "--output", type=str | None, default=None, help="folder to write: the model, rollouts or predictions"
        )
        parser.add_argument(
            "--overwrite",
            action=ActionYesNo(),
            nargs="?",
            default=False,
            help="replace the output even if another command or tool made what lies there",
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
            parser.add_argument(
                "--checkpoint_every",
                type=int | str,
                default="10m",
                help="optimizer steps, or minutes such as 10m, between two checkpoints of an unfinished fit",
            )
        parser.add_class_arguments(Recipe, "recipe", instantiate=False)

    def before_instantiate_classes(self) -> None:
        """Complete the loggers, load half-precision weights as such, and find out where a fit continues."""
        config = self.config.trainer
        if config.logger is True:
            config.logger = Namespace(class_path="lightning.pytorch.loggers.TensorBoardLogger", init_args=Namespace())
            config.logger.init_args.save_dir = self.config.recipe.logs
            config.logger.init_args.name = _UNNAMED
            config.logger.init_args.version = None
        for logger in config.logger if isinstance(config.logger, list) else [config.logger]:
            if not isinstance(logger, Namespace):
                continue
            if not self.parse_only and re.fullmatch(r"lightning\..*\.TensorBoardLogger", logger.class_path):
                logger.class_path = f"{LastingTensorBoardLogger.__module__}.{LastingTensorBoardLogger.__qualname__}"
            if self.config.output and logger.get("init_args.name") == _UNNAMED:
                logger.init_args.name = f"{self.verb}/{Path(self.config.output).name}"
        backbone = self.config.get("model.init_args.backbone")
        if config.precision in TRUE_HALF and backbone is not None:
            # Lightning would also convert the numbers of a batch, such as weights and reference log-probabilities.
            (backbone.init_args if "init_args" in backbone else backbone).dtype = TRUE_HALF[config.precision]
            config.precision = None
        if self.verb == "fit" and not self.parse_only and self.config.output and not config.fast_dev_run:
            self._find_unfinished()

    def _find_unfinished(self) -> None:
        """Continue an unfinished fit of the same output: from its last checkpoint, in its TensorBoard folder."""
        self.unfinished = UnfinishedFit(self.config.output, StageState.of(resolve(self.argv)))
        self.resumed_from = self.unfinished.last_checkpoint()
        if self.resumed_from:
            # An absolute path, because Lightning downloads whatever starts with "http".
            self.config.ckpt_path = os.path.abspath(self.resumed_from)
        folder, logger = self.unfinished.log_folder(), self.config.trainer.logger
        arguments: Any = logger.init_args if isinstance(logger, Namespace) else {}
        if folder and "version" in arguments:
            place = Path(arguments.save_dir, arguments.name, folder.name).absolute()
            number = folder.name.removeprefix("version_")
            if folder == place:
                arguments.version = int(number) if number.isdigit() else folder.name

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
            kwargs["max_time"] = None  # ``FitCheckpoints`` saves before it stops
            limit = math.inf if config.max_time is None else Timer(config.max_time).time_remaining()
            callbacks += [
                FitCheckpoints(self.unfinished, self.checkpoint_every, limit or 0.0),
                Throughput(),
                SampleTexts(),
            ]
            if isinstance(self.datamodule, HasFindings):
                callbacks.append(MiningFindings())
        if self.verb == "test":
            callbacks += [HardSampleAccuracy(), SampleTexts()]
        if self.config.output and not config.fast_dev_run:
            if self.verb == "fit":
                callbacks.append(FreeSpace(self.config.output, self.config.save_optimizer))
            if self.verb == "test":
                callbacks.append(PredictionWriter(self.config.output, self.config.ckpt_path, keep_log=True))
            if self.verb == "predict" and not writes_itself:
                callbacks.append(RolloutWriter(self.config.output, self.config.ckpt_path, keep_log=True))
            if self.verb in ("fit", "predict"):
                callbacks.insert(0, SharedFolder(self.config.output))
        counts_records = (RolloutWriter, PredictionWriter)
        shows_progress = writes_itself or any(isinstance(callback, counts_records) for callback in callbacks)
        if config.enable_progress_bar is not False and not shows_progress:
            callbacks.append(StepProgress())
        if shows_progress:
            kwargs["enable_progress_bar"] = False
        if config.logger is False or self._is_dry_run:
            self.save_config_callback = None  # the run has no folder to save it in
        plugins = _with_sealed_checkpoints(config.plugins)
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)

    def run(self) -> None:
        """Run the verb and, after a fit, export the model."""
        arguments = {name: self.config[name] for name in self.verb_arguments}
        module = self._estimator() if self._is_dry_run else self.model
        if self.verb == "fit" and not is_later_process():
            self._begin_or_continue()
        getattr(self.trainer, self.verb)(module, datamodule=self.datamodule, weights_only=True, **arguments)
        if self.verb in ("test", "validate"):
            self._report_metrics()
        if self.verb == "fit" and self.config.output and not self.config.trainer.fast_dev_run:
            self._export(self.config.output)
            if not is_later_process():
                log.info("written to %s after %s steps", self.config.output, f"{self.trainer.global_step:,}")

    def _begin_or_continue(self) -> None:
        """Say where a fit continues or what it will replace, and remove what it will make again."""
        if self.unfinished is None:
            return
        self.unfinished.begin(tensorboard_folder(self.trainer), self.resumed_from)  # before the log folder is made
        if self.resumed_from:
            log.info("continuing an unfinished fit from %s", self.resumed_from)
        elif self.unfinished.output.exists():
            log.info("%s exists; it is replaced when this fit is complete", self.unfinished.output)

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
        for line in metric_lines({name.split("/dataloader")[0]: value for name, value in values.items()}):
            log.info("%s", line)
        if self.config.output:
            log.info("written to %s", self.config.output)

    def _export(self, output: str) -> None:
        """Write the trained model as a Hugging Face folder; all processes gather it if it is sharded."""
        first, backbone = self.trainer.is_global_zero, self.model.backbone
        weights = whole_weights(backbone.network, first) if backbone.is_sharded else None
        state = whole_optimizer_state(self.trainer.optimizers[0], first) if self.config.save_optimizer else None

        def write(folder: Path) -> None:
            backbone.write(folder, weights)
            if state is not None:
                torch.save(state, folder / "optimizer.pt")

        if first:
            others = [
                Path(output).parent,
                Path(self.trainer.default_root_dir),
                Path.home(),
                Path(tempfile.gettempdir()),
            ]
            steps = self.unfinished.steps() if self.unfinished else []
            last = self.unfinished.checkpoint(steps[-1]) if self.unfinished and steps else None
            write_or_rescue(output, write, others, last)


def _with_sealed_checkpoints(plugins: Any) -> list[Any]:
    """Add our checkpoint files to a trainer's plugins, unless the user has another kind."""
    given = plugins if isinstance(plugins, list) else [plugins] if plugins else []
    has_own = any(isinstance(plugin, CheckpointIO) for plugin in given)
    return given if has_own else [*given, SealedCheckpointIO()]


def check_config(argv: list[str]) -> Namespace:
    """Parse the config of a Lightning verb without instantiating anything, and return it.

    Args:
        argv: verb and flags.

    Raises:
        InputError: a key or value is wrong.
    """
    show_log()
    config: Namespace = GuardCLI(argv[0], argv[1:], parse_only=True).config
    return config


def instantiate_fit(argv: list[str]) -> tuple[LightningDataModule, Any, bool]:
    """Return the data module and the module of a fit, and whether ``allow_contamination`` is set.

    This creates no trainer, loads no weights and writes nothing.

    Args:
        argv: the arguments after the verb.

    Raises:
        InputError: a key or value is wrong.
    """
    show_log()
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
        MachineFault: the run is out of memory, or another of its processes has ended.
    """
    show_log()
    hide_writer_thread_errors()
    try:
        GuardCLI(argv[0], argv[1:]).run()
    except MisconfigurationException as error:
        raise InputError(str(error).splitlines()[0]) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, argv) from error
        if not _lost_process(error):
            raise
        raise MachineFault(
            "another process of this run has ended; the cause is in its own output",
            "run the same command again to resume, on all nodes",
        ) from error


def _lost_process(error: RuntimeError) -> bool:
    """Return whether a collective operation failed because a process is gone, as Gloo and NCCL word it."""
    text = str(error).lower()
    lost = any(words in text for words in ("connection closed by peer", "connection reset by peer", "broken pipe"))
    return isinstance(error, torch.distributed.DistError) or lost


def _with_attached_numbers(argv: list[str]) -> list[str]:
    """Attach negative numbers to their flags, as in ``--lr=-1e-3``: argparse takes the word -1e-3 for an option."""
    attached: list[str] = []
    for word in argv:
        if attached and attached[-1].startswith("--") and _NEGATIVE_NUMBER.fullmatch(word):
            attached[-1] += f"={word}"
        else:
            attached.append(word)
    return attached
