"""A database is created whole or not at all, and never in place of another one."""

import sqlite3
from contextlib import closing

import pytest
from helpers import Killed

from study.databases import create_whole


def create(url, rows=("mine",)):
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("CREATE TABLE names (name)")
        connection.executemany("INSERT INTO names VALUES (?)", [(row,) for row in rows])


def names(path):
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM names")]


def test_a_new_database_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a b.db"

    def seen(url):
        create(url)
        assert not path.exists()

    create_whole(f"sqlite:///{path}", seen)
    assert names(path) == ["mine"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_that_another_run_created_meanwhile_stays(tmp_path):
    path = tmp_path / "a.db"

    def late(url):
        create(f"sqlite:///{path}", ["the other run's"])
        create(url)

    create_whole(f"sqlite:///{path}", late)
    assert names(path) == ["the other run's"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    create_whole(f"sqlite:///{tmp_path / 'a.db'}", create)
    assert names(tmp_path / "a.db") == ["mine"]


def test_a_creation_that_is_interrupted_leaves_nothing(tmp_path):
    def killed(url):
        create(url)
        raise Killed

    with pytest.raises(Killed):
        create_whole(f"sqlite:///{tmp_path / 'a.db'}", killed)
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_url_are_kept(tmp_path):
    path = tmp_path / "a.db"
    urls = []

    def with_options(url):
        urls.append(url)
        create(url.partition("?")[0])

    create_whole(f"sqlite:///{path}?timeout=5", with_options)
    assert [url.partition("?")[2] for url in urls] == ["timeout=5"]
    assert names(path) == ["mine"]


@pytest.mark.parametrize("url", ["http://host", "postgresql://host/a", "sqlite://", "sqlite:////no/such/folder/a.db"])
def test_nothing_else_is_created(url):
    create_whole(url, pytest.fail)


def test_a_database_that_exists_is_left_alone(tmp_path):
    create(f"sqlite:///{tmp_path / 'a.db'}")
    create_whole(f"sqlite:///{tmp_path / 'a.db'}", pytest.fail)
