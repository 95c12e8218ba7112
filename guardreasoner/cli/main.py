"""``python -m guardreasoner VERB …``: dispatch to Lightning's verbs and to those in ``commands``."""

import argparse
import ast
import difflib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from guardreasoner import __version__
from guardreasoner.cli import LIGHTNING
from guardreasoner.cli.deferred_imports import defer_imports
from guardreasoner.cli.log_output import hide_library_warnings
from guardreasoner.cli.streams import discard_unwritable, open_streams, surviving_output
from guardreasoner.errors import InputError, MachineFault, machine_error
from guardreasoner.moved import current_argv
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.config import Command, with_config_names
from guardreasoner.workflow.stage_process import STAGE_VARIABLE
from guardreasoner.workflow.terminal import show_traceback, terminal_text

_STAGES = (*LIGHTNING, "base-model")
"""Verbs that are stages: they write the ``output`` of their config from the inputs that it names."""

_IN_USE = ("judge", "serve", "moderate")
"""Verbs that ask a guard."""


def start() -> int:
    """Run the command line of this process; the traceback of an unexpected error is shown without secrets."""
    sys.excepthook = show_traceback
    _import_from_working_folder()
    return main()


def _import_from_working_folder() -> None:
    """Find the user's modules in the working folder also from the installed script, as ``python -m`` does."""
    with suppress(OSError):  # the folder was removed
        if not sys.flags.safe_path and not {"", os.getcwd()} & set(sys.path):
            sys.path.insert(0, os.getcwd())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: verb and flags; None takes those of the process.

    Returns:
        The exit code: 0 on success, 1 after a fault of the machine, 2 after a user error, 130 after Ctrl-C, 143 after
        SIGTERM, 124 after ``max_time``, or the exit code of a stage that failed. ``judge`` ends with 1 if the text is
        flagged, and with 2 after any failure.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # OpenMP threads that spin while they wait starve each other when several processes share a processor, which a guard
    # in use does with the application that asks.
    os.environ.setdefault("GOMP_SPINCOUNT", "100" if argv[:1] and argv[0] in _IN_USE else "20000")
    open_streams()
    defer_imports()
    hide_library_warnings()
    if STAGE_VARIABLE in os.environ:
        stop_signals.end_with_parent()
    try:
        with surviving_output() if argv[:1] and argv[0] in _STAGES else nullcontext():
            code = _run(argv)
        sys.stdout.flush()
        done = code == 0 or argv[:1] in (["judge"], ["moderate"])  # flagged, or drifted: done all the same
        if argv and done and (argv[0] in LIGHTNING or argv[0] in own_verbs()):
            from guardreasoner.cli.next_command import show_next

            show_next(with_config_names(argv))
        return code
    except InputError as error:
        print(terminal_text(error.lines()), file=sys.stderr)
        return error.exit_code
    except stop_signals.Stopped as stopped:
        return _report(stopped)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        discard_unwritable(sys.stdout)
        return 141
    except Exception as error:
        fault = machine_error(error)
        if fault is None and argv[:1] != ["judge"]:
            raise
        if fault is None:
            traceback.print_exc()
            return 2  # 1 would say that the text is flagged
        discard_unwritable(sys.stdout)
        place = fault.filename if isinstance(fault.filename, str) else "standard output or a file"
        print(MachineFault(f"{place}: {fault.strerror}").lines(), file=sys.stderr)
        return 2 if argv[:1] == ["judge"] else MachineFault.exit_code


