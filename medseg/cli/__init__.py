"""The command `medseg`: thin faces over the functions below. Heavy imports wait until a command runs."""

from medseg.cli.main import main

__all__ = ["main"]
