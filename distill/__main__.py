"""The command ``distill``, also as ``python -m distill``: it can be stopped from its first moment, in one line."""

from __future__ import annotations

import os

__all__ = ["main"]


def main() -> None:
    """Heed signals, then load the command line and run it; ends by ``SystemExit``."""
    try:
        from distill.team.signals import end_on_signals

        end_on_signals()
    except KeyboardInterrupt:  # Python's own handler: a moment earlier, and this file was not there either
        os.write(2, b"stopped: interrupted\n")
        os._exit(130)
    from distill.cli import main as command

    command()


if __name__ == "__main__":  # processes started by spawn import this file again
    main()
