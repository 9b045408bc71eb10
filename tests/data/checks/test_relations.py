from medseg.data.checks import structures
from medseg.data.checks.structures import Structure


def at(x: float = 0.0, z: float = 0.0, borders: str = "") -> Structure:
    return Structure(100, 1.0, (x, 0.0, z), (x, 0.0, z), borders, 1, 0, 0.0, f"{x} {z}")


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def test_left_is_where_x_is_smaller():
    right_way = {"kidney_left": at(-70), "kidney_right": at(70), "liver": at(60), "spleen": at(-80)}
    assert structures.check_sides(right_way) == []
    assert codes(structures.check_sides({**right_way, "kidney_left": at(75)})) == []  # a few mm may be chance
    wrong = structures.check_sides({**right_way, "kidney_left": at(110)})
    assert codes(wrong) == ["sides-exchanged"]
    assert "40 mm" in wrong[0].message
    assert codes(structures.check_sides({"liver": at(-60), "spleen": at(80)})) == ["situs"]


def test_a_mirrored_case_is_one_finding():
    pairs = {"kidney": 70, "hip": 80, "femur": 90}
    sides = (("left", 1), ("right", -1))
    wrong = {f"{name}_{side}": at(x * sign) for name, x in pairs.items() for side, sign in sides}
    assert codes(structures.check_sides(wrong)) == ["mirrored"]


def test_vertebrae_rise_from_the_sacrum_to_the_neck():
    right_way = {name: at(z=30.0 * index) for index, name in enumerate(structures.VERTEBRAE)}
    assert len(right_way) == 25
    assert structures.check_vertebrae(right_way) == []
    wrong = {**right_way, "vertebrae_L3": right_way["vertebrae_L2"], "vertebrae_L2": right_way["vertebrae_L3"]}
    (finding,) = structures.check_vertebrae(wrong)
    assert (finding.code, finding.location) == ("vertebrae-order", "vertebrae_L2, vertebrae_L3")
    assert "30 mm above" in finding.message
    some = {name: right_way[name] for name in ("vertebrae_T4", "vertebrae_L1")}
    assert structures.check_vertebrae(some) == []


def test_ribs_rise_on_each_side_and_cut_ones_are_ignored():
    ribs = {f"rib_{side}_{number}": at(z=-20.0 * number) for side in ("left", "right") for number in range(1, 13)}
    assert structures.check_ribs(ribs) == []
    swapped = {**ribs, "rib_left_4": ribs["rib_left_5"], "rib_left_5": ribs["rib_left_4"]}
    assert codes(structures.check_ribs(swapped)) == ["ribs-order"]
    assert structures.check_ribs({**ribs, "rib_left_4": at(z=-500, borders="K")}) == []
