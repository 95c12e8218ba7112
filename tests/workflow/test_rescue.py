"""A model that cannot be written to its output is written elsewhere, and the message says where."""

from pathlib import Path

import pytest

from guardreasoner.errors import MachineFault
from guardreasoner.workflow.rescue import write_or_rescue


def write(folder: Path) -> None:
    (folder / "model").write_text("weights")


def test_the_first_place_that_works_is_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    output, works = tmp_path / "file" / "out", tmp_path / "works"
    for name in ("out.rescued", "out.rescued-2", "out.rescued-3"):
        with pytest.raises(MachineFault) as raised:
            write_or_rescue(output, write, [tmp_path / "file", works, tmp_path / "unused"])
        place = works / name
        assert str(raised.value) == (f"{output}: cannot be written: File exists; the trained model is in {place}")
        assert raised.value.hint == f"move it: mv {place} {output}"
        assert (place / "model").read_text() == "weights"
    assert not (tmp_path / "unused").exists()


def test_without_any_place_the_message_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MachineFault, match="no other folder could be written either; the trained model is lost"):
        write_or_rescue(tmp_path / "file" / "out", write, [tmp_path / "file"])
    with pytest.raises(
        MachineFault, match=r"no other folder could be written either; training can go on from last\.ckpt"
    ):
        write_or_rescue(tmp_path / "file" / "out", write, [tmp_path / "file"], Path("last.ckpt"))


def test_an_error_of_the_program_is_not_rescued(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise KeyError("a fault of the program")

    with pytest.raises(KeyError):
        write_or_rescue(tmp_path / "out", fail, [tmp_path])
    assert list(tmp_path.iterdir()) == []
