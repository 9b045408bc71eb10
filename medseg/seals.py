"""Knowing again what was typed on this machine: a seal that nobody can make who has not this user's key."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "MEDSEG_CONFIG"  # the environment variable that names another folder for the key
_KEY, _LENGTH = "seal.key", 32
_SEALED = ("command", "working_directory", "bundle")


def seal(record: Mapping[str, Any]) -> str | None:
    """The seal of what a run's record says of the command that began it; None where no key can be kept.

    Args:
        record: with `command`, `working_directory` and `bundle`.
    """
    key = _key()
    if key is None:
        return None
    said = json.dumps([record.get(name) for name in _SEALED], default=str)
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record carries the seal of this user on this machine, and says what it said then."""
    own = seal(record)
    return own is not None and hmac.compare_digest(own, str(record.get("seal")))


def _key() -> bytes | None:
    """The key, made the first time; readable for its user alone."""
    named = os.environ.get(FOLDER)
    usual = Path(os.environ.get("APPDATA") or os.environ.get("XDG_CONFIG_HOME") or "~/.config", "medseg")
    path = (Path(named) if named else usual).expanduser() / _KEY
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{secrets.token_hex(4)}.partial")
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_LENGTH))
            if path.is_file():
                partial.unlink()  # somebody else was faster
            else:
                partial.replace(path)
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home, or none to write to
        return None
    return key if len(key) == _LENGTH else None
