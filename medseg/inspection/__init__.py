"""Looking into bundles of others without running anything of them: what they are, what they would do, what is unsafe.

Standard library alone: whoever looks needs neither MONAI nor torch, and nothing of the bundle is imported.
"""

from medseg.inspection.archive import check_archive, unpack
from medseg.inspection.configs import Part
from medseg.inspection.inspecting import Inspection, inspect_bundle

__all__ = ["Inspection", "Part", "check_archive", "inspect_bundle", "unpack"]
