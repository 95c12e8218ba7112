"""Formats in files: what is written is read, and a file of a stranger imports nothing."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from guardreasoner import LlamaGuard3, PromptFormat, ShieldGemma
from guardreasoner.errors import InputError
from guardreasoner.formats.stored import format_from_json, read_output_format, write_output_format
from guardreasoner.model.backbone import Backbone
from guardreasoner.tasks import read_tasks
from tests.support.formats import FORMATS
from tests.support.guard_models import LLAMA_GUARD_TOKENS, make_guard_model


@dataclass(frozen=True)
class OwnFormat(LlamaGuard3):
    """A format of a user's own."""


@pytest.mark.parametrize("format", FORMATS, ids=repr)
def test_a_stored_format_is_read_as_it_was(format: Any, tmp_path: Path) -> None:
    assert format_from_json(json.loads(json.dumps(format.as_json())), "guard.json") == format
    write_output_format(tmp_path, format)
    assert read_output_format(tmp_path / "benchmark", tmp_path) == format
    assert read_tasks(tmp_path) == format.tasks


def test_own_outputs_need_no_format_file(tmp_path: Path) -> None:
    write_output_format(tmp_path, PromptFormat())
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.json"]
    assert read_output_format(tmp_path) is None


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"class": "Backbone", "init_args": {"path": "x"}}, "the format 'Backbone' is unknown"),
        ({"class": "os.system", "init_args": {"command": "true"}}, "the format 'os.system' is unknown"),
        ({"class": "antigravity.Format"}, "is unknown"),
        ({"class": "published.PublishedFormat"}, "is unknown"),
        ({"class": 7}, "the format 7 is unknown"),
        ({"class": "LlamaGuard3", "init_args": {"judges": "me"}}, "format.judges"),
        ({"class": "LlamaGuard3", "init_args": {"judge": "request"}}, "options of the format LlamaGuard3 are invalid"),
        ({"class": "LlamaGuard3", "init_args": [1]}, "options of the format LlamaGuard3 are invalid"),
        ({"class": "GraniteGuardian", "init_args": {"criterion": 5}}, "format.criterion"),
        ({"class": "GraniteGuardian", "init_args": {"criterion": " "}}, "format.criterion: found an empty text"),
        (["LlamaGuard3"], "expected an object, found list"),
    ],
)
def test_a_file_imports_no_class_but_those_of_the_package(stored: Any, said: str) -> None:
    before = set(sys.modules)
    with pytest.raises(InputError, match=said):
        format_from_json(stored, "guard.json")
    assert "antigravity" not in set(sys.modules) - before


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"class": 3}', '{"tasks": []}', '{"class": "LlamaGuard9"}', NESTED, '{"class": ' + NESTED),
        '{"class": "GptOssSafeguard", "init_args": {"date": "zzz"}}',
        '{"class": "GptOssSafeguard", "init_args": {"question": "\\ud800"}}',
        '{"class": "ShieldGemma", "init_args": {"harms": []}}',
    ],
    ids=lambda content: content[:70],
)
def test_a_damaged_format_file_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(InputError, match=r"format\.json: "):
        read_output_format(tmp_path)


OWN: dict[str, Any] = json.loads(json.dumps(PromptFormat().as_json()))


def own_without(name: str) -> dict[str, Any]:
    return {key: value for key, value in OWN.items() if key != name}


DAMAGED_FORMATS = [
    *("os.system", [1], 5, True, {"class": ["a.b"]}, {"class": "os.system"}),
    *(own_without(name) for name in ("tasks", "opening", "chat_template")),
    *({**OWN, "direct_line": value} for value in (5, None, "", "a\nb")),
    *({**OWN, "opening": value} for value in (5, ["a"], "\ud800")),
    *({**OWN, "chat_template": value} for value in (1, "yes", None)),
    *({**OWN, "speeds": value} for value in (5, "direct", ["bogus"], [["direct"]], {"direct": 1})),
    *({**OWN, "date": value} for value in (5, "tomorrow")),
    *({**OWN, "layout": value} for value in (5, None)),
    *({**OWN, "tasks": value} for value in (5, {}, [], [5], [{"name": "a"}], OWN["tasks"][:1] * 2)),
]


