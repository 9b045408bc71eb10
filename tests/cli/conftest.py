"""The command line in process: exit code, what was printed, what was said on the error stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from medseg import cli
from tests.slices import trained_in


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def medseg(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(int(exit.value.code or 0), out, err)

    return call


@pytest.fixture
def small(tiny) -> list[str]:
    """KEY=VALUE arguments for a training of a second."""
    return [f"{key}={value}" for key, value in {**tiny, "samples_per_case": 2}.items()]


@pytest.fixture(scope="session")
def trained_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run of segformer2d on the phantom of slices; not to be changed."""
    return trained_in(tmp_path_factory.getbasetemp())
