import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.shared.protocol import PAPER
from study.report import render
from study.report.exhibits import Cell, Figure, Statistic, Table
from study.space import Printed

TABLE = Table(
    "Table 3: top-1 in %",
    ["Method", "ResNet-50", "what"],
    [
        ["CE", Cell({0: 41.0, 2: 43.0}, Printed(41.6, "†"), axes={"first": "IB"}), "one stage"],
        ["OLTR", Cell(printed=Printed(37.7, "†")), None],
        ["BBN", Cell({0: 45.0}, Printed(45.9, "*")), "a | b"],
        ["Ours", Cell(), None],
    ],
    ["A note."],
)

words = st.text('ab0|<,"\n⇒', max_size=6)
entries = (
    st.none()
    | words
    | st.builds(
        Cell,
        st.dictionaries(st.integers(0, 3), st.floats(-9, 9), max_size=3),
        st.none()
        | st.builds(Printed, st.floats(-9, 9), st.sampled_from(["", "†", "*"]), st.sampled_from(["", "cifar10"])),
    )
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.builds(
        Table,
        words,
        st.lists(words, min_size=width, max_size=width),
        st.lists(st.lists(entries, min_size=width, max_size=width), max_size=4),
    )
)


def test_the_paper_s_figures_stand_in_a_column_beside_ours():
    head, body = render.flat(TABLE, PAPER)
    assert head == ["Method", "ResNet-50", "paper", "what"]
    assert body == [
        ["CE", "42.0 ± 1.4", "41.6†", "one stage"],
        ["OLTR", "–", "37.7†", "–"],
        ["BBN", "45.0", "45.9*", "a | b"],
        ["Ours", "–", "–", "–"],
    ]


@pytest.mark.parametrize(
    ("of", "head"),
    [
        (["cifar10"], "paper: cifar10 (other data or protocol)"),
        (["", ""], "paper"),
        (["a", "b"], "paper: a, b (other data or protocol)"),
    ],
)
def test_figures_of_another_data_set_are_said_to_be_so(of, head):
    rows = [["x", Cell({0: 1.0}, Printed(1.0, of=each))] for each in of]
    assert render.flat(Table("t", ["", "digits"], rows), PAPER)[0] == ["", "digits", head]


@settings(deadline=None)
@given(table=tables)
def test_every_form_of_any_table_has_all_its_entries(table):
    head, body = render.flat(table, PAPER)
    assert {len(line) for line in body} <= {len(head)}
    assert json.loads(json.dumps(render.table_json(table, PAPER), allow_nan=False))["head"] == table.head
    assert render.text(table, PAPER).strip() or not table.title.strip()
    bars = [line for line in render.markdown(table, PAPER).splitlines() if line.startswith("| ")]
    assert len(bars) >= 2 + len(body)
    lines = list(csv.DictReader(io.StringIO(render.table_csv([("s", table)], PAPER), newline="")))
    cells = [entry for row in table.rows for entry in row[1:] if isinstance(entry, Cell)]
    assert sorted(float(line["value"]) for line in lines if line["value"]) == sorted(
        value for cell in cells for value in cell.values.values()
    )


def test_notes_say_n_and_where_printed_figures_are_from():
    assert render.notes(TABLE, PAPER) == [
        "A note.",
        "Mean ± std over n = 1 to 2 replicates.",
        "Paper: n = 1 or unstated; † copied by the paper from its source; * run again by the paper.",
    ]
    assert render.notes(Table("t", ["", "a"], [["x", Cell({0: 1.0})]]), PAPER) == ["n = 1 replicate."]
    assert render.notes(Table("t", ["", "a"], [["x", Cell()], ["y", "text"]]), PAPER) == []


def test_a_table_of_markdown_escapes_bars_and_puts_numbers_to_the_right():
    lines = render.markdown(TABLE, PAPER).splitlines()
    assert lines[:5] == [
        "### Table 3: top-1 in %",
        "",
        "| Method | ResNet-50 | paper | what |",
        "| --- | ---: | ---: | --- |",
        "| CE | 42.0 ± 1.4 | 41.6† | one stage |",
    ]
    assert "| BBN | 45.0 | 45.9* | a \\| b |" in lines
    assert render.markdown(TABLE, PAPER, below=TABLE.title).startswith("| Method |")


