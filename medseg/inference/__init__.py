"""Segment whole volumes with a sliding window, in bounded memory."""

from medseg.inference.streaming import InferenceOptions, StreamingInferer

__all__ = ["InferenceOptions", "StreamingInferer"]
