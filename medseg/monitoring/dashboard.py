"""trackio's page of the runs on this machine, served to this machine only."""

from __future__ import annotations

import contextlib
import io
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock

from medseg.atomic import write_json
from medseg.errors import RunError
from medseg.monitoring.backends.trackio_run import load_trackio
from medseg.runs.record import is_alive, read_json, this_process

HOST = "127.0.0.1"
ADDRESS_FILE = "dashboard.json"
_ORDER = "epoch/loss,epoch/*,val/mean_dice,val/best_dice,val/*,train/loss,train/*,system/*,run/*"


class Dashboard:
    """Serve the page for one folder of trackio's files; the first process that asks for it serves it for all.

    Args:
        store: the folder.
        port: its port. Default: the one it had last, or the first free one from 7860 on.
    """

    def __init__(self, store: str | Path, port: int | None = None) -> None:
        self.store = Path(store)
        self.port = port
        self._app: Any = None

    def link(self) -> str | None:
        """Return where it is served now, by whichever process; None where it is not."""
        address = read_json(self.store / ADDRESS_FILE)
        url = str(address.get("url", ""))
        return url if url and is_alive(address) and _answers(url) else None

    def ensure(self) -> str | None:
        """Serve it unless it is served, and return its link; None where that failed."""
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(self.store / ".dashboard.lock", timeout=2):
            return self.link() or self._serve()
        return None

    def close(self) -> None:
        """Stop serving, if this process serves it."""
        if self._app is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._app.close(verbose=False)
            self._app = None

    def _serve(self) -> str | None:
        os.environ.setdefault("TRACKIO_PLOT_ORDER", _ORDER)
        trackio = load_trackio(str(self.store))
        last = read_json(self.store / ADDRESS_FILE).get("port")
        for port in [self.port] if self.port is not None else [last, None]:
            # The output is dropped because it holds a token with which anyone may write.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
                shown = trackio.show(open_browser=False, block_thread=False, share=False, host=HOST, server_port=port)
                self._app = shown[0]
                url = str(shown[1]).rstrip("/")
                number = int(url.rpartition(":")[2])
                write_json(self.store / ADDRESS_FILE, {"url": url, "port": number, **this_process()})
                return url
        return None


def project_link(url: str, project: str) -> str:
    """Return the page of one project.

    Example:
        >>> project_link("http://127.0.0.1:7860", "medseg-unet2d")
        'http://127.0.0.1:7860/?project=medseg-unet2d'
    """
    return f"{url}/?project={quote(project)}"


def serve(root: str | Path, port: int | None = None, ready: Callable[[str], Any] | None = None) -> None:
    """Serve the page of all runs under `root` until Ctrl-C; return at once where it is served already.

    Args:
        root: the folder of runs, or the folder of trackio's files in it.
        port: its port.
        ready: called with the link once it is served.

    Raises:
        MissingExtraError: trackio is not installed.
        RunError: no run was shown with trackio, or the port is taken.
    """
    root = Path(root).resolve()
    store = root if root.name == ".trackio" else root / ".trackio"
    if not store.is_dir():
        fix = "Train with monitor#backend=trackio, or run: medseg runs sync RUN --backend trackio"
        raise RunError(root, "no run here was shown with trackio", fix=fix)
    page = Dashboard(store, port)
    existing = page.link()
    url = existing or page.ensure()
    if url is None:
        raise RunError(f"port {port or 7860}", "another program uses it", fix="Choose one with --port.")
    if ready is not None:
        ready(url)
    try:
        while existing is None:
            time.sleep(1)
    except KeyboardInterrupt:
        return
    finally:
        page.close()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # on this machine, whatever proxy there is
    try:
        with opener.open(f"{url}/version", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False
