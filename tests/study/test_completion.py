"""Shell completion: its scripts, where they are installed, and the words that they complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Study, run_of_two

from study import arguments, catalog, completion
from study.cli import cli
from study.errors import Refusal
from study.home import Home
from study.store import records

SHELLS = ("bash", "zsh", "fish")
WITH_RC = pytest.mark.parametrize("shell", ["bash", "zsh"])


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of a user whose environment names no other folders."""
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@WITH_RC
def test_the_script_is_written_and_a_line_of_the_rc_file_reads_it(shell: str, user: Path) -> None:
    script, rc = user / f".local/share/longtail-study/study.{shell}", user / f".{shell}rc"
    assert completion.install(cli, shell, user) == [script, rc]
    assert files(user) == sorted([f".{shell}rc", f".local/share/longtail-study/study.{shell}"])
    assert script.read_text(encoding="utf-8") == completion.script(cli, shell)
    assert rc.read_text(encoding="utf-8") == f'. "{script}"  # completion of `study`\n'


def test_fish_reads_the_script_from_its_own_folder(user: Path) -> None:
    script = user / ".config/fish/completions/study.fish"
    for _ in range(2):
        assert completion.install(cli, "fish", user) == [script]
    assert files(user) == [".config/fish/completions/study.fish"]
    assert script.read_text(encoding="utf-8") == completion.script(cli, "fish")


@WITH_RC
@pytest.mark.parametrize("text", ["export A=1\nalias b='c'\n", "export A='ä'", "\n\n"])
def test_the_line_is_added_once_and_the_rest_of_the_file_is_kept(shell: str, text: str, user: Path) -> None:
    rc = user / f".{shell}rc"
    rc.write_text(text, encoding="utf-8")
    script, written = completion.install(cli, shell, user)
    assert written == rc
    after = rc.read_text(encoding="utf-8")
    separator = "" if text.endswith("\n") else "\n"
    assert after == f'{text}{separator}. "{script}"  # completion of `study`\n'
    script.write_text("an old one", encoding="utf-8")
    assert completion.install(cli, shell, user) == [script]
    assert rc.read_text(encoding="utf-8") == after
    assert script.read_text(encoding="utf-8") == completion.script(cli, shell)


@WITH_RC
def test_a_script_in_another_folder_replaces_the_line(shell: str, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rc = user / f".{shell}rc"
    rc.write_text("first\n", encoding="utf-8")
    completion.install(cli, shell, user)
    with rc.open("a", encoding="utf-8") as file:
        file.write("last\n")
    monkeypatch.setenv("XDG_DATA_HOME", str(user / "data"))
    script, _ = completion.install(cli, shell, user)
    assert script == user / f"data/longtail-study/study.{shell}"
    assert rc.read_text(encoding="utf-8") == f'first\nlast\n. "{script}"  # completion of `study`\n'


@WITH_RC
def test_the_command_installs_for_its_user_and_says_what_it_wrote(shell: str, user: Path, study: Study) -> None:
    script = user / f".local/share/longtail-study/study.{shell}"
    end = "completion works in new shells\n"
    assert study("completion", shell).stdout == f"wrote {script}\nwrote {user}/.{shell}rc\n{end}"
    assert study("completion", shell).stdout == f"wrote {script}\n{end}"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_printed_script_is_one_of_the_shell_and_nothing_is_written(shell: str, user: Path, study: Study) -> None:
    text = study("completion", shell, "--print").stdout
    assert text.rstrip("\n") == completion.script(cli, shell).rstrip("\n")
    assert f"_STUDY_COMPLETE={shell}_complete" in text
    assert files(user) == []
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_study_once_it_has_read_its_rc_file(user: Path) -> None:
    completion.install(cli, "bash", user)
    command = ["bash", "--norc", "-c", '. "$HOME/.bashrc"; complete -p study']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(" study")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_home_that_is_a_file_is_refused(shell: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").touch()
    assert "FILE" in refusal(shell, tmp_path / "FILE")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_home_that_cannot_be_written_is_refused(shell: str, user: Path) -> None:
    user.chmod(0o555)
    assert "Permission denied" in refusal(shell, user)
    assert files(user) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_disk_that_takes_no_file_is_refused(shell: str, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for root, who may write everywhere."""

    def denied(path: Path, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", denied)
    assert "[Errno 13] Permission denied: " in refusal(shell, user)
    assert files(user) == []


@WITH_RC
@pytest.mark.parametrize("content", [b"export A=\xff\n", None], ids=["not UTF-8", "a folder"])
def test_an_rc_file_that_cannot_be_changed_is_refused_and_kept(shell: str, content: bytes | None, user: Path) -> None:
    rc = user / f".{shell}rc"
    if content is None:
        rc.mkdir()
    else:
        rc.write_bytes(content)
    refusal(shell, user)
    assert rc.is_dir() if content is None else rc.read_bytes() == content


def test_the_command_refuses_in_one_line_with_exit_code_2(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "FILE").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "FILE"))
    message = str(study("completion", "bash", code=2).exception)
    assert message.startswith("the completion for bash cannot be installed: ")
    assert message.endswith(". '--print' prints the script")
    assert "\n" not in message


def test_a_user_without_a_home_is_told_so() -> None:
    with pytest.raises(Refusal, match=r"there is no HOME\. '--print' prints the script"):
        completion.install(cli, "bash", Path("/"))


def refusal(shell: str, user: Path) -> str:
    """Return the reason in the message of an installation that is refused."""
    with pytest.raises(Refusal) as refused:
        completion.install(cli, shell, user)
    message = str(refused.value)
    begin, end = f"the completion for {shell} cannot be installed: ", ". '--print' prints the script"
    assert message.startswith(begin)
    assert message.endswith(end)
    assert "\n" not in message
    return message.removeprefix(begin).removesuffix(end)


# The words that a shell asks the command for


def completed(*words: str, **environment: str) -> list[str]:
    """Return the completions of the last word, as bash gets them."""
    asked = {
        "_STUDY_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("study", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "study"],
        env={**os.environ, **asked, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_spaces_options_and_values_are_completed() -> None:
    assert completed("re") == ["report", "resume"]
    assert completed("run", "figure") == [name for name in catalog.names() if name.startswith("figure")]
    assert completed("run", "table9", "sampler") == ["sampler_search"]
    assert completed("show", "cl") == ["claims"]
    assert completed("run", "table9", "--cpus") == ["--cpus-per-trial"]
    assert completed("run", "table9", "--sho") == ["--short"]  # which an installed package declares
    assert completed("run", "table9", "--precision", "t") == ["tf32"]
    assert completed("report", "mine", "--format", "m") == ["markdown"]
    assert completed("completion", "z") == ["zsh"]


def test_runs_are_completed_from_the_home_and_a_home_without_runs_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(str(tmp_path / "home"), None)
    assert completed("report", "m", STUDY_HOME=str(home.path)) == []
    assert not home.path.exists()
    for name in ("mine", "minor", "other"):
        records.save_plan(home.make(), run_of_two(name))
    assert sorted(completed("report", "min", STUDY_HOME=str(home.path))) == ["mine", "minor"]
    assert completed("resume", "o", STUDY_HOME=str(home.path)) == ["other"]
    monkeypatch.setenv("STUDY_HOME", "\0" if os.name == "nt" else "a?b")
    assert arguments.run_names(None, None, "") == []  # type: ignore[arg-type]
