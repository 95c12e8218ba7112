"""Results in the terminal."""

from guardreasoner.cli.metric_lines import metric_lines


def test_shares_are_in_percent_with_a_line_for_each_task() -> None:
    values = {"accuracy": 0.2679, "f1/request/harmful": 0.5, "accuracy/request": 1.0, "hard_sample_accuracy": 0.25}
    assert metric_lines(values) == [
        "accuracy 26.79 %, hard-sample accuracy 25.00 %",
        "request: f1/harmful 50.00 %, accuracy 100.00 %",
    ]


def test_other_values_are_shown_as_they_are() -> None:
    assert metric_lines({"loss": 0.2679, "my/own": 2.0}) == ["loss 0.2679, my/own 2.0000"]
