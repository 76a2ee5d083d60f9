"""Pictures inside a page: SVG whose ink, grid and lines take the page's colours, light or dark."""

from __future__ import annotations

import re
from html import escape
from xml.etree import ElementTree

from pai_cli.display.figures.canvas import FAINT, GRID, INK, SERIES, Picture, drawn
from pai_cli.printable import as_line

SVG = "http://www.w3.org/2000/svg"
LEAST_SHARE = 0.75  # of a picture's own width: its letters stay large enough to be read, and its frame scrolls
TALL = 1.2  # of its width: a picture that is higher may go on over the edge of a printed page
LINK = "{http://www.w3.org/1999/xlink}href"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    **{colour: f"var(--series-{at})" for at, colour in enumerate(SERIES, start=1)},
}
_COLOUR = re.compile("|".join(VARIABLES))
_REFERENCE = re.compile(r"url\(#([^)]*)\)")


def inline_svg(picture: Picture, prefix: str) -> str:
    """The picture as an SVG element with a title for those who do not see it.

    `prefix`: begins every id in it, so that several stand in one page. Raises `PictureError` without matplotlib.
    """
    # What is parsed here, matplotlib has just written; no text of a file gets past its escaping.
    root = ElementTree.fromstring(drawn(picture, ".svg", transparent=True))
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{{{SVG}}}metadata":
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        element.attrib = {_attribute(name): _value(name, text, prefix) for name, text in element.items()}
    width, height = picture.width * 96, picture.height * 96
    root.attrib |= {"xmlns": SVG, "role": "img", "aria-labelledby": f"{prefix}title"}
    root.attrib |= {
        "width": f"{width:.0f}",
        "height": f"{height:.0f}",
        "style": f"min-width: {LEAST_SHARE * width:.0f}px",
    }
    title = ElementTree.Element("title", {"id": f"{prefix}title"})
    title.text = as_line(picture.title)
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(name: str) -> str:
    return "href" if name == LINK else name


def _value(name: str, text: str, prefix: str) -> str:
    if name == "id":
        return prefix + text
    if name == LINK and text.startswith("#"):
        return f"#{prefix}{text[1:]}"
    if name == LINK:
        return text
    text = _REFERENCE.sub(rf"url(#{prefix}\1)", text)
    return _COLOUR.sub(lambda found: VARIABLES[found[0]], text)


def figure_html(picture: Picture, prefix: str, caption: str) -> str:
    """The picture with its caption, in a frame that scrolls where the page is narrower."""
    svg = inline_svg(picture, prefix)
    tall = ' class="tall"' if picture.height > TALL * picture.width else ""
    label = escape(as_line(picture.title))
    return (
        f'<figure{tall}><div class="wide" tabindex="0" role="region" aria-label="{label}">{svg}</div>'
        f"<figcaption>{escape(as_line(caption))}</figcaption></figure>"
    )
