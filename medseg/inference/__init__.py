"""Whole volumes through a network, as label maps."""

from medseg.inference.streaming import InferenceOptions, StreamingInferer

__all__ = ["InferenceOptions", "StreamingInferer"]
