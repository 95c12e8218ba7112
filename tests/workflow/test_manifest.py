"""Fingerprints, content hashes and manifests."""

import sys
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow.manifest import (
    Manifest,
    code_hash,
    content_hash,
    fingerprint,
    is_users_code,
    manifest_path,
    record_made,
)


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1, "α"]}) == fingerprint({"b": [1, "α"], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    # printf '%s' '{"a":1}' | sha256sum
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_values_outside_json_have_a_fingerprint() -> None:
    assert fingerprint({"path": Path("a")}) == fingerprint({"path": "a"})


def test_the_content_of_a_folder_is_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "sub" / "b.txt").write_text("two")
    before = content_hash(folder)
    (folder / "sub" / "b.txt").rename(folder / "sub" / "c.txt")
    assert content_hash(folder) != before
    (folder / "sub" / "c.txt").rename(folder / "sub" / "b.txt")
    assert content_hash(folder) == before
    (folder / "a.txt").write_text("another one")
    assert content_hash(folder) != before


def test_the_content_of_a_file_does_not_depend_on_its_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")


def test_manifests_do_not_count_as_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    before = content_hash(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "a.jsonl.manifest.json").write_text("{}")
    assert content_hash(tmp_path) == before


def test_a_missing_path_has_no_content_hash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        content_hash(tmp_path / "absent")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_manifest_round_trips(tmp_path: Path, kind: str) -> None:
    artefact = tmp_path / "out"
    if kind == "file":
        artefact.write_text("x")
    else:
        artefact.mkdir()
        (artefact / "x").write_text("x")
    config = {"output": "out", "sizes": [1, 2.5, None, True]}
    origins = [{"class_path": "a.B", "init_args": {}, "code": ""}]
    command = ["fit", "--config", "a.yaml"]
    manifest = Manifest.describe(artefact, command, "f" * 64, {"in": "0" * 64}, False, config, origins)
    manifest.write(artefact)
    assert Manifest.read(artefact) == manifest
    assert (manifest.config, manifest.origins) == (config, origins)
    assert manifest_path(artefact).is_file()
    assert manifest.content == content_hash(artefact)
    assert manifest.versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert manifest.created.endswith("+00:00")


def test_manifests_contain_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    (tmp_path / "out").write_text("x")
    command = ["predict", "--model.user", "sk-0123456789abcdef"]
    manifest = Manifest.describe(tmp_path / "out", command, "", {}, False, {"user": "sk-0123456789abcdef"})
    manifest.write(tmp_path / "out")
    assert "0123456789" not in manifest_path(tmp_path / "out").read_text()
    assert manifest.made_by(command)
    assert not manifest.made_by(["predict", "--model.user", "another"])


def test_a_manifest_without_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"command": ["fit"], "fingerprint": "", "inputs": {}, "content": ""}')
    manifest = Manifest.read(tmp_path)
    assert manifest is not None
    assert (manifest.config, manifest.origins) == (None, [])


def test_record_made_writes_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("1")
    (tmp_path / "out").write_text("2")
    record_made(tmp_path / "out", ["pairs", "--seed", "1"], {"seed": 1}, [tmp_path / "in"])
    manifest = Manifest.read(tmp_path / "out")
    assert manifest is not None
    assert manifest.inputs == {str(tmp_path / "in"): content_hash(tmp_path / "in")}
    assert (manifest.content, manifest.config) == (content_hash(tmp_path / "out"), {"seed": 1})


def test_the_code_of_a_class_is_known_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loud").mkdir()
    for name in ("__init__", "inner"):
        (tmp_path / f"loud/{name}.py").write_text("raise RuntimeError('imported')\n")
    module, package = code_hash("loud.inner.Source"), code_hash("loud.Source")
    assert len(module) == len(package) == 64
    (tmp_path / "loud/__init__.py").write_text("raise RuntimeError('imported again')\n")
    assert code_hash("loud.inner.Source") == module
    assert code_hash("loud.Source") != package
    (tmp_path / "folder").mkdir()  # without __init__.py
    (tmp_path / "folder" / "inner.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "loud" / ".#inner.py").symlink_to("nobody@nowhere")  # an editor's lock
    assert len(code_hash("folder.inner.Source")) == len(code_hash("loud.Source")) == 64
    for absent in (
        "folder.Source",
        "loud.absent.Source",
        "loud.inner.deeper.Source",
        "absent.Source",
        "Source",
        "",
        "sys.x",
        "..a.b",
    ):
        assert code_hash(absent) == "", absent


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        *(("own.mine", True), ("folder.inner.mine", True), ("guardreasoner.HSDPOModule", False)),
        *(
            ("torch.optim.AdamW", False),
            ("email.body", False),
            ("sys.path", False),
            ("absent.mine", False),
            ("..a", False),
        ),
    ],
)
def test_code_of_the_user_is_that_outside_installed_packages(
    name: str, is_own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.py").write_text("")
    (tmp_path / "folder").mkdir()
    assert is_users_code(name) is is_own


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"command": []}', '{"unknown": 1}'),
        '{"command": ["fit"], "fingerprint": "", "inputs": [], "content": ""}',
        '{"command": ["fit"], "fingerprint": "", "inputs": {"a": 1}, "content": ""}',
        '{"command": ["fit"], "fingerprint": "", "inputs": {}, "content": "", "config": []}',
        '{"command": [1], "fingerprint": "", "inputs": {}, "content": ""}',
    ],
)
def test_a_damaged_manifest_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert Manifest.read(tmp_path) is None


@pytest.mark.parametrize("words", [["export", "m", "--out", "o"], ["fit", "-c", "rsft.yaml"]])
def test_overwrite_takes_no_other_word_of_the_command_with_it(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    manifest = Manifest.describe(tmp_path / "a", [words[0], "--overwrite", *words[1:]], "", {})
    assert manifest.command == words
    assert manifest.made_by(words)
