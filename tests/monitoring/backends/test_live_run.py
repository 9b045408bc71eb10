from types import SimpleNamespace

import pytest

from medseg.monitoring.backends import LiveRun


class Recorded(LiveRun):
    """A tracker that keeps what it is told."""

    def __init__(self, folder, images=True):
        kinds = SimpleNamespace(
            Image=lambda path, caption: (path, caption), Histogram=lambda np_histogram: ("histogram", np_histogram)
        )
        super().__init__(folder, images, kinds, None)
        self.told = {}

    def has(self, number):
        return number in self.told

    def log(self, number, row, values):
        self.told[number] = values

    def annotate(self, number, told):
        pass

    def finish(self):
        pass


@pytest.mark.parametrize("images", [True, False])
def test_each_row_is_sent_once_and_images_only_if_allowed(lab, finished, images):
    live = Recorded(finished, images)
    rows = list(enumerate(lab.rows_of_a_run()))
    assert sum(live.send(number, row) for number, row in rows) == len(rows)
    assert not any(live.send(number, row) for number, row in rows)
    assert sorted(live.told) == [number for number, _ in rows]
    pictures = [values["val/images/s0001"] for values in live.told.values() if "val/images/s0001" in values]
    wanted = [(str(finished / "previews" / f"epoch_000{n}_s0001.png"), f"s0001, epoch {n}") for n in (1, 2)]
    assert pictures == (wanted if images else [])
    assert live.images_sent == len(pictures)


def test_a_missing_image_does_not_lose_its_row(finished):
    live = Recorded(finished)
    assert live.send(0, {"kind": "image", "epoch": 1, "case": "s1", "file": "previews/none.png"})
    assert live.told == {0: {"epoch": 1}}


def test_an_incomplete_tracker_cannot_be_made(finished):
    class Half(Recorded):
        finish = LiveRun.finish

    with pytest.raises(TypeError, match=r"abstract method.*finish"):
        Half(finished)
