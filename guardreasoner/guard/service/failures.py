"""Log an exception by its type and place. Its message may quote a conversation, so it is shown only if texts are."""

import logging

log = logging.getLogger("guardreasoner.service")


def log_failure(event: str, error: BaseException, **fields: str) -> None:
    """Log an exception.

    Args:
        event: what failed.
        error: the exception.
        fields: more fields of the line.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
    shown = {**fields, "error": type(error).__name__, "at": place}
    log.error(event, extra={"fields": shown, "text": str(error)})
