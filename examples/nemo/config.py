"""Tell NeMo Guardrails how to read the answers of the guard."""

from typing import Any

from guardreasoner.guard.adapters import nemo_parse_prompt, nemo_parse_response


def init(app: Any) -> None:
    """Register the parsers that ``config.yml`` names; NeMo Guardrails calls this with its ``LLMRails``."""
    app.register_output_parser(nemo_parse_prompt, "guardreasoner_prompt")
    app.register_output_parser(nemo_parse_response, "guardreasoner_response")
