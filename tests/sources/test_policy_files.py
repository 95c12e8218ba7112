"""Policies in files: a column, an id in a file of policies, or one policy for a source."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.sources.files import Files
from guardreasoner.sources.policy_files import read_policies, read_policy
from guardreasoner.sources.row_parser import Columns
from guardreasoner.tasks import GUARD_TASKS, POLICY_TASKS, Task

TASKS = [*POLICY_TASKS, *GUARD_TASKS]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that messages contain short paths."""
    monkeypatch.chdir(tmp_path)


def write(*rows: dict[str, Any]) -> str:
    """Write rows with a label of the policy task to ``a.jsonl``."""
    lines = (json.dumps({"labels": {"policy": "violates"}, **row}) + "\n" for row in rows)
    Path("a.jsonl").write_text("".join(lines))
    return "a.jsonl"


FILES = {
    "p.yaml": "brief: |\n  Be brief.\n1: Be good.\nno: Say no.\n",
    "p.json": '{"brief": "Be brief.", "1": "Be good.", "no": "Say no."}',
    "p.jsonl": '{"id": "brief", "text": " Be brief."}\n{"id": 1, "text": "Be good."}\n{"id": "no", "text": "Say no."}',
}


@pytest.mark.parametrize("name", [*FILES, "folder"])
def test_policies_by_id(name: str) -> None:
    if name == "folder":
        Path("folder").mkdir()
        for file, text in {"brief.txt": "Be brief.\n", "1.md": "Be good.", "no.TXT": "Say no.", "a.pdf": "?"}.items():
            Path("folder", file).write_text(text)
    else:
        Path(name).write_text(FILES[name])
    path = write(
        {"prompt": "A?", "policy_id": "brief"}, {"prompt": "B?", "policy_id": 1}, {"prompt": "C?", "policy_id": "no"}
    )
    records = Files(train=path, tasks=TASKS, policies=name).records("train")
    assert [record.policy for record in records] == ["Be brief.", "Be good.", "Say no."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.yaml", "a: ' '", "p.yaml: a: found an empty policy, expected a text"),
        ("p.yaml", "a: [1]", "p.yaml: a: found list, expected a text"),
        ("p.yaml", "- a", "p.yaml: found list, expected a mapping of ids to texts"),
        ("p.yaml", "a: b\na: c", "p.yaml:2: not valid YAML: "),
        ("p.yaml", "", "p.yaml: found NoneType, expected a mapping"),
        ("p.json", "{", "p.json: not valid JSON: "),
        ("p.json", "{}", "p.json: found no policy, expected at least one"),
        ("p.json", '{"a": "\\ud800"}', "p.json: a: found a lone surrogate"),
        ("p.jsonl", '{"id": "a"}', "p.jsonl:1: missing field 'text', expected id and text"),
        ("p.jsonl", '{"id": "a", "text": "b"}\n' * 2, "p.jsonl:2: the id 'a' occurs twice"),
        ("p.jsonl", '{"id": [], "text": "b"}\n' * 2, "p.jsonl:1: expected an id that is a text"),
        ("p.txt", "Be good.", "p.txt: expected a name that ends in .yaml, .json or .jsonl"),
        ("folder/a.pdf", "", "folder: found no file that ends in .txt or .md"),
        ("folder/a.txt", "\n", "folder/a.txt: found an empty policy"),
    ],
)
def test_a_faulty_file_of_policies_is_refused(name: str, content: str, message: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(content)
    with pytest.raises(InputError) as caught:
        read_policies(Path(name).parent if "/" in name else name)
    assert str(caught.value).startswith(message)


def test_a_missing_file_of_policies() -> None:
    with pytest.raises(InputError, match=r"p\.yaml: no such file or folder of policies"):
        list(Files(train=write({"prompt": "A?"}), tasks=TASKS, policies="p.yaml").records("train"))
    with pytest.raises(InputError, match=r"columns\.policy_id: there are no policies"):
        Files(train="a.jsonl", columns=Columns(policy_id="id"))


def test_the_policy_of_a_source_is_that_of_rows_without_one() -> None:
    Path("rules.md").write_text("Be brief.\n")
    path = write({"prompt": "A?", "policy": "Be good."}, {"prompt": "B?"}, {"prompt": "C?", "policy": None})
    for given in ("rules.md", "Be brief."):
        records = Files(train=path, tasks=TASKS, policy=given).records("train")
        assert [record.policy for record in records] == ["Be good.", "Be brief.", "Be brief."]
    assert read_policy("Name no rules.md", "key") == "Name no rules.md"
    Path("Acme rules.md").write_text("Be good.\n")
    assert read_policy("Acme rules.md", "key") == "Be good."
    assert read_policy("Name no path such as rules/a.md.", "key") == "Name no path such as rules/a.md."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gone.txt", "gone.txt: cannot be read: No such file"),
        ("rules/Acme policy.md", "rules/Acme policy.md: cannot be read: No such file"),
        ("rules.yaml", "key: rules.yaml: expected a text, or a file that ends in .txt or .md"),
        ("our rules/all.JSONL", "key: our rules/all.JSONL: expected a text"),
        (" ", "key: found an empty policy"),
    ],
)
def test_a_path_that_holds_no_policy_is_refused(given: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_policy(given, "key")
    assert str(caught.value).startswith(message)


def test_faults_of_rows() -> None:
    Path("p.json").write_text('{"a": "Be good."}')
    rows: list[dict[str, Any]] = [
        {"prompt": "A?"},
        {"prompt": "B?", "policy": " "},
        {"prompt": "C?", "policy": "Be good.", "policy_id": "a"},
        {"prompt": "D?", "policy_id": "b"},
        {"prompt": "E?", "policy_id": "a"},
        {"prompt": "F?", "labels": {"request": "harmful"}},
    ]
    with pytest.raises(InputError) as caught:
        list(Files(train=write(*rows), tasks=TASKS, policies="p.json").records("train"))
    assert [fault.removeprefix("a.jsonl:") for fault in caught.value.details] == [
        "1: policy: found none, expected a policy, which the label of policy is about",
        "2: policy: found an empty text, expected text",
        "3: policy_id: the row has a policy in policy too, expected only one",
        "4: policy_id: found 'b', expected the id of a policy",
    ]


@pytest.mark.parametrize("tasks", [None, TASKS])
def test_no_policy_of_a_row_gives_way_to_that_of_the_source(tasks: list[Task] | None) -> None:
    labels = {"labels": {"request": "harmful"}} if tasks is None else {}
    text = {"prompt": "A?", "policy": "Be good.", "policy_id": "x", **labels}
    blank = {"prompt": "B?", "policy_id": " ", **labels}
    records = list(Files(train=write(text, blank), tasks=tasks, policy="Be brief.").records("train"))
    assert [record.policy for record in records] == ["Be good.", "Be brief."]
    fault = "policy_id: found 'x', but there are no policies; expected their file in data.source.policies"
    for policy in ("Be brief.", None) if tasks else ("Be brief.",):
        with pytest.raises(InputError) as caught:
            list(Files(train=write({**blank, "policy_id": "x"}, text), tasks=tasks, policy=policy).records("train"))
        assert list(caught.value.details) == [f"a.jsonl:1: {fault}"]


def test_one_conversation_under_two_policies_is_neither_a_duplicate_nor_a_contradiction() -> None:
    first, second = ({"prompt": "A?", "policy": f"Be {how}."} for how in ("good", "brief"))
    rows = [first, {**second, "labels": {"policy": "complies"}}]
    assert len(list(Files(train=write(*rows), tasks=TASKS).records("train"))) == 2
    with pytest.raises(InputError) as caught:
        list(Files(train=write(*rows, {**second, "labels": {"policy": "violates"}}), tasks=TASKS).records("train"))
    assert caught.value.details == (
        "a.jsonl:3: labels: found policy violates, expected complies as for the same conversation at a.jsonl:2",
    )


def test_a_policy_that_no_task_uses_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    path = write(*({"prompt": text, "policy": "Be good.", "labels": {"request": "harmful"}} for text in ("A?", "B?")))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert [r.policy for r in Files(train=path).records("train")] == [None, None]
        assert not caplog.messages
        files = Files(train=path, columns=Columns(policy="policy"))
        assert [r.policy for r in files.records("train")] == ["Be good."] * 2
    assert caplog.messages == ["2 of 2 rows have a policy, which no task uses; it is part of their prompts"]


def test_policies_are_part_of_the_identity_of_a_source() -> None:
    path = write({"prompt": "A?"})
    identities = []
    for text in ("Be good.", "Be brief."):
        Path("rules.txt").write_text(text)
        identities.append(Files(train=path, tasks=TASKS, policy="rules.txt").identity())
    assert identities[0] != identities[1]
