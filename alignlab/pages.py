"""HTML pages that need no network, from templates over one base with the head and the style."""

from importlib.resources import files
from typing import Any


def rendered(name: str, **values: Any) -> str:
    """The page of a template; every text in it is escaped.

    Args:
        name: Path in the package, such as ``report/page.html``. It may extend ``base.html``.
        values: What the template names. A name without a value is an error.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(path: str) -> str:
        return (files("alignlab") / path).read_text(encoding="utf-8")

    pages = Environment(loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined)
    return pages.get_template(name).render(values)
