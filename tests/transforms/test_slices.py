import copy

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.errors import DataError, LabelError
from medseg.transforms import IndexSlicesd, RandSlicePatchd


def item(shape=(20, 16, 6), **voxels):
    """A volume whose voxels say where they are, and a label with the structures put at the given places."""
    index = np.arange(np.prod(shape)).reshape(1, *shape)
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    for name, location in voxels.items():
        label[(0, *location)] = int(name[1:])
    return {"image": torch.tensor(index, dtype=torch.float32), "label": label, "case": "s1"}


def chain(patch=(8, 8), classes=4, **options):
    return Compose([IndexSlicesd("label", classes), RandSlicePatchd(["image", "label"], patch, **options)])


def test_the_index_says_which_slices_hold_which_structure():
    found = IndexSlicesd("label", 4)(item(s1=(3, 3, 2), s3=(4, 4, 5)))["slice_index"]
    assert found.tolist() == [
        [False, False, True, False, False, False],
        [False] * 6,
        [False, False, False, False, False, True],
    ]


def test_volumes_lie_slice_by_slice_and_stay_what_they_are():
    whole = item(s1=(3, 3, 2))
    whole["image"] = MetaTensor(whole["image"], affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    found = IndexSlicesd("label", 4)(whole)
    for key in ("image", "label"):
        assert found[key].stride()[1:] == (16, 1, 20 * 16)
        assert torch.equal(torch.as_tensor(found[key]), torch.as_tensor(whole[key]))
    assert torch.equal(found["image"].affine, whole["image"].affine)
    assert whole["image"].is_contiguous()


@pytest.mark.parametrize("value", [4, 200])
def test_a_label_out_of_range_names_the_case(value):
    with pytest.raises(LabelError, match=f"case s1: its labels must be from 0 to 3 [(]got 0 to {value}"):
        IndexSlicesd("label", 4)(
            {**item(), "label": torch.full((1, 4, 4, 2), value).index_fill(3, torch.tensor([0]), 0)}
        )


def test_image_and_label_are_cut_at_the_same_place_of_one_slice():
    whole = item()
    whole["label"] = (whole["image"] % 4).to(torch.uint8)
    transform = chain()
    transform.set_random_state(0)
    for _ in range(30):
        part = transform(whole)
        assert part["image"].shape == part["label"].shape == (1, 8, 8)
        assert torch.equal(part["image"] % 4, part["label"].float())
        rows, rest = np.divmod(part["image"][0].numpy().astype(int), 16 * 6)
        columns, slices = np.divmod(rest, 6)
        assert len(np.unique(slices)) == 1
        assert (np.diff(rows, axis=0) == 1).all()
        assert (np.diff(columns, axis=1) == 1).all()


def test_a_rare_structure_is_drawn_as_often_as_a_common_one():
    whole = item(s1=(slice(None), slice(None), slice(0, 5)), s2=(7, 9, 5))
    transform = chain(foreground_prob=1.0)
    transform.set_random_state(1)
    drawn = [transform(whole)["label"] for _ in range(200)]
    with_rare = sum(bool((part == 2).any()) for part in drawn)
    assert 75 <= with_rare <= 125  # half of 200; five standard deviations are 35
    assert all((part > 0).any() for part in drawn)


def test_the_drawn_voxel_lies_anywhere_in_the_patch():
    transform = chain(patch=(8, 8), foreground_prob=1.0)
    transform.set_random_state(2)
    places = {tuple(np.argwhere(transform(item(s2=(10, 8, 3)))["label"][0].numpy() == 2)[0]) for _ in range(300)}
    assert {row for row, _ in places} == set(range(8))
    assert {column for _, column in places} == set(range(8))


def test_without_structures_every_slice_is_drawn():
    transform = chain(foreground_prob=1.0)
    transform.set_random_state(3)
    assert {int(transform(item())["image"][0, 0, 0]) % 6 for _ in range(100)} == set(range(6))


def test_a_small_volume_is_centred_and_filled_up():
    part = chain(patch=(24, 20), fill=-1.0)(item())
    image = part["image"][0]
    assert image.shape == (24, 20)
    assert (image[2:22, 2:18] >= 0).all()
    assert (image[:2] == -1).all()
    assert (image[22:] == -1).all()
    assert (image[:, :2] == -1).all()
    assert (part["label"] == 0).all()


def test_context_takes_the_neighbours_in_order_and_repeats_the_ends():
    transform = chain(patch=(20, 16), context=2)
    transform.set_random_state(4)
    seen = set()
    for _ in range(60):
        slices = [int(channel[0, 0]) % 6 for channel in transform(item())["image"]]
        middle = slices[2]
        assert slices == [min(max(middle + step, 0), 5) for step in range(-2, 3)]
        seen.add(middle)
    assert seen == set(range(6))


def test_the_cached_volume_is_not_changed():
    whole = IndexSlicesd("label", 4)(item(s1=(3, 3, 2)))
    before = {key: copy.deepcopy(whole[key]) for key in ("image", "label", "slice_index")}
    part = RandSlicePatchd(["image", "label"], (8, 8))(whole)
    part["image"] += 1
    part["label"] += 1
    assert all(np.array_equal(whole[key], before[key]) for key in before)


def test_half_precision_and_metadata_come_out_as_plain_float32():
    whole = item()
    whole["image"] = MetaTensor(whole["image"].half(), affine=torch.eye(4))
    part = chain()(whole)
    assert type(part["image"]) is torch.Tensor
    assert part["image"].dtype == torch.float32


def test_a_structure_within_combinations_is_drawn():
    whole = {**item(s2=(10, 8, 3)), "combinations": [(), (0,), (0, 2)]}
    index = IndexSlicesd("label", 4)(whole)["slice_index"]
    assert index.any(axis=1).tolist() == [True, False, True]
    transform = chain(foreground_prob=1.0)
    transform.set_random_state(0)
    assert all((transform(whole)["label"] == 2).any() for _ in range(20))


@pytest.mark.parametrize(
    "wrong", [{"patch_size": (8,)}, {"patch_size": (0, 8)}, {"context": -1}, {"foreground_prob": 1.5}]
)
def test_arguments_that_cannot_be_are_refused(wrong):
    with pytest.raises(DataError, match="RandSlicePatchd"):
        RandSlicePatchd(["image", "label"], **{"patch_size": (8, 8), **wrong})


def test_a_missing_index_says_what_to_do():
    with pytest.raises(DataError, match="Put IndexSlicesd before it"):
        RandSlicePatchd(["image", "label"], (8, 8))(item())


def test_structures_nobody_annotated_are_not_drawn():
    whole = item(s1=(3, 3, 2), s3=(12, 4, 5))
    transform = chain(foreground_prob=1.0)
    transform.set_random_state(0)
    assert {int(transform(whole)["label"].max()) for _ in range(30)} == {1, 3}
    known = {**whole, "annotated": np.array([True, False, True, True])}
    parts = [transform(known) for _ in range(30)]
    assert {int(part["label"].max()) for part in parts} == {3}
    assert parts[0]["annotated"].tolist() == [True, False, True, True]
    transform({**whole, "annotated": np.array([True, False, True, False])})  # drawn from anywhere then
