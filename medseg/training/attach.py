"""Handlers by name, attached to an engine as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AttachHandlers:
    """Attach a mapping of handlers to an engine, in their order; what is None is left out.

    Not a list of handlers, as MONAI's engines take it: in a mapping, an overlay changes or removes one by its name.

    Args:
        handlers: handlers by name, such as `medseg.bundle.default_handlers` returns.
    """

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self.handlers = {name: handler for name, handler in handlers.items() if handler is not None}

    def attach(self, engine: Any) -> None:
        """Attach them all."""
        for handler in self.handlers.values():
            handler.attach(engine)
