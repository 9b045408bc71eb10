"""Components: found as MONAI finds them, and their arguments held against what they take."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import LoadImaged

from medseg.bundle.verify import targets


def findings(**component):
    component["_target_"] = component.pop("target")
    return [(one.code, one.message) for one in targets.component_findings("place", component)]


def test_short_and_full_names_lead_to_the_thing():
    assert targets.locate("LoadImaged")[0] is LoadImaged
    assert targets.locate("torch.optim.Adam")[0] is torch.optim.Adam
    assert targets.locate("medseg.LabelMap.totalsegmentator")[0] is not None


@pytest.mark.parametrize(
    ("target", "why"),
    [("LoadImagd", "MONAI has nothing of that name"), ("torch.optim.Adm", "there is no 'Adm' in it"),
     ("nosuch.thing", "there is no such module"), ("torch.nn", "it cannot be called")],
)  # fmt: skip
def test_a_name_that_leads_nowhere_says_where_it_ends(target, why):
    found, (said, fix) = targets.locate(target)
    assert found is None
    assert said == why
    assert fix


def test_arguments_are_held_against_the_signature():
    assert findings(target="UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4], strides=[]) == []
    assert [code for code, _ in findings(target="UNet", spatial_dims=2, img_size=9)] == [
        "argument-unknown", "argument-missing", "argument-missing", "argument-missing", "argument-missing"
    ]  # fmt: skip


def test_what_is_called_later_needs_no_arguments_now():
    assert findings(target="UNet", _mode_="callable") == []


def test_what_takes_anything_is_given_anything():
    assert findings(target="builtins.dict", anything=1) == []
    assert findings(target="monai.utils.set_determinism", seed=1) == []


def test_our_special_keys_are_no_arguments():
    assert findings(target="SimpleInferer", _disabled_=False, _desc_="text", _requires_=[]) == []
