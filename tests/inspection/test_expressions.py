"""Expressions that are allowed, as bundles write them, and such as are not; hostile.py holds more."""

import pytest

from medseg.inspection.expressions import ExpressionJudge, Refusal, parse_expression, referenced_path

NAMES = {"torch": "torch", "monai": "monai", "np": "numpy", "os": "os", "glob": "glob", "dist": "torch.distributed"}
NAMES |= {"medseg": "medseg", "find": "glob.glob"}


class Recorded(ExpressionJudge):
    """Allow everything and note what was asked."""

    def __init__(self):
        super().__init__(NAMES)
        self.paths, self.calls = [], []

    def check_reference(self, path):
        self.paths.append(path)

    def check_call(self, name, node):
        self.calls.append((name, node is not None))


def judge(text):
    recorded = Recorded()
    recorded.judge(text)
    return recorded.paths, recorded.calls


@pytest.mark.parametrize(
    "text",
    [
        "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
        "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels[:-9])]",
        "$@train#deterministic_transforms + @train#random_transforms",
        "$monai.handlers.from_engine(['pred', 'label'])",
        "$monai.utils.CommonKeys.IMAGE",
        "$lambda x: x['loss']",
        "$lambda engine: engine.state.metrics['val_mean_dice']",
        "$@network_def.to(@device)",
        "$[h for h in @handlers if h is not None]",
        "$'bs%d-lr%g' % (@batch_size, @lr)",
        "$f'cuda:{dist.get_rank()}'",
        "$dist.is_initialized() or dist.init_process_group(backend='nccl')",
        "$setattr(torch.backends.cudnn, 'benchmark', True)",
        "$os.path.join(@bundle_root, 'models', 'model.pt')",
        "$@a.replace('imagesTr', 'labelsTr')",
        "$sorted(@cases, key=lambda one: one['id'])",
        "$list(map(str, @cases))",
        "$np.float32",
        "$torch.device('cuda:' + os.environ['LOCAL_RANK'])",
        "$find('*.png')",
        "$1e-3 if @fast else -2 ** 3",
        "${'a': 1, 'b': [v for v in @settings.values() if v not in (None, '')]}",
        "$dict(a=1)",
    ],
)
def test_expressions_of_ordinary_bundles_are_allowed(text):
    judge(text)


def test_references_and_callables_are_checked_against_the_configs():
    paths, calls = judge("$medseg.bundle.start_run(@bundle_root, [@a::b])")
    assert paths == ["bundle_root", "a#b"]
    assert calls == [("medseg.bundle.start_run", True)]
    assert judge("$monai.transforms.SaveImage")[1][-1] == ("monai.transforms.SaveImage", False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$os.system('x')", "'os.system' is not known"),
        ("$torch", "module 'torch' as a value"),
        ("$@x.__class__", r"'\.__class__' is not known"),
        ("$@x.replace('a')", r"'\.replace' is not known with these"),
        ("$@x.eval('1')", "with these arguments"),
        ("$@f('x')", "only known when it runs"),
        ("$[x for os in @y]", "another meaning"),
        ("$[1 for @x in @y]", "assigns|cannot read"),
        ("$(lambda len: len)(1)", "only known when it runs"),
        ("$lambda len: len", "another meaning"),
        ("$print(1)", "calls 'print'"),
        ("$max(@x, key=@f)", "max would call"),
        ("$sorted(@x, cmp=1)", "no such argument"),
        ("$setattr(torch.backends.cudnn, 'benchmark', @x)", "settings of cudnn alone"),
        ("$setattr(torch, 'load', True)", "settings of cudnn alone"),
        ("$(x := 1)", "NamedExpr"),
        ("$unknown", "'unknown' is not known"),
        ("$" + "(" * 3000 + ")" * 900, "cannot read|characters"),
        ("$" + "-" * 3900 + "1", "too deep|cannot read"),
        ("$" + "1+" * 2500, "characters"),
        ("$\x00", "cannot read"),
        ("$(yield)", "Yield|cannot read"),
        ("$__builtins__", "not known"),
        ("$os.environ['HOME']", "not known"),
        ("$os.environ", "not known"),
        ("${'patch' + '_index': 1}", "keys are only known"),
        ("$dict([('a', 1)])", "keys that are written"),
        ("${'patch_index': 1}", "patch_index"),
        ("${'patch_index': 1 for x in @y}", "patch_index"),
        ("$setattr(torch.backends.cudnn, *@x)", "settings of cudnn alone"),
        ("$monai.utils.CommonKeys.replace('a', 'b')", "not known"),
        ("$monai.utils.CommonKeys.folder", "not known"),
    ],
)
def test_an_expression_that_could_do_more_is_refused(text, reason):
    with pytest.raises(Refusal, match=reason):
        judge(text)


def test_references_are_recognized_in_a_tree():
    assert referenced_path(parse_expression("$@a#b")) == "a#b"
    assert referenced_path(parse_expression("$x['a']")) is None
