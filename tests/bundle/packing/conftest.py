"""A bundle that was packed once for all tests here: a tiny network trained on the phantom."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def gates():
    """Until inspection and verification are there."""
    from importlib.util import find_spec

    from medseg.bundle.packing import gates

    with pytest.MonkeyPatch.context() as patch:
        if find_spec("medseg.inspection") is None:
            from medseg.bundle.verification import check_bundle

            def require_clean(root, trust, name):
                wrong = [one for one in check_bundle(root) if one.severity == "error"]
                if wrong:
                    gates.refuse(name, "must be whole and consistent", wrong, "")

            for module in ("pack", "install"):
                patch.setattr(f"medseg.bundle.packing.{module}.require_clean", require_clean)
                patch.setattr(f"medseg.bundle.packing.{module}.require_trust", lambda *_: None)
            import sys
            import types
            import zipfile

            archive = types.ModuleType("medseg.inspection.archive")
            archive.unpack = lambda path, folder: zipfile.ZipFile(path).extractall(folder)
            patch.setitem(sys.modules, "medseg.inspection", types.ModuleType("medseg.inspection"))
            patch.setitem(sys.modules, "medseg.inspection.archive", archive)
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory, trained, gates) -> Path:
    """The zip of the tiny run; not to be changed."""
    from medseg.bundle.packing import pack_bundle

    return pack_bundle(trained, tmp_path_factory.mktemp("packed") / "tiny.zip", torchscript=True)
