"""The models of champions in MLflow's registry."""

from dataclasses import replace

from helpers import TRACKED, TRACKED_EPOCHS, tracked_cell


def test_each_champion_is_registered_once_and_the_best_has_the_alias(run):
    first, second = TRACKED
    for each in TRACKED:
        tracker = run.project(TRACKED_EPOCHS, cell=each)
    for champions, aliased in (([first, second], first), ([first], first), ([second, first], second), ([first], first)):
        tracker.register(run.plan.run, champions)
        versions = {version.tags["study.key"]: version for version in run.versions()}
        assert versions.keys() <= {"IB⇒CR 0", "CB⇒IB 0"}
        assert {key for key, version in versions.items() if version.aliases} == {aliased.ends[0]}
        tracker = run.driver()  # another start knows them as well
    assert len(run.versions()) == 2
    version = versions["IB⇒CR 0"]
    assert {"study.trial": first.name, "study.run": run.plan.run}.items() <= version.tags.items()
    (child,) = [each for each in run.all("replicate") if each.info.run_id == version.run_id]
    assert child.data.params["trial"] == first.label
    assert version.source == f"models:/{child.outputs.model_outputs[0].model_id}"


def test_a_champion_that_is_registered_later_is_the_next_version(run):
    first, second = TRACKED
    for each in TRACKED:
        tracker = run.project(TRACKED_EPOCHS, cell=each)
    tracker.register(run.plan.run, [first])
    assert [(version.version, version.aliases) for version in run.versions()] == [(1, ["champion"])]
    tracker.register(run.plan.run, [second])
    assert [(version.version, version.aliases) for version in run.versions()] == [(1, []), (2, ["champion"])]
    tracker.register(run.plan.run, [first])
    assert [(version.version, version.aliases) for version in run.versions()] == [(1, ["champion"]), (2, [])]


def test_the_model_of_a_champion_is_that_of_its_first_fresh_replicate(run):
    champion = tracked_cell("IB", "CR", (1000, 1001), champion_of="#7", first_replicate=1000)
    champion = replace(champion, trial=replace(champion.trial, called="champion #7"))
    run.plan = replace(run.plan, trials=(*run.plan.trials, champion))
    for number in (1001, 1000):
        tracker = run.project(TRACKED_EPOCHS, cell=champion, number=number)
    tracker.register(run.plan.run, [champion])
    (version,) = run.versions()
    child = run.client.get_run(version.run_id)
    assert child.data.tags["study.replicate"] == "1000"
    assert child.data.params["champion_of"] == "#7"
    assert version.tags["study.key"] == "IB⇒CR 1000"