def test_a_table_in_a_terminal_is_never_cut_off():
    wide = Table(
        "t", ["", *(f"column {n} of a long name" for n in range(30))], [["x", *(Cell({0: 1.0, 1: 2.0}),) * 30]]
    )
    text = render.text(wide, PAPER)
    assert text.count("1.5 ± 0.7") == 30
    assert "…" not in text
    assert render.text(TABLE, PAPER).startswith("Table 3: top-1 in %\n")
    assert "Table 3" not in render.text(TABLE, PAPER, below=TABLE.title)


def test_csv_has_a_line_a_value_and_one_for_what_is_printed_or_said_alone():
    lines = list(csv.DictReader(io.StringIO(render.table_csv([("table3", TABLE)], PAPER))))
    names = ("row", "replicate", "n", "value", "text", "paper", "provenance")
    assert [tuple(line[name] for name in names) for line in lines] == [
        ("CE", "0", "2", "41.0", "", "41.6", "†"),
        ("CE", "2", "2", "43.0", "", "41.6", "†"),
        ("CE", "", "", "", "one stage", "", ""),
        ("OLTR", "", "", "", "", "37.7", "†"),
        ("BBN", "0", "1", "45.0", "", "45.9", "*"),
        ("BBN", "", "", "", "a | b", "", ""),
    ]
    assert {(line["space"], line["table"]) for line in lines} == {("table3", TABLE.title)}
    assert [(line["column"], line["first"]) for line in lines[:3]] == [
        ("ResNet-50", "IB"),
        ("ResNet-50", "IB"),
        ("what", ""),
    ]


def test_json_has_the_values_by_replicate_beside_the_paper_s_figure():
    record = render.table_json(TABLE, PAPER)
    assert record["rows"][0] == [
        "CE",
        {
            "mean": 42.0,
            "std": pytest.approx(2**0.5),
            "n": 2,
            "values": {0: 41.0, 2: 43.0},
            "paper": 41.6,
            "provenance": "†",
            "paper_of": "",
        },
        "one stage",
    ]
    assert record["rows"][3] == ["Ours", {"mean": None, "std": None, "n": 0, "values": {}}, None]


def test_a_statistic_over_runs_has_their_number_and_no_replicate_mean_or_spread():
    runs = dict.fromkeys(range(10), 0.8)
    table = Table(
        "t", ["", "accuracy", "bias²"], [["BBN", Cell(runs, decimals=3), Cell(statistic=Statistic(0.03, 10))]]
    )
    assert render.notes(table, PAPER) == ["Mean ± std over n = 10 replicates."]
    *_, line = csv.DictReader(io.StringIO(render.table_csv([("table13", table)], PAPER)))
    assert (line["column"], line["replicate"], line["n"], line["value"]) == ("bias²", "", "10", "0.03")
    assert render.table_json(table, PAPER)["rows"][0][2] == {"statistic": 0.03, "n": 10}


def test_a_row_that_several_columns_name_is_called_by_all_of_them():
    rows = [["IB", way, cross, Cell({0: 1.0})] for way, cross in (("CB", "X"), ("CB", ""), ("CR", None))]
    lines = csv.DictReader(
        io.StringIO(render.table_csv([("table11", Table("t", ["a", "b", "c", "d"], rows, (), 3))], PAPER))
    )
    assert [(line["row"], line["column"]) for line in lines] == [
        ("IB, CB, X", "d"),
        ("IB, CB, –", "d"),
        ("IB, CR, –", "d"),
    ]


def test_a_figure_s_data_are_csv_and_json():
    rows = [["IB", np.int64(1), np.float32(0.5), None], ["IB", 2, float("nan"), "x"]]
    figure = Figure("figure1", "t", "c", lambda _: None, ["series", "epoch", "mean", "std"], rows)
    assert render.figure_csv(figure).splitlines() == ["series,epoch,mean,std", "IB,1,0.5,", "IB,2,nan,x"]
    record = json.loads(json.dumps(render.figure_json(figure), allow_nan=False))
    assert record == {
        "name": "figure1",
        "title": "t",
        "caption": "c",
        "head": ["series", "epoch", "mean", "std"],
        "rows": [["IB", 1, 0.5, None], ["IB", 2, None, "x"]],
    }
