"""All parts of the campaign, in the order of the page."""

from reliability import (
    bad_inputs,
    bit_flips,
    canary_key,
    controls,
    fuzzing,
    golden_curves,
    kills,
    machine_faults,
    malicious,
    processes,
    signals,
    writes,
)
from reliability.part import Part

PARTS: dict[str, Part] = {
    module.PART.name: module.PART
    for module in (
        *(kills, controls, writes, signals, processes, bad_inputs, bit_flips, machine_faults, malicious, canary_key),
        *(fuzzing, golden_curves),
    )
}
