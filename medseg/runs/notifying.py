"""Telling somebody how a run stands: a command on this machine, or a message to a web address."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import subprocess
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.runs.runs import read_json, summarize
from medseg.records import FAILED, RECORD

logger = logging.getLogger(__name__)

COMMAND_SECONDS, WEBHOOK_SECONDS = 60.0, 5.0
# Whatever has a separator: paths, UNC paths, URLs; in quotes, with the blanks between them.
_PATH = re.compile(r"""(?<!\w)(['"])(?=[^'"\n]*[\\/])[^'"\n]*\1|\S*[\\/]\S*""")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Notice:
    """Who is told. Neither can hold up or end the watching: what fails is a warning.

    Args:
        command: run by the shell, with MEDSEG_RUN (the folder), MEDSEG_STATE and MEDSEG_REASON.
        webhook: gets a JSON POST without any path; `text` is what Slack and its like show.

    Raises:
        ConfigError: the webhook is no web address.
    """

    command: str | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        if self.webhook is not None:
            address = urllib.parse.urlsplit(self.webhook)
            if address.scheme not in ("http", "https") or not address.hostname:
                found = f"'{address.scheme}:' without a host" if address.scheme else "no scheme"
                raise ConfigError("webhook", "must be an http or https address", found)

    def tell(self, folder: Path, state: str, reason: str) -> None:
        """Tell how the run in `folder` stands."""
        if self.command is not None:
            self._run(self.command, folder, state, reason)
        if self.webhook is not None:
            self._post(self.webhook, message(folder, state, reason))

    def _run(self, command: str, folder: Path, state: str, reason: str) -> None:
        said = {"MEDSEG_RUN": str(folder), "MEDSEG_STATE": state, "MEDSEG_REASON": reason}
        try:
            done = subprocess.run(
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **said},
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("The command was not run to its end: %s", error)
            return
        if done.returncode:
            logger.warning("The command ended with exit code %d", done.returncode)

    def _post(self, address: str, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS):
                pass
        except (OSError, ValueError, http.client.HTTPException) as error:
            # Its address is a secret with many services, and is not said; errors of the address itself quote it.
            said = getattr(error, "reason", error) if isinstance(error, OSError) else type(error).__name__
            logger.warning("The webhook was not reached: %s", said)


def message(folder: Path, state: str, reason: str) -> dict[str, Any]:
    """What a webhook gets: run, state, reason, epoch and best Dice; no paths, and of an error only its type."""
    one = summarize(folder)
    reason = _sayable(folder, state, reason)
    text = f"{one.name}: {state.replace('_', ' ')}"
    if one.epoch is not None:
        text += f" in epoch {one.epoch}" + (f" of {one.max_epochs}" if one.max_epochs else "")
    if one.best_dice is not None:
        text += f", best Dice {one.best_dice:.3f}"
    return {
        "text": f"{text}. {reason}".strip(),
        "run": one.name,
        "state": state,
        "reason": reason,
        "epoch": one.epoch,
        "max_epochs": one.max_epochs,
        "best_dice": one.best_dice,
    }


def _sayable(folder: Path, state: str, reason: str) -> str:
    """A reason without the text of the error that ended the run, which may hold anything: paths, names, passwords."""
    record = read_json(folder / RECORD)
    kind, error = str(record.get("reason") or ""), str(record.get("error") or "")
    brief = f"{kind if _NAME.fullmatch(kind) else 'An error'}: its log says more."
    if state == FAILED:
        return brief
    return without_paths(reason.replace(error, brief) if error else reason)


def without_paths(text: str) -> str:
    """A text in which everything that may be a path or a URL is three dots.

    >>> without_paths("DataError: /data/s0001/ct.nii.gz: must be whole")
    'DataError: ... must be whole'
    """
    return _PATH.sub("...", text)
