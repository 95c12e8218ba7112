"""The page ``docs/evidence.md``: what holds, then tables and plots, all from stored results."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import mean, stdev

from evidence.claims import claim_lines, points_of
from evidence.curves import CHOSEN_CHANGE, CHOSEN_NLL, NO_SIGNAL
from evidence.differences import FIGURES, MIN_SEEDS, Difference, holm
from evidence.plot import write_plot
from evidence.results import Result
from evidence.section import Section, read_sections
from evidence.study import Figure, Study, shown
from guardreasoner.mining import VALIDATION_SHARE
from guardreasoner.records import replacing_file

OPENING = """`make evidence` runs what is missing and continues after a stop; several processes may run at once.
`make evidence FLAGS="--arms rsft hsdpo --seeds 1 --data embedded --results mine"` runs two arms with one seed, and
writes results and a page to a folder of your own. Another kind of processor trains other models from the same seed, so
all arms of a seed are run on one kind.
`make evidence STUDY=benchmarks/evidence/studies/settings.yaml` runs the study of the settings, `…/real.yaml` that of
real records. Arms have the names of the first column of the tables of figures.

**Claims.** A difference is taken between two models of one seed on the same records, then averaged over the seeds. Its
95 % interval, in parentheses, covers the choice of the test records and, from two seeds on, of the seeds
(`benchmarks/evidence/differences.py` says how); the training records are the same in all seeds. On hard records,
sampled outputs are compared, which are more precise than one greedy answer; the tables have both.

| a claim that | holds if | does not hold if |
|---|---|---|
| A is better than B | the whole interval is above 0 | the whole interval is below 0 |
| the measured gain of A over B is at least N points | it is at least N, and its interval above 0 | it is below N |
| A is at most N points below B | the whole interval is above −N | the whole interval is below −N |
| a share is at most N % | the whole interval is at most N % | the whole interval is above N % |

Otherwise it is undecided; fewer than three seeds decide nothing. The claims are not corrected for their number: if all
differences were zero, about one claim in 20 would still be decided. The *p* in the tables are corrected for the rows of
their column that have one (Holm). The intervals are not, so that one may exclude 0 although its *p* is above 0.05.

