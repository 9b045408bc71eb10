"""A bundle that was packed once for all tests here: a tiny network trained on the phantom."""

from __future__ import annotations

from pathlib import Path

import pytest


def unpacked(path, partial):
    import shutil
    import zipfile

    with zipfile.ZipFile(path) as archive:
        archive.extractall(partial)
        top = archive.namelist()[0].split("/")[0]
    for one in list((partial / top).iterdir()):
        shutil.move(one, partial / one.name)
    (partial / top).rmdir()
    return partial


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
            patch.setattr("medseg.bundle.packing.install._unpacked", unpacked)
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory, trained, gates) -> Path:
    """The zip of the tiny run; not to be changed."""
    from medseg.bundle.packing import pack_bundle

    return pack_bundle(trained, tmp_path_factory.mktemp("packed") / "tiny.zip", torchscript=True)
