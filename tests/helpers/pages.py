"""What tests ask of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """The ids, addresses, headings and text of a page; fails where tags are not balanced."""

    VOID = ("meta", "img", "br", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self.ids += [known["id"] or ""] if "id" in known else []
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def drawn(figure: Any) -> str:
    """In place of `data_uri`: the figure is drawn, so that what cannot be drawn fails; the layout, which takes most of
    the time, is not made, and nothing is saved."""
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    return "data:image/png;base64,"


def check_page(text: str) -> Page:
    """A page that needs nothing else."""
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    inner = {address[1:] for address in page.addresses if address.startswith("#")}
    assert inner <= set(page.ids)
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert not re.search(r"@import|url\(", text)
    return page
