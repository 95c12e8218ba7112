"""What watches a run: writers of rollouts and predictions, hard-sample accuracy, mining, scores, throughput, texts."""

from guardreasoner.callbacks.hard_samples import HardSampleAccuracy
from guardreasoner.callbacks.mining_findings import MiningFindings
from guardreasoner.callbacks.score_plots import ScorePlots
from guardreasoner.callbacks.texts import SampleTexts
from guardreasoner.callbacks.throughput import Throughput
from guardreasoner.callbacks.writers import PredictionWriter, RolloutWriter

__all__ = [
    "HardSampleAccuracy",
    "MiningFindings",
    "PredictionWriter",
    "RolloutWriter",
    "SampleTexts",
    "ScorePlots",
    "Throughput",
]
