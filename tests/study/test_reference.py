"""The reference of the command line is the one of this version."""

from reference import PAGE, written


def test_the_page_has_every_verb_s_help() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "### study run\n" in page
    assert page == written(page), "python tests/study/reference.py writes it anew"
