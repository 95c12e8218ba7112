"""``python -m guardreasoner VERB …``: starts Lightning's verbs and our own, one file each in ``commands``."""

import argparse
import ast
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from guardreasoner import __version__
from guardreasoner.errors import InputError
from guardreasoner.moved import current_argv

LIGHTNING = {
    "fit": "train a model: R-SFT (configs/rsft.yaml) or HS-DPO (configs/hsdpo.yaml)",
    "validate": "compute the validation loss of a model",
    "test": "judge held-out records and measure (configs/evaluate.yaml)",
    "predict": "sample outputs for records (configs/mine.yaml)",
}
_BUILDS = (*LIGHTNING, "base-model")
"""The verbs that make what their config calls ``output`` out of what else it names."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: verb, then flags; those of the process when None.

    Returns:
        The exit code: 0; 2 after a user's mistake; 130 when interrupted; a failed stage's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin long while they wait starve each other as soon as two processes share a processor.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(error.lines(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has left; without this Python complains once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def own_verbs() -> dict[str, Path]:
    """Return the verbs in ``commands`` with the file of each."""
    files = sorted(Path(__file__).parent.joinpath("commands").glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    verb = words[0]
    if verb not in LIGHTNING and verb not in own_verbs():
        raise InputError(
            f"unknown verb {verb!r}",
            _nearest(verb, [*LIGHTNING, *own_verbs()]) or "python -m guardreasoner --help lists the verbs",
        )
    run = _start_lightning if verb in LIGHTNING else _own(words)
    if verb not in _BUILDS:
        return run(words)
    from guardreasoner.workflow.pipeline import prepare

    state = prepare(words, _check_lightning if verb in LIGHTNING else None)
    try:
        code = run(words)
    except BaseException:
        if state is not None:
            state.give_up()
        raise
    if state is not None and code == 0:
        state.finish()
    elif state is not None:
        state.give_up()
    return code


def _start_lightning(words: list[str]) -> int:
    from guardreasoner.cli.lightning_cli import run_lightning

    run_lightning(words)
    return 0


def _check_lightning(words: Sequence[str]) -> None:
    from guardreasoner.cli.lightning_cli import check_config

    check_config(list(words))


def _own(words: list[str]) -> Callable[[list[str]], int]:
    """Parse the flags of one of our verbs, so that a mistake shows before anything is built; return what runs it."""
    command = importlib.import_module(f"guardreasoner.cli.commands.{words[0].replace('-', '_')}")
    parser = _Parser(prog=f"python -m guardreasoner {words[0]}", description=command.HELP, allow_abbrev=False)
    command.configure(parser)
    words = current_argv(words)
    overrides = getattr(command, "OVERRIDES", ())
    parser.require_known(words[1:], overrides)
    if overrides:
        arguments, _ = parser.parse_known_args(words[1:])
    else:
        arguments = parser.parse_args(words[1:])
    arguments.words = words[1:]
    return lambda _: command.run(arguments)


class _Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one line and at most one hint."""

    def require_known(self, words: Sequence[str], overrides: Sequence[str] = ()) -> None:
        """Refuse options that nobody knows; keys of a config (dotted, or named in ``overrides``) are for others."""
        # Before parsing: a misspelt option often leaves a required one out, and that is what argparse would speak of.
        known = self._option_string_actions  # argparse has no public list of them
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            is_key = bool(overrides) and (name.partition(".")[0] in overrides)
            if name.startswith("--") and name not in known and not is_key:
                self._refuse(f"unknown option {name}", _nearest(name, [*known, *overrides]))

    def error(self, message: str) -> NoReturn:
        self._refuse(message.replace("the following arguments are required", "required"), None)

    def _refuse(self, message: str, hint: str | None) -> NoReturn:
        verb = self.prog.rpartition(" ")[2]
        raise InputError(f"{verb}: {message}", hint or f"{self.prog} --help lists the options")


def _overview() -> str:
    verbs = {**LIGHTNING, **{verb: _help_line(file) for verb, file in own_verbs().items()}}
    width = max(map(len, verbs))
    return "\n".join(
        [
            "usage: python -m guardreasoner VERB [options]",
            "",
            "Train reasoning guard models and measure them.",
            "",
            *(f"  {verb:<{width}}  {line}" for verb, line in verbs.items()),
            "",
            "python -m guardreasoner VERB --help lists a verb's options.",
            "Start with: python -m guardreasoner fit --config configs/hsdpo.yaml",
        ]
    )


def _help_line(file: Path) -> str:
    """Read a verb's ``HELP`` without importing the verb, and what that loads."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "HELP" and isinstance(node, ast.Assign | ast.AnnAssign):
            return str(ast.literal_eval(node.value)) if node.value else ""
    return ""


def _nearest(word: str, known: Collection[str]) -> str | None:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else None
