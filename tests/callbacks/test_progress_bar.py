"""The progress of a fit."""

from guardreasoner.callbacks.progress_bar import metric_text


def test_metrics_fit_beside_the_bar() -> None:
    metrics = {"train/tokens_per_second": 164723.4, "val/loss": 0.70999, "train/loss": 2.107, "train/margin": -12.345}
    text = metric_text(metrics)
    assert text == "loss 2.11 margin -12.3 val 0.71 tokens/s 164,723"
    assert metric_text({"mine": 1, "note": "x"}) == "mine 1 note x"
