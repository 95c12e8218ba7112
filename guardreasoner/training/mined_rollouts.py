"""Mine the rollouts that a training config names: the hard records of its source, for both kinds of stage 2."""

import json
from collections.abc import Sequence
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.mining import MiningResult, Pairing, mine
from guardreasoner.mining.findings import Findings, findings
from guardreasoner.sources import Source
from guardreasoner.sources.rollouts import read_costs, read_training_rollouts, require_output_format
from guardreasoner.training.loaders import log

_FINDINGS = "findings.json"


def mine_rollouts(
    paths: Sequence[str], source: Source, format: GuardFormat, pairing: Pairing, stage: str
) -> tuple[MiningResult, Findings]:
    """Return the pairs of the hard training records and what mining found, and log their number.

    Args:
        paths: folders of rollouts.
        source: the source whose training records were answered.
        format: format of the model.
        pairing: how outputs are graded and paired.
        stage: name of the stage, for the log.

    Raises:
        InputError: a rollout belongs to an unknown record, or no record is hard.
    """
    require_output_format(paths, format)
    records, rollouts = read_training_rollouts(paths, source, format.tasks, format)
    mined = mine(records, rollouts, format.tasks, pairing, format)
    total = mined.total()
    if not mined.pairs:
        message = f"data.rollouts: none of {len(records)} records is hard: {total.summary()}"
        raise InputError(message, total.advice())
    pair_count = f", {total.pairs:,} pairs" if total.pairs > total.hard else ""
    log.info(f"{stage}: {total.hard:,} hard of {len(records):,} records{pair_count}")
    return mined, findings(mined, read_costs(paths))


def write_findings(folder: Path, found: Findings | None) -> None:
    """Write what mining found beside the tokenized data."""
    content = None if found is None else found.as_json()
    (folder / _FINDINGS).write_text(json.dumps(content), encoding="utf-8")


def read_findings(folder: Path) -> Findings | None:
    """Return the findings that :func:`write_findings` wrote; raise ``OSError`` or ``ValueError`` if damaged."""
    content = json.loads((folder / _FINDINGS).read_text(encoding="utf-8"))
    return None if content is None else Findings.from_json(content)
