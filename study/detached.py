"""A run in the background: its plan is stored, and a process or a job of a cluster trains it by ``study resume``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from study.errors import Refusal, StudyError
from study.intent import Ready
from study.masking import without_password
from study.planning.stored import Plan
from study.store import records
from study.store.starts import refuse_second, starts
from study.store.states import Store
from study.wish import Machines

if TYPE_CHECKING:
    from study.execution import background


def begin(ready: Ready, machines: Machines, say: Callable[[str], None]) -> None:
    """Store the plan, start the run in the background, and return when it trains, or has nothing to train.

    Args:
        ready: the run.
        machines: what this start has in place of the plan's resources.
        say: a function that shows a line to the user.

    Raises:
        Refusal: if it was refused before it trained. Of a first start no plan stays then.
        StudyError: if it ended before it trained for another reason.
    """
    from study.execution import background, driver

    store, run = ready.store, ready.run
    refuse_second(store, run, say, briefly=True)  # the checks since the last look may have taken minutes
    driver.store_plan(ready.drafted, ready.before, store)
    earlier = len(starts(store, run))
    try:
        is_job = ready.resources.address not in ("", "local")
        begun, hint = _job(ready, machines) if is_job else _process(ready, machines)
        background.wait(begun, store, run, earlier, hint)
    except BaseException:
        with suppress(StudyError):  # the store is away, and the user must read why
            if ready.before is None and not any(start.epochs_trained for start in starts(store, run)[earlier:]):
                records.delete_plan(store, run)
        raise


def _process(ready: Ready, machines: Machines) -> tuple[background.Begun, str]:
    """Start a process of this machine. It gets every URL."""
    from study.execution import background

    home = ready.home
    arguments = [*_resume(ready), *replace(machines, address="local").options(), "--store", ready.store.url]
    for option, url in zip(("--tracking-uri", "--storage"), ready.chosen, strict=True):
        arguments += [option, url] if url else []
    return background.Process(ready.run, arguments, home.path / "detached" / f"{ready.run}.log"), ""


def _job(ready: Ready, machines: Machines) -> tuple[background.Begun, str]:
    """Start a job of a cluster. It gets no passwords; the hint says where it takes them from.

    Raises:
        Refusal: if the cluster takes no jobs, or MLflow or Optuna moved to a URL with a password.
    """
    from study.execution import background

    arguments = [*_resume(ready), *replace(machines, address="auto").options()]  # from within the cluster
    arguments += _without_passwords(ready.drafted.plan, ready.store, ready.chosen)
    work = ready.drafted.work
    packages = {each.__module__.partition(".")[0] for each in (work.prepare, work.resolve)}
    hint = ""
    if any(url != without_password(url) for url in (ready.store.url, *ready.chosen)):
        hint = "Passwords are not given to the job: set MLFLOW_TRACKING_URI, STUDY_STORAGE or STUDY_STORE with "
        hint += "the whole URL where 'ray start' runs"
    return background.Job(ready.run, arguments, ready.resources.address, packages), hint


def _resume(ready: Ready) -> list[str]:
    return ["resume", ready.run, "--home", str(ready.home.path), *["--retry-failed"] * ready.retry_failed]


def _without_passwords(plan: Plan, store: Store, chosen: tuple[str, str]) -> list[str]:
    """Return the options that tell a job on a cluster where its store, MLflow and Optuna are.

    The command line of a job is shown to everyone. A URL with a password is left out: the plan has it without, or the
    environment of the cluster's nodes names it.

    Raises:
        Refusal: if MLflow or Optuna moved to a URL with a password.
    """
    options = ["--store", store.url] if store.url == store.shown else []
    kept = (plan.tracking_uri, plan.storage)
    for option, url, known in zip(("--tracking-uri", "--storage"), chosen, kept, strict=True):
        if without_password(url) == known:
            continue
        if url != without_password(url):
            hint = "Leave out --detach, or give a URL without a password"
            words = f"{option}: a job on a cluster cannot be given the password of {without_password(url)!r}"
            raise Refusal(option, without_password(url), words, hint=hint)
        options += [option, url]
    return options
