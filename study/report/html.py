"""A report as one self-contained HTML page: it needs no script, no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape

from study.report.exhibits import Figure, Table
from study.report.render import flat, is_words, notes
from study.space import Source

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.25; }
h2 { margin-top: 3rem; border-bottom: 1px solid #999; padding-bottom: .25rem; }
.notice { border-left: 4px solid #b04a00; padding: .25rem .75rem; margin: .75rem 0; }
.wide { overflow-x: auto; margin: 1.5rem 0 .25rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; border-bottom: 1.5px solid #1a1a1a; }
caption, figcaption b { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .2rem .8rem; text-align: right; }
th { font-weight: 600; vertical-align: bottom; }
thead th { border-top: 1.5px solid #1a1a1a; border-bottom: 1px solid #1a1a1a; max-width: 12rem; }
th:first-child, .words { text-align: left; }
tbody th { font-weight: 400; white-space: nowrap; }
td { white-space: nowrap; }
td.words { white-space: normal; }
.note, figcaption, footer { font-size: .87rem; color: #333; margin: .1rem 0; max-width: 60rem; }
figure { margin: 1.5rem 1.5rem 0 0; display: inline-block; vertical-align: top; }
img { max-width: 100%; height: auto; }
footer { margin-top: 3rem; border-top: 1px solid #999; padding-top: .5rem; }
@media print { body { max-width: none; margin: 0; font-size: 11px; } .wide { overflow: visible; }
  figure, table { break-inside: avoid; } }
"""


def page(title: str, sections: Iterable[tuple[str, Iterable[str], str]], footer: Iterable[str]) -> str:
    """Return the page.

    Args:
        title: the title of the page.
        sections: for each section, the heading, the notices, and the HTML of its tables and figures.
        footer: lines about the origin of the report.
    """
    last = "".join(f"<p>{escape(line)}</p>\n" for line in footer)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{fragment(sections)}<footer>\n{last}</footer>\n</body>\n</html>\n"
    )


def fragment(sections: Iterable[tuple[str, Iterable[str], str]]) -> str:
    """Return the sections alone, for a page that has its own style.

    Args:
        sections: see `page`.
    """
    parts = []
    for heading, notices, body in sections:
        warned = "".join(f'<p class="notice">{escape(notice)}</p>\n' for notice in notices)
        parts.append(f"<section>\n<h2>{escape(heading)}</h2>\n{warned}{body}</section>\n")
    return "".join(parts)


def table_html(table: Table, source: Source) -> str:
    """Return a table with its caption, and its notes below."""
    head, body = flat(table, source)
    words = [is_words(line[number] for line in body) for number in range(len(head))]
    top = "".join(
        f'<th scope="col" class="words">{escape(name)}</th>' if wide else f'<th scope="col">{escape(name)}</th>'
        for name, wide in zip(head, words, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(_entry(number < table.labels, *each) for number, each in enumerate(zip(line, words, strict=True)))
        + "</tr>\n"
        for line in body
    )
    below = "".join(f'<p class="note">{escape(note)}</p>\n' for note in notes(table, source))
    return (
        f'<div class="wide"><table>\n<caption>{escape(table.title)}</caption>\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>\n{below}"
    )


def _entry(label: bool, text: str, wide: bool) -> str:
    tag, scope, words = "th" if label else "td", ' scope="row"' if label else "", ' class="words"' if wide else ""
    return f"<{tag}{scope}{words}>{escape(text)}</{tag}>"


def figure_html(figure: Figure, pictures: Mapping[str, bytes], name: str) -> str:
    """Return a figure with its picture inside; only its caption, if it could not be drawn."""
    picture, width = "", round(96 * figure.size[0])
    if name in pictures:
        data = base64.b64encode(pictures[name]).decode()
        picture = f'<img width="{width}" alt="{escape(figure.title)}" src="data:image/png;base64,{data}">\n'
    title = "" if picture else f"<b>{escape(figure.title)}.</b> "
    caption = f"<figcaption>{title}{escape(figure.caption)}</figcaption>"
    return f'<figure style="max-width: {width}px">\n{picture}{caption}\n</figure>\n'
