"""Members of a zip that cannot be read, however they are compressed, are findings of inspection and verification."""

from __future__ import annotations

import random
import zipfile

import pytest

from medseg.bundle.verify import verify_bundle
from medseg.errors import BundleError
from medseg.inspection import inspect_bundle
from tests.inspection import hostile

METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("damage", ["flipped bits", "zeros"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["manifest.json", "configs/train.json", "notes.txt", "models/model.pt"])
def test_a_damaged_member_is_a_finding(tmp_path, name, method, damage):
    root = hostile.clean(tmp_path / "bundle")
    draws = random.Random(0)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("".join(draws.choice("abcdef{}") for _ in range(4000)))
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", METHODS[method]) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, f"bundle/{file.relative_to(root).as_posix()}")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"bundle/{name}")
    content = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    for position in range(start, start + 40):
        content[position] = 0 if damage == "zeros" else content[position] ^ 0x55
    path.write_bytes(content)
    inspected = inspect_bundle(path).findings
    if any(finding.severity == "error" for finding in inspected):
        assert any(finding.severity == "error" for finding in verify_bundle(path))
        return
    assert name == "manifest.json"  # which inspection does not read
    with pytest.raises(BundleError, match=r"bundle\.zip: this is no whole zip file"):
        verify_bundle(path)
