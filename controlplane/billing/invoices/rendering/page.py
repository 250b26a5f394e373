"""An invoice as one HTML page that prints well and loads nothing. Called by the REST API."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.rendering.sheet import sheet


def render(document: Document) -> bytes:
    """Return the page."""
    return _template().render(sheet=sheet(document)).encode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("controlplane.billing.invoices", "rendering"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("invoice.html")
