import subprocess
import sys

import pytest

from medseg.data import scan_rules
from medseg.errors import DataError, GeometryError, InputError


def test_the_page_of_inputs_is_made_from_the_rules(repository):
    command = [sys.executable, str(repository / "scripts" / "inputs.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python scripts/inputs.py"


def test_an_error_is_refused_until_its_code_is_accepted():
    problem = scan_rules.finding("no-geometry", "ct.nii", "neither sform nor qform is set")
    with pytest.raises(GeometryError, match="ct.nii: neither .*--accept no-geometry") as caught:
        scan_rules.admit([problem], ["shear"])
    assert caught.value.code == "no-geometry"
    (warning,) = scan_rules.admit([problem], ["no-geometry"])
    assert warning.severity == "warning"
    assert "as nibabel reads it, as accepted" in warning.message


def test_what_cannot_be_accepted_is_refused_whatever_is_accepted():
    problem = scan_rules.finding("nan", "ct.nii", "3 voxels are NaN or infinite")
    with pytest.raises(DataError, match="3 voxels"):
        scan_rules.admit([problem], ["nan"])


@pytest.mark.parametrize(("code", "message"), [("nan", "cannot be accepted"), ("no-geometri", "'no-geometry'")])
def test_codes_to_accept_are_checked(code, message):
    assert scan_rules.require_codes(["shear"]) == ("shear",)
    with pytest.raises(InputError, match=message):
        scan_rules.require_codes([code])


def test_errors_become_the_findings_that_they_were():
    problem = scan_rules.finding("shear", "ct.nii", "its axes are sheared")
    assert scan_rules.as_finding(scan_rules.refusal(problem)) == problem
