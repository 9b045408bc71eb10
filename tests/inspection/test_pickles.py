"""What a pickle would do, by its opcodes, against what it does."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from medseg.inspection.pickles import DamagedError, scan, torch_legacy


def of(data):
    return scan(io.BytesIO(data))


class Calls:
    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_harmless_in_every_protocol(protocol):
    value = {"a": [1, 2.5, "text", b"bytes", None, True, (1, 2, 3, 4)], 3: {"b": ()}, "long": 10**30}
    assert of(pickle.dumps(value, protocol=protocol)).faults in ([], ["it imports _codecs.encode"])


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_what_it_imports_and_calls_is_named(protocol):
    found = of(pickle.dumps([Calls(eval, ("1",)), collections.OrderedDict(a=1)], protocol=protocol))
    assert found.names == ["builtins.eval", "collections.OrderedDict"]
    assert found.faults == ["it imports builtins.eval"]


def state():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "half": torch.ones(2).half(), "n": 3}


def test_what_torch_saves_of_networks_and_optimizers_is_harmless(tmp_path):
    torch.save(state(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        found = of(archive.read("a/data.pkl"))
    assert found.faults == []
    assert "torch._utils._rebuild_tensor_v2" in found.names
    torch.load(tmp_path / "a.pt", weights_only=True)


def test_the_older_format_has_several_pickles(tmp_path):
    torch.save(state(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with (tmp_path / "a.pt").open("rb") as file:
        scans = list(torch_legacy(file))
    assert len(scans) == 5
    assert [one.faults for one in scans] == [[]] * 5
    assert scans[2].root == "dict"


def test_a_whole_module_and_numpy_scalars_are_refused_as_torch_refuses_them(tmp_path):
    for value in (torch.nn.Linear(1, 1), {"score": np.float64(1)}):
        torch.save(value, tmp_path / "a.pt")
        with zipfile.ZipFile(tmp_path / "a.pt") as archive:
            assert of(archive.read("a/data.pkl")).faults
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "a.pt", weights_only=True)


# opcodes by hand
OF_A_TEXT = b"\x80\x02X\x01\x00\x00\x00aX\x01\x00\x00\x00b\x85R."
CHANGES = b"\x80\x02X\x01\x00\x00\x00aK\x01a."
BUILDS = b"\x80\x02}}b."
PUT_TOGETHER = b"\x80\x04\x8c\x02os\x94)\x93."
EXTENSION = b"\x80\x02\x82\x01."
INSTANCE = b"(S'touch x'\nios\nsystem\n."
OBJECT = b"(cos\nsystem\nS'touch x'\no."
MEMO = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x01a\x85R."
ITEMS = b"\x80\x02cbuiltins\nset\n]\x85RK\x01K\x02s."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (OF_A_TEXT, "it calls a text"),
        (CHANGES, "it changes a text"),
        (BUILDS, "it gives a state to a dict"),
        (PUT_TOGETHER, "put together when it is loaded"),
        (EXTENSION, "EXT1"),
        (INSTANCE, "it imports os.system"),
        (OBJECT, "it imports os.system"),
        (MEMO, "it imports posix.system"),
        (ITEMS, "it changes a called builtins.set"),
    ],
)
def test_what_only_opcodes_show(data, said):
    assert any(said in fault for fault in of(data).faults), of(data).faults


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80\x02", b"\x80\x02]", b"\x80\x02h\x07.", b"\x80\x020.", b"\x80\x02\xff."]
)
def test_what_is_no_whole_pickle(data):
    with pytest.raises(DamagedError):
        of(data)


def test_a_pickle_that_breaks_behind_its_call_has_run_it_by_then():
    data = pickle.dumps(Calls(eval, ("1",)), protocol=3)[:-1] + b"\xff"
    assert of(data).faults == ["it imports builtins.eval"]
