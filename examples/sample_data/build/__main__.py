"""`python -m examples.sample_data.build [--out FOLDER] [--seed N]`: builds the sample set and prints what is in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.sample_data.build.build import build
from examples.sample_data.build.summary import summary
from medix.errors import MedixError


def main() -> int:
    """Exit code 0 when the set was written, 2 when a package is missing."""
    parser = argparse.ArgumentParser(prog="python -m examples.sample_data.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/sample_data"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        lines = build(options.out, options.seed)
    except MedixError as error:
        print(error, file=sys.stderr)
        return 2
    print(summary(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
