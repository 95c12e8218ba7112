"""The cost of the outputs that runs were scored on: tokens and seconds."""

from collections.abc import Mapping, Sequence

from guardreasoner.mining.findings import SamplingCost
from guardreasoner.report.table import UNDEFINED, Cell, Table

COST_NOTE = (
    "Cost: all outputs of the test, the sampled ones for hard records included; seconds are those of the run that made "
    "them, on its machine."
)


def cost_table(costs: Mapping[str, Sequence[SamplingCost]]) -> Table:
    """Return the tokens and seconds of each run's outputs by kind of device.

    Args:
        costs: Costs by run; empty for a run whose files record none.
    """
    headings = ("run", "device", "outputs", "tokens\nper output", "seconds", "outputs\nper second")
    rows = []
    for run, devices in costs.items():
        for cost in devices:
            numbers = [f"{cost.outputs:,}", _ratio(cost.tokens, cost.outputs), f"{cost.seconds:,.1f}"]
            rows.append([*map(Cell, (run, cost.device, *numbers, _ratio(cost.outputs, cost.seconds)))])
        if not devices:
            rows.append([Cell(run), *[Cell(UNDEFINED)] * (len(headings) - 1)])
    return Table("Cost of the outputs", headings, rows, text_columns=2)


def _ratio(amount: float, per: float) -> str:
    return f"{amount / per:,.1f}" if per else UNDEFINED
