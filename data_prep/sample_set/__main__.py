"""`python -m data_prep.sample_set [--out FOLDER] [--seed N]`: builds the sample set and prints what is in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_prep.sample_set.build import build
from data_prep.sample_set.summary import summary
from medix.errors import MedixError


def main() -> int:
    """Exit code 0 when the set was written, 2 when a package is missing."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.sample_set", description=__doc__)
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
