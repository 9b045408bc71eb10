"""Send a message about a run: by a command on this machine, or to a web address."""

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
from medseg.runs.record import FAILED, RECORD, read_json
from medseg.runs.run import Run

logger = logging.getLogger(__name__)

COMMAND_SECONDS = 60.0
WEBHOOK_SECONDS = 5.0
# Any word with a separator: paths, UNC paths, URLs; in quotes, with the blanks between them.
_PATH = re.compile(r"""(?<!\w)(['"])(?=[^'"\n]*[\\/])[^'"\n]*\1|\S*[\\/]\S*""")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Notifier:
    """Send messages about a run. A message that cannot be sent is a warning and never holds up the watching.

    Args:
        command: run by the shell, with MEDSEG_RUN (the folder), MEDSEG_STATE and MEDSEG_REASON.
        webhook: gets a JSON POST without any path; `text` is what Slack and Mattermost show.

    Raises:
        ConfigError: the webhook is no web address.
    """

    command: str | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        if self.webhook is not None:
            address = urllib.parse.urlsplit(self.webhook)
            if address.scheme not in ("http", "https") or not address.hostname:
                scheme = f"got '{address.scheme}:'" if address.scheme else "got no scheme"
                raise ConfigError("webhook", "the address must begin with http:// or https:// and name a host", scheme)

    def send(self, folder: Path, state: str, reason: str) -> None:
        """Send the state of the run in `folder`."""
        if self.command is not None:
            self._run(self.command, folder, state, reason)
        if self.webhook is not None:
            self._post(self.webhook, message(folder, state, reason))

    def _run(self, command: str, folder: Path, state: str, reason: str) -> None:
        variables = {"MEDSEG_RUN": str(folder), "MEDSEG_STATE": state, "MEDSEG_REASON": reason}
        try:
            done = subprocess.run(
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **variables},
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
            # With many services the address is a secret, and errors about the address itself quote it.
            reason = getattr(error, "reason", error) if isinstance(error, OSError) else type(error).__name__
            logger.warning("The webhook was not reached: %s", reason)


def message(folder: Path, state: str, reason: str) -> dict[str, Any]:
    """Return what a webhook gets: run, state, reason, epoch and best Dice; no paths, and of an error only its type."""
    run = Run(folder)
    reason = _public_reason(folder, state, reason)
    best_dice = run.best.dice if run.best else None
    text = f"{run.name}: {state.replace('_', ' ')}"
    if run.epoch is not None:
        text += f" in epoch {run.epoch}" + (f" of {run.max_epochs}" if run.max_epochs else "")
    if best_dice is not None:
        text += f", best Dice {best_dice:.3f}"
    return {
        "text": f"{text}. {reason}".strip(),
        "run": run.name,
        "state": state,
        "reason": reason,
        "epoch": run.epoch,
        "max_epochs": run.max_epochs,
        "best_dice": best_dice,
    }


def _public_reason(folder: Path, state: str, reason: str) -> str:
    """Return a reason without the text of the error, which may hold anything: paths, names, passwords."""
    record = read_json(folder / RECORD)
    kind = str(record.get("reason") or "")
    error = str(record.get("error") or "")
    brief = f"{kind if _NAME.fullmatch(kind) else 'An error'}: see its log."
    if state == FAILED:
        return brief
    return without_paths(reason.replace(error, brief) if error else reason)


def without_paths(text: str) -> str:
    """Replace everything in a text that may be a path or a URL by three dots.

    Example:
        >>> without_paths("DataError: /data/s0001/ct.nii.gz: the file ends early")
        'DataError: ... the file ends early'
    """
    return _PATH.sub("...", text)
