"""Formats in files: what is written is read, and a file of a stranger imports nothing."""

import json
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


@pytest.mark.parametrize("content", ["{", "[]", '{"class": 3}', '{"tasks": []}', '{"class": "LlamaGuard9"}'])
def test_a_damaged_format_file_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(InputError, match=r"format\.json"):
        read_output_format(tmp_path)


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
