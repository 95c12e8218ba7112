"""MKL's vector functions are called on one thread before several threads share a call."""

from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.vector_functions import FUNCTIONS, prepare_vector_functions


def test_loading_a_model_calls_each_function_with_one_number_first(tiny_base: Path) -> None:
    prepare_vector_functions.cache_clear()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        Backbone(str(tiny_base)).load()
    first_shapes: dict[str, list[int]] = {}
    for event in profiled.events():
        name = event.name.removeprefix("aten::").removesuffix("_")
        if name in FUNCTIONS and event.input_shapes:
            first_shapes.setdefault(name, event.input_shapes[0])
    assert first_shapes == {name: [1] for name in FUNCTIONS}
