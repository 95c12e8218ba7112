"""Arithmetic of the benchmarks, with expected values computed by hand."""

import math
from dataclasses import dataclass
from typing import Any

import growth
import mining_vs_transformers as mining
import pytest
import serving
from peers.comparison import timed_rate
from peers.engine_runs import EngineCandidate, search, summary
from peers.process import MeasurementFailed
from peers.ratios import Target, difference, in_turn, ratio, require_equal, speed_and_memory
from peers.real_pairs import fingerprint, length, rows_of, tokens
from peers.table import ratio_line, ratio_text

from guardreasoner.errors import InputError

EXAMPLE = {"id": "a", "prompt": [5, 6], "completions": [[7, 8, 9], [4]]}


def test_ratio_compares_runs_pairwise() -> None:
    result = ratio("speed", "best", [6.0, 8.0, 9.0], [2.0, 4.0, 3.0], [Target("speed", "best", 3.0)])
    assert result == {"what": "speed", "against": "best", "median": 3, "min": 2, "max": 3, "target": 3, "met": True}


@pytest.mark.parametrize(
    ("what", "bound", "met"),
    [
        ("speed", 2.0, True),
        ("speed", 2.1, False),
        ("memory", 2.0, True),
        ("memory", 1.9, False),
        ("share", 2.0, True),
        ("share", 2.1, False),
    ],
)
def test_speed_and_share_have_a_lower_bound_and_memory_an_upper_one(what: str, bound: float, met: bool) -> None:
    assert ratio(what, "best", [2.0], [1.0], [Target(what, "best", bound)])["met"] is met


def test_the_share_of_the_limit_is_judged_and_printed_in_percent() -> None:
    share = ratio("share", "limit", [0.84, 0.86, 0.87], [1.0] * 3, [Target("share", "limit", 0.85)])
    assert ratio_line(share) == "  share of the limit: 86.0 % (84.0 %–87.0 %), target at least 85 %: met"
    assert ratio("share", "limit", [0.84], [1.0], [Target("share", "limit", 0.85)])["met"] is False


def test_ratio_without_target_is_not_judged() -> None:
    result = ratio("memory", "default", [1.0], [2.0], [Target("speed", "default", 2.0), Target("memory", "best", 2.0)])
    assert (result["target"], result["met"]) == (None, None)


def test_difference_is_the_largest_relative_one() -> None:
    assert difference([1.0, 0.0, 10.0], [1.1, 0.0, 10.0]) == pytest.approx(0.1 / 1.1)
    assert difference([2.0, 4.0], [2.0, 3.0]) == 0.25
    assert difference([1.0, math.nan], [1.0, math.nan]) == math.inf
    with pytest.raises(ValueError, match="shorter"):
        difference([1.0, 2.0], [1.0])


def test_different_losses_are_refused() -> None:
    require_equal("micro-batch 1", 9e-5, "fp32")
    require_equal("micro-batch 1", 1e-2, "bf16")
    for dtype, differs in (("fp32", 2e-4), ("bf16", 3e-2), ("fp32", math.inf)):
        with pytest.raises(InputError, match="micro-batch 1: the losses differ by"):
            require_equal("micro-batch 1", differs, dtype)


def test_different_texts_are_refused() -> None:
    assert mining.require_same_texts(["a", "b"], ["a", "b"]) == 2
    with pytest.raises(InputError, match="1 of 2 greedy texts differ, first for prompt 1"):
        mining.require_same_texts(["a", "b"], ["a", "c"])


def test_runs_alternate_and_reverse_their_order() -> None:
    @dataclass(frozen=True)
    class Named:
        name: str

    order: list[str] = []

    def run(candidate: Named) -> dict[str, Any]:
        order.append(candidate.name)
        return {"speed": len(order)}

    runs = in_turn([Named("ours"), Named("theirs")], 3, run, lambda name, measured: name)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [measured["speed"] for measured in runs["ours"]] == [1, 4, 5]


def test_the_rate_leaves_out_the_warm_up_step() -> None:
    assert timed_rate("ours", {"examples": [8, 4, 2], "seconds": [9.0, 1.0, 2.0]}) == 2
    with pytest.raises(InputError, match="ours: all examples were in the first optimizer step"):
        timed_rate("ours", {"examples": [8], "seconds": [9.0]})


def test_a_server_that_answers_nothing_is_one_error_line() -> None:
    answered = serving.Load(1.0, [0.5], {0: {}}, {}, [1.0])
    refused = serving.Load(1.0, [], {}, {"status 503": 2}, [1.0])
    with pytest.raises(InputError, match="direct: no request was answered: 2 status 503"):
        serving.figures("direct", 1.0, answered, refused, [{"tasks": {}}] * 2)


