"""A format of each kind."""

from guardreasoner import (
    DynaGuard,
    GptOssSafeguard,
    GraniteGuardian,
    LlamaGuard3,
    LlamaGuard4,
    NemotronContentSafetyReasoning,
    Qwen3GuardGen,
    ShieldGemma,
    WildGuard,
)
from guardreasoner.formats.published import PublishedFormat

REQUEST, RESPONSE = LlamaGuard3(), LlamaGuard3("response")
FORMATS: tuple[PublishedFormat, ...] = (
    *(REQUEST, RESPONSE, LlamaGuard3(hazard=True), LlamaGuard4(), Qwen3GuardGen(), Qwen3GuardGen("response")),
    *(GraniteGuardian(), GraniteGuardian("policy"), ShieldGemma(), ShieldGemma("policy"), GptOssSafeguard()),
    *(NemotronContentSafetyReasoning(), DynaGuard(), WildGuard()),
)
