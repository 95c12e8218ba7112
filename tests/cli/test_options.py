"""Options that several verbs have."""

from pathlib import Path

import pytest

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "scores.json"
    write(path, "a \ud800 b \U0001f600")
    assert path.read_text(encoding="utf-8") == "a \\ud800 b \U0001f600"
    assert capsys.readouterr().out == f"written: {path}\n"


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here before")
    with pytest.raises(InputError, match=r"file/scores\.json: cannot be written: "):
        write(tmp_path / "file" / "scores.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    require_files(json=tmp_path / "a.json", html=None)
    with pytest.raises(InputError, match=r"--json "):
        require_files(json=tmp_path)
