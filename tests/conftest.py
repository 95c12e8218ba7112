"""Fixtures that several test files share."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from guardreasoner.cli.main import main
from tests.support.browser import chromium, visit

__all__ = ["chromium", "visit"]  # fixtures
# The first example of a test may import torch, which takes seconds: no deadline per example.
settings.register_profile("guardreasoner", deadline=None)
settings.load_profile("guardreasoner")

# A shell starts background commands with SIGINT ignored, which our commands respect.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that none of them is left to one worker at the end of a parallel run."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def shared_data() -> Path:
    """The folder of released benchmarks and predictions, which is not part of the project."""
    if not (SHARED / "published_scores.json").is_file():
        pytest.skip("the released benchmarks and predictions are not at ../shared/data")
    return SHARED


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a two-layer Llama with its tokenizer; do not write to it."""
    from tests.support.tiny import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def both_speeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny guard that was trained for both speeds; do not write to it."""
    from tests.support.guards import make_both_speeds

    return make_both_speeds(tmp_path_factory.mktemp("guard") / "both")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA adapter that changes the outputs of ``tiny_base``."""
    from tests.support.tiny import make_tiny_adapter

    return make_tiny_adapter(tiny_base, tmp_path_factory.mktemp("tiny") / "adapter")


@pytest.fixture(scope="session")
def tiny_rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four scripted outputs for each training record of ``TinySource``."""
    from tests.support.tiny import TinySource, write_rollouts

    return write_rollouts(tmp_path_factory.mktemp("tiny") / "rollouts", TinySource().records("train"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the project's configs and no outputs."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(Path(__file__).parents[1] / "configs")
    yield tmp_path
    # its handler writes to the captured stream of this test
    logging.getLogger("guardreasoner").handlers.clear()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command that must succeed, and returns its standard output."""

    def run(*argv: str) -> str:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        code = main(list(argv))
        message = capsys.readouterr()
        assert code == 0, message.err
        return message.out

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command that must end with one line and at most one hint, and returns them."""

    def run(*argv: str) -> str:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        assert main(list(argv)) == 2
        message = capsys.readouterr().err
        assert [line.split(":")[0] for line in message.splitlines()] in (["error"], ["error", "hint"]), message
        return message

    return run