def own_verbs() -> dict[str, Path]:
    """Return the file of each verb in ``commands``."""
    files = sorted(Path(__file__).parent.joinpath("commands").glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    verb = argv[0]
    if verb not in LIGHTNING and verb not in own_verbs():
        raise InputError(
            f"unknown verb {verb!r}",
            _nearest(verb, [*LIGHTNING, *own_verbs()]) or "python -m guardreasoner --help lists the verbs",
        )
    from guardreasoner.workflow.every_model import run_every_test, wants_every_model

    argv = with_config_names(argv)
    if wants_every_model(argv):
        run_every_test(argv)
        return 0
    run = _run_lightning if verb in LIGHTNING else _parse_own(argv)
    if verb not in _STAGES:
        return run(argv)
    with stop_signals.handled():
        return _run_stage(argv, run)


def _run_stage(argv: list[str], run: Callable[[list[str]], int]) -> int:
    """Lock the output of a stage, build its inputs, run it, and write the manifest of its output."""
    from guardreasoner.workflow.output_lock import locked_output
    from guardreasoner.workflow.pipeline import checked_output, prepare

    output = checked_output(argv)
    with locked_output(output) if output else nullcontext():
        state = prepare(argv, _check_lightning if argv[0] in LIGHTNING else _check_base_model)
        if state is not None and argv[0] == "fit" and STAGE_VARIABLE not in os.environ:
            _show_toy(state.command)
        try:
            code = run(argv)
        except BaseException:
            if state is not None:
                with suppress(OSError, InputError):  # the error that ended the run is the one to report
                    state.give_up()
            raise
        if state is not None and code == 0:
            state.finish()
        elif state is not None:
            state.give_up()
        if output and code == 0:
            _discard_resumable(argv[0], output)
    return code


def _discard_resumable(verb: str, output: Path) -> None:
    """Remove what an unfinished run would continue from: the output has its manifest."""
    if verb == "fit":
        from guardreasoner.workflow.unfinished_fit import discard_unfinished

        discard_unfinished(output)
    if verb in ("predict", "test"):
        from guardreasoner.generators.rollout_log import discard_complete

        discard_complete(output)


def _show_toy(command: Command) -> None:
    from guardreasoner.cli.toy_base import toy_line

    with suppress(OSError, ValueError, KeyError):  # only a remark
        if line := toy_line(command):
            print(line, flush=True)


def _report(stopped: stop_signals.Stopped) -> int:
    """Print the line of a stopped run; return its exit code."""
    if stop_signals.is_later_process():
        # The first process prints and returns them; Lightning kills it if another one fails.
        return 0
    print(stopped.line(), file=sys.stderr)
    return stopped.exit_code


def _run_lightning(argv: list[str]) -> int:
    import_lightning_cli().run_lightning(argv)
    return 0


def _check_lightning(argv: Sequence[str]) -> None:
    import_lightning_cli().check_config(list(argv))


def import_lightning_cli() -> Any:
    """Import LightningCLI without garbage collection, which would take a tenth of the time and find nothing."""
    name = "guardreasoner.cli.lightning_cli"
    if name not in sys.modules:
        gc.disable()
        try:
            importlib.import_module(name)
            gc.freeze()
        finally:
            gc.enable()
    return sys.modules[name]


def _check_base_model(argv: Sequence[str]) -> None:
    from guardreasoner.cli.commands.base_model import check_argv

    check_argv(argv)


def _parse_own(argv: list[str]) -> Callable[[list[str]], int]:
    """Parse the flags of a verb in ``commands``, so that an error shows before anything is built; return its runner."""
    command = importlib.import_module(f"guardreasoner.cli.commands.{argv[0].replace('-', '_')}")
    parser = _Parser(prog=f"python -m guardreasoner {argv[0]}", description=command.HELP, allow_abbrev=False)
    command.configure(parser)
    flags = current_argv(argv)[1:]
    overrides = getattr(command, "OVERRIDES", ())
    parser.require_known(flags, overrides)
    if overrides:
        arguments, _ = parser.parse_known_args(flags)
    else:
        arguments = parser.parse_args(flags)
    arguments.argv = flags
    return lambda _: command.run(arguments)


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports an error as one line and at most one hint."""

    def require_known(self, argv: Sequence[str], overrides: Sequence[str] = ()) -> None:
        """Reject unknown options; config keys (dotted, or listed in ``overrides``) are left to the config's parser."""
        # Before parsing, since argparse would report the required option that a misspelt one leaves out.
        known = self._option_string_actions  # argparse has no public list of options
        for word in argv[: argv.index("--")] if "--" in argv else argv:
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
            "Train and evaluate reasoning guard models.",
            "",
            *(f"  {verb:<{width}}  {line}" for verb, line in verbs.items()),
            "",
            "python -m guardreasoner VERB --help lists a verb's options.",
            "Start with: python -m guardreasoner fit --config configs/hsdpo.yaml",
            "Words such as rollout, hard record, margin and α: docs/glossary.md",
        ]
    )


def _help_line(file: Path) -> str:
    """Read a verb's ``HELP`` without importing its file."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "HELP" and isinstance(node, ast.Assign | ast.AnnAssign):
            return str(ast.literal_eval(node.value)) if node.value else ""
    return ""


def _nearest(word: str, known: Collection[str]) -> str | None:
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {nearest[0]}?" if nearest else None
