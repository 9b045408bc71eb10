import io
import json
import sys

import pytest

pytestmark = pytest.mark.slow


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path


def config(folder, name="train"):
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def test_a_new_bundle_is_found_by_name(medseg, here):
    done = medseg(
        "bundle", "new", "lesions", "--structures", "liver, liver tumour", "--channels", 3, "--spacing", 1, 1, -1
    )
    assert done.code == 0, done.err
    assert "2 structures: liver, liver tumour" in done.out
    assert "medseg train lesions --data FOLDER" in done.out
    created = config(here / "bundles" / "lesions")
    assert (created["structures"], created["context"], created["spacing"]) == (
        ["liver", "liver tumour"],
        1,
        [1.0, 1.0, -1],
    )
    again = medseg("bundle", "new", "lesions", "--structures", "liver")
    assert (again.code, again.out) == (1, "")
    assert "this file or folder exists already" in again.err


def test_classes_come_from_a_label_map(medseg, here):
    (here / "label_map.json").write_text(json.dumps({"0": "background", "1": "spleen", "2": "Zyste"}))
    done = medseg("bundle", "new", "zysten", "--label-map", "label_map.json", "--into", "elsewhere")
    assert done.code == 0, done.err
    assert config(here / "elsewhere" / "zysten")["structures"] == ["spleen", "Zyste"]
    assert f"medseg train {(here / 'elsewhere' / 'zysten').relative_to(here)} --data" in done.out


def test_missing_options_are_asked_on_a_terminal(medseg, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal("liver,tumour\n5\n2 2 -1\n"))
    done = medseg("bundle", "new", "asked")
    assert done.code == 0, done.err
    created = config(here / "bundles" / "asked")
    assert (created["structures"], created["context"], created["spacing"]) == (["liver", "tumour"], 2, [2.0, 2.0, -1])
    monkeypatch.setattr(sys, "stdin", Terminal("\n\n"))
    assert medseg("bundle", "new", "by_default", "--structures", "organs").code == 0
    created = config(here / "bundles" / "by_default")
    assert (created["context"], created["spacing"]) == (0, [1.5, 1.5, -1])
    monkeypatch.setattr(sys, "stdin", Terminal("1\nfew\n"))
    done = medseg("bundle", "new", "third", "--structures", "liver")
    assert (done.code, "Spacing is three numbers (got 'few')" in done.err) == (2, True)
    assert not (here / "bundles" / "third").exists()


def test_without_a_terminal_missing_options_are_an_error(medseg, here):
    done = medseg("bundle", "new", "mine")
    assert (done.code, done.out) == (2, "")
    assert "Give the structures: --structures A,B,... or --label-map FILE." in done.err
    both = medseg("bundle", "new", "mine", "--structures", "a", "--label-map", "x.json")
    assert "say the same: give only one of them" in both.err
    assert (
        medseg("bundle", "new", "mine", "--structures", "a", "--from", "unet").err.count("Did you mean 'unet2d'?") == 1
    )


def test_a_source_from_others_must_be_trusted_and_the_new_bundle_is_ones_own(medseg, here):
    from medseg.runs.origin import is_own, remember_bundle

    assert medseg("bundle", "new", "model", "--structures", "liver", "--into", "foreign").code == 0
    assert is_own("foreign/model")
    remember_bundle("foreign/model", is_own=False)
    command = "bundle", "new", "mine", "--structures", "liver", "--from", here / "foreign" / "model"
    assert "runs whatever that holds" in medseg(*command).err
    assert not (here / "bundles").exists()
    assert medseg(*command, "--trust").code == 0
    assert is_own("bundles/mine")


def test_a_new_bundle_has_the_keys_of_the_bundle_it_was_made_from(medseg, tmp_path):
    assert medseg("bundle", "new", "mine", "--structures", "cyst", "--into", tmp_path).code == 0
    done = medseg("train", tmp_path / "mine", "max_epochs=two")
    assert done.err == 'Error: max_epochs: use a whole number from 1 to 1000000 (got "two").\n'
