"""Look into bundles of others without running anything of them: what they are, hold, and would need.

This needs neither MONAI nor torch, and imports nothing of the bundle.
"""

from medseg.inspection.archive import check_archive, unpack
from medseg.inspection.inspector import Inspection, inspect_bundle, require_safe

__all__ = ["Inspection", "check_archive", "inspect_bundle", "require_safe", "unpack"]
