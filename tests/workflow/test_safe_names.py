"""Names from data become names of folders that stay inside their folder and apart from each other."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.workflow.safe_names import folder_names

HOSTILE = (
    *("..", ".", "../..", "/etc/passwd", "..\\..\\x", "a/../../b", ".git", "\x00", "a\x00b", "~", "a\nb", "\x1b[2J"),
    *("CON", "nul.txt", "com1", "x" * 300, "é" * 200, "\ud800", "\u202eexe", "a.", "a ", "-rf", "tasks.json"),
    *("MANIFEST.json", "", "records", "a/b", "a-b", "A-B"),
)


def names_of(sources: list[str]) -> dict[str, str]:
    return folder_names(sources, empty="records", taken=("tasks.json", "manifest.json"))


def require_safe(folders: dict[str, str], root: Path) -> None:
    keys = [name.casefold() for name in folders.values()]
    assert len(set(keys)) == len(keys)
    for name in folders.values():
        assert name not in ("", ".", "..", "tasks.json", "manifest.json")
        assert not set(name) & {"/", "\\", "\x00", "\x1b", "\n", "\u202e"}
        assert not name.startswith(".")
        assert len(name.encode()) <= 240
        assert (root / name).resolve().parent == root


def test_safe_names_are_kept() -> None:
    names = ["XSTest", "Aegis Safety", "xstest@persona", "你好", "v1.2", "a:b"]
    assert names_of(names) == {name: name for name in names}
    assert names_of(["a/b", ""]) == {"a/b": "a-b", "": "records"}


def test_hostile_names_stay_inside_and_apart(tmp_path: Path) -> None:
    folders = names_of([*HOSTILE, *HOSTILE])
    assert set(folders) == set(HOSTILE)
    require_safe(folders, tmp_path)
    for name in folders.values():
        (tmp_path / name).mkdir()
    assert (folders["records"], folders["A-B"]) == ("records", "A-B")
    assert names_of(list(reversed(HOSTILE))) == folders


@given(st.lists(st.text(st.characters(), max_size=12) | st.sampled_from(HOSTILE), max_size=12))
def test_any_names_are_made_safe(names: list[str]) -> None:
    folders = names_of(names)
    assert set(folders) == set(names)
    require_safe(folders, Path("/somewhere"))


def test_a_crafted_name_does_not_take_the_name_of_another() -> None:
    crafted = names_of(["a-b", "a/b"])["a/b"]
    require_safe(names_of(["a-b", "a/b", crafted]), Path("/somewhere"))
