"""Segment whole volumes with a sliding window, in bounded memory."""

from medseg.inference.options import InferenceOptions
from medseg.inference.streaming import StreamingInferer

__all__ = ["InferenceOptions", "StreamingInferer"]
