"""Share bundles as one file: pack, push, pull and install them."""

from medseg.bundle.share.install import InstalledBundle, install_bundle
from medseg.bundle.share.pack import pack_bundle
from medseg.bundle.share.self_test import SelfTest, run_self_test
from medseg.bundle.share.transfer import pull, push

__all__ = ["InstalledBundle", "SelfTest", "install_bundle", "pack_bundle", "pull", "push", "run_self_test"]
