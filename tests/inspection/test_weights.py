"""Weights, arrays and programs, by their bytes; pickles opcode by opcode, against what they do."""

import collections
import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from medseg.inspection.pickles import _HARMLESS, DamagedError, PickleReader
from medseg.inspection.weights import check_file


def findings(path, name=None):
    with path.open("rb") as file:
        found = check_file(file, name or path.name, path.stat().st_size, PickleReader())
        return [(finding.severity, finding.code) for finding in found]


def test_weights_arrays_and_other_files_give_no_finding(tmp_path):
    network = torch.nn.Conv2d(1, 2, 3)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    torch.save(network.state_dict(), tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    np.save(tmp_path / "c.npy", np.ones(3))
    np.savez(tmp_path / "d.npz", a=np.ones(3), b=np.array(["text"]))
    (tmp_path / "e.txt").write_text("text")
    (tmp_path / "f.bin").write_bytes(pickle.dumps({"a": [1, 2]}))
    (tmp_path / "g.pt").write_bytes(b"")
    for path in tmp_path.iterdir():
        assert findings(path) == [], path


def test_a_program_is_named_and_a_pickle_in_it_is_seen(tmp_path):
    network = UNet(2, 3, 5, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm="batch").eval()
    for program in (torch.jit.trace(network, torch.ones(1, 3, 16, 16)), torch.jit.script(network)):
        program.save(tmp_path / "model.ts")
        assert findings(tmp_path / "model.ts") == [("note", "program-in-bundle")]
    for record in ("m/archive_format", "m/model.json", "m/constants.pkl"):
        with zipfile.ZipFile(tmp_path / "model.bin", "w") as archive:
            archive.writestr(record, b"" if record.endswith("pkl") else "pt2")
            archive.writestr("m/x.pkl", pickle.dumps(eval))
        assert findings(tmp_path / "model.bin") == [("note", "program-in-bundle"), ("error", "pickle-unsafe")]


def test_a_pickle_without_a_mark_is_seen_and_text_is_not_taken_for_one(tmp_path):
    for number, protocol in enumerate((0, 1)):
        (tmp_path / f"{number}.dat").write_bytes(pickle.dumps({"a": [Calls(eval, ("1",))]}, protocol=protocol))
        assert findings(tmp_path / f"{number}.dat") == [("error", "pickle-unsafe")]
    for name, text in {"a": "contents\nintro\n.", "b": "cos\nsystem\nand more", "c": "(c) Somebody\n"}.items():
        (tmp_path / name).write_text(text)
    assert findings(tmp_path / "b") == findings(tmp_path / "c") == []


def test_no_pickle_hides_behind_the_first(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps(eval))
    assert findings(path) == [("error", "pickle-unsafe")]
    path.write_bytes(pickle.dumps({"a": 1}) + b"something else")
    assert findings(path) == [("error", "pickle-unreadable")]


def saved(path, **tensors):
    offset, table, data = 0, {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        raw = np.asarray(values, np.float32).tobytes()
        table[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [offset, offset + len(raw)]}
        offset, data = offset + len(raw), data + raw
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def test_a_safetensors_table_must_cover_its_file(tmp_path):
    path = saved(tmp_path / "a.safetensors", x=[1, 2], y=[3])
    assert findings(path) == []
    whole = path.read_bytes()
    damaged = {
        "longer": whole + b"x",
        "shorter": whole[:-1],
        "head": struct.pack("<Q", 10**9) + whole[8:],
        "type": whole.replace(b'"F32"', b'"X32"'),
        "overlap": whole.replace(b"[8, 12]", b"[4, 12]"),
        "empty": b"",
        "json": whole.replace(b"{", b"[", 1),
    }
    for name, data in damaged.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        assert findings(tmp_path / f"{name}.safetensors") == [("error", "weights-damaged")], name


def test_safetensors_of_the_library_are_accepted(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"a": torch.ones(2, 3), "b": torch.zeros(1).half()}, tmp_path / "a.safetensors")
    assert findings(tmp_path / "a.safetensors") == []


def test_a_record_twice_and_a_packed_record(tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/data/0", bytes(100), zipfile.ZIP_DEFLATED)
    (tmp_path / "a.pt").write_bytes(made.getvalue())
    assert findings(tmp_path / "a.pt") == [("error", "weights-damaged")]
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
    assert findings(tmp_path / "b.pt") == [("error", "pickle-unsafe")]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(100)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert findings(path) == [("error", "weights-damaged")]
    path.write_bytes(b"\x93NUMPY\x01\x00\x05\x00nonsense")
    assert findings(path) == [("error", "pickle-unreadable")]


def of(data):
    return [*PickleReader().imports(io.BytesIO(data))]


class Calls:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_harmless_in_every_protocol(protocol):
    value = {"a": [1, 2.5, "text", b"bytes", None, True, (1, 2, 3, 4)], 3: {"b": ()}, "long": 10**30}
    assert of(pickle.dumps(value, protocol=protocol)) == []


@pytest.mark.parametrize("protocol", range(6))
def test_imports_of_a_pickle_are_named(protocol):
    value = [Calls(eval, ("1",)), collections.OrderedDict(a=1), Calls(exec, ("1",))]
    names = {name.replace("__builtin__", "builtins") for name in of(pickle.dumps(value, protocol=protocol))}
    assert {"builtins.eval", "builtins.exec"} <= names


def state():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "half": torch.ones(2).half(), "n": 3}


def test_weights_that_torch_saves_are_harmless(tmp_path):
    torch.save(state(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert of(archive.read("a/data.pkl")) == []
    torch.load(tmp_path / "a.pt", weights_only=True)


def test_what_torch_takes_by_itself_is_what_is_harmless_here():
    from torch._weights_only_unpickler import _get_allowed_globals

    ours = [name for name in _get_allowed_globals() if _HARMLESS.fullmatch(name)]
    assert len(ours) > 80
    assert {"builtins.set", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2"} <= set(ours)
    for name in ("builtins.eval", "torch.load", "torch.hub.load", "torch.jit.load", "os.system", "torch.save"):
        assert not _HARMLESS.fullmatch(name)


def test_a_whole_module_and_numpy_scalars_are_refused_as_torch_refuses_them(tmp_path):
    for value in (torch.nn.Linear(1, 1), {"score": np.float64(1)}):
        torch.save(value, tmp_path / "a.pt")
        with zipfile.ZipFile(tmp_path / "a.pt") as archive:
            assert of(archive.read("a/data.pkl"))
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "a.pt", weights_only=True)


# opcodes by hand
PUT_TOGETHER = b"\x80\x04\x8c\x02os\x94)\x93."
EXTENSION = b"\x80\x02\x82\x01."
INSTANCE = b"(S'touch x'\nios\nsystem\n."
OBJECT = b"(cos\nsystem\nS'touch x'\no."
MEMO = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93\x8c\x01a\x85R."


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (PUT_TOGETHER, "a name that is put together when it is loaded"),
        (EXTENSION, "an extension (opcode EXT1)"),
        (INSTANCE, "os.system"),
        (OBJECT, "os.system"),
        (MEMO, "posix.system"),
    ],
)
def test_opcodes_show_imports(data, expected):
    assert of(data) == [expected]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02", b"\x80\x02]", b"\x80\x02\xff."])
def test_a_damaged_pickle_is_refused(data):
    with pytest.raises(DamagedError):
        of(data)


def test_a_pickle_that_breaks_behind_its_call_has_run_it_by_then(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Calls(eval, ("1",)), protocol=3)[:-1] + b"\xff")
    assert findings(path) == [("error", "pickle-unsafe")]
