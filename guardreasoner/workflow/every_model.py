"""``test --all``: one test of every model that ``fit`` has written, each in its own process."""

import re
from collections.abc import Sequence
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import Command, flags, resolve
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.pipeline import StageFailed
from guardreasoner.workflow.stage_process import LAUNCHER, StageRunner
from guardreasoner.workflow.staleness import backbone_paths, command_line, status
from guardreasoner.workflow.terminal import show_line

_FLAG = "--all"
_KEPT = re.compile(r".+\.previous(-\d+)?")
"""Name of a folder that a rebuild has moved aside."""


def wants_every_model(argv: Sequence[str]) -> bool:
    """Return whether a command is ``test --all`` and does more than print."""
    given = dict(flags(argv))
    return argv[0] == "test" and _FLAG in argv and not ({"help", "print_config"} & given.keys() or "-h" in argv)


def commands_of_every_model(argv: Sequence[str]) -> list[Command]:
    """Return the test of each model folder directly below ``recipe.checkpoints``, in the order of training.

    The predictions of a model are written to a folder with its name: beside the config's output if that is named after
    the config's model, as in ``configs/evaluate.yaml``, else below it.

    Args:
        argv: verb and flags, with ``--all``.

    Raises:
        InputError: the config cannot be resolved, names a model or an output by flag, or there is no model.
    """
    own = [word for word in argv if word != _FLAG]
    for name, _ in flags(own):
        if name == "output" or name.endswith("backbone.path"):
            raise InputError(f"test: {_FLAG} cannot be combined with --{name}", "each model has its own output folder")
    command = resolve(own)
    folder = Path(command.config["recipe"]["checkpoints"])
    if command.output is None:
        raise InputError(f"test {_FLAG}: the config has no `output`")
    path = next(backbone_paths(command.config.get("model")), None)
    if path is None:
        raise InputError(
            f"test {_FLAG}: the config names no model (model.backbone.path)",
            "use the config of a test, such as configs/evaluate.yaml",
        )
    configured = Path(path).name
    place = command.output.parent if command.output.name == configured else command.output
    models = _trained_models(folder)
    if not models:
        raise InputError(
            f"{folder}: no model that fit has written", "train one with python -m guardreasoner fit --config …"
        )
    return [
        resolve([*own, "--model.backbone.path", str(model), "--output", str(place / model.name)]) for model in models
    ]


def run_every_test(argv: Sequence[str], launcher: Sequence[str] = LAUNCHER) -> list[Path]:
    """Test every trained model whose predictions are not up to date; return the folders of all predictions.

    Args:
        argv: verb and flags, with ``--all``.
        launcher: program and arguments that start the command line.

    Raises:
        InputError: see :func:`commands_of_every_model`.
        StageFailed: a test failed; the tests after it were not started.
    """
    commands = commands_of_every_model(argv)
    with StageRunner(launcher) as runner:
        for number, command in enumerate(commands, 1):
            count = f"{number} of {len(commands)}"
            if (reason := status(command)) is None:
                show_line(f"model {count}: up to date: {command.output}")
                continue
            show_line(f"model {count} ({reason}): {command_line(command)}")
            if code := runner.run(command.argv):
                line = command_line(command)
                raise StageFailed(f"the test of model {count} failed with exit code {code}: {line}", code)
    return [command.output for command in commands if command.output is not None]


def _trained_models(folder: Path) -> list[Path]:
    made = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        manifest = Manifest.read(path) if path.is_dir() else None
        hidden = path.name.startswith(".") or _KEPT.fullmatch(path.name)
        if manifest is not None and manifest.command[:1] == ["fit"] and not hidden:
            made.append((manifest.created, path))
    return [path for _, path in sorted(made)]
