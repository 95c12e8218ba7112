import gzip
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources import hub
from guardreasoner.sources.beavertails import BeaverTails
from tests.support.hub_folders import stay_offline, write_readme, write_rows

ROWS = [{"prompt": f"Question {number}?", "label": number % 2, "more": "x" * 50} for number in range(5)]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "some" / "set"
    write_readme(folder, {"one": {"30k_train": "a.parquet", "test": "data/b.parquet"}, "two": {"test": "c.parquet"}})
    write_rows(folder / "a.parquet", ROWS[:1])
    write_rows(folder / "data" / "b.parquet", ROWS)
    write_rows(folder / "c.parquet", [{"prompt": "Only?", "label": None}])
    return folder


def error_and_hint(rows: Iterator[Any]) -> tuple[str, str | None]:
    with pytest.raises(InputError) as raised:
        list(rows)
    return str(raised.value), raised.value.hint


def test_rows_have_a_location_and_the_requested_columns(folder: Path) -> None:
    rows = list(hub.read_dataset_rows(str(folder), "one", "test", ["label", "prompt"]))
    assert rows[3] == (f"{folder} one/test row 3", {"prompt": "Question 3?", "label": 1})
    assert [row for _, row in rows] == [{"prompt": row["prompt"], "label": row["label"]} for row in ROWS]
    assert list(hub.read_dataset_rows(str(folder), "two", "test", ["prompt"])) == [
        (f"{folder} two/test row 0", {"prompt": "Only?"})
    ]


def test_the_text_none_is_not_null(tmp_path: Path) -> None:
    write_rows(tmp_path / "set" / "test.csv", [{"prompt": "None", "label": 1}, {"prompt": 'a\n"b"', "label": 0}])
    rows = hub.read_dataset_rows(f"{tmp_path}/set", None, "test", ["prompt"], options=hub.csv_options("prompt"))
    assert [row for _, row in rows] == [{"prompt": "None"}, {"prompt": 'a\n"b"'}]


def test_changed_files_are_read_again(folder: Path) -> None:
    assert len(list(hub.read_dataset_rows(str(folder), "one", "test", ["prompt"]))) == 5
    write_rows(folder / "data" / "b.parquet", ROWS[:2])
    assert len(list(hub.read_dataset_rows(str(folder), "one", "test", ["prompt"]))) == 2


def test_rows_are_read_lazily_from_disk(folder: Path) -> None:
    rows = hub.read_dataset_rows(str(folder), "one", "test", ["prompt"])
    assert next(rows)[1] == {"prompt": "Question 0?"}
    # the inner generator's data set is backed by an Arrow file, not held in memory
    assert rows.gi_yieldfrom.gi_frame.f_locals["dataset"].cache_files  # type: ignore[attr-defined]


@pytest.mark.parametrize("disabled", [True, False])
def test_the_progress_bar_setting_is_restored(folder: Path, disabled: bool, capfd: pytest.CaptureFixture[str]) -> None:
    before = datasets.are_progress_bars_disabled()
    (datasets.disable_progress_bars if disabled else datasets.enable_progress_bars)()
    try:
        list(hub.read_dataset_rows(str(folder), "one", "test", ["prompt"]))
        assert datasets.are_progress_bars_disabled() == disabled
        assert capfd.readouterr() == ("", "")
    finally:
        (datasets.disable_progress_bars if before else datasets.enable_progress_bars)()


def test_missing_parts_of_a_folder_are_named(folder: Path) -> None:
    hint = "path must be a repository on the hub, or a folder with its files and its README.md, which names the splits"
    path = str(folder)
    read = hub.read_dataset_rows
    found = error_and_hint(read(path, "three", "test", ["prompt"]))
    assert found == (f"{path} three/test: BuilderConfig 'three' not found. Available: ['one', 'two']", hint)
    found = error_and_hint(read(path, "one", "train", ["prompt"]))
    assert found == (f"{path} one/train: Unknown split \"train\". Should be one of ['30k_train', 'test'].", hint)
    assert error_and_hint(read(path, "one", "test", ["prompt", "text"])) == (
        f"{path} one/test: no column 'text', found prompt, label, more; expected prompt, text",
        None,
    )
    for missing in (f"{path}/no", "./no", "~/no/such", "no/such/folder"):
        assert error_and_hint(read(missing, None, "test", ["prompt"])) == (f"{missing}: no such folder", hint)
    found = error_and_hint(read(path, "one", "test", ["prompt"], options=hub.csv_options("prompt")))
    assert found == (f"{path} one/test: the files are not CSV, unlike those on the hub", hint)


