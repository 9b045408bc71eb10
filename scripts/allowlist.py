"""Write medseg/inspection/allowlist.json: the exact callables that a bundle may name without `--trust`.

Each callable was read for arguments that read pickles, download, write, or are looked up as code. Such an argument
has a rule in RULES, or the callable is left out below. MONAI's and PyTorch's names are listed by
what they are (a transform, a network, a loss) less what is left out; a new version adds nothing until this is run again
and the difference has been read.
"""

import importlib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "medseg" / "inspection" / "allowlist.json"

# Modules that `$import` may name. Importing them has no other effect, and only their listed callables are allowed.
MODULES = """
    copy datetime glob itertools json logging math os os.path pathlib random re sys time numpy torch
    torch.nn torch.nn.functional torch.optim torch.optim.lr_scheduler torch.utils.data torch.distributed ignite
    ignite.engine ignite.handlers ignite.metrics ignite.distributed monai monai.data monai.data.utils
    monai.engines monai.handlers monai.inferers monai.losses monai.metrics monai.networks monai.networks.nets
    monai.networks.schedulers monai.optimizers monai.transforms monai.utils medseg medseg.bundle medseg.data
    medseg.inference medseg.losses medseg.metrics medseg.monitoring medseg.networks medseg.report
    medseg.training medseg.transforms
"""

# Left out of what is taken by kind: each looks up a name as code, downloads and runs code, or writes where it is told.
LEFT_OUT = {
    "monai.transforms": """
        TorchVision TorchVisiond RandTorchVision RandTorchVisiond TorchIO TorchIOd RandTorchIO RandTorchIOd
        CuCIM CuCIMd RandCuCIM RandCuCIMd SaveClassificationd WriteFileMapping WriteFileMappingd
    """,
    "monai.networks.nets": """
        BertAttention BertMixedLayer BertOutput BertPreTrainedModel CellSamWrapper HyenaNDUNETR MILModel
        MultiModal Pooler TorchVisionFCModel Transchex get_medicalnet_pretrained_resnet_args
        get_pretrained_resnet_medicalnet
    """,
    "monai.losses": "PerceptualLoss",
    "monai.metrics": "FIDMetric",
    "monai.inferers": "ZarrAvgMerger",
}

