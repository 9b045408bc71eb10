"""Memory that runs out, and how many windows go at once."""

import pytest
import torch

from medseg.inference import StreamingInferer, accumulator, stream
from medseg.inference.label_decoder import LabelDecoder
from medseg.inference.stream import serving_batch
from medseg.resources import Ram

VOLUME = torch.rand(1, 1, 20, 18, 12, generator=torch.Generator().manual_seed(0))


def network(dims=2, head=3):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
    return torch.nn.Sequential(conv(1, 6, 3, padding=1), torch.nn.ReLU(), conv(6, 4, head, padding=head // 2)).eval()


class Full:
    """Stands in for the memory of a GPU: what is asked of it fails as long as `device` is one."""

    def __init__(self, patch, owner, name, after=0):
        self.deed, self.calls, self.after, self.failed = getattr(owner, name), 0, after, 0
        patch.setattr(owner, name, self)

    def __get__(self, instance, owner=None):
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.after:
            self.failed += 1
            raise torch.OutOfMemoryError
        return self.deed(*args, **kwargs)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A slab that believes to lie on a GPU; `cpu` is where its tensors are either way."""

    class Believing(accumulator.WindowAccumulator):
        def __init__(self, *args):
            super().__init__(*args)
            self.device = torch.device("cuda")

        def _add(self, k, start, tile, at):
            believed, self.device = self.device, torch.device("cpu")
            try:
                super()._add(k, start, tile, at)
            finally:
                self.device = believed

    monkeypatch.setattr(stream, "Slab", Believing)


@pytest.mark.parametrize("after", [1, 2, 7, 30])
@pytest.mark.parametrize(("roi", "head"), [((8, 8), 3), ((8, 8), 1), ((8, 8, 8), 3)])
def test_when_memory_runs_out_in_the_middle_it_goes_on_in_ram(on_a_gpu, monkeypatch, caplog, after, roi, head):
    expected = StreamingInferer(roi, overlap=0.5)(VOLUME, network(len(roi), head))
    full = Full(monkeypatch, accumulator, "add_window", after)
    found = StreamingInferer(roi, overlap=0.5)(VOLUME, network(len(roi), head))
    assert full.failed == 1
    assert torch.equal(found, expected)
    assert caplog.text.count("goes on in RAM") == 1


def test_when_no_window_fits_beside_the_slab_it_makes_room(on_a_gpu, caplog):
    net, calls = network(), []

    def crowded(windows):
        calls.append(len(windows))
        if len(calls) == 5:
            raise torch.OutOfMemoryError
        return net(windows)

    found = StreamingInferer((8, 8), sw_batch_size=1)(VOLUME, crowded)
    assert torch.equal(found, StreamingInferer((8, 8), sw_batch_size=1)(VOLUME, net))
    assert "goes on in RAM" in caplog.text


def test_in_ram_too_little_memory_is_an_error():
    def full(windows):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        StreamingInferer((8, 8), sw_batch_size=1)(VOLUME, full)


def test_a_layer_that_cannot_be_decided_there_is_decided_in_ram(monkeypatch, caplog):
    expected = StreamingInferer((8, 8))(VOLUME, network())
    full = Full(monkeypatch, LabelDecoder, "plane", 3)
    assert torch.equal(StreamingInferer((8, 8))(VOLUME, network()), expected)
    assert full.failed == 1
    assert "decided in RAM" in caplog.text


def test_the_network_may_run_and_add_up_where_it_is_told():
    expected = StreamingInferer((8, 8))(VOLUME, network())
    assert torch.equal(StreamingInferer((8, 8), sw_device="cpu", device="cpu")(VOLUME, network()), expected)
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        StreamingInferer((8, 8), sw_device="meta")(VOLUME, network())  # it is heeded at all


def test_auto_takes_what_serves_and_what_fits(monkeypatch):
    net, cpu = network(), torch.device("cpu")
    expected = StreamingInferer((8, 8))(VOLUME, net)
    assert torch.equal(StreamingInferer((8, 8), sw_batch_size="auto")(VOLUME, net), expected)
    assert serving_batch(net, 1, (1, 8, 8), True, cpu) == 2
    monkeypatch.setattr(stream, "_CPU_BATCH", 4)
    assert serving_batch(net, 1, (1, 8, 8), True, cpu) == 4
    # 12 channels at the widest (6 in, 6 out), so 64 voxels of 4 bytes of 1 + 3 * 12 + 12 channels
    window = 4 * 64 * 49
    monkeypatch.setattr(stream.resources, "ram", lambda: Ram(0, 0, int(2.5 * window / 0.6)))
    assert serving_batch(net, 1, (1, 8, 8), True, cpu) == 2
    monkeypatch.setattr(stream.resources, "ram", lambda: Ram(0, 0, 0))
    assert serving_batch(net, 1, (1, 8, 8), True, cpu) == 1
    assert serving_batch(lambda windows: windows, 1, (1, 8, 8), True, cpu) == 4
