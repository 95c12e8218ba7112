"""Files are compared with the manifest of their artefact."""

import json
import logging
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow.integrity import changed_files, require_unchanged, warn_if_changed
from guardreasoner.workflow.manifest import Manifest, manifest_path, record_made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished artefact with a file in a subfolder."""
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.json", "README.md", "inner/b.jsonl"):
        (folder / name).write_text(name)
    record_made(folder, ["fit"], {}, [])
    return folder


def test_a_damaged_file_is_named_with_both_hashes(folder: Path) -> None:
    require_unchanged(folder)
    expected = Manifest.read(folder).files["a.json"]  # type: ignore[union-attr]
    (folder / "a.json").write_text("a.jsom")
    (changed,) = changed_files(folder)
    with pytest.raises(InputError) as error:
        require_unchanged(folder)
    assert str(error.value) == (
        f"{folder}/a.json: damaged or edited since it was made: expected SHA-256 {expected[:16]}, "
        f"found {str(changed.found)[:16]}"
    )
    assert str(manifest_path(folder)) in (error.value.hint or "")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "inner" / "b.jsonl").unlink()
    with pytest.raises(InputError, match=r"b\.jsonl: .*the file is missing"):
        require_unchanged(folder)


def test_one_file_and_one_subfolder_are_compared_alone(folder: Path) -> None:
    (folder / "a.json").write_text("other")
    require_unchanged(folder / "inner")
    require_unchanged(folder / "inner" / "b.jsonl")
    with pytest.raises(InputError):
        require_unchanged(folder / "a.json")


def test_ignored_suffixes_and_new_files_are_not_compared(folder: Path) -> None:
    (folder / "README.md").write_text("edited")
    (folder / "new.json").write_text("new")
    require_unchanged(folder, (".md",))


def test_an_edit_is_accepted_by_removing_its_line(folder: Path) -> None:
    (folder / "a.json").write_text("other")
    manifest = json.loads(manifest_path(folder).read_text())
    del manifest["files"]["a.json"]
    manifest_path(folder).write_text(json.dumps(manifest))
    require_unchanged(folder)


@pytest.mark.parametrize("manifest", [None, "{", '{"name": "of another tool"}', "earlier version"])
def test_without_hashes_everything_is_accepted(manifest: str | None, folder: Path) -> None:
    if manifest == "earlier version":
        row = json.loads(manifest_path(folder).read_text())
        del row["files"]
        manifest = json.dumps(row)
    if manifest is None:
        manifest_path(folder).unlink()
    else:
        manifest_path(folder).write_text(manifest)
    (folder / "a.json").write_text("other")
    require_unchanged(folder)


def test_a_file_with_a_manifest_beside_it_is_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "guardreasoner")
    file = tmp_path / "pairs.jsonl"
    file.write_text("{}\n")
    record_made(file, ["pairs"], {}, [])
    warn_if_changed(file)
    assert not caplog.records
    file.write_text("[]\n")
    for _ in range(2):
        warn_if_changed(file)
    assert len(caplog.records) == 1  # once in a process
