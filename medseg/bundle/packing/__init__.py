"""Bundles as one file to share: packing them, and opening what others packed without fear."""

from medseg.bundle.packing.install import Installed, install_bundle
from medseg.bundle.packing.pack import pack_bundle
from medseg.bundle.packing.self_test import SelfTest, run_self_test
from medseg.bundle.packing.sharing import pull, push

__all__ = ["Installed", "SelfTest", "install_bundle", "pack_bundle", "pull", "push", "run_self_test"]
