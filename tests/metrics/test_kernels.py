import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import LabelError, MissingExtraError
from medseg.metrics import kernels


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.uint16)])
def test_label_maps_become_the_smallest_type_that_holds_them(classes, kind):
    for given in (np.array([0, 3], np.int64), np.array([0.0, 3.0]), torch.tensor([0, 3]), MetaTensor([0.0, 3.0])):
        found = kernels.class_indices(given, classes, "truth")
        assert found.dtype == kind
        assert found.tolist() == [0, 3]


def test_a_label_map_of_the_right_type_is_not_copied():
    given = np.zeros((2, 3), np.uint8)
    assert np.shares_memory(kernels.class_indices(given, 4, "truth"), given)
    assert np.shares_memory(kernels.class_indices(torch.from_numpy(given), 4, "truth"), given)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0.0, 0.5]), "case s1, truth: must hold whole numbers (values between them"),
        (np.array([0.0, np.nan]), "no numbers"),
        (np.array([0.0, np.inf]), "no numbers"),
        (np.array([-1, 0]), "must hold labels from 0 to 3 (-1 to 0"),
        (np.array([1j]), "must hold class indices (complex128"),
    ],
)
def test_what_is_no_label_map_is_refused_by_name(values, message):
    with pytest.raises(LabelError, match=message):
        kernels.class_indices(values, 4, "truth", "s1")


def test_without_numba_there_are_no_compiled_loops(monkeypatch):
    def missing(_name):
        raise MissingExtraError("numba")

    monkeypatch.setattr(kernels.importlib, "import_module", missing)
    kernels.kernels.cache_clear()
    assert kernels.kernels() is None
    kernels.kernels.cache_clear()