**Tables.** Numbers are in percent or percentage points unless a unit is given; ± is the standard deviation over seeds.
"All right" is the share of test records whose answer, greedy unless the arm votes, is right on every task.
"Seeds ahead" counts the seeds with a difference above 0. Rows with different seeds cannot be compared in the tables of
figures and costs, only in that of the differences. Seconds with ≥ are of stages that were started more than once; those
of a killed start are missing. A commit with + had uncommitted changes.
"""
COLUMNS: Mapping[str, str] = {
    "hard": "hard records, sampled outputs",
    "hard, greedy": "hard records, greedy",
    "all": "all right",
    "recall at 1 % FPR": "recall at 1 % FPR, request or policy",
    "over-refusal": "over-refusal",
    "unparsed": "unparsed",
    "tokens an output": "tokens an output",
    CHOSEN_CHANGE: "log π(chosen): change, nats an output",
    CHOSEN_NLL: "−log π(chosen), nats a token",
    NO_SIGNAL: "groups without signal",
}
"""Headings of figures; those of F1 and steerability are their names."""
DIGITS: Mapping[str, int] = {CHOSEN_NLL: 3}
"""Decimal places of figures; 1 for others."""
OF_CHOSEN = """π(chosen) is the probability of the chosen outputs of held-out pairs. Its change since the start of the
fit is logged only by fits with a reference, so SimPO, ORPO and SFT on the chosen outputs have none. The value in nats a
token is the one after the fit. Compare both only between arms that train on the same pairs, without weights of
tokens."""
OF_SAMPLED = f"""Generated tokens are those of mining and of the steps of GRPO. At its end, GRPO also answers
the {100 * VALIDATION_SHARE:g} % of its prompts that it holds out, once: these outputs change no weight and are not
counted, but their CPU seconds are. A group has no signal if all outputs of its prompt have the same reward."""
SATURATED = 2.0
"""R-SFT counts as saturated if the whole interval of the gain of longer R-SFT is below this, in points."""
FIGURE_NAMES: Mapping[Figure, str] = {"hard": "hard records", "all": "all records"}


def write_page(studies: Sequence[Study], results: Path, page: Path) -> None:
    """Write the page, and its plots beside it.

    Args:
        studies: The studies in the order of the page.
        results: Folder with a folder of results for each study.
        page: The page.

    Raises:
        InputError: A stored result is damaged, or results cannot be compared.
    """
    sections = [section for study in studies for section in read_sections(study, results / study.name)]
    made = f"Generated by `make evidence FLAGS=--page-only` from `{shown(results)}`; do not edit."
    lines = ["# What each part of the method earns", *claim_lines(sections), "", made, OPENING]
    for study in studies:
        own = [section for section in sections if section.study is study]
        lines += [f"## {study.title}", "", study.about.strip(), ""]
        for section in own:
            lines += _section_lines(section, page)
        lines += _not_run(study, own)
    with replacing_file(page) as partial:
        partial.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"written: {page}", flush=True)


def _section_lines(section: Section, page: Path) -> Iterator[str]:
    yield from (f"### {section.data}", "")
    if about := section.study.data[section.data].about.strip():
        yield from (about, "")
    if not section.results:
        yield from ("No result is stored yet.", "")
        return
    if former := [section.study.arms[arm].title for arm in section.study.data[section.data].former]:
        yield from (f"With former configs, and not run again yet: {'; '.join(former)}.", "")
    hard = [one.hard_records for found in section.results.values() for one in found]
    yield from (f"Hard test records: {min(hard)} to {max(hard)} a seed.", "")
    yield from (*_regime(section), *_figure_table(section), "", *_sampled_table(section), *_cost_table(section), "")
    differences = {figure: section.against_all(figure) for figure in FIGURES}
    if differences["hard"]:
        plot = page.with_name(f"{page.stem}-{section.study.name}-{section.data}.svg")
        titles = {arm: section.study.arms[arm].title for arm in differences["hard"]}
        compared = section.study.arms[section.compared].title
        write_plot(plot, compared, titles, differences)
        yield from (
            *_difference_table(section, differences),
            "",
            f"![{compared} minus each other arm]({plot.name})",
            "",
        )
    results = [one for found in section.results.values() for one in found]
    machines = sorted({one.machine for one in results})
    commits = sorted({str(row.get("commit")) for one in results for row in one.lineage.values()})
    yield from (f"Machine: {'; '.join(machines)}. Commits: {', '.join(commits)}.", "")


def _regime(section: Section) -> Iterator[str]:
    """Yield whether longer R-SFT still helps; nothing on a data set that lacks one of the two arms."""
    shorter, longer = section.study.regime
    if not {shorter, longer} <= set(section.study.arms_of(section.data)):
        return
    found = section.difference(longer, shorter, "all")
    if found is None:
        what = f"{section.study.arms[longer].title} has not been run"
        yield from (f"Whether R-SFT is saturated is not known: {what}.", "")
        return
    titles = f"{section.study.arms[longer].title} minus {section.study.arms[shorter].title}"
    low, high = found.points.low, found.points.high
    if len(found.seeds) < MIN_SEEDS or low is None or high is None or (low <= 0 and high >= SATURATED):
        state = "Whether R-SFT is saturated here is **undecided**"
    elif high < SATURATED:
        state = f"R-SFT is **saturated** here, since longer training gains less than {SATURATED:g} points"
    else:
        state = "R-SFT is **not saturated** here, since longer training helps"
    gain = f"{titles} is {points_of(found.points)} on all records (seeds: {len(found.seeds)})"
    yield from (f"{state}: {gain}.", "")


def _figure_table(section: Section) -> Iterator[str]:
    names = dict.fromkeys(name for found in section.results.values() for one in found for name in one.figures)
    shown = [name for name in names if name != NO_SIGNAL or not section.study.sampled]
    ordered = [name for name in COLUMNS if name in shown] + sorted(name for name in shown if name not in COLUMNS)
    yield f"| name | arm | seeds | {' | '.join(COLUMNS.get(name, name) for name in ordered)} |"
    yield f"|---|---|---|{'---|' * len(ordered)}"
    for arm, found in section.results.items():
        cells = [_figure(found, name) for name in ordered]
        yield f"| `{arm}` | {section.study.arms[arm].title} | {_seeds(found)} | {' | '.join(cells)} |"
    if CHOSEN_CHANGE in shown or CHOSEN_NLL in shown:
        yield from ("", OF_CHOSEN)


def _sampled_table(section: Section) -> Iterator[str]:
    """Yield a table of the arms that learn from sampled outputs, with what these cost beside the compared arm's."""
    compared = section.compared
    arms = [arm for arm in section.study.sampled if arm in section.results]
    if compared not in arms or len(arms) < 2:
        return
    heads = f"relative to {section.study.arms[compared].title} | CPU seconds | groups without signal"
    yield f"| arm that learns from sampled outputs | hard records | all right | tokens generated | {heads} |"
    yield f"|---|{'---|' * 6}"
    for arm in arms:
        found, ratio = section.results[arm], section.cost_ratio(arm, compared, "generated")
        tokens = [f"{section.cost(arm, 'generated'):,.0f}", "–" if ratio is None else f"{ratio:.2f} ×"]
        costs = [*tokens, f"{section.cost(arm, 'cpu'):,.0f}"]
        cells = [_figure(found, "hard"), _figure(found, "all"), *costs, _figure(found, NO_SIGNAL)]
        yield f"| {section.study.arms[arm].title} | {' | '.join(cells)} |"
    yield from ("", OF_SAMPLED, "")


