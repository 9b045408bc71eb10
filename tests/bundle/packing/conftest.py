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
            patch.setattr("medseg.bundle.packing.pack.require_trust", lambda *_: None)
            patch.setattr(gates, "require_trust", lambda *_: None)
        if find_spec("medseg.bundle.verification") is None:
            patch.setattr("medseg.bundle.packing.pack.require_clean", lambda *_: None)
            patch.setattr(gates, "require_clean", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory, trained, gates) -> Path:
    """The zip of the tiny run; not to be changed."""
    from medseg.bundle.packing import pack_bundle

    return pack_bundle(trained, tmp_path_factory.mktemp("packed") / "tiny.zip", torchscript=True)
