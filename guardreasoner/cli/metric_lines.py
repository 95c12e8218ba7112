"""The results of ``test`` and ``validate`` as the terminal shows them: shares in percent, one line for each task."""

from collections.abc import Mapping

_SHARES = ("accuracy", "unparsed", "f1", "hard_sample_accuracy")
"""First words of the names of values that are logged as shares from 0 to 1."""


def metric_lines(values: Mapping[str, float]) -> list[str]:
    """Return the lines that show logged values.

    Args:
        values: values by name without "test/", such as "accuracy", "f1/request/harmful" or "loss"; shares are from 0
            to 1, as in TensorBoard, and shown in percent, as by ``score``.
    """
    lines: dict[str, list[str]] = {}
    for name, value in values.items():
        kind, *rest = name.split("/")
        of, label = (rest[0], rest[1:]) if kind in _SHARES and rest else ("", rest)
        title = "/".join([kind, *label]) if of else name
        number = f"{100 * value:.2f} %" if kind in _SHARES else f"{value:.4f}"
        lines.setdefault(of, []).append(f"{title.replace('hard_sample_accuracy', 'hard-sample accuracy')} {number}")
    return [f"{of}: {', '.join(parts)}" if of else ", ".join(parts) for of, parts in lines.items()]
