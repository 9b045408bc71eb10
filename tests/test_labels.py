import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.catalogue import catalogue, catalogue_v1, contralateral_name, groups, only_v1
from medseg.errors import LabelError
from medseg.labels import LabelMap

NAMES = st.lists(st.text("abc_", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=20, unique=True)


def test_the_catalogue_holds_the_117_structures_of_version_2(real):
    published = json.loads((real / "totalsegmentator_v2_labels.json").read_text())
    assert {str(entry["index"]): entry["name"] for entry in catalogue()} == published


def test_groups_partition_the_catalogue():
    parts = {name: members for name, members in groups().items() if name != "all"}
    assert sorted(sum(parts.values(), ())) == sorted(groups()["all"])
    assert len(groups()["all"]) == 117
    assert len(groups()["ribs"]) == 26


def test_all_structures_have_the_published_indices():
    labels = LabelMap.totalsegmentator()
    assert len(labels) == 118
    assert all(labels.index(entry["name"]) == entry["index"] for entry in catalogue())


def test_contralaterals_are_mutual():
    names = groups()["all"]
    for name in names:
        contralateral = contralateral_name(name)
        assert contralateral is None or contralateral_name(contralateral) == name
    alone = {name for name in names if (contralateral := contralateral_name(name)) and contralateral not in names}
    assert alone == {"atrial_appendage_left", "lung_middle_lobe_right"}


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", ".ssh", "a\nb"])
def test_a_name_that_cannot_be_a_file_is_refused(name):
    with pytest.raises(LabelError, match="usable as the name of a file"):
        LabelMap(["liver", name])


def test_a_contralateral_outside_the_map_is_none():
    assert LabelMap(["kidney_left", "liver"]).contralateral(1) is None


@given(NAMES)
def test_index_and_name_are_inverse_and_survive_a_round_trip(names):
    labels = LabelMap(names)
    assert [labels.name(labels.index(name)) for name in labels] == list(names)
    assert LabelMap.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels
    assert len({labels.color(i) for i in range(len(labels))}) == len(labels)


def test_all_117_colors_differ():
    labels = LabelMap.totalsegmentator()
    assert len({labels.color(i) for i in range(118)}) == 118


@pytest.mark.parametrize("names", [[], [""], ["a", "a"], ["background"], "liver", [1]])
def test_names_that_make_no_map_are_refused(names):
    with pytest.raises(LabelError, match="label map"):
        LabelMap(names)


@pytest.mark.parametrize("content", [{"0": "background", "2": "liver"}, {"0": "liver"}, {"a": "b"}, ["liver"]])
def test_a_broken_label_map_file_names_itself(tmp_path, content):
    (tmp_path / "label_map.json").write_text(json.dumps(content))
    with pytest.raises(LabelError, match=r"label_map\.json"):
        LabelMap.load(tmp_path / "label_map.json")


def test_an_unknown_structure_names_the_nearest():
    with pytest.raises(LabelError, match="Did you mean 'kidney_left'"):
        LabelMap.totalsegmentator(["kidny_left"])
    with pytest.raises(LabelError, match="Did you mean 'liver'"):
        LabelMap(["liver"]).index("livr")


def test_an_index_out_of_range_is_refused():
    with pytest.raises(LabelError, match="the labels run from 0 to 1"):
        LabelMap(["liver"]).name(2)


def test_the_overlap_priority_puts_small_structures_on_top():
    order = LabelMap.totalsegmentator().overlap_priority()
    assert sorted(order) == sorted(groups()["all"])
    for large, small in (("kidney_left", "kidney_cyst_left"), ("sacrum", "vertebrae_S1"), ("liver", "gallbladder")):
        assert order.index(large) < order.index(small)


def test_the_map_is_saved_and_loaded(tmp_path):
    labels = LabelMap.totalsegmentator("organs")
    labels.save(tmp_path / "label_map.json")
    assert LabelMap.load(tmp_path / "label_map.json") == labels


def test_version_1_shares_97_structures_with_version_2_and_has_seven_of_its_own():
    names = [entry["name"] for entry in catalogue_v1()]
    assert [entry["index"] for entry in catalogue_v1()] == list(range(1, 105))
    assert len(set(names) & set(groups()["all"])) == 97
    assert set(names) - set(groups()["all"]) == set(only_v1())
    assert {"heart_myocardium", "pulmonary_artery", "face"} < set(only_v1())


def test_a_structure_of_version_1_may_be_named_and_is_in_no_group():
    labels = LabelMap.totalsegmentator(["pulmonary_artery", "aorta"])
    assert labels.structures == ("aorta", "pulmonary_artery")
    assert not set(only_v1()) & {name for members in groups().values() for name in members}


def test_structures_of_version_1_are_in_the_overlap_priority():
    order = LabelMap(["aorta", "face", "spleen", "heart_atrium_left"]).overlap_priority()
    assert order == ("face", "spleen", "aorta", "heart_atrium_left")


def test_names_and_groups_are_selected_in_the_order_of_the_map():
    labels = LabelMap(["spleen", "rib_right_1", "liver", "rib_left_1", "own_structure"])
    assert labels.select(["liver", "ribs", "spleen"]) == ("spleen", "rib_right_1", "liver", "rib_left_1")
    assert labels.select(["all"]) == labels.structures
    assert labels.select(["own_structure", "own_structure"]) == ("own_structure",)
    for wrong, fix in (
        ("livr", "Did you mean 'liver'"),
        ("vertebrae", "the label map has neither a structure nor a group of this name. Choose from spleen"),
        ("background", "has neither a structure nor a group"),
    ):
        with pytest.raises(LabelError, match=fix):
            labels.select([wrong])


def test_mirroring_exchanges_each_structure_with_its_contralateral():
    labels = LabelMap.totalsegmentator("all")
    mirror_permutation = labels.mirror_permutation()
    assert [mirror_permutation[mirror_permutation[index]] for index in range(118)] == list(range(118))
    assert mirror_permutation[labels.index("rib_left_3")] == labels.index("rib_right_3")
    assert mirror_permutation[labels.index("liver")] == labels.index("liver")
    assert mirror_permutation[labels.index("lung_middle_lobe_right")] == labels.index(
        "lung_middle_lobe_right"
    )  # has no contralateral
    assert labels.mirror_permutation(background=False) == [index - 1 for index in mirror_permutation[1:]]
    with pytest.raises(LabelError, match="'kidney_left': 'kidney_right' is not in the label map, and in a mirror"):
        LabelMap(["kidney_left", "liver"]).mirror_permutation()
