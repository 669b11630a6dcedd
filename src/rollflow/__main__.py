"""``python -m rollflow``: the command line."""

import sys

from rollflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
