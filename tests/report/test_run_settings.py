import json

from medseg.report.run_data import RunData
from medseg.report.run_settings import find_recipe, settings


def test_the_recipe_of_a_bundle_of_ours_is_found_and_of_another_not(repository):
    found = find_recipe(RunData("run", {"bundle": "unet2d"}))
    assert found == json.loads((repository / "bundles/unet2d/configs/train.json").read_text(encoding="utf-8"))
    assert find_recipe(RunData("run", {"bundle": "nobody's"})) == {}
    assert find_recipe(RunData("run", {"bundle": "../bundles/unet2d/../.."})) == {}
    assert find_recipe(RunData("run")) == {}


def test_every_key_is_in_the_tree_and_escaped():
    config = {"a<b>": {"c": {"_target_": "T<i>", "d": [1, {"e": "</script>"}]}}, "f": [1, 2], "empty": {}, "none": None}
    html = settings(RunData("run", {"bundle": "x"}, config=config), {})
    for path in ("a&lt;b&gt;#c#_target_", "a&lt;b&gt;#c#d#0", "a&lt;b&gt;#c#d#1#e", "f", "empty", "none"):
        assert f'data-path="{path}"' in html
    assert "</script>" not in html
    assert "T<i>" not in html
    assert "is not on this machine" in html


def test_a_run_like_its_recipe_says_so_and_one_without_config_nothing():
    assert "The same as the recipe x" in settings(RunData("run", {"bundle": "x"}, config={"a": 1}), {"a": 1})
    assert settings(RunData("run"), {"a": 1}) == ""
