"""W&B's server and the key for it, found without ever asking anybody; and whether the server answers."""

from __future__ import annotations

import base64
import configparser
import json
import netrc
import os
import platform
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

CLOUD = "https://api.wandb.ai"
_VIEWER = {"query": "query Viewer { viewer { id } }"}


def server(given: str | None = None) -> str:
    """The server's address: as given, of `WANDB_BASE_URL`, of W&B's settings file, or the cloud."""
    folder = os.environ.get("WANDB_CONFIG_DIR")
    path = (Path(folder) if folder else Path("~/.config/wandb").expanduser()) / "settings"
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        stored = parser.get("default", "base_url", fallback=None)
    except (configparser.Error, OSError, UnicodeDecodeError):
        stored = None
    return (given or os.environ.get("WANDB_BASE_URL") or stored or CLOUD).rstrip("/")


def key(address: str) -> str | None:
    """The key of `WANDB_API_KEY`, or the one that `wandb login` put into the netrc file for this server."""
    given = os.environ.get("WANDB_API_KEY")
    if given:
        return given
    name = "_netrc" if platform.system() == "Windows" else ".netrc"
    path = os.environ.get("NETRC") or str(Path("~").expanduser() / name)
    try:
        found = netrc.netrc(path).authenticators(urlsplit(address).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def trouble(address: str, secret: str | None, seconds: float = 4.0) -> str | None:
    """Why W&B cannot be used now, in words; None where the server takes the key.

    Args:
        address: the server's.
        secret: the key for it.
        seconds: how long the answer may take in all, whatever the server does.
    """
    if not secret:
        return f"there is no key for {address} (wandb login, or WANDB_API_KEY, gives one)"
    answer = [f"{address} does not answer within {seconds:g} s"]
    asking = threading.Thread(target=_ask, args=(address, secret, seconds, answer), daemon=True)
    asking.start()
    asking.join(seconds)
    return answer[0] or None


def _ask(address: str, secret: str, seconds: float, answer: list[str]) -> None:
    login = base64.b64encode(f"api:{secret}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    try:
        request = urllib.request.Request(f"{address}/graphql", json.dumps(_VIEWER).encode(), headers)
        with urllib.request.urlopen(request, timeout=seconds) as response:
            content = json.loads(response.read(100_000))
        answer[0] = "" if (content.get("data") or {}).get("viewer") else f"{address} does not know the key"
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
        answer[0] = f"{address} refuses the key" if refused else f"{address} answers with error {error.code}"
        error.close()
    except TimeoutError:
        return
    except (OSError, ValueError) as error:
        answer[0] = f"{address} cannot be reached ({str(error) or type(error).__name__})"