def test_an_unreachable_hub_is_reported() -> None:
    assert error_and_hint(hub.read_dataset_rows("some/set", "one", "test", ["prompt"], revision="v0")) == (
        "some/set one/test: Couldn't reach 'some/set' on the Hub (OfflineModeIsEnabled)",
        "log in (hf auth login) and accept the terms at https://huggingface.co/datasets/some/set, "
        "or give a folder with its files as path",
    )


def test_a_gated_data_set_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.\nVisit …")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    message, hint = error_and_hint(hub.read_dataset_rows("a/b", None, "test", ["prompt"]))
    assert message == "a/b test: Dataset 'a/b' is a gated dataset on the Hub. Visit …"
    assert hint is not None
    assert hint.startswith("log in (hf auth login)")


@pytest.mark.parametrize(
    ("name", "content", "message_start"),
    [
        ("test.jsonl", "", "the split has no rows"),
        ("test.csv", "prompt,label\n", "the split has no rows"),
        ("test.jsonl", '{"prompt": "x"}\n{"prompt": 3\n', ""),
        ("test.parquet", "x", ""),
    ],
)
def test_a_damaged_file_is_reported(
    tmp_path: Path, name: str, content: str, message_start: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / name).write_text(content)
    message, _ = error_and_hint(hub.read_dataset_rows(str(folder), None, "test", ["prompt"]))
    assert message.startswith(f"{folder} test: {message_start}")
    assert "\n" not in message
    assert len(message) > len(f"{folder} test: ")
    assert capfd.readouterr() == ("", "")


def test_csv_and_json_files(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.csv", [{"prompt": "NA"}])
    assert list(hub.read_csv_rows(str(file), ["prompt"])) == [(f"{file} row 0", {"prompt": "NA"})]
    absent = f"{tmp_path}/b.csv"
    found = error_and_hint(hub.read_csv_rows(absent, ["prompt"]))
    assert found == (f"{absent}: Local file {absent} doesn't exist", "path must hold the same files")
    write_rows(tmp_path / "a.json", [{"a": 1}])
    assert hub.read_json_file(f"{tmp_path}/a.json") == [{"a": 1}]
    (tmp_path / "a.json").write_text("{\n1}")
    with pytest.raises(InputError, match=r"a\.json:2: not valid JSON: Expecting property name"):
        hub.read_json_file(f"{tmp_path}/a.json")
    with pytest.raises(InputError, match=r"no\.json: Local file .*no\.json doesn't exist"):
        hub.read_json_file(f"{tmp_path}/no.json")
    with pytest.raises(InputError, match="Offline mode is enabled") as raised:
        hub.read_json_file("https://example.org/a.json")
    assert raised.value.hint == "give a folder with the repository's files as path"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "s row 1: c: found null, expected text"),
        (3, "s row 1: c: found int, expected text"),
    ],
)
def test_required_text_must_not_be_null(cell: object, message: str) -> None:
    with pytest.raises(InputError) as raised:
        hub.required_text({"c": cell}, "c", "s row 1")
    assert str(raised.value) == message


def test_optional_text_may_be_empty_or_null() -> None:
    assert hub.required_text({"c": " "}, "c", "s") == " "
    assert hub.optional_text({"c": ""}, "c", "s") == ""
    assert hub.optional_text({"c": None}, "c", "s") is None
    with pytest.raises(InputError, match="s: c: found null, expected text"):
        hub.required_text({"c": None}, "c", "s")
    with pytest.raises(InputError, match="s: c: found list, expected text"):
        hub.optional_text({"c": ["a"]}, "c", "s")


def test_a_value_must_be_in_the_mapping() -> None:
    for value, label in (("harmful", "harmful"), ("unharmful", "unharmful"), (None, None)):
        assert hub.mapped_value({"c": value}, "c", hub.HARMFUL, "s") == label
    for cell, shown in (("Harmful", "'Harmful'"), (["x"], "['x']"), ("y" * 60, "'" + "y" * 38 + "…")):
        with pytest.raises(InputError) as raised:
            hub.mapped_value({"c": cell}, "c", hub.HARMFUL, "s row 1")
        assert str(raised.value) == f"s row 1: c: found {shown}, expected one of 'harmful', 'unharmful', null"


def test_skipped_rows_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    record = Record("1", "Hm?", labels={"request": "harmful"})
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert list(hub.drop_unusable([record, record], "Set", "are odd")) == [record, record]
        assert caplog.messages == []
        assert list(hub.drop_unusable([record] * 2853 + [None] * 2229, "Set", "are odd")) == [record] * 2853
    assert caplog.messages == ["Set: 2,853 of 5,082 rows used; the others are odd"]
    assert error_and_hint(hub.drop_unusable([None, None], "Set", "are odd")) == (
        "Set: none of 2 rows can be used; they are odd",
        None,
    )


