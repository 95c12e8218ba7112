"""Lightning callbacks: writers, free space, hard-sample accuracy, mining results, plots, throughput, sample texts."""

from guardreasoner.callbacks.free_space import FreeSpace
from guardreasoner.callbacks.hard_sample_accuracy import HardSampleAccuracy
from guardreasoner.callbacks.mining_findings import MiningFindings
from guardreasoner.callbacks.sample_texts import SampleTexts
from guardreasoner.callbacks.score_plots import ScorePlots
from guardreasoner.callbacks.throughput import Throughput
from guardreasoner.callbacks.writers import PredictionWriter, RolloutWriter

__all__ = [
    "FreeSpace",
    "HardSampleAccuracy",
    "MiningFindings",
    "PredictionWriter",
    "RolloutWriter",
    "SampleTexts",
    "ScorePlots",
    "Throughput",
]
