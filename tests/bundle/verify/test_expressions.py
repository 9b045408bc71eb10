"""Names in expressions, lists paired by order, and paths, without evaluating anything."""

from __future__ import annotations

import pytest

from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.expressions import check_expressions, check_pairing, check_paths
from tests.bundle.verify.broken import change, edit, overlay

LR = "configs/train.json, optimizer#lr"


@pytest.mark.parametrize(
    "text",
    ["$[x for x in @train#handlers if x is not None]", "$(lambda a, *b, c=1: a + c)(@lr)", "$torch.device('cpu').type",
     "$monai.handlers.from_engine(['pred'])", "$np.float32", "$len(@spacing)", "$medseg.LabelMap(['a']).nothing_known",
     "$'%d' % @lr", "$torch.optim.lr_scheduler.OneCycleLR", "$medseg.data.find_scans"],
)  # fmt: skip
def test_valid_expressions(codes_of, text):
    assert codes_of(check_expressions, edit("train", optimizer__lr=text)) == []


@pytest.mark.parametrize(
    "text",
    ["$troch.device('cpu')", "$torch.devise", "$monai.transforms.LoadImagd", "$medseg.LabelMap.totalsegmentatr()"],
)
def test_an_undefined_name(codes_of, text):
    assert codes_of(check_expressions, edit("train", optimizer__lr=text)) == [("expression-name", LR)]


def test_an_overlay_knows_what_its_config_imports(codes_of):
    assert codes_of(check_expressions, overlay("quick", lr="$medseg.LabelMap")) == []
    assert codes_of(check_expressions, overlay("quick", lr="$glob.glob('x')")) == [
        ("expression-name", "configs/quick.json, lr")
    ]


def test_an_import_that_fails(codes_of):
    fault = edit("train", imports=["$import torch", "$import medseg", "$import nosuch.thing as t"])
    assert codes_of(check_expressions, fault) == [("expression-name", "configs/train.json, imports#2")]


def test_nothing_is_evaluated(codes_of, tmp_path):
    canary = tmp_path / "canary"
    assert codes_of(check_expressions, edit("train", optimizer__lr=f"$open('{canary}', 'w').close()")) == []
    assert not canary.exists()


def of(data):
    lists = {"images": "$sorted(glob.glob(@dataset_dir + '/i/*'))", "truth": "$sorted(os.listdir(@dataset_dir + '/l'))"}
    return edit("train", **lists, train__dataset__data=data)


@pytest.mark.parametrize(
    "data",
    ["$[{'image': i, 'label': l} for i, l in zip(@images, @truth)]",
     "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], sorted(@truth)[:-9])]",
     "$list(map(dict, zip(@images, @truth)))", "$[{'image': @images[i], 'label': @truth[i]} for i in range(3)]",
     "$list(zip(pathlib.Path('a').glob('*'), pathlib.Path('b').glob('*')))"],
)  # fmt: skip
def test_lists_of_files_paired_by_order(codes_of, data):
    assert codes_of(check_pairing, of(data)) == [("pairing", "configs/train.json, train#dataset#data")]


@pytest.mark.parametrize(
    "data",
    ["$[{'image': i} for i in @images]", "$list(zip(@spacing, @spacing))", "$dict(zip(['image'], [@images]))",
     "$[{'image': i, 'label': i.replace('img', 'seg')} for i in @images]"],
)  # fmt: skip
def test_expressions_that_pair_nothing(codes_of, data):
    assert codes_of(check_pairing, of(data)) == []


OUTPUT_DIR = "configs/inference.json, output_dir"


@pytest.mark.parametrize(
    "text",
    ["/home/me/eval", "C:\\data\\eval", "D:/data", "~/eval", "\\\\server\\share", "$'/mnt/x'", "$open('/etc/passwd')",
     "$f'/srv/{@device}/x'"],
)  # fmt: skip
def test_absolute_paths(codes_of, text):
    assert codes_of(check_paths, edit("inference", output_dir=text)) == [("path-absolute", OUTPUT_DIR)]


@pytest.mark.parametrize("text", ["../eval", "a/../../b", "$@bundle_root + '/../x'", "$@bundle_root + '\\\\..\\\\x'"])
def test_paths_out_of_the_bundle(codes_of, text):
    assert codes_of(check_paths, edit("inference", output_dir=text)) == [("path-leaves", OUTPUT_DIR)]


@pytest.mark.parametrize(
    "text",
    ["eval", "$@bundle_root + '/eval'", "$f'{@bundle_root}/eval'", "https://x.org/a", "s3://bucket/a", "a/b.c", "/",
     "text with / and .. in it", "@device", "*", "...", "$'a' + '/b'", "//x"],
)  # fmt: skip
def test_paths_that_are_allowed(codes_of, text):
    assert codes_of(check_paths, edit("inference", output_dir=text)) == []


def test_a_data_path_is_a_warning_and_allowed_in_a_run(plain):
    change(plain, "train", dataset_dir="/data/set")
    (finding,) = check_paths(BundleFiles(plain))
    assert finding.severity == "warning"
    (plain / "run.json").write_text("{}")
    assert list(check_paths(BundleFiles(plain))) == []
