"""Every error that medseg raises on purpose, and how each of them reads.

MedsegError
├── DataError          a file or folder of the data set
│   └── GeometryError  shapes, affines, spacings
├── LabelError         structure names and label values
├── ConfigError        configs, overlays, overrides
├── BundleError        the files of a bundle, packed or not
│   └── UntrustedError it could do what nobody asked for
├── WeightsError       checkpoints
├── RunError           the folder and the state of a run
├── TrainingError      numbers in training that are none
├── DeviceError        a device that is not there
├── OutputError        a place that cannot be written
└── MissingExtraError  an optional package that is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MedsegError(Exception):
    """Say what is wrong in the form that every medseg error has: `{thing}: {problem} ({came}). {fix}`.

    Args:
        thing: what is wrong: a file, a key, a name.
        problem: the problem, as the predicate of a sentence or a whole one, without its full stop.
        came: the value that was there, shown in brackets; empty where the problem says it.
        fix: one or two whole sentences that say what to do.

    Example:
        >>> print(MedsegError("ct.nii.gz", "a scan must have 3 dimensions", "got 4", "Split the series into volumes."))
        ct.nii.gz: a scan must have 3 dimensions (got 4). Split the series into volumes.
    """

    def __init__(self, thing: object, problem: str = "", came: str = "", fix: str = "") -> None:
        super().__init__(str(thing), problem, came, fix)
        self.thing = str(thing)
        self.problem = problem
        self.came = came
        self.fix = fix

    def __str__(self) -> str:
        """Join the four parts to two sentences."""
        text = self.thing
        if self.problem:
            text += f": {self.problem}"
        if self.came:
            text += f" ({self.came})"
        if self.problem or self.came:
            text += "."
        return f"{text} {self.fix}".strip()


class DataError(MedsegError):
    """A file or folder of the data set is missing, damaged or not what its place promises."""


class GeometryError(DataError):
    """Shapes, affines or spacings that must agree do not."""


class LabelError(MedsegError):
    """A structure name or a label value that the label map does not hold."""


class ConfigError(MedsegError):
    """A config, an overlay or an override that cannot be what was meant."""


class BundleError(MedsegError):
    """A bundle's files are damaged, missing or not what a bundle may hold."""


class UntrustedError(BundleError):
    """A bundle names code that is not known to be harmless, and nobody said that it is trusted."""


class WeightsError(MedsegError):
    """Weights that do not belong to the network they are loaded into."""


class RunError(MedsegError):
    """The folder or the state of a run does not allow what was asked."""


class TrainingError(MedsegError):
    """Training came upon numbers with which it cannot go on."""


class DeviceError(MedsegError):
    """A device was asked for that is not there."""


class OutputError(MedsegError):
    """A place that should be written cannot be."""


class MissingExtraError(MedsegError):
    """An optional package is needed and not installed."""


def nearest(word: str, words: Iterable[str], *, count: int = 1) -> list[str]:
    """The words most like `word`, best first; nothing where none is like it.

    >>> nearest("livr", ["spleen", "liver"])
    ['liver']
    """
    return difflib.get_close_matches(word, list(words), n=count, cutoff=0.6)


def did_you_mean(word: str, words: Iterable[str], otherwise: str = "") -> str:
    """A remedy that names the nearest known word, or `otherwise` where nothing is near.

    >>> did_you_mean("livr", ["spleen", "liver"])
    "Did you mean 'liver'?"
    """
    found = nearest(word, words)
    return f"Did you mean '{found[0]}'?" if found else otherwise
