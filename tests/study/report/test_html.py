import base64
import re
from html.parser import HTMLParser

from search_spaces.shared.protocol import PAPER
from study.report.exhibits import Cell, Figure, Table
from study.report.html import figure_html, page, table_html
from study.space import Printed

VOID = {"meta", "img", "link", "br", "hr"}


class Checked(HTMLParser):
    """Sees that every element is closed in its turn, and notes what is asked for from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.sources, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def checked(html):
    parser = Checked()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


TABLE = Table(
    "Table 3: a < b",
    ["Method", "ResNet-50", "what"],
    [["CE & co", Cell({0: 41.0, 1: 43.0}, Printed(41.6, "†")), "words"], ["OLTR", Cell(printed=Printed(37.7)), None]],
    ["<script>alert(1)</script>"],
)


def test_a_table_has_a_caption_scopes_and_nothing_unescaped():
    found = checked(table_html(TABLE, PAPER))
    assert {"table", "caption", "thead", "tbody", "th", "td"} <= set(found.seen)
    assert "script" not in found.seen
    assert [w for w in found.words if w] == [
        "Table 3: a < b",
        "Method",
        "ResNet-50",
        "paper",
        "what",
        "CE & co",
        "42.0 ± 1.4",
        "41.6†",
        "words",
        "OLTR",
        "–",
        "37.7",
        "–",
        "<script>alert(1)</script>",
        "Mean ± std over n = 2 replicates.",
        "Paper: n = 1 or unstated; † copied by the paper from its source.",
    ]
    assert table_html(TABLE, PAPER).count('scope="col"') == 4
    assert table_html(TABLE, PAPER).count('scope="row"') == 2


def test_a_figure_is_inside_the_page():
    figure = Figure("figure1", 'A "title"', "A caption.", lambda canvas: canvas.add_subplot(), size=(3.5, 2.0))
    html = figure_html(figure, {"figure1.png": b"\x89PNG"}, "figure1.png")
    (source,) = checked(html).sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == b"\x89PNG"
    assert 'width="336"' in html
    assert "A caption." in html
    assert checked(figure_html(figure, {}, "figure1.png")).sources == []
    assert "title" in figure_html(figure, {}, "figure1.png")


def test_a_page_is_whole_and_asks_for_nothing():
    html = page(
        "table9-0 <x>", [("Table 9", ["Not the paper's data: digits."], table_html(TABLE, PAPER))], ["commit c0"]
    )
    found = checked(html)
    assert html.startswith("<!doctype html>")
    assert {"html", "head", "meta", "title", "style", "body", "h1", "h2", "footer"} <= set(found.seen)
    assert found.sources == []
    assert not re.search(r"https?:|@import|url\(|<script", html)
    assert [words for words in found.words if words][-1] == "commit c0"
    assert found.words.index("Not the paper's data: digits.") < found.words.index("Table 3: a < b")
