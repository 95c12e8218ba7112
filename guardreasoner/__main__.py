"""``python -m guardreasoner VERB …``."""

import sys

from guardreasoner.cli.main import main
from guardreasoner.workflow.terminal import show_traceback

if __name__ == "__main__":
    sys.excepthook = show_traceback
    sys.exit(main())