EXACT = {
    "monai.data": """
        ArrayDataset CacheDataset DataLoader Dataset DistributedSampler DistributedWeightedRandomSampler
        GridPatchDataset ImageDataset IterableDataset ITKReader NibabelReader NrrdReader NumpyReader PILReader
        PatchDataset PatchIter PatchIterd PydicomReader ShuffleBuffer SmartCacheDataset ThreadBuffer
        ThreadDataLoader ZipDataset decollate_batch list_data_collate load_decathlon_datalist
        pad_list_data_collate partition_dataset partition_dataset_classes select_cross_validation_folds
        worker_init_fn MetaTensor
    """,
    "monai.data.utils": "no_collation",
    "monai.engines": """
        EnsembleEvaluator Evaluator GanTrainer PrepareBatch PrepareBatchDefault PrepareBatchExtraInput
        SupervisedEvaluator SupervisedTrainer Trainer Workflow default_metric_cmp_fn default_prepare_batch
    """,
    "monai.handlers": """
        CheckpointLoader CheckpointSaver ClassificationSaver ConfusionMatrix DecollateBatch EarlyStopHandler
        GarbageCollector HausdorffDistance IgniteMetricHandler LogfileHandler LrScheduleHandler
        MeanAbsoluteError MeanDice MeanIoUHandler MeanSquaredError MetricLogger MetricsReloadedBinaryHandler
        MetricsReloadedCategoricalHandler MetricsSaver PanopticQuality ParamSchedulerHandler PostProcessing
        ROCAUC RootMeanSquaredError SmartCacheHandler StatsHandler SurfaceDistance TensorBoardHandler
        TensorBoardImageHandler TensorBoardStatsHandler ValidationHandler from_engine ignore_data
        stopping_fn_from_loss stopping_fn_from_metric
    """,
    "monai.optimizers": "ExponentialLR LinearLR Novograd WarmupCosineSchedule generate_param_groups",
    "monai.networks.schedulers": "DDIMScheduler DDPMScheduler PNDMScheduler RFlowScheduler",
    "monai.networks": "normal_init one_hot icnr_init pixelshuffle predict_segmentation",
    "monai.utils": """
        Average BlendMode CommonKeys DiceCEReduction GridSampleMode GridSamplePadMode InterpolateMode
        LossReduction MetricReduction NumpyPadMode PytorchPadMode UpsampleMode ensure_tuple first
        set_determinism
    """,
    "torch": """
        arange bfloat16 bool cat complex64 cuda.device_count cuda.is_available cuda.is_bf16_supported
        cuda.set_device device double empty eye finfo float float16 float32 float64 full from_numpy
        get_default_dtype half iinfo inf int int16 int32 int64 int8 linspace long manual_seed nan ones pi rand
        randn stack tensor uint8 version.cuda zeros Generator Size as_tensor argmax softmax sigmoid sum mean
        sqrt abs backends.cudnn.is_available backends.mps.is_available distributed.barrier
        distributed.destroy_process_group distributed.get_rank distributed.get_world_size
        distributed.init_process_group distributed.is_available distributed.is_initialized
    """,
    "torch.optim.lr_scheduler": """
        ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR
        LambdaLR LinearLR MultiStepLR MultiplicativeLR OneCycleLR PolynomialLR ReduceLROnPlateau SequentialLR
        StepLR
    """,
    "torch.utils.data": """
        ConcatDataset DataLoader RandomSampler Sampler SequentialSampler Subset SubsetRandomSampler
        TensorDataset WeightedRandomSampler distributed.DistributedSampler
    """,
    "torch.nn.parallel": "DistributedDataParallel",
    "torch.nn.functional": "softmax sigmoid relu one_hot interpolate cross_entropy mse_loss l1_loss",
    "ignite.metrics": """
        Accuracy Average ConfusionMatrix DiceCoefficient Fbeta IoU JaccardIndex Loss MeanAbsoluteError
        MeanSquaredError MetricGroup Metric Precision ROC_AUC Recall RootMeanSquaredError RunningAverage
        TopKCategoricalAccuracy mIoU
    """,
    "ignite.handlers": """
        BasicTimeProfiler CosineAnnealingScheduler EMAHandler EarlyStopping LRScheduler LinearCyclicalScheduler
        PiecewiseLinear ProgressBar TerminateOnNan TimeLimit Timer create_lr_scheduler_with_warmup
        global_step_from_engine
    """,
    "ignite.engine": "Engine Events",
    "ignite.distributed": "get_rank get_world_size device barrier get_local_rank",
    "numpy": """
        arange argmax argmin array asarray ascontiguousarray bool_ ceil clip concatenate cumsum diag exp
        expand_dims eye float16 float32 float64 floor full inf int16 int32 int64 int8 isfinite isnan linspace
        log log10 log2 max maximum mean median min minimum moveaxis nan newaxis ones percentile pi prod
        quantile random.seed round sqrt squeeze stack std sum transpose uint16 uint32 uint64 uint8 unique where
        zeros
    """,
    "medseg": "LabelMap LabelMap.totalsegmentator StreamingInferer open_dataset",
    "medseg.bundle": """
        SavePredictions SaveSlices bundle_root check_config default_handlers require_run_name runs_dir start_run
    """,
    "medseg.data": """
        VolumeReader choose_labels discover find_scans open_dataset slice_items training_items
    """,
    "medseg.inference": "StreamingInferer",
    "medseg.losses": "DiceCELoss MarginalLoss",
    "medseg.metrics": "PixelF1 ScanDice VolumeDice VolumeScores annotated_classes measure_names",
    "medseg.monitoring": """
        Histograms History Monitor Previews SaveScores System Tracking check_settings default_backend
    """,
    "medseg.networks": "SegFormer init_weights load_weights require_variant",
    "medseg.report": "image_panels image_preview overlay panels",
    "medseg.training": """
        AttachHandlers Checkpoints ClipGradients EarlyStopping EpochSampler SanityValidation SetSamplerEpoch LrSchedule
        NanGuard PrecisionInferer PrepareBatch ProgressBar Resume SeededDataset DryRun default_workers has_bf16
        keep_freed_memory prepare require_patience seeded_loader select_device steps_per_epoch try_network
    """,
    "medseg.transforms": """
        AugmentBatch ResizeKeepAspectd IndexSlicesd LoadSlice2Dd MultiHotd RandAugmentd RandSlicePatchd ScaleWindowd
        Spacingd Standardize Standardized WindowHUd evaluation_chain training_chain
    """,
    "glob": "glob",
    "os": "cpu_count getcwd linesep listdir sep",
    "os.path": "abspath basename commonpath commonprefix dirname exists isdir isfile join normpath split splitext",
    "pathlib": "Path",
    "itertools": "chain product repeat zip_longest",
    "copy": "copy deepcopy",
    "datetime": "datetime.now datetime.today timedelta",
    "json": "dumps",
    "logging": "CRITICAL DEBUG ERROR INFO WARNING getLogger",
    "random": "randint random seed uniform",
    "re": "escape findall fullmatch match search split sub",
    "sys": "maxsize platform",
    "time": "monotonic perf_counter strftime time",
    "math": "",
    "torch.nn": "",
    "torch.optim": "",
}  # fmt: skip


