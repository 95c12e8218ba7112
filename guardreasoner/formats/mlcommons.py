"""The hazards S1 to S14 of Llama Guard, which follow MLCommons, and the categories of other guards in their terms.

https://github.com/meta-llama/PurpleLlama/blob/main/Llama-Guard3/8B/MODEL_CARD.md: S1 to S13 are the hazards of
MLCommons' taxonomy (arXiv 2503.05731), S14 is an addition for tool calls. The other guards publish no such table: the
maps below are ours, each category to the hazard whose definition is nearest.
"""

from collections.abc import Mapping

from guardreasoner.tasks import Task

NO_HAZARD = "no hazard"

HAZARDS: Mapping[str, str] = {
    "S1": "violent crimes",
    "S2": "non-violent crimes",
    "S3": "sex-related crimes",
    "S4": "child sexual exploitation",
    "S5": "defamation",
    "S6": "specialized advice",
    "S7": "privacy",
    "S8": "intellectual property",
    "S9": "indiscriminate weapons",
    "S10": "hate",
    "S11": "suicide & self-harm",
    "S12": "sexual content",
    "S13": "elections",
    "S14": "code interpreter abuse",
}
"""Label of the hazard task by code."""

HAZARD_TASK = Task(
    name="hazard",
    key="Hazard",
    question="name the hazard that the conversation falls under first, or say that there is none.",
    labels=(NO_HAZARD, *HAZARDS.values()),
    flags=False,
)
"""Which hazard a conversation falls under; the first if there are several."""

HAZARD_OF_AEGIS: Mapping[str, str] = {
    "Safe": NO_HAZARD,
    "Violence": "violent crimes",
    "Sexual": "sexual content",
    "Criminal Planning/Confessions": "non-violent crimes",
    "Guns and Illegal Weapons": "non-violent crimes",
    "Controlled/Regulated Substances": "non-violent crimes",
    "Suicide and Self Harm": "suicide & self-harm",
    "Sexual (minor)": "child sexual exploitation",
    "Hate/Identity Hate": "hate",
    "PII/Privacy": "privacy",
    "Harassment": "hate",
    "Threat": "violent crimes",
    "Manipulation": "non-violent crimes",
    "Fraud/Deception": "non-violent crimes",
    "Malware": "non-violent crimes",
    "Political/Misinformation/Conspiracy": "elections",
    "Copyright/Trademark/Plagiarism": "intellectual property",
    "Unauthorized Advice": "specialized advice",
    "High Risk Gov Decision Making": "specialized advice",
    "Illegal Activity": "non-violent crimes",
}
"""Hazard by category of Aegis 1 and 2. No hazard is near Profanity, Needs Caution, Immoral/Unethical and Other."""

HAZARD_OF_QWEN3GUARD: Mapping[str, str] = {
    "None": NO_HAZARD,
    "Violent": "violent crimes",
    "Non-violent Illegal Acts": "non-violent crimes",
    "Sexual Content or Sexual Acts": "sexual content",
    "PII": "privacy",
    "Suicide & Self-Harm": "suicide & self-harm",
    "Unethical Acts": "hate",
    "Politically Sensitive Topics": "elections",
    "Copyright Violation": "intellectual property",
}
"""Hazard by category of Qwen3Guard. Jailbreak is a way of asking, not a hazard."""
