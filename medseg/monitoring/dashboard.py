"""trackio's page of the runs on this machine, served to this machine alone."""

from __future__ import annotations

import contextlib
import io
import json
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
from medseg.monitoring.backends.trackio_run import prepare_environment
from medseg.runs.record import is_alive, this_process

HOST, WHERE = "127.0.0.1", "dashboard.json"
_ORDER = "epoch/loss,epoch/*,val/mean_dice,val/best_dice,val/*,train/loss,train/*,system/*,run/*"


class Dashboard:
    """The page for one folder of trackio's files; one process serves it, whoever of them comes first.

    Args:
        store: the folder.
        port: where; by default the one it had last, or the first that is free from 7860 on.
    """

    def __init__(self, store: str | Path, port: int | None = None) -> None:
        self.store, self.port = Path(store), port
        self._app: Any = None

    def link(self) -> str | None:
        """Where it is served now, by whichever process; None where it is not."""
        told = self._told()
        url = str(told.get("url", ""))
        return url if url and is_alive(told) and _answers(url) else None

    def ensure(self) -> str | None:
        """Serve it, unless it is served; its link, or None where that could not be done."""
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(self.store / ".dashboard.lock", timeout=2):
            there = self.link()
            return there or self._serve()
        return None

    def close(self) -> None:
        """Stop serving, if it is this process that serves."""
        if self._app is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._app.close(verbose=False)
            self._app = None

    def _told(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.store / WHERE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def _serve(self) -> str | None:
        prepare_environment(str(self.store))
        os.environ.setdefault("TRACKIO_PLOT_ORDER", _ORDER)
        import trackio

        last = self._told().get("port")
        for port in [self.port] if self.port is not None else [last, None]:
            # what it prints holds a token that allows to write
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
                printable = trackio.show(
                    open_browser=False, block_thread=False, share=False, host=HOST, server_port=port
                )
                self._app, url = printable[0], str(printable[1]).rstrip("/")
                number = int(url.rpartition(":")[2])
                write_json(self.store / WHERE, {"url": url, "port": number, **this_process()})
                return url
        return None


def project_link(url: str, project: str) -> str:
    """The page of one project.

    >>> project_link("http://127.0.0.1:7860", "medseg-unet2d")
    'http://127.0.0.1:7860/?project=medseg-unet2d'
    """
    return f"{url}/?project={quote(project)}"


def serve(root: str | Path, port: int | None = None, ready: Callable[[str], Any] | None = None) -> None:
    """Serve the page of all runs under `root` until Ctrl-C; at once back where it is served already.

    Args:
        root: the folder of runs, or the one of trackio's files in it.
        port: where.
        ready: called with the link once it is there.

    Raises:
        RunError: there are no runs that trackio was told of, or the port is taken.
    """
    root = Path(root).resolve()
    store = root if root.name == ".trackio" else root / ".trackio"
    if not store.is_dir():
        raise RunError(
            root,
            "must hold runs that trackio was told of (.trackio)",
            "none",
            "Train with monitor#backend=trackio, or bring a run there with medseg runs sync RUN --backend trackio.",
        )
    page = Dashboard(store, port)
    there = page.link()
    url = there or page.ensure()
    if url is None:
        raise RunError(f"port {port or 7860}", "must be free", "another program there", "Choose one with --port.")
    if ready is not None:
        ready(url)
    try:
        while there is None:
            time.sleep(1)
    except KeyboardInterrupt:
        return
    finally:
        page.close()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/version", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False
