"""Run out of memory at every point, and choose how many windows run at once."""

import pytest
import torch

from medseg.inference import InferenceOptions, StreamingInferer, accumulator, stream
from medseg.inference.label_decoder import LabelDecoder
from medseg.inference.stream import auto_batch
from medseg.resources import Ram

VOLUME = torch.rand(1, 1, 20, 18, 12, generator=torch.Generator().manual_seed(0))


def network(dims=2, head=3):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
    return torch.nn.Sequential(conv(1, 6, 3, padding=1), torch.nn.ReLU(), conv(6, 4, head, padding=head // 2)).eval()


class Full:
    """Replace a function by one that runs out of memory in its `after`-th call."""

    def __init__(self, patch, owner, name, after=0):
        self.function, self.calls, self.after, self.failed = getattr(owner, name), 0, after, 0
        patch.setattr(owner, name, self)

    def __get__(self, instance, owner=None):
        return lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.after:
            self.failed += 1
            raise torch.OutOfMemoryError
        return self.function(*args, **kwargs)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Let the accumulator take its device for a GPU; its tensors are on the CPU all the same."""

    class OnGpu(accumulator.WindowAccumulator):
        def __init__(self, *args):
            super().__init__(*args)
            self.device = torch.device("cuda")

        def _add(self, k, start, tile, index):
            device, self.device = self.device, torch.device("cpu")
            try:
                super()._add(k, start, tile, index)
            finally:
                self.device = device

    monkeypatch.setattr(stream, "WindowAccumulator", OnGpu)


@pytest.mark.parametrize("after", [1, 2, 7, 30])
@pytest.mark.parametrize(("roi", "head"), [((8, 8), 3), ((8, 8), 1), ((8, 8, 8), 3)])
def test_sums_move_to_ram_when_the_gpu_is_full(on_a_gpu, monkeypatch, caplog, after, roi, head):
    expected = StreamingInferer(roi, overlap=0.5)(VOLUME, network(len(roi), head))
    full = Full(monkeypatch, accumulator, "add_window", after)
    labels = StreamingInferer(roi, overlap=0.5)(VOLUME, network(len(roi), head))
    assert full.failed == 1
    assert torch.equal(labels, expected)
    assert caplog.text.count("windows are added up in RAM") == 1


def test_sums_make_room_when_no_window_fits_beside_them(on_a_gpu, caplog):
    net, calls = network(), []

    def crowded(windows):
        calls.append(len(windows))
        if len(calls) == 5:
            raise torch.OutOfMemoryError
        return net(windows)

    labels = StreamingInferer((8, 8), sw_batch_size=1)(VOLUME, crowded)
    assert torch.equal(labels, StreamingInferer((8, 8), sw_batch_size=1)(VOLUME, net))
    assert "windows are added up in RAM" in caplog.text


def test_too_little_ram_is_an_error():
    def full(windows):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        StreamingInferer((8, 8), sw_batch_size=1)(VOLUME, full)


def test_a_layer_that_cannot_be_decoded_on_the_gpu_is_decoded_in_ram(monkeypatch, caplog):
    expected = StreamingInferer((8, 8))(VOLUME, network())
    full = Full(monkeypatch, LabelDecoder, "plane", 3)
    assert torch.equal(StreamingInferer((8, 8))(VOLUME, network()), expected)
    assert full.failed == 1
    assert "decoded in RAM" in caplog.text


def test_devices_of_the_inferer_and_of_the_call_are_used():
    expected = StreamingInferer((8, 8))(VOLUME, network())
    assert torch.equal(StreamingInferer((8, 8), sw_device="cpu", device="cpu")(VOLUME, network()), expected)
    on_cpu = InferenceOptions(sw_device="cpu")
    assert torch.equal(StreamingInferer((8, 8), sw_device="meta")(VOLUME, network(), options=on_cpu), expected)
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        StreamingInferer((8, 8), sw_device="meta")(VOLUME, network())
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        StreamingInferer((8, 8))(VOLUME, network(), options=InferenceOptions(sw_device="meta"))


def test_auto_batch_suits_the_cpu_and_fits_its_memory(monkeypatch):
    net, cpu = network(), torch.device("cpu")
    expected = StreamingInferer((8, 8))(VOLUME, net)
    assert torch.equal(StreamingInferer((8, 8), sw_batch_size="auto")(VOLUME, net), expected)
    assert auto_batch(net, 1, (1, 8, 8), True, cpu) == 2
    monkeypatch.setattr(stream, "_CPU_BATCH", 4)
    assert auto_batch(net, 1, (1, 8, 8), True, cpu) == 4
    # 12 channels at the widest (6 in, 6 out), so 64 voxels of 4 bytes of 1 + 3 * 12 + 12 channels
    window = 4 * 64 * 49
    monkeypatch.setattr(stream.resources, "ram", lambda: Ram(0, 0, int(2.5 * window / 0.6)))
    assert auto_batch(net, 1, (1, 8, 8), True, cpu) == 2
    monkeypatch.setattr(stream.resources, "ram", lambda: Ram(0, 0, 0))
    assert auto_batch(net, 1, (1, 8, 8), True, cpu) == 1
    assert auto_batch(lambda windows: windows, 1, (1, 8, 8), True, cpu) == 4