# The arguments that have rules, with their kind; medseg/inspection/rules.py checks each kind.
_IMAGE = {
    **{"output_dir": "path", "output_postfix": "name", "output_ext": "extension", "output_format": "extension"},
    **{"writer": "writer", "data_root_dir": "nothing", "folder_layout": "nothing", "output_name_formatter": "nothing"},
}
_ENGINE = {"compile_kwargs": "compile"}
_WRITING_HANDLERS = ("checkpoints", "histograms", "history", "monitor", "nan_guard", "system")
_READ = {"reader": "reader", "allow_pickle": "false"}
_CHECKPOINT = {
    "save_dir": "path",
    **dict.fromkeys(("name", "file_prefix", "final_filename", "key_metric_filename", "key_metric_name"), "name"),
}
RULES: dict[str, dict[str, str]] = {
    "medseg.bundle.SavePredictions": {"folder": "path"},
    "medseg.bundle.SaveSlices": {"folder": "path"},
    "medseg.bundle.default_handlers": {
        "run": "run",
        "monitor#settings": "tracker",
        "checkpoints#backup": "address",
        "checkpoints#model_path": "path",
        **dict.fromkeys(_WRITING_HANDLERS, "options"),
        **{f"{handler}#folder": "path" for handler in _WRITING_HANDLERS},
    },
    "medseg.bundle.start_run": {
        **dict.fromkeys(("root", "output_dir"), "path"),
        **{"resume": "boolean", "config": "config", "backup": "address"},
    },
    "medseg.data.open_dataset": {"cache_dir": "path"},
    "medseg.monitoring.Histograms": {"folder": "path"},
    "medseg.monitoring.History": {"folder": "path"},
    "medseg.monitoring.Monitor": {"folder": "path", "settings": "tracker"},
    "medseg.monitoring.Previews": {"folder": "path"},
    "medseg.monitoring.SaveScores": {"path": "path"},
    "medseg.monitoring.System": {"folder": "path"},
    "medseg.monitoring.Tracking": {"output_dir": "path", "settings": "tracker"},
    "medseg.networks.SegFormer": {"variant": "variant"},
    "medseg.open_dataset": {"cache_dir": "path"},
    "medseg.training.Checkpoints": {"folder": "path", "model_path": "path", "backup": "address"},
    "medseg.training.NanGuard": {"folder": "path"},
    "monai.data.ImageDataset": _READ,
    "monai.data.NumpyReader": {"allow_pickle": "false"},
    "monai.engines.SupervisedEvaluator": _ENGINE,
    "monai.engines.SupervisedTrainer": _ENGINE,
    "monai.handlers.CheckpointSaver": _CHECKPOINT,
    "monai.handlers.ClassificationSaver": {"output_dir": "path", "filename": "name", "saver": "nothing"},
    "monai.handlers.LogfileHandler": {"output_dir": "path", "filename": "name"},
    "monai.handlers.MetricsSaver": {"save_dir": "path", "output_type": "name"},
    "monai.handlers.TensorBoardHandler": {"log_dir": "path"},
    "monai.handlers.TensorBoardImageHandler": {"log_dir": "path"},
    "monai.handlers.TensorBoardStatsHandler": {"log_dir": "path"},
    "monai.inferers.PatchInferer": {"merger_cls": "merger"},
    "monai.networks.nets.HoVerNet": {"pretrained_url": "nothing"},
    "monai.transforms.LoadImage": _READ,
    "monai.transforms.LoadImaged": _READ,
    "monai.transforms.SaveImage": _IMAGE,
    "monai.transforms.SaveImaged": _IMAGE,
    "pathlib.Path": {},  # its methods move files, so it must not become a value whose methods take any object
    "torch.distributed.init_process_group": {
        "backend": "backend",
        **dict.fromkeys(("init_method", "store", "pg_options"), "nothing"),
    },
}
# The rules for arguments of every callable.
RULES["*"] = {"_debug_": "nothing", "allow_pickle": "false", "pickle_module": "nothing", "pretrained_url": "nothing"}
# The arguments, in their order, of callables with rules that expressions may call.
POSITIONAL = {
    "medseg.bundle.start_run": ["root", "output_dir", "dataset", "labels", "name", "resume", "backup", "config"],
    "medseg.data.open_dataset": ["root", "labels", "cache_dir"],
    "pathlib.Path": [f"part {number}" for number in range(8)],
    "torch.distributed.init_process_group": ["backend"],
}

