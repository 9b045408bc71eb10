"""Bundles as one file to share: packing them, and opening what others packed without fear."""

from medseg.bundle.share.install import Installed, install_bundle
from medseg.bundle.share.pack import pack_bundle
from medseg.bundle.share.self_test import SelfTest, run_self_test
from medseg.bundle.share.sharing import pull, push

__all__ = ["Installed", "SelfTest", "install_bundle", "pack_bundle", "pull", "push", "run_self_test"]
