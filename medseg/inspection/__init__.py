"""Look into bundles of others without running anything of them: what they are, would do, and what is unsafe.

This needs neither MONAI nor torch, and imports nothing of the bundle.
"""

from medseg.inspection.archive import check_archive, unpack
from medseg.inspection.configs import Part
from medseg.inspection.inspector import Inspection, inspect_bundle, require_trust

__all__ = ["Inspection", "Part", "check_archive", "inspect_bundle", "require_trust", "unpack"]
