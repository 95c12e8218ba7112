"""Files and folders are replaced atomically, and what killed processes leave is repaired."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.replacing import replacing_folder, restore_output


def test_a_folder_is_replaced_atomically(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    for text in ("old", "new"):
        with replacing_folder(target) as folder:
            (folder / f"{text}.txt").write_text(text)
    assert [path.name for path in target.iterdir()] == ["new.txt"]
    assert os.listdir(target.parent) == ["model"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o600)
    before = os.umask(umask)
    try:
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "weights").mkdir()
            save_file({"weight": torch.zeros(2)}, folder / "weights" / "model.safetensors")
            (folder / "model.safetensors").touch(0o600)
            (folder / "run.sh").touch(0o700)
            (folder / "link").symlink_to(outside)
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"model.safetensors": mode, "run.sh": 0o700 | mode, "link": 0o600, "outside": 0o600}


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def write_half() -> None:
        with replacing_folder(target) as folder:
            (folder / "new.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [path.name for path in target.iterdir()] == ["old.txt"]
    assert os.listdir(tmp_path) == ["model"]


REPLACE_IN_A_LOOP = """
import sys
from itertools import count
from pathlib import Path
from guardreasoner.workflow.replacing import replacing_folder

target = Path(sys.argv[1])
for version in count(int(sys.argv[2])):
    with replacing_folder(target) as folder:
        for part in range(20):
            (folder / f"part-{part}").write_text(f"{version}")
    print(version, flush=True)
"""
"""Write versions of a folder, each of 20 files that hold its number."""


def test_a_process_killed_at_any_moment_leaves_a_complete_version(tmp_path: Path) -> None:
    target, kills = tmp_path / "model", 12
    rng, version = random.Random(0), -1
    for kill in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", REPLACE_IN_A_LOOP, str(target), str(version + 1)],
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": "/dev/shm"},  # another file system
        )
        assert process.stdout is not None
        process.stdout.readline()  # one version is complete
        time.sleep(rng.uniform(0.005, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        restore_output(target)
        assert os.listdir(tmp_path) in ([], ["model"]), kill
        if target.exists():
            contents = {path.read_text() for path in target.iterdir()}
            assert (len(contents), len(os.listdir(target))) == (1, 20), kill
            assert int(*contents) >= version
            version = int(*contents)
    assert version >= kills - 1  # each process has written at least one


@pytest.mark.parametrize("exists", [True, False])
def test_a_process_killed_between_the_renames(tmp_path: Path, exists: bool) -> None:
    new, old, target = tmp_path / ".model.0123abcd.new", tmp_path / ".model.0123abcd.old", tmp_path / "model"
    for folder in (new, old, *([target] if exists else [])):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    restore_output(target)
    assert os.listdir(tmp_path) == ["model"]
    assert (target / "file").read_text() == ("model" if exists else old.name)


def test_a_half_removed_old_version_is_never_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    for text in ("old", "new"):
        with replacing_folder(target) as folder:
            (folder / text).write_text(text)
            monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed while it removes files
    monkeypatch.undo()
    target.rename(tmp_path / "elsewhere")
    restore_output(target)
    assert os.listdir(tmp_path) == ["elsewhere"]


def test_the_next_process_may_have_the_same_id(tmp_path: Path) -> None:
    for number in range(3):
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        with replacing_folder(tmp_path / "model") as folder, replacing_file(tmp_path / "file") as partial:
            (folder / "x").write_text("x")
            partial.write_text("x")
            os._exit(number)  # nothing is cleaned up
    assert len(os.listdir(tmp_path)) == 2  # the second and third have removed what the one before left
    with replacing_folder(tmp_path / "model") as folder, replacing_file(tmp_path / "file") as partial:
        (folder / "x").write_text("new")
        partial.write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["file", "model"]
    assert (tmp_path / "model" / "x").read_text() == (tmp_path / "file").read_text() == "new"


def test_what_a_running_process_writes_is_left_alone(tmp_path: Path) -> None:
    with ExitStack() as running:
        folder = running.enter_context(replacing_folder(tmp_path / "model"))
        partial = running.enter_context(replacing_file(tmp_path / "file"))
        partial.write_text("of the running process")
        restore_output(tmp_path / "model")
        restore_output(tmp_path / "file")
        with replacing_file(tmp_path / "file") as other:
            other.write_text("of another")
        assert folder.is_dir()
        assert partial.is_file()
    assert (tmp_path / "file").read_text() == "of the running process"


def test_other_hidden_names_are_left_alone(tmp_path: Path) -> None:
    kept = (
        *(".model.0123456789ab.partial", ".model.unfinished", ".model.other.0123abcd.new", ".models.0123abcd.new"),
        ".model.lock",
    )
    for name in kept:
        (tmp_path / name).mkdir()
    restore_output(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(28, "No space left on device", "/somewhere/.target.0123abcd.new/part"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_failure_to_write_names_the_target(tmp_path: Path, error: Exception) -> None:
    for replacing in (replacing_folder, replacing_file):
        with pytest.raises(OSError, match="No space") as raised, replacing(tmp_path / "target"):
            raise error
        assert (raised.value.errno, raised.value.filename) == (28, str(tmp_path / "target"))
    assert os.listdir(tmp_path) == []


def test_a_pipe_or_device_is_not_replaced_but_a_link_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is not a regular file") as raised, replacing_file(tmp_path / "pipe"):
        pass
    assert raised.value.filename == str(tmp_path / "pipe")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    (tmp_path / "linked").write_text("stays")
    (tmp_path / "link").symlink_to("linked")
    with replacing_file(tmp_path / "link") as partial:
        partial.write_text("new")
    assert ((tmp_path / "link").read_text(), (tmp_path / "linked").read_text()) == ("new", "stays")
    assert sorted(os.listdir(tmp_path)) == ["link", "linked", "pipe"]
