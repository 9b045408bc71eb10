"""Files that bring objects along, by their bytes."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from medseg.inspection.weights import check


def found(path, name=None):
    with path.open("rb") as file:
        return [(one.severity, one.code) for one in check(file, name or path.name, path.stat().st_size)]


def test_weights_arrays_and_other_files_give_none(tmp_path):
    network = torch.nn.Conv2d(1, 2, 3)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    torch.save(network.state_dict(), tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    np.save(tmp_path / "c.npy", np.ones(3))
    np.savez(tmp_path / "d.npz", a=np.ones(3), b=np.array(["text"]))
    (tmp_path / "e.txt").write_text("text")
    (tmp_path / "f.bin").write_bytes(pickle.dumps({"a": [1, 2]}))
    (tmp_path / "g.pt").write_bytes(b"")
    for path in tmp_path.iterdir():
        assert found(path) == [], path


def test_a_program_is_noted_and_its_operators_are_looked_at(tmp_path):
    class Adds(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x) + 1

    traced = torch.jit.trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), Adds()), torch.ones(1, 1, 5, 5))
    traced.save(tmp_path / "model.ts")
    assert found(tmp_path / "model.ts") == [("note", "torchscript")]


def saved(path, **tensors):
    offset, table, data = 0, {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        raw = np.asarray(values, np.float32).tobytes()
        table[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [offset, offset + len(raw)]}
        offset, data = offset + len(raw), data + raw
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def test_safetensors_cover_their_file(tmp_path):
    path = saved(tmp_path / "a.safetensors", x=[1, 2], y=[3])
    assert found(path) == []
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
        assert found(tmp_path / f"{name}.safetensors") == [("error", "weights-damaged")], name


def test_safetensors_of_the_library_are_whole(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"a": torch.ones(2, 3), "b": torch.zeros(1).half()}, tmp_path / "a.safetensors")
    assert found(tmp_path / "a.safetensors") == []


def test_a_record_twice_and_a_packed_record(tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("a/data/0", bytes(100), zipfile.ZIP_DEFLATED)
    (tmp_path / "a.pt").write_bytes(made.getvalue())
    assert found(tmp_path / "a.pt") == [("error", "weights-damaged")]
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
    assert found(tmp_path / "b.pt") == [("error", "pickle-unsafe")]


def test_what_cannot_be_read_is_an_error(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(100)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert found(path) == [("error", "weights-damaged")]
    path.write_bytes(b"\x93NUMPY\x01\x00\x05\x00nonsense")
    assert found(path) == [("error", "pickle-unreadable")]
