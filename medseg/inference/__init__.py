"""Whole volumes through a network, as label maps."""

from medseg.inference.streaming import StreamingInferer

__all__ = ["StreamingInferer"]
