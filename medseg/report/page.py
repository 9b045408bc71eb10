"""One HTML file: no other file, no network; what the reports share."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    title: str,
    header: str,
    sections: Sequence[tuple[str, str, str]],
    footer: str,
    styles: Sequence[str],
    scripts: Sequence[str],
) -> str:
    """The whole of a page.

    Args:
        title: of the window.
        header: HTML above the links.
        sections: id, title and HTML of each; what is empty is left out.
        footer: HTML below everything.
        styles: CSS files of this package.
        scripts: JavaScript files of this package.
    """
    present = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{id}">{title}</a>' for id, title, _ in present)
    body = "".join(f'<section><h2 id="{id}">{title}</h2>{html}</section>' for id, title, html in present)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>{''.join(_resource(name) for name in styles)}</style></head>"
        f"<body>{header}<nav>{links}</nav>{body}<footer>{footer}</footer>"
        f"<script>{''.join(_resource(name) for name in scripts)}</script></body></html>\n"
    )


def data_url(picture: Image.Image, quality: int = 88) -> str:
    """A picture as the source of an `img`, JPEG."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _resource(name: str) -> str:
    return importlib.resources.files("medseg.report").joinpath(name).read_text(encoding="utf-8")
