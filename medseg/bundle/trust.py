"""Trust in a bundle before anything of it is resolved; the gate itself needs no MONAI and stands in `inspection`."""

from medseg.inspection.trusting import require_trust

__all__ = ["require_trust"]