def test_the_identity_depends_on_arguments_and_contents(folder: Path) -> None:
    identity = BeaverTails(str(folder), validation_share=0.5).identity()
    assert identity == BeaverTails(str(folder), validation_share=0.5).identity()
    assert identity != BeaverTails(str(folder)).identity()
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("changes")
    assert identity == BeaverTails(str(folder), validation_share=0.5).identity()
    write_rows(folder / "c.parquet", [{"prompt": "Another?", "label": 1}])
    assert identity != BeaverTails(str(folder), validation_share=0.5).identity()
    assert BeaverTails(revision="v1").identity() == {
        "class": "BeaverTails",
        "path": "PKU-Alignment/BeaverTails",
        "revision": "v1",
        "splits": ("train", "validation", "test"),
        "validation_share": 0.0,
    }


@pytest.fixture(params=["file", "folder"])
def read_csv(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that reads columns a and b of a CSV text, by itself or in the folder of a data set."""

    def read(text: str) -> list[dict[str, Any]]:
        file = tmp_path / "set" / "test.csv"
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
        columns, options = ("a", "b"), hub.csv_options("a", "b")
        if request.param == "file":
            rows = hub.read_csv_rows(str(file), columns)
        else:
            rows = hub.read_dataset_rows(str(file.parent), None, "test", columns, options=options)
        return [row for _, row in rows]

    return read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,2,3\n",
            r"set/test\.csv:2: found 3 cells, but the header has 2; a text with a comma must be in quotes",
        ),
        ("a,b\n1, 2,3\n4,5,\n", r"set/test\.csv:2: found 3 cells, but the header has 2"),
        ("a,b\n1,2\n\n3,4,5\n", r"set/test\.csv:4: found 3 cells, but the header has 2"),
        ("a,b,a\n1,2,3\n", r"set/test\.csv:1: the column 'a' occurs twice"),
        ("", r"set/test\.csv: the file is empty, expected a header"),
        ("\n\n", r"set/test\.csv: the file is empty, expected a header"),
        ("a,b\n", "the split has no rows"),
        ("a,c\n1,2\n", "no column 'b', found a, c; expected a, b"),
    ],
)
def test_a_csv_file_that_pandas_would_misread_is_refused(
    read_csv: Callable[[str], list[dict[str, Any]]], text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_csv(text)


def test_cells_of_csv_files_are_texts(read_csv: Callable[[str], list[dict[str, Any]]]) -> None:
    rows = read_csv('\ufeffa,b,,\n12,,,\n\n007,"x, ""y""\nz"\nNA,true\n1e5,0.50\n')
    cells = [("12", ""), ("007", 'x, "y"\nz'), ("NA", "true"), ("1e5", "0.50")]
    assert rows == [{"a": a, "b": b} for a, b in cells]


def test_a_csv_file_is_checked_as_its_data_set_says_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    card = "configs: [{config_name: x, sep: ';', data_files: [{split: test, path: a.csv}]}]"
    (folder / "README.md").write_text(f"---\n{card}\n---\n")
    (folder / "a.csv").write_text("a;b\n1,5;2\n")
    rows = hub.read_dataset_rows(str(folder), "x", "test", ("a", "b"), options=hub.csv_options("a", "b"))
    assert [row for _, row in rows] == [{"a": "1,5", "b": "2"}]
    (folder / "a.csv").write_text("a;b\n1;5;2\n")
    with pytest.raises(InputError, match=r"a\.csv:2: found 3 cells"):
        list(hub.read_dataset_rows(str(folder), "x", "test", ("a", "b")))


@pytest.mark.parametrize(
    ("front_matter", "message"),
    [
        ("configs: [a: b: c", "README.md: its YAML is not valid, line 1 of it: "),
        ("configs:\n\t- a", "README.md: its YAML is not valid, line 2 of it: found character '\\t' that cannot start"),
        ("configs: 3", ""),
        ("configs: [{data_files: 3}]", ""),
        ("- configs", ""),
    ],
)
def test_a_broken_data_card_is_one_line(folder: Path, front_matter: str, message: str) -> None:
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n")
    found, _ = error_and_hint(hub.read_dataset_rows(str(folder), "one", "test", ["prompt"]))
    assert found.startswith(f"{folder}/{message}" if message else str(folder))
    assert "\n" not in found


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "test.csv.gz").write_bytes(gzip.compress(b"prompt\n" + b"How?\n" * 99)[:-9])
    found, _ = error_and_hint(hub.read_dataset_rows(str(folder), None, "test", ["prompt"]))
    assert found.startswith(f"{folder} test: ")


def test_a_folder_of_another_format_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match="saved test: the folder was written by save_to_disk"):
        list(hub.read_dataset_rows(str(tmp_path / "saved"), None, "test", ["prompt"]))
