"""Lightning callbacks: checkpoints, writers, free space, accuracies, mining results, plots, throughput, texts."""

from guardreasoner.callbacks.fit_checkpoints import FitCheckpoints, Interval
from guardreasoner.callbacks.free_space import FreeSpace
from guardreasoner.callbacks.hard_sample_accuracy import HardSampleAccuracy
from guardreasoner.callbacks.mining_findings import MiningFindings
from guardreasoner.callbacks.progress_bar import StepProgress
from guardreasoner.callbacks.sample_texts import SampleTexts
from guardreasoner.callbacks.score_plots import ScorePlots
from guardreasoner.callbacks.shared_folder import SharedFolder
from guardreasoner.callbacks.throughput import Throughput
from guardreasoner.callbacks.writers import PredictionWriter, RolloutWriter

__all__ = [
    "FitCheckpoints",
    "FreeSpace",
    "HardSampleAccuracy",
    "Interval",
    "MiningFindings",
    "PredictionWriter",
    "RolloutWriter",
    "SampleTexts",
    "ScorePlots",
    "SharedFolder",
    "StepProgress",
    "Throughput",
]
