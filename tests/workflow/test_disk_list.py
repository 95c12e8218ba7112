"""A list on the disk has the items of a list in memory, and almost none of its memory."""

import gc
import os
import resource
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import MachineFault
from guardreasoner.records import Message, Pair, Record, Rollout
from guardreasoner.workflow.disk_list import DiskList

ITEMS = st.lists(st.none() | st.integers() | st.text() | st.tuples(st.binary(), st.floats(allow_nan=False)))


@given(ITEMS, ITEMS, st.slices(12), st.integers(-12, 12))
def test_it_has_the_items_of_a_list(first: list[object], more: list[object], part: slice, place: int) -> None:
    kept, expected = DiskList(iter(first)), [*first, *more]
    assert kept == first
    kept.extend(more)
    assert (len(kept), bool(kept), list(kept), list(reversed(kept))) == (
        *(len(expected), bool(expected), expected),
        expected[::-1],
    )
    assert kept[part] == expected[part]
    assert all(item in kept for item in expected)
    if -len(expected) <= place < len(expected):
        assert kept[place] == kept[np.int64(place)] == expected[place]
    else:
        with pytest.raises(IndexError):
            kept[place]


def test_it_equals_sequences_of_equal_items() -> None:
    items = [1, 2]
    kept = DiskList(items)
    assert kept == items
    assert items == kept  # a list leaves the comparison to the other side
    assert kept == DiskList([1, 2])
    for other in ([1], [1, 3], [1, 2, 3], None, {1, 2}):
        assert kept != other


def test_records_and_pairs_come_back_whole() -> None:
    messages = (Message("system", "Judge."), Message("user", "\ud800 … 😀"))
    record = Record("a", messages=messages, labels={"request": None}, policy="No.", extra={"x": "y"})
    outputs = [Rollout("a", "m", "f", index, 0, "text", "direct") for index in range(2)]
    pair = Pair("a", record, outputs[0], outputs[1], "all", "random/random", -2, 0.8, (True, False))
    assert list(DiskList([pair, pair])) == [pair, pair]


def test_an_item_needs_eight_bytes() -> None:
    def kept_bytes(count: int) -> int:
        tracemalloc.start()
        kept = DiskList("x" * 1000 for _ in range(count))
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(kept) == count
        return size

    assert (kept_bytes(6000) - kept_bytes(1000)) / 5000 < 12


def test_the_file_has_no_name_and_goes_with_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    descriptors = len(os.listdir("/proc/self/fd"))
    kept = DiskList(range(9))
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1
    del kept
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_both_processes_read_after_a_fork() -> None:
    kept = DiskList(str(number) * 50 for number in range(3000))
    expected = [str(number) * 50 for number in range(3000)]
    child = os.fork()
    if child == 0:
        os._exit(0 if all(list(kept) == expected for _ in range(3)) else 1)
    assert all(list(kept) == expected for _ in range(3))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    kept.append("more")
    assert kept[-1] == "more"


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Limit the size of files in bytes; the write that reaches the limit takes a part, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_full_disk_is_one_line_that_names_the_folder() -> None:
    kept = DiskList(["first"])
    with room_for(4096), pytest.raises(MachineFault) as caught:
        kept.append("x" * 9000)
    assert caught.value.lines() == (
        f"error: a temporary file in {tempfile.gettempdir()} cannot be written: File too large\n"
        "hint: TMPDIR=FOLDER names another folder"
    )
    assert kept == ["first"]
    kept.extend(["second", "y" * 9000])
    assert kept == ["first", "second", "y" * 9000]


def test_no_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/does/not/exist")
    with pytest.raises(MachineFault, match="in /does/not/exist cannot be written: No such file or directory"):
        DiskList([1])
