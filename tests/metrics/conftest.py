"""Run tests twice where loops are compiled: with numba and without."""

import pytest

from medseg.metrics import overlap, surface


@pytest.fixture(params=["compiled", "plain"])
def either(request, monkeypatch):
    """Run the test with the compiled loops and without them."""
    if request.param == "compiled":
        pytest.importorskip("numba")
        return
    for module in (overlap, surface):
        monkeypatch.setattr(module, "loops", lambda: None)
