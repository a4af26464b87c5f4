"""`python -m adbc_telemetry`: the command `adbc-telemetry`, where its script is not on the path."""

from __future__ import annotations

import sys

from adbc_telemetry.cli import main

if __name__ == "__main__":
    sys.exit(main())
