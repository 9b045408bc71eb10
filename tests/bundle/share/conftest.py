"""A bundle that was packed once for all tests here: a tiny network trained on the phantom."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def packed(tmp_path_factory, trained) -> Path:
    """The zip of the tiny run; not to be changed."""
    from medseg.bundle.share import pack_bundle

    return pack_bundle(
        trained, tmp_path_factory.mktemp("packed") / "tiny.zip", torchscript=True, metadata={"name": "unet2d"}
    )
