"""Names that users give stay in the folders in which they name something."""

from pathlib import Path

from helpers import planned_space
from hypothesis import example, given
from hypothesis import strategies as st

from study.errors import Refusal
from study.report.exhibits import Figure
from study.report.report import Section
from study.store.records import check_name

PIECES = st.lists(st.sampled_from(["..", "/", "a", ".", "\\", "~", "\0", "table9", " ", "-", "\n"]), max_size=8)
NAMES = PIECES.map("".join) | st.text()
FOLDER = Path("/home/me/folder")


def is_inside(name: str) -> bool:
    return (FOLDER / name).resolve().parent == FOLDER


@given(NAMES)
@example("..")
@example("../other")
@example("/etc/passwd")
@example("")
def test_the_name_of_a_run_is_that_of_a_folder_in_the_store_or_is_refused(name: str) -> None:
    try:
        check_name(name)
    except Refusal:
        return
    assert is_inside(name)


@given(NAMES.filter(lambda name: "\0" not in name))
@example("../../other")
@example("table9/../../other")
@example("/etc/passwd")
def test_the_file_of_a_figure_is_in_the_folder_that_the_user_names(name: str) -> None:
    figure = Figure(name, "a title", "a caption", lambda _: None)
    assert is_inside(f"{Section(planned_space(), None, [], [figure]).file(figure)}.png")
