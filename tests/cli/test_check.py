import json

import numpy as np
import pytest

from medseg.cli.check import render_preview
from medseg.data import check_dataset, read_exclude


def test_a_sound_set_ends_with_0_and_shows_its_overlaps(medseg, phantom):
    done = medseg("data", "check", phantom, "--workers", 1)
    assert (done.code, done.err) == (0, "")
    assert "4 cases, the TotalSegmentator layout" in " ".join(done.out.split())  # lines end where the path makes them
    assert "0 errors, 0 warnings" in done.out
    assert "kidney_cyst_left, kidney_left" in done.out


@pytest.fixture
def broken(case):
    mask = case / "s0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-30])
    return case


def test_an_error_ends_with_1_and_is_written_everywhere(medseg, broken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = medseg("data", "check", broken, "--json", tmp_path / "report.json", "--write-exclude")
    assert done.code == 1
    assert "file-truncated" in done.out
    assert "Download or copy it again." in done.out
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["excluded"] == read_exclude(tmp_path / "exclude.txt")
    assert content["excluded"]["s0001"].startswith(
        "file-truncated: s0001/segmentations/liver.nii.gz: the file is damaged"
    )
    assert "1 case to leave out in exclude.txt" in done.out


def test_many_findings_of_one_kind_are_one_row(medseg, case):
    for name in ("aorta", "colon", "spleen", "stomach", "trachea"):
        (case / "s0001" / "segmentations" / f"{name}.nii.gz").write_bytes(b"")
    done = medseg("data", "check", case)
    assert done.out.count("file-empty") == 1
    assert "... and 2 more" in done.out


def test_nothing_is_written_into_the_set(medseg, case):
    for option in ("--json", "--html", "--write-exclude"):
        done = medseg("data", "check", case, option, case / "out")
        assert done.code == 1
        assert "must not lie inside the data set" in done.err
    assert not (case / "out").exists()
    assert medseg("data", "check", case / "nowhere").code == 1


def test_a_page_with_previews_is_written(medseg, broken, tmp_path):
    assert medseg("data", "check", broken, "--html", tmp_path / "page.html").code == 1
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "file-truncated" in page
    assert "data:image/" in page


def test_a_preview_keeps_the_proportions_of_the_body(broken):
    printable = check_dataset(broken, previews=1).previews["s0001"]
    drawn = render_preview(printable)
    assert drawn.size == (320, round(320 * 10 / 12))
    assert np.ptp(np.asarray(drawn)) > 0


def test_an_empty_or_unknown_folder_fails(medseg, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    for name in ("empty", "other"):
        result = medseg("data", "check", tmp_path / name)
        assert result.code == 1
        assert "no data set in a known layout" in " ".join(result.out.split())
    assert medseg("data", "check", tmp_path / "none").code == 1
