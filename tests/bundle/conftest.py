from pathlib import Path

import pytest

from tests.slices import trained_in


@pytest.fixture(scope="session")
def trained_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run of segformer2d on the phantom of slices; not to be changed."""
    return trained_in(tmp_path_factory.getbasetemp())
