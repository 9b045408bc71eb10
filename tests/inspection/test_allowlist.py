"""The list of callables: what must be on it, what must not, and that MONAI means the same by each name."""

import importlib.util
import pydoc

import pytest

from medseg.inspection import allowlist, rules

DENIED = [
    "os.system", "os.popen", "subprocess.run", "builtins.eval", "builtins.open", "functools.partial", "torch.load",
    "torch.save", "torch.hub.load", "torch.jit.load", "torch.compile", "numpy.load", "numpy.save", "numpy.memmap",
    "monai.bundle.run", "monai.bundle.load", "monai.bundle.ConfigParser", "monai.utils.instantiate",
    "monai.utils.optional_import", "monai.apps.download_url", "PersistentDataset", "LMDBDataset", "CSVDataset",
    "TorchVisiond", "TorchIOd", "CuCIMd", "PerceptualLoss", "MLFlowHandler", "ClearMLHandler", "TrtHandler",
    "WriteFileMappingd", "run", "load", "instantiate", "ignite.handlers.WandBLogger", "medseg.bundle.run_bundle",
    "medseg.bundle.Bundle", "medseg.write_phantom", "pathlib", "os.environ", "os.remove", "os.path.expanduser",
    "shutil.copy", "importlib.import_module", "pickle.loads",
]  # fmt: skip


@pytest.mark.parametrize("name", DENIED)
def test_what_reads_writes_or_runs_is_not_on_the_list(name):
    assert allowlist.canonical_name(name) is None


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("LoadImaged", "monai.transforms.LoadImaged"),
        ("LoadImageDict", "monai.transforms.LoadImaged"),
        ("monai.transforms.io.dictionary.LoadImageD", "monai.transforms.LoadImaged"),
        ("UNet", "monai.networks.nets.UNet"),
        ("DiceCELoss", "monai.losses.DiceCELoss"),
        ("SlidingWindowInferer", "monai.inferers.SlidingWindowInferer"),
        ("torch.optim.AdamW", "torch.optim.AdamW"),
        ("ignite.metrics.Accuracy", "ignite.metrics.Accuracy"),
        ("medseg.losses.DiceCELoss", "medseg.losses.DiceCELoss"),
    ],
)
def test_every_spelling_leads_to_one_name(spelled, name):
    assert allowlist.canonical_name(spelled) == name


def test_short_names_mean_what_monai_takes_them_for():
    from monai.bundle import ComponentLocator

    locator = ComponentLocator()
    short = {spelled: name for spelled, name in allowlist.spellings().items() if "." not in spelled}
    assert len(short) > 600
    for spelled, name in short.items():
        module = locator.get_component_module_name(spelled)
        assert isinstance(module, str), (spelled, module)
        assert pydoc.locate(f"{module}.{spelled}") is pydoc.locate(name)


def test_no_module_that_runs_things_may_be_imported():
    for name in (
        "subprocess",
        "importlib",
        "functools",
        "operator",
        "builtins",
        "pickle",
        "shutil",
        "ctypes",
        "monai.bundle",
    ):
        assert name not in allowlist.importable_modules()


def test_pickles_may_name_only_what_torch_reads_by_itself():
    import torch._weights_only_unpickler as reader

    assert allowlist.pickle_globals() <= set(reader._get_allowed_globals())
    assert "torch._utils._rebuild_tensor_v2" in allowlist.pickle_globals()


def test_every_listed_name_of_medseg_exists():
    names = [name for name in set(allowlist.spellings().values()) if name.startswith("medseg.")]
    assert len(names) > 50
    assert not [name for name in names if pydoc.locate(name) is None]


def test_the_list_is_what_its_script_says(repository):
    spec = importlib.util.spec_from_file_location("allowlist_script", repository / "scripts" / "allowlist.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert allowlist.argument_rules() == script.RULES
    assert allowlist.positional_arguments() == script.POSITIONAL
    assert allowlist.importable_modules() == set(script.MODULES.split())
    assert allowlist.torchscript_operators() == set(script.OPERATORS.split())
    names = {f"{module}.{name}" for module, names in script.EXACT.items() for name in names.split()}
    assert names <= set(allowlist.spellings())


def test_every_kind_of_argument_in_the_rules_is_one_that_is_checked():
    kinds = {kind for kinds in allowlist.argument_rules().values() for kind in kinds.values()}
    checked = {value for name, value in vars(rules).items() if name.isupper() and isinstance(value, str)}
    assert kinds <= checked
