"""Train reasoning guard models: R-SFT, hard-sample mining, HS-DPO, evaluation.

The names in the block below are public: ``guardreasoner.HSDPOModule`` in Python and as a ``class_path`` in YAML. Each
is imported when it is first used, so ``import guardreasoner`` loads no torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from guardreasoner.moved import MovedModules, public_names

if TYPE_CHECKING:
    from guardreasoner.callbacks import HardSampleAccuracy as HardSampleAccuracy
    from guardreasoner.callbacks import MiningFindings as MiningFindings
    from guardreasoner.callbacks import PredictionWriter as PredictionWriter
    from guardreasoner.callbacks import RolloutWriter as RolloutWriter
    from guardreasoner.callbacks import SampleTexts as SampleTexts
    from guardreasoner.callbacks import ScorePlots as ScorePlots
    from guardreasoner.callbacks import Throughput as Throughput
    from guardreasoner.errors import InputError as InputError
    from guardreasoner.evaluation.attacks import Attacks as Attacks
    from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule as BenchmarkDataModule
    from guardreasoner.evaluation.guard_module import GuardModule as GuardModule
    from guardreasoner.generators.local import LocalGenerator as LocalGenerator
    from guardreasoner.generators.plain import PlainGenerator as PlainGenerator
    from guardreasoner.generators.ray import RayGenerator as RayGenerator
    from guardreasoner.generators.server import ServerGenerator as ServerGenerator
    from guardreasoner.generators.vllm import VLLMGenerator as VLLMGenerator
    from guardreasoner.mining import Pairing as Pairing
    from guardreasoner.mining import mine as mine
    from guardreasoner.model.backbone import Backbone as Backbone
    from guardreasoner.model.lora import LoRA as LoRA
    from guardreasoner.prompts import PromptFormat as PromptFormat
    from guardreasoner.prompts import parse as parse
    from guardreasoner.records import Pair as Pair
    from guardreasoner.records import Record as Record
    from guardreasoner.records import Rollout as Rollout
    from guardreasoner.sources.aegis import Aegis as Aegis
    from guardreasoner.sources.beavertails import BeaverTails as BeaverTails
    from guardreasoner.sources.concat import Concat as Concat
    from guardreasoner.sources.embedded import Embedded as Embedded
    from guardreasoner.sources.files import Files as Files
    from guardreasoner.sources.guardreasoner_train import GuardReasonerTrain as GuardReasonerTrain
    from guardreasoner.sources.harmbench import HarmBench as HarmBench
    from guardreasoner.sources.openai_moderation import OpenAIModeration as OpenAIModeration
    from guardreasoner.sources.released import Released as Released
    from guardreasoner.sources.safe_rlhf import SafeRLHF as SafeRLHF
    from guardreasoner.sources.simple_safety_tests import SimpleSafetyTests as SimpleSafetyTests
    from guardreasoner.sources.toxicchat import ToxicChat as ToxicChat
    from guardreasoner.sources.wildguard import WildGuardMix as WildGuardMix
    from guardreasoner.sources.xstest import XSTestResponse as XSTestResponse
    from guardreasoner.synthesis.teacher import TeacherModule as TeacherModule
    from guardreasoner.tasks import Task as Task
    from guardreasoner.training.hsdpo import HSDPOModule as HSDPOModule
    from guardreasoner.training.losses import dpo as dpo
    from guardreasoner.training.losses import hinge as hinge
    from guardreasoner.training.losses import ipo as ipo
    from guardreasoner.training.preference_data import PreferenceDataModule as PreferenceDataModule
    from guardreasoner.training.reasoning_data import ReasoningDataModule as ReasoningDataModule
    from guardreasoner.training.reference import FrozenAdapter as FrozenAdapter
    from guardreasoner.training.reference import FrozenCopy as FrozenCopy
    from guardreasoner.training.reference import Precomputed as Precomputed
    from guardreasoner.training.rsft import RSFTModule as RSFTModule

__version__ = "0.1.0"

sys.meta_path.append(MovedModules())


def __getattr__(name: str) -> Any:
    if name not in public_names():
        raise AttributeError(f"module 'guardreasoner' has no attribute {name!r}")
    return getattr(import_module(public_names()[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *public_names()])
