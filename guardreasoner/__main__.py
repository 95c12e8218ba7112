"""``python -m guardreasoner VERB …``."""

import sys

from guardreasoner.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
