"""Lightning callbacks: output writers, hard-sample accuracy, mining results, score plots, throughput, sample texts."""

from guardreasoner.callbacks.hard_sample_accuracy import HardSampleAccuracy
from guardreasoner.callbacks.mining_findings import MiningFindings
from guardreasoner.callbacks.sample_texts import SampleTexts
from guardreasoner.callbacks.score_plots import ScorePlots
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