def test_a_damaged_format_of_a_model_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("*.safetensors", "manifest.json"))
    damaged = [json.dumps({"format": value}) for value in DAMAGED_FORMATS]
    for content in ('"x"', "[1]", "[]", "0", NESTED, '{"format": ' + NESTED, *damaged):
        (folder / "guard.json").write_text(content)
        with pytest.raises(InputError) as error:
            _ = Backbone(str(folder)).prompt_tokenizer
        assert str(folder) in str(error.value), content[:100]
    (folder / "guard.json").write_text(json.dumps({"format": OWN}))
    assert Backbone(str(folder)).prompt_tokenizer.format == PromptFormat()
    published = {"class": "GptOssSafeguard", "init_args": {"date": "zzz"}}
    with pytest.raises(InputError, match=r"guard\.json: format\.date: 'zzz'"):
        format_from_json(published, "guard.json")


TASK: dict[str, Any] = {"name": "tone", "key": "Tone", "question": "judge it.", "labels": ["rude", "kind"]}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        *(({}, "expected a list, found an object"), ([], "expected at least one task"), (None, "found null")),
        *(([5], "expected an object"), ([TASK, TASK], "two tasks have the name 'tone'")),
        *(
            ([{**TASK, field: 5}], f"task '?tone'?: {field}: expected a text")
            for field in ("key", "question", "judges")
        ),
        *(
            ([{**TASK, "labels": value}], "task 'tone': labels: expected a")
            for value in ("ab", ["a", 1000.0], [None, "b"])
        ),
        ([{**TASK, "labels": ["a", True]}], "task 'tone': labels: expected a text, found true or false"),
        *(([{**TASK, "ordered": value}], "task 'tone': ordered: expected true or false") for value in (1, "yes", None)),
        ([{key: value for key, value in TASK.items() if key != "key"}], "task 'tone': missing field 'key'"),
        ([{**TASK, "colour": "red"}], "task 'tone': unknown field 'colour'"),
        ([{**TASK, "question": "\ud800"}], "task 'tone': question: found a lone surrogate"),
    ],
)
def test_a_damaged_tasks_file_is_one_line(stored: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=rf"tasks\.json: not a list of tasks: .*{said}"):
        read_tasks(tmp_path)


@pytest.mark.parametrize(
    "content", [NESTED, '[{"name": ' + NESTED, "[1" + "0" * 5000 + "]", "{"], ids=lambda text: text[:10]
)
def test_a_tasks_file_that_is_no_json_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text(content)
    with pytest.raises(InputError, match=r"tasks\.json: not a list of tasks: "):
        read_tasks(tmp_path)


def test_a_format_of_the_users_own_is_loaded_with_the_same_flag_alone(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_guard_model(tiny_base, tmp_path / "model", LLAMA_GUARD_TOKENS, "<|eot_id|>")
    backbone = Backbone(str(folder), format=OwnFormat("response"))
    backbone.load()
    backbone.save(tmp_path / "own")
    stored = json.loads((tmp_path / "own" / "guard.json").read_text())["format"]
    assert stored["class"] == "tests.formats.test_stored.OwnFormat"
    for given in (None, LlamaGuard3("response"), PromptFormat()):
        with pytest.raises(
            InputError, match=r"format tests.formats.test_stored.OwnFormat, which is not part of"
        ) as error:
            _ = Backbone(str(tmp_path / "own"), format=given).prompt_tokenizer
        assert error.value.hint is not None
        assert "--model.backbone.format tests.formats.test_stored.OwnFormat" in error.value.hint
    again = Backbone(str(tmp_path / "own"), format=OwnFormat("response"))
    assert again.prompt_tokenizer.format == OwnFormat("response")
    with pytest.raises(InputError, match="differs from the prompt format"):
        _ = Backbone(str(tmp_path / "own"), format=OwnFormat()).prompt_tokenizer


def test_a_folder_keeps_its_format_and_refuses_another(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_guard_model(tiny_base, tmp_path / "model", LLAMA_GUARD_TOKENS, "<|eot_id|>")
    backbone = Backbone(str(folder), format=LlamaGuard3("response"))
    backbone.load()
    backbone.save(tmp_path / "saved")
    assert Backbone(str(tmp_path / "saved")).prompt_tokenizer.format == LlamaGuard3("response")
    for other in (LlamaGuard3(), ShieldGemma(), PromptFormat()):
        with pytest.raises(InputError, match="differs from the prompt format"):
            _ = Backbone(str(tmp_path / "saved"), format=other).prompt_tokenizer
    with pytest.raises(InputError, match="tasks of the format LlamaGuard3 are fixed: response"):
        _ = Backbone(str(tmp_path / "saved"), tasks=list(PromptFormat().tasks)).prompt_tokenizer
