"""What nobody annotated in a case takes no part in a bundle's evaluation of it."""

import json
import shutil

import pytest

from medseg.bundle import Bundle, run_bundle

pytestmark = pytest.mark.slow


def test_an_evaluation_leaves_out_what_nobody_annotated(trained, phantom, tmp_path):
    data = tmp_path / "set"
    shutil.copytree(phantom, data)
    (data / "p0002" / "segmentations" / "liver.nii.gz").unlink()  # the case that validates
    found = {}
    for name, root in (("whole", phantom), ("partly", data)):
        overrides = {"dataset_dir": str(root), "output_dir": str(tmp_path / name)}
        run_bundle(Bundle(trained), "evaluating", "evaluate", (), overrides)
        found[name] = json.loads((tmp_path / name / "evaluation.json").read_text())["dice"]
    assert found["whole"]["liver"] is not None
    assert found["partly"]["liver"] is None
    assert found["partly"]["spleen"] is not None