# Operators of torch that a TorchScript program may name: they compute, and reach no file, process or network.
OPERATORS = """
    NumToTensor RaiseException device dtype layout __contains__ __derive_index __getitem__ __is__ __isnot__ __not__
    __range_length _convolution _set_item _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d abs adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d add add_ addmm all any append arange
    argmax avg_pool2d avg_pool3d baddbmm batch_norm bmm broadcast_tensors cat ceil chunk clamp clone constant_pad_nd
    contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d detach dim div div_ dropout
    dropout_ einsum elu elu_ empty eq erf exp expand expand_as feature_dropout feature_dropout_ flatten flip floor
    floor_divide floordiv format full ge gelu group_norm gt hardsigmoid hardswish hardtanh index_select instance_norm
    items keys layer_norm le leaky_relu leaky_relu_ len linear list log log_softmax lt masked_fill matmul max max_pool2d
    max_pool3d mean min mish mul mul_ narrow ndim ne neg ones ones_like pad permute pixel_shuffle pow prelu rand
    reciprocal reflection_pad2d reflection_pad3d relu relu6 relu_ remainder repeat replication_pad2d replication_pad3d
    reshape reverse roll rsqrt rsub scaled_dot_product_attention select sigmoid sigmoid_ silu silu_ size slice softmax
    softplus split split_with_sizes sqrt squeeze squeeze_ stack std sub sub_ sum swapaxes t tanh tile to transpose
    type_as unbind unflatten unsqueeze unsqueeze_ upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d values var view view_as warn where
    zeros zeros_like
"""


