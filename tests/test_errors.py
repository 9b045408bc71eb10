import pickle

import pytest

from medseg import errors
from medseg.errors import DataError, MedsegError, did_you_mean, nearest


def test_an_error_prints_thing_problem_came_and_fix_in_that_order():
    error = MedsegError("ct.nii.gz", "a scan must have 3 dimensions", "got 4", "Split it.")
    assert str(error) == "ct.nii.gz: a scan must have 3 dimensions (got 4). Split it."


def test_an_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(DataError("ct.nii.gz", "a scan must have 3 dimensions", "got 4", "Split it.")))
    assert isinstance(error, DataError)
    assert (error.thing, error.fix) == ("ct.nii.gz", "Split it.")


def test_an_error_of_one_text_reads_as_that_text():
    assert str(MedsegError("Caught something in a worker")) == "Caught something in a worker"


def test_every_error_is_in_the_tree_of_the_docstring():
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(classes) > 8
    for kind in classes:
        assert issubclass(kind, MedsegError)
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(("word", "found"), [("livr", ["liver"]), ("xyzzy", [])])
def test_nearest(word, found):
    assert nearest(word, ["spleen", "liver"]) == found


def test_did_you_mean_falls_back_if_nothing_is_similar():
    assert did_you_mean("xyzzy", ["liver"], "Look it up.") == "Look it up."
