"""HTML pages from the jinja2 templates in `templates/`: one file each, without network, light and dark.

Every value is escaped where it is put in; a template marks nothing as safe but the package's own CSS and JavaScript.
"""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Iterable
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from medseg.units import number


def render(template: str, **context: Any) -> str:
    """Return a page.

    Args:
        template: the name of the file in `templates/`, without `.html.j2`.
        context: the variables of the template.
    """
    html: str = _environment().get_template(f"{template}.html.j2").render(**context)
    return html


def render_macro(template: str, macro: str, *arguments: Any) -> Markup:
    """Return the HTML of one macro of a template."""
    module: Any = _macros(template)
    return Markup(getattr(module, macro)(*arguments).strip())


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medseg.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "breakable": breakable, "data_url": data_url}
    environment.filters |= {"percent": "{:.2f}%".format, "pixels": "{:.1f}".format}
    environment.globals |= {"asset": _asset, "enumerated": enumerate}
    return environment


@cache
def _macros(template: str) -> Any:
    return _environment().get_template(f"{template}.html.j2").module


def _asset(name: str) -> Markup:
    """Return a CSS or JavaScript file of the package, to stand in the page as it is."""
    return Markup(importlib.resources.files("medseg.report").joinpath("templates", name).read_text(encoding="utf-8"))


def breakable(name: object, after: Iterable[str] = "_") -> Markup:
    """Return a name that a browser may break after certain letters.

    >>> str(breakable("<kidney_left>"))
    '&lt;kidney_<wbr>left&gt;'
    """
    text = str(escape(name))
    for letter in after:
        text = text.replace(letter, f"{letter}<wbr>")
    return Markup(text)


def data_url(image: Image.Image, quality: int = 88) -> str:
    """Return an image as the source of an `img`, JPEG."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