def test_tokens_and_rows_of_an_example() -> None:
    assert (length(EXAMPLE), tokens(EXAMPLE)) == (5, 8)
    assert rows_of([EXAMPLE]) == [[5, 6, 7, 8, 9], [5, 6, 4]]
    assert fingerprint([[1, 2], [3]]) == fingerprint([(3,), (1, 2)]) != fingerprint([[1], [2, 3]])


def test_sampling_rates_and_memory() -> None:
    rates = mining.rates({"seconds": 4.0, "tokens": 200, "records": 2, "before_mb": 300.0, "peak_mb": 450.0})
    assert rates == {"tokens_per_second": 50, "records_per_second": 0.5, "memory_mb": 150, "peak_mb": 450}


def test_search_returns_the_fastest_batch_size() -> None:
    job = mining.Sampling("ours", "model", "prompts")
    speeds = {4: 10.0, 8: 30.0, 16: 20.0}

    def measure(candidate: EngineCandidate) -> dict[str, Any]:
        if candidate.job.at_once == 32:
            raise MeasurementFailed("no memory")
        return {"tokens_per_second": speeds[candidate.job.at_once], "memory_mb": 1.0}

    best, trials = search(mining.candidates(job, [4, 8, 16, 32]), measure, "tokens_per_second", mining.line)
    assert best.job.at_once == 8
    assert [trial.get("failed") for trial in trials] == [None, None, None, "no memory"]
    assert search(mining.candidates(job, [32]), measure, "tokens_per_second", mining.line)[1] == []
    with pytest.raises(InputError, match="none of these settings ran"):
        search(mining.candidates(job, [32, 32]), measure, "tokens_per_second", mining.line)


def test_summary_of_runs_and_their_ratios_to_another_side() -> None:
    ours = [{"records_per_second": speed, "memory_mb": 100.0} for speed in (4.0, 8.0, 6.0)]
    theirs = [{"records_per_second": 2.0, "memory_mb": 400.0}] * 3
    expected = {"records_per_second": 6, "memory_mb": 100, "slowest": 4, "fastest": 8, "runs": 3}
    assert summary(ours, "records_per_second") == expected
    speed, memory = speed_and_memory("plain", ours, theirs, "records_per_second", [Target("memory", "plain", 0.5)])
    assert ratio_text(speed, "plain rows") == "  speed against plain rows: 3.00 × (2.00–4.00)"
    assert ratio_text(memory, "TRL") == "  memory against TRL: 0.25 × (0.25–0.25), target at most 0.5: met"


def test_overhead_share() -> None:
    overhead = growth.overhead_share([10.0, 20.0, 40.0], [9.8, 19.0, 39.6], has_target=True)
    assert overhead["median"] == pytest.approx(0.02)
    assert (overhead["min"], overhead["max"]) == (pytest.approx(0.01), pytest.approx(0.05))
    assert overhead["met"] is True
    assert growth.overhead_share([10.0], [9.5 - 1e-6], has_target=True)["met"] is False
    assert growth.overhead_share([10.0], [9.0], has_target=False)["met"] is None


def test_change_of_time_per_pair_and_memory() -> None:
    sizes = [
        growth.per_pair(
            {"pairs": 100, "seconds": {"data": 1.0, "training": 3.0}, "peak_mb": {"data": 50, "training": 70}}
        ),
        growth.per_pair(
            {"pairs": 1000, "seconds": {"data": 5.0, "training": 25.0}, "peak_mb": {"data": 90, "training": 80}}
        ),
    ]
    assert sizes[1]["microseconds"] == {"data": 5000, "training": 25000}
    assert growth.change(sizes) == {"time_a_pair": 0.75, "memory_mb": 20, "target": None, "met": None}


@pytest.mark.parametrize(("peak", "met"), [(119, True), (120, False)])
def test_the_target_of_memory_is_that_of_1000_to_100000_pairs(peak: float, met: bool) -> None:
    few, many = (
        growth.per_pair({"pairs": pairs, "seconds": {"data": 1.0}, "peak_mb": {"data": 50, "training": mb}})
        for pairs, mb in ((1_000, 70), (100_000, peak))
    )
    changed = growth.change([few, many])
    assert (changed["memory_mb"], changed["target"], changed["met"]) == (peak - 70, 50, met)
    assert growth.change([few, few])["met"] is None
