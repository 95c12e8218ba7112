"""Options that several verbs share."""

from pathlib import Path

import pytest

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError


def test_an_unpaired_surrogate_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "scores.json"
    write(path, "a \ud800 b \U0001f600")
    assert path.read_text(encoding="utf-8") == "a \\ud800 b \U0001f600"
    assert capsys.readouterr().out == f"written: {path}\n"


def test_a_failed_write_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here before")
    with pytest.raises(InputError, match=r"file/scores\.json: cannot be written: "):
        write(tmp_path / "file" / "scores.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_as_output_file_is_rejected(tmp_path: Path) -> None:
    require_files(json=tmp_path / "a.json", html=None)
    with pytest.raises(InputError, match=r"--json "):
        require_files(json=tmp_path)
