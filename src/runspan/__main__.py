"""The program `runspan`, also as `python -m runspan`."""

import sys

from runspan import exits


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly, also while it is still being loaded."""
    try:
        from runspan.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)


if __name__ == "__main__":
    main()
