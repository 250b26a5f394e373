"""An invoice as PDF. Called by the REST API.

Latin text is Helvetica; a text with any other letter is set in a font that readers bring along for
Chinese, Greek and Cyrillic, so that nothing needs to be embedded.
"""

import io
from html import escape
from typing import Any

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from controlplane.billing.invoices.documents import Document
from controlplane.billing.invoices.rendering.sheet import Sheet, SheetRow, sheet

_WIDE_FONT = "STSong-Light"
_MARGIN = 15 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_COLUMNS = tuple(_WIDTH * share for share in (0.38, 0.16, 0.14, 0.14, 0.18))
_HEADER = ("What", "Project / key", "Quantity", "Rate, USD", "USD")
_PLAIN = ParagraphStyle("plain", fontName="Helvetica", fontSize=8, leading=10, splitLongWords=1)
_RIGHT = ParagraphStyle("right", _PLAIN, alignment=TA_RIGHT)
_BOLD = ParagraphStyle("bold", _PLAIN, fontName="Helvetica-Bold")
_HEADING = ParagraphStyle("heading", _BOLD, fontSize=10, leading=14, spaceBefore=8, keepWithNext=1)
_TITLE = ParagraphStyle("title", _BOLD, fontSize=16, leading=22)
_SMALL = ParagraphStyle(
    "small", _PLAIN, fontSize=7, leading=9, textColor=colors.HexColor("#444444")
)
_RULED = TableStyle(
    [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#cccccc")),
        ("LEFTPADDING", (0, 0), (-1, -1), 2),
        ("RIGHTPADDING", (0, 0), (-1, -1), 2),
    ]
)
_TOP = TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)])


def render(document: Document) -> bytes:
    """Return the file: the same bytes for the same invoice, today and in ten years."""
    pdfmetrics.registerFont(UnicodeCIDFont(_WIDE_FONT))
    told = sheet(document)
    out = io.BytesIO()
    template = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=told.title,
        author=told.seller[0] if told.seller else "",
        invariant=1,  # no moment of making, no chance in its id
    )
    template.build(_story(told), onFirstPage=_number_page, onLaterPages=_number_page)
    return out.getvalue()


def _story(told: Sheet) -> list[Any]:
    facts = [f"{name}: {value}" for name, value in told.facts]
    parties = [[_texts(told.seller), _texts(told.customer), _texts(facts)]]
    story: list[Any] = [
        _text(told.title, _TITLE),
        Spacer(1, 4 * mm),
        Table(parties, colWidths=[_WIDTH / 3] * 3, style=_TOP),
    ]
    for heading, rows in told.sections:
        story += [_text(heading, _HEADING), _table(rows)]
    totals = [[_text(name, _PLAIN), _text(value, _RIGHT)] for name, value in told.totals[:-1]]
    name, value = told.totals[-1]
    totals.append([_text(name, _BOLD), _text(value, ParagraphStyle("sum", _BOLD, alignment=2))])
    widths = [_WIDTH * 0.3, _WIDTH * 0.2]
    story += [
        Spacer(1, 6 * mm),
        Table(totals, colWidths=widths, style=_RULED, hAlign="RIGHT"),
        Spacer(1, 6 * mm),
    ]
    return story + [_text(note, _SMALL) for note in told.notes]


def _table(rows: list[SheetRow]) -> LongTable:
    cells = [
        [
            _text(row.what),
            _text(row.whose),
            _text(row.quantity, _RIGHT),
            _text(row.rate, _RIGHT),
            _text(row.amount, _RIGHT),
        ]
        for row in rows
    ]
    header = [_text(name, _BOLD) for name in _HEADER]
    return LongTable([header, *cells], colWidths=_COLUMNS, style=_RULED, repeatRows=1)


def _texts(lines: list[str]) -> list[Paragraph]:
    return [_text(line) for line in lines]


def _text(text: str, style: ParagraphStyle = _PLAIN) -> Paragraph:
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        style = ParagraphStyle("wide", style, fontName=_WIDE_FONT, wordWrap="CJK")
    return Paragraph(escape(text), style)


def _number_page(canvas: Any, template: SimpleDocTemplate) -> None:
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(A4[0] - _MARGIN, _MARGIN / 2, f"{template.title} - page {template.page}")
