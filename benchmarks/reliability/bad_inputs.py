"""Wrong configs, damaged files and odd replies of servers: each is refused with its place, in one line."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from reliability import children
from reliability.fits import lay_out
from reliability.part import Outcome, Part, Trial
from reliability.refusals import refusal
from reliability.suite import suite


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield a trial for each wrong config and for each damaged file, and one for all odd replies."""
    children.preload()
    yield _listed()


def _listed() -> Iterator[Trial]:
    from tests.support import bad_configs, bad_files, odd_replies

    for number, case in enumerate(bad_configs.cases()):
        write = partial(_write, files=case.files)
        run = partial(_refused, write=write, argv=case.argv, named=(case.named, case.value))
        yield Trial(f"config/{number:03d} {case.kind}", run)
    for number, file in enumerate(bad_files.cases()):
        name = "".join(letter if letter.isprintable() else "?" for letter in file.name)
        yield Trial(
            f"file/{number:03d} {name}", partial(_refused, write=file.write, argv=file.argv, named=(file.place,))
        )
    yield suite("tests/synthesis/test_odd_replies.py", len(odd_replies.cases()))


def _refused(folder: Path, write: Callable[[Path], None], argv: Sequence[str], named: Sequence[str]) -> Outcome:
    work = lay_out(folder / "work")
    write(work)
    return Outcome(failure=refusal(work, [word.replace("{folder}", str(work)) for word in argv], named))


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


PART = Part(
    "bad-inputs",
    "bad inputs (data, config, files of other tools): each with its place and one line, no traceback",
    400,
    "cases",
    trials,
)