def _by_kind() -> Iterator[tuple[str, str]]:
    """Yield the names of MONAI and PyTorch that are listed by what they are, as module and name."""
    import monai
    import torch

    kinds = {
        "monai.transforms": monai.transforms.Transform,
        "monai.networks.nets": torch.nn.Module,
        "monai.losses": torch.nn.Module,
        "monai.metrics": monai.metrics.metric.Metric,
        "monai.inferers": (monai.inferers.Inferer, monai.inferers.Splitter),
        "torch.nn": torch.nn.Module,
        "torch.optim": torch.optim.Optimizer,
    }
    for module, kind in kinds.items():
        left_out = set(LEFT_OUT.get(module, "").split())
        for name, value in vars(importlib.import_module(module)).items():
            fits = inspect.isclass(value) and issubclass(value, kind) and value.__module__.startswith(module)
            if fits and value.__name__ not in left_out and name not in left_out and not name.startswith("_"):
                yield module, name
    networks = importlib.import_module("monai.networks.nets")  # functions that build one: resnet50, ...
    for name, value in vars(networks).items():
        if re.fullmatch("resnet[0-9]+", name) and inspect.isfunction(value):
            yield "monai.networks.nets", name
    metrics = importlib.import_module("monai.metrics")
    for name, value in vars(metrics).items():
        if inspect.isfunction(value) and name.startswith("compute_"):
            yield "monai.metrics", name
    for name in vars(importlib.import_module("math")):
        if not name.startswith("_"):
            yield "math", name


def _value(dotted: str) -> Any:
    """Return what a dotted name stands for."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return value
    raise ImportError(dotted)


def build() -> dict[str, list[str]]:
    """Return the other spellings of each name: the module it is defined in, and the short names that MONAI resolves."""
    from monai.bundle import ComponentLocator

    public = dict.fromkeys(f"{module}.{name}" for module, name in _by_kind())
    public |= dict.fromkeys(f"{module}.{name}" for module, names in EXACT.items() for name in names.split())
    values: dict[str, Any] = {}
    first: dict[Any, str] = {}
    missing = []
    for name in public:
        try:
            values[name] = _value(name)
        except AttributeError:
            missing.append(name)
            values[name] = object()
    sys.stderr.write("".join(f"{name} does not exist in this version; it is listed all the same\n" for name in missing))
    for name, value in values.items():
        kind = (inspect.isclass(value) or inspect.isfunction(value)) and name.startswith("monai.")
        key = id(value) if kind else name
        if key not in first or (kind and name.rpartition(".")[2] == value.__name__):
            first[key] = name  # of several names, the one that it was defined with
    table: dict[str, set[str]] = {name: set() for name in first.values()}
    locator = ComponentLocator()
    locator.get_component_module_name("UNet")
    for name, value in values.items():
        canonical = first[id(value) if id(value) in first else name]
        if name != canonical:
            table[canonical].add(name)
        if not name.startswith("monai.") or not hasattr(value, "__module__"):
            continue
        home, short = str(value.__module__), name.rpartition(".")[2]
        if getattr(sys.modules.get(home), short, None) is value:
            table[canonical].add(f"{home}.{short}")
        modules = locator._components_table.get(short, [])
        if modules and all(getattr(sys.modules[module], short) is value for module in modules):
            table[canonical].add(short)
    return {name: sorted(spelled - {name}) for name, spelled in sorted(table.items())}


def pickle_globals() -> list[str]:
    """Return what torch's weights_only reader takes in a file by itself."""
    import torch._weights_only_unpickler as reader

    return sorted(reader._get_allowed_globals())


def main() -> None:
    """Write the table."""
    warnings.simplefilter("ignore")
    content: dict[str, dict[str, Any]] = {"callables": build(), "rules": RULES, "positional": POSITIONAL}
    lines = []
    for key, entries in content.items():
        listed = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(entries.items()))
        lines.append(f" {json.dumps(key)}: {{\n{listed}\n }}")
    for key, names in {"modules": MODULES.split(), "operators": OPERATORS.split(), "pickles": pickle_globals()}.items():
        lines.append(f" {json.dumps(key)}: {json.dumps(sorted(names))}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    sys.stdout.write(f"{len(content['callables'])} callables in {FILE}\n")


if __name__ == "__main__":
    main()
