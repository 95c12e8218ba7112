"""Faults of a machine (full disks, missing permissions, broken streams) and the commands that meet them.

:func:`cases` lists all combinations; a working folder for them is made by :func:`lay_out`. Some faults need root.
"""

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from tests.support.output_files import predictions, rollouts
from tests.support.tiny import TinySource, command, write_rollouts

PLACE = "place"
"""The file or folder of the working folder that a fault strikes."""


class Unavailable(Exception):
    """This machine does not let us make the fault."""


@dataclass(frozen=True)
class Case:
    """A command that meets a fault.

    Args:
        name: fault, command and place.
        fault: makes the fault as long as it is open; raises ``Unavailable`` if it cannot.
        argv: verb and flags; outputs are below ``PLACE``, or beside it if the fault strikes something else.
        survives: whether the command must succeed nevertheless.
        says: what the error or warning must contain.
        keeps: pattern of files that must exist afterwards.
    """

    name: str
    fault: Callable[[], AbstractContextManager[None]]
    argv: tuple[str, ...]
    survives: bool = False
    says: str = ""
    keeps: str = ""


def lay_out(base: Path) -> None:
    """Write the inputs of the commands to the working folder."""
    Path("base").symlink_to(base)
    write_rollouts(Path("rollouts"), TinySource().records("train"))
    for run in ("one", "two"):
        predictions(Path(run), "HH HU UU UH" if run == "one" else "HH HH UU UH")
    rollouts(Path("mined"), "HU HH UH")
    Path("to_place.yaml").write_text(
        f"output: {PLACE}/out\ndata: {{class_path: guardreasoner.ReasoningDataModule, "
        "init_args: {source: tests.support.tiny.TinySource}}\n"
    )


def cases() -> Iterator[Case]:
    """Yield every case; each needs a working folder of its own (:func:`lay_out`)."""
    for fault in (full, read_only, forbidden, in_the_way):
        for name, argv in (*_stages(), *_own_verbs()):
            yield Case(f"{fault.__name__}: {name}", fault, argv, says=PLACE)
    filling = ("--trainer.callbacks+", "tests.support.machine_faults.FillDisk")
    log = ("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir")
    for stage, kept in (("rsft", "out.rescued/model.safetensors"), ("hsdpo", "out.rescued/model.safetensors")):
        argv = (*_stage(stage), "--output", f"{PLACE}/out", "--trainer.default_root_dir", "kept")
        yield Case(
            f"filled late: fit {stage} output", nearly_full, (*argv, *filling), says="out.rescued", keeps=f"kept/{kept}"
        )
        # The event file has room left in its last block.
        argv = (*_stage(stage), *log, PLACE, *filling, "--data.epochs", "8", "--trainer.log_every_n_steps", "1")
        yield Case(
            f"filled late: fit {stage} TensorBoard",
            nearly_full,
            argv,
            survives=True,
            says="without curves",
            keeps="made/model.safetensors",
        )
    for stage in ("mine", "evaluate"):
        argv = (*_stage(stage), "--output", f"{PLACE}/out", *filling)
        yield Case(f"filled late: {stage} output", nearly_full, argv, says="No space left")
    for stage in ("rsft", "hsdpo", "mine"):
        yield Case(f"file size limit: {stage}", small_files, _stage(stage), says="File too large")
    yield Case("file size limit: export", small_files, ("export", "base", "--out", f"{PLACE}/out"), says="too large")
    for stage in ("rsft", "hsdpo", "mine", "evaluate"):
        argv = _stage(stage)
        said = "" if stage == "mine" else "the run goes on without it"  # mining prints nothing
        yield Case(f"full standard output: {stage}", full_stdout, argv, survives=True, says=said)
        yield Case(f"closed standard output: {stage}", closed_stdout, argv, survives=True)
        yield Case(f"no temporary folder: {stage}", no_temporary_folder, argv, survives=True)
    for name, argv in (("score", ("score", "one")), ("compare", ("compare", "one", "two", "--resamples", "0"))):
        yield Case(f"full standard output: {name}", full_stdout, argv, says="standard output")
        yield Case(f"closed standard output: {name}", closed_stdout, argv, survives=True)


def _stages() -> Iterator[tuple[str, tuple[str, ...]]]:
    log = ("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", PLACE)
    for stage in ("rsft", "hsdpo"):
        argv = _stage(stage)
        yield f"fit {stage} output", (*argv, "--output", f"{PLACE}/out")
        yield f"fit {stage} logger", (*argv, *log)
        yield f"fit {stage} cache", (*argv, "--data.cache", f"{PLACE}/cache")
    yield "fit hsdpo reference", (*_stage("hsdpo"), "--model.reference.folder", f"{PLACE}/reference")
    yield "predict output", (*_stage("mine"), "--output", f"{PLACE}/out")
    yield "test output", (*_stage("evaluate"), "--output", f"{PLACE}/out")
    yield "base-model output", ("base-model", "--config", "configs/base.yaml", "--config", "to_place.yaml")


