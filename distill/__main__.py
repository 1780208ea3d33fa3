"""The command ``distill``, also as ``python -m distill``: it can be stopped from its first moment, in one line."""

from __future__ import annotations

from distill.team.signals import end_on_signals

__all__ = ["main"]


def main() -> None:
    """Heed signals, then load the command line and run it; ends by ``SystemExit``."""
    end_on_signals()
    from distill.cli import main as command

    command()


if __name__ == "__main__":  # processes started by spawn import this file again
    main()
