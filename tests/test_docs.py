"""What the documents name exists: pages, commands, options, overlays and keys of configs."""

import importlib
import pydoc
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from medseg.bundle import Bundle
from medseg.bundle.config_check import check
from medseg.catalogue import groups
from medseg.cli.main import cli
from medseg.cli.options import parse_pairs
from medseg.config.merge import merge
from medseg.errors import ConfigError, MedsegError
from medseg.search_path import find_overlay

ROOT = Path(__file__).resolve().parent.parent
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("bundles/*/docs/README.md"))]
PAGES = [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
RECIPES = ("unet2d", "segformer2d")


def page_name(page):
    return page.relative_to(ROOT).as_posix()


def commands(page):
    """Yield the arguments of each `medseg ...` in code blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^(?: {4,}|\$ )(?:\$ |@reboot +)?(?:[A-Z_]+=\S+ )?medseg ([^\n]+)", text, re.MULTILINE)
    lines += [" ".join(line.split()) for line in re.findall(r"`medseg ([^`]+)`", text)]
    for line in lines:
        arguments = shlex.split(line.split("  #")[0].split(" # ")[0])
        if arguments[0] != "COMMAND":
            yield arguments


def parse(arguments):
    """Parse a command line without running it; return the names of its commands and its values."""
    command, context, names = cli, click.Context(cli), []
    while isinstance(command, click.Group):
        if not arguments or arguments[0].startswith("-"):
            command.make_parser(context).parse_args(list(arguments))
            return names, {}
        default = names == ["evaluate"] and arguments[0] not in command.list_commands(context)
        name, *arguments = ["run", *arguments] if default else arguments
        names.append(name)
        command = command.get_command(context, name)
        if command is None:
            raise click.UsageError(f"There is no command {' '.join(names)}.")
        context = click.Context(command, parent=context, info_name=name)
    values, extra, _ = command.make_parser(context).parse_args(list(arguments))
    if extra:
        raise click.UsageError(f"{' '.join(names)} does not take {extra}.")
    return names, {name: value for name, value in values.items() if isinstance(value, (str, list, tuple))}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_relative_links_lead_to_a_file(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_commands_options_overlays_and_overrides_exist(page):
    problems = []
    for arguments in commands(page):
        try:
            names, values = parse(arguments)
            if names == ["train"] and values.get("bundle") in RECIPES:
                check_training(**values)
        except (click.UsageError, MedsegError) as error:
            problems.append(f"medseg {shlex.join(arguments)}: {getattr(error, 'message', error)}")
    assert not problems, "\n".join(problems)


def check_training(bundle, overlays=(), pairs=(), **_):
    """Check that overlays are found, and that they and overrides change keys that mean something."""
    recipe, overrides = Bundle.open(bundle), parse_pairs(tuple(pairs))
    files = [recipe.config_file("train"), *(find_overlay(name, recipe.root) for name in overlays)]
    check(recipe.content("train"), merge(files, overrides), list(overrides))


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_nested_keys_of_configs_exist(page):
    configs = [(Bundle.open(name), use) for name in RECIPES for use in ("train", "evaluate", "inference")]
    text = page.read_text(encoding="utf-8")
    keys = re.findall(r"[`\"]([a-z_]+(?:#\w+)+)\b[^`\"]*[`\"]", text) + re.findall(r"--set '?([a-z_#]+)=", text)
    unknown = [key for key in keys if not any(accepts(bundle, use, key) for bundle, use in configs)]
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_overlays_files_and_names_of_python_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"--with ([a-z]\w+)`", text):
        assert any(find_overlay(name, Bundle.open(recipe).root).is_file() for recipe in RECIPES)
    for name in re.findall(r"`(medseg(?:\.\w+)+)\b", text):
        assert pydoc.locate(name) is not None, name
    for module, names in re.findall(r"^ *from (medseg[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"
    for name in re.findall(r"`((?:medseg|tests|scripts)/[\w/]+\.\w+)`", text):
        assert (ROOT / name).is_file(), name


def accepts(bundle, use, key):
    try:
        check(bundle.content(use), merge([bundle.config_file(use)], {key: 1}), [key])
    except ConfigError:
        return False
    return True


def test_the_reference_of_keys_is_what_the_table_says():
    command = [sys.executable, str(ROOT / "scripts" / "keys.py"), "--check"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


def test_the_sizes_of_groups_are_those_of_the_catalogue():
    sizes = {group: len(members) for group, members in groups().items()}
    stated = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        stated += [(group, int(size)) for group, size in re.findall(r"`(\w+)` are (\d+)", text) if group in sizes]
        stated += [(group, int(size)) for size, group in re.findall(r"\b(\d+) `?(organs|vertebrae|ribs)\b", text)]
        stated += [("all", int(size)) for size in re.findall(r"\bthe (\d+) structures of TotalSegmentator\b", text)]
    assert ("ribs", 26) in stated
    assert ("organs", 24) in stated
    assert {(group, size) for group, size in stated if sizes[group] != size} == set()
