"""The shape of the model that a plan is made for."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from guardreasoner.diagnosis.model_shape import find_shape
from guardreasoner.errors import InputError
from guardreasoner.model.lora import LoRA

LAYERS = 4
PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


def adapter(folder: Path, **settings: Any) -> str:
    """Write the configs of a base model and of an adapter on it, without weights; return the adapter's folder."""
    base, place = folder / "base", folder / "adapter"
    base.mkdir()
    LlamaConfig(num_hidden_layers=LAYERS).save_pretrained(base)
    place.mkdir()
    content = {"base_model_name_or_path": str(base), **PLAIN, **settings}
    (place / "adapter_config.json").write_text(json.dumps(content))
    return str(place)


def shape_of(path: str, **options: Any) -> Any:
    return find_shape(path, "absent", ["fit", "--config", "configs/rsft.yaml"], **options)


@pytest.mark.parametrize(
    ("layers", "upper"), [(None, None), ([2, 3], 2), (3, 1), ([0, 1, 2, 3], 4)], ids=["all", "upper", "last", "each"]
)
def test_a_stored_adapter_is_planned_on_its_layers(tmp_path: Path, layers: object, upper: int | None) -> None:
    shape = shape_of(adapter(tmp_path, layers_to_transform=layers))
    assert shape.adapter == LoRA(8, target_modules=["q_proj"], upper_layers=upper)
    assert shape.config.num_hidden_layers == LAYERS


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type: expected LORA"),
        ({"r": 0}, "r: expected"),
        ({"r": "8"}, "r: expected"),
        ({"r": None}, "r: expected"),
        ({"target_modules": None}, "target_modules: expected"),
        ({"layers_to_transform": [0, 3]}, "layers_to_transform"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_an_adapter_that_the_plan_does_not_know_is_refused(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        shape_of(adapter(tmp_path, **settings))


def test_a_missing_base_model_is_not_replaced_by_another(tmp_path: Path) -> None:
    path = adapter(tmp_path)
    moved = (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"its base model .*base is not here") as error:
        shape_of(path)
    assert "base_path" in (error.value.hint or "")
    assert shape_of(path, adapter_base=str(moved)).adapter.r == 8