def _cost_table(section: Section) -> Iterator[str]:
    heads = "CPU seconds | wall seconds | tokens generated | tokens trained on"
    yield f"| arm (costs of all training behind its model, mean over seeds) | {heads} |"
    yield "|---|---|---|---|---|"
    for arm, found in section.results.items():
        killed = any(one.costs[stage].get("starts", 1) > 1 for one in found for stage in one.trained)
        seconds = [f"{'≥ ' if killed else ''}{section.cost(arm, name):,.0f}" for name in ("cpu", "wall")]
        tokens = [f"{section.cost(arm, name):,.0f}" for name in ("generated", "trained")]
        yield f"| {section.study.arms[arm].title} | {' | '.join([*seconds, *tokens])} |"


def _difference_table(section: Section, differences: Mapping[Figure, Mapping[str, Difference]]) -> Iterator[str]:
    heads = [f"{FIGURE_NAMES[figure]} | p | seeds ahead" for figure in FIGURES]
    greedy = section.against_all("hard, greedy")
    yield f"| {section.study.arms[section.compared].title} minus | {' | '.join(heads)} | hard records, greedy |"
    yield f"|---|{'---|' * (3 * len(FIGURES) + 1)}"
    corrected = {figure: holm({arm: one.p for arm, one in found.items()}) for figure, found in differences.items()}
    for arm in differences["hard"]:
        cells = []
        for figure in FIGURES:
            one = differences[figure][arm]
            ahead = sum(points > 0 for points in one.by_seed)
            cells += [points_of(one.points), _p(corrected[figure][arm]), f"{ahead} of {len(one.seeds)}"]
        yield f"| {section.study.arms[arm].title} | {' | '.join(cells)} | {points_of(greedy[arm].points)} |"


def _not_run(study: Study, sections: Sequence[Section]) -> Iterator[str]:
    missing = []
    for section in sections:
        named = [f"{study.arms[arm].title} (seeds: {count})" for arm, count in section.missing().items()]
        if not section.results:
            named = [f"all {len(section.missing())} arms (seeds: {len(study.seeds_of(section.data))})"]
        if named:
            missing.append(f"- {section.data}: {'; '.join(named)}")
    missing += [f"- {name}: needs {what}" for name, what in study.later.items()]
    if missing:
        yield from ("### Not run yet", "", *missing, "")


def _p(value: float) -> str:
    return "–" if isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Return mean ± standard deviation over seeds."""
    known = [value for value in values if value is not None and not isnan(value)]
    if not known:
        return "–"
    return f"{mean(known):.{digits}f}" + (f" ± {stdev(known):.{digits}f}" if len(known) > 1 else "")


def _figure(found: Sequence[Result], name: str) -> str:
    return _spread([one.figures.get(name) for one in found], DIGITS.get(name, 1))


def _seeds(found: Sequence[Result]) -> str:
    return ", ".join(str(one.seed) for one in found)
