"""What of a URL may be shown and stored."""

import pytest
from helpers import quick
from hypothesis import assume, given
from hypothesis import strategies as st

from study.masking import masked, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/optuna?x=1", "postgresql://me:***@db:5432/optuna?x=1"),
        ("postgresql+psycopg2://me:se@cret@db/optuna", "postgresql+psycopg2://me:***@db/optuna"),
        ("postgresql://me:p%40x@db/optuna", "postgresql://me:***@db/optuna"),
        ("postgresql://me:se/cr#et@db/optuna", "postgresql://me:***@db/optuna"),
        ("postgresql://me:se?cr@et@db/optuna?x=1", "postgresql://me:***@db/optuna?x=1"),
        ("postgresql://me@db/optuna?sslmode=require&sslkey=/a", "postgresql://me@db/optuna?sslmode=require&sslkey=/a"),
        ("postgresql://db/x?user=me&password=a;b&x=1", "postgresql://db/x?user=me&password=***&x=1"),
        ("postgresql://me:/se/cr@db/optuna", "postgresql://me:***@db/optuna"),
        ("http://:secret@host", "http://:***@host"),
        ("https://me@host/path", "https://me@host/path"),
        ("https://host", "https://host"),
        ("https://host:5000/path", "https://host:5000/path"),
        ("http://[::1]:5000/path", "http://[::1]:5000/path"),
        ("me:secret@host/optuna", "me:***@host/optuna"),
        (
            "s3://KEY:SE/CR+ET@bucket/x?endpoint_override=http://host:9000&region=eu",
            "s3://KEY:***@bucket/x?endpoint_override=http://host:9000&region=eu",
        ),
        (
            "s3://bucket/x?endpoint_override=http://k:secret@host:9000",
            "s3://bucket/x?endpoint_override=http://k:***@host:9000",
        ),
        (
            "s3://bucket/x?access_key=A&secret_key=B&session_token=C&region=eu",
            "s3://bucket/x?access_key=***&secret_key=***&session_token=***&region=eu",
        ),
        ("abfs://bucket/x?sas=A&SIG=B&sv=1&asset=2", "abfs://bucket/x?sas=***&SIG=***&sv=1&asset=2"),
        ("mssql:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql:///?odbc_connect=***"),
        ("mssql:///?odbc_connect=DRIVER=x;PWD=secret", "mssql:///?odbc_connect=***"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    assert without_password(url) == shown
    assert without_password(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tried(http://a/b,http://me:secret@h)", "tried(http://a/b,http://me:***@h)"),
        ("['http://a/b','s3://key:/secret@b/x']", "['http://a/b','s3://key:***@b/x']"),
        ("at http://me:secret@h: no answer", "at http://me:***@h: no answer"),
        ("1http://me:secret@h", "1http://me:***@h"),
        ("no URL at all: a@b", "no URL at all: a@b"),
    ],
)
def test_every_url_in_a_text_is_masked(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text", ["y" * 200_000, "://" + "y" * 200_000, "http://h/?" + "y" * 200_000, "a://b," * 20_000]
)
def test_a_long_text_is_masked_in_no_time(text):
    with quick(2):
        assert masked(text) == text


PIECES = ["://", ":", "@", "/", "?", "&", "=", ";", "#", "***", "a", "pass", "key", "ssl", "sas", "%40", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join) | st.text())
def test_what_is_shown_stays_as_it_is(url):
    shown = without_password(url)
    assert without_password(shown) == shown


WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(
    scheme=st.sampled_from(["http", "postgresql+psycopg2", "s3", "mysql"]),
    user=WORDS,
    before=st.text("ab/?#:@=;+%", max_size=4),
    after=st.text("ab/#:@=;+%", max_size=4),
    rest=st.sampled_from(["", "/db", "/db?x=1", ":5432/db?x=1&y=2"]),
)
def test_no_part_of_a_password_is_shown(scheme, user, before, after, rest):
    password = f"{before}SECRET{after}"
    assume("?" not in password.partition("@")[2])  # which nobody can tell from a query after the host
    shown = without_password(f"{scheme}://{user}:{password}@host{rest}")
    assert "SECRET" not in shown
    assert shown.endswith(f"host{rest}")


@given(name=st.sampled_from(["access_key", "secret_key", "session_token", "sas", "password"]), value=st.text())
def test_no_part_of_a_secret_in_the_query_is_shown(name, value):
    value = value.replace("&", "")
    assert without_password(f"s3://b/x?a=1&{name}={value}&b=2") == f"s3://b/x?a=1&{name}=***&b=2"
