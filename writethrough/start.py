"""Where the console script begins."""

import sys


def start() -> None:
    """Run the command; Ctrl-C while it is still being imported ends it quietly, too."""
    try:
        from writethrough.__main__ import app
    except KeyboardInterrupt:
        sys.exit(130)
    app()
