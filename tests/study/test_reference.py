"""The reference of the command line is the one of this version, and so are the exit codes."""

import re

from reference import PAGE, written

from study.execution.driver import EXIT_CODES


def test_the_page_has_every_verb_s_help() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "### study run\n" in page
    assert page == written(page), "python tests/study/reference.py writes it anew"


def test_the_page_has_every_exit_code() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("### Exit codes\n")[2].partition("\n#")[0]
    codes = {outcome: int(code) for code, outcome in re.findall(r"^\| (\d+) \| (\w+)", section, re.MULTILINE)}
    assert codes == EXIT_CODES | {"refused": 2}