def _own_verbs() -> Iterator[tuple[str, tuple[str, ...]]]:
    few = ("--resamples", "0")
    for option in ("--json", "--latex"):
        yield f"score {option}", ("score", "one", *few, option, f"{PLACE}/file")
    for option in ("--json", "--flips"):
        yield f"compare {option}", ("compare", "one", "two", *few, option, f"{PLACE}/file")
    yield "report --out", ("report", "one", "two", *few, "--out", f"{PLACE}/file")
    for option in ("--out", "--html"):
        out = () if option == "--out" else ("--out", "pairs.jsonl")
        yield f"pairs {option}", ("pairs", "--rollouts", "mined", *out, option, f"{PLACE}/file")
    yield "export --out", ("export", "base", "--out", f"{PLACE}/out")
    yield "doctor --json", ("doctor", *_stage("rsft")[1:], "--json", f"{PLACE}/file")


def _stage(stage: str) -> tuple[str, ...]:
    """Return the arguments of a stage on tiny data."""
    small = ("--data.cache", "kept/cache", "--data.micro_batch_size", "4", "--data.batch_size", "8")
    more = {
        "rsft": small,
        "hsdpo": (*small, "--data.rollouts", '["rollouts"]'),
        "mine": ("--model.generator.max_new_tokens", "8"),
        "evaluate": ("--model.generator.max_new_tokens", "8", "--data.rollouts", "null"),
    }
    return (*command(stage, Path("base")), *more[stage])


class FillDisk(Callback):
    """Fill the disk of ``PLACE`` after the first batch."""

    def on_train_batch_end(self, *_: Any) -> None:
        """Fill it."""
        fill_disk()

    def on_predict_batch_end(self, *_: Any) -> None:
        """Fill it."""
        fill_disk()

    def on_test_batch_end(self, *_: Any) -> None:
        """Fill it."""
        fill_disk()


def fill_disk() -> None:
    """Write a file to ``PLACE`` until its disk is full."""
    for size in (1 << 16, 1):
        with suppress(OSError), open(f"{PLACE}/filler", "ab", buffering=0) as filler:
            while True:
                filler.write(bytes(size))


@contextmanager
def full() -> Iterator[None]:
    """A disk without free space."""
    with _mounted("size=64k"):
        fill_disk()
        yield


def nearly_full() -> AbstractContextManager[None]:
    """A disk with 20 MB."""
    return _mounted("size=20m")


def read_only() -> AbstractContextManager[None]:
    """A disk that is mounted read-only."""
    return _mounted("size=64m,ro")


@contextmanager
def _mounted(options: str) -> Iterator[None]:
    Path(PLACE).mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", PLACE]
    if subprocess.run(mount, capture_output=True).returncode:
        raise Unavailable("mount is not permitted")
    place = os.path.abspath(PLACE)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def forbidden() -> Iterator[None]:
    """A folder without permission to write, to which root is not privileged either."""
    place = Path(PLACE).absolute()
    place.mkdir()
    place.chmod(0o555)
    with _without_privilege():
        if os.access(place, os.W_OK, effective_ids=True):
            raise Unavailable("this user may write everywhere")
        yield
    place.chmod(0o755)


@contextmanager
def in_the_way() -> Iterator[None]:
    """A file where a folder should be."""
    Path(PLACE).write_text("not a folder")
    yield


@contextmanager
def small_files() -> Iterator[None]:
    """A limit on the size of files, which the check of folders just meets."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@contextmanager
def full_stdout() -> Iterator[None]:
    """Standard output is a file on a full disk."""
    former = sys.stdout
    with open(os.dup(os.open("/dev/full", os.O_WRONLY)), "w", closefd=False) as sys.stdout:
        try:
            yield
        finally:
            stream, sys.stdout = sys.stdout, former
            with suppress(OSError):
                stream.flush()


@contextmanager
def closed_stdout() -> Iterator[None]:
    """Standard output is closed."""
    former = sys.stdout
    sys.stdout = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = former


@contextmanager
def no_temporary_folder() -> Iterator[None]:
    """TMPDIR names a folder that does not exist."""
    former, chosen = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"], tempfile.tempdir = "/does/not/exist", None
    try:
        yield
    finally:
        tempfile.tempdir = chosen
        os.environ.pop("TMPDIR")
        if former is not None:
            os.environ["TMPDIR"] = former


_WRITE_ANYWHERE, _READ_ANYWHERE = 1 << 1, 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""


@contextmanager
def _without_privilege() -> Iterator[None]:
    """Make this thread, and those that it starts, subject to the permissions of files although it runs as root."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    former = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    library = ctypes.CDLL(None, use_errno=True)
    library.capget(header, former)
    reduced = (ctypes.c_uint32 * 6)(*former)
    reduced[0] &= ~(_WRITE_ANYWHERE | _READ_ANYWHERE)
    library.capset(header, reduced)
    try:
        yield
    finally:
        library.capset(header, former)
