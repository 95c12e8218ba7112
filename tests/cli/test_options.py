"""Options that several verbs share."""

import os
from pathlib import Path

import pytest

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.workflow.manifest import record_made


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
    require_files("score", json=tmp_path / "a.json", html=None)
    with pytest.raises(InputError, match=r"--json "):
        require_files("score", json=tmp_path)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("html", "<!doctype html>\n<title>another page</title>"),
        ("json", '{\n  "architectures": ["LlamaForCausalLM"]\n}'),
        ("json", '{\n "format": {}\n}'),
        ("latex", "\\documentclass{article}"),
        ("out", '{"id": "1", "prompt": "a labelled record"}\n'),
        ("out", '{"id": "1", "record": {"id": "of a file of pairs"}}\n'),
        ("flips", '{"id": "1", "prompt": "a labelled record"}\n'),
    ],
)
def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path, option: str, text: str) -> None:
    path = tmp_path / "mine"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"--{option} .*was not written by this option") as raised:
        require_files("moderate", **{option: path})
    assert raised.value.hint == "name another file, or remove this one"
    path.write_text("")
    require_files("moderate", **{option: path})


def test_two_options_cannot_name_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    require_files("pairs", out=Path("a"), audit=Path("b"), html=None, json=None)
    for other in ("a", "./a", "b/../a", "link/a", str(tmp_path / "a")):
        with pytest.raises(InputError, match=r"^--audit .*a: the same file as --out"):
            require_files("pairs", out=Path("a"), audit=Path(other))


def test_a_pipe_or_device_is_no_output_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/stdout"), Path("/proc/self/fd/1")):
        with pytest.raises(InputError, match=rf"--out {path}: expected a file, found a device or a pipe"):
            require_files("moderate", out=path)


def test_a_file_of_another_option_is_not_replaced_although_it_has_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"id": "1", "record": {"id": "1"}}\n')
    record_made(path, ["pairs", "--out", str(path)], {}, [])
    require_files("pairs", out=path)
    for verb, option in (("score", "json"), ("pairs", "audit")):
        with pytest.raises(InputError, match="was not written by this option"):
            require_files(verb, **{option: path})
