"""``python -m guardreasoner VERB …``."""

import sys

from guardreasoner.cli.main import start

if __name__ == "__main__":
    sys.exit(start())
