"""A cluster without a machine that trains: Ray's own autoscaler adds them, and one is preempted later.

Ray's `fake_multinode` provider starts a node as processes on the machine of the head, instead of renting one.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from cluster.machines import SECONDS
from cluster.nodes import PRIVATE, Node, Unavailable, kill, network

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

SIZE = 100 << 20  # bytes of a node's object store
TRAINING = """
import sys

import ray

ray.init(sys.argv[1], log_to_driver=False)
print(next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")))
"""
SCALING = {
    "cluster_name": "fake",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 10,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,  # otherwise it takes its nodes for outdated ones, and ends them
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "trains": {"resources": {"CPU": 1, "object_store_memory": SIZE}, "node_config": {}, "max_workers": 2},
    },
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{f"{of}setup_commands": [] for of in ("", "head_", "worker_")},
    **{f"{of}_start_ray_commands": [] for of in ("head", "worker")},
}


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A head that trains nothing, with an autoscaler that may add two machines of one CPU."""
    try:
        with network(tmp_path_factory.mktemp("scaling")) as made:
            node = made.add("head", RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1")
            scaling = SCALING | {"provider": SCALING["provider"] | {"gcs_address": f"{node.address}:6379"}}
            (node.folder / "work" / "scaling.json").write_text(json.dumps(scaling))
            start = ["ray", "start", "--head", "--port=6379", f"--node-ip-address={node.address}", "--num-cpus=0"]
            options = [f"--autoscaling-config={PRIVATE}/scaling.json", f"--object-store-memory={SIZE}"]
            log = node.folder / "ray.log"
            assert node.popen([*start, *options], log).wait(SECONDS) == 0, log.read_text()
            yield node
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_machines_are_requested_and_the_stage_of_a_preempted_one_moves_without_a_loss(head: Node) -> None:
    address, log = f"{head.address}:6379", head.folder / "driver.log"
    driver = head.popen(["study", "run", "figure2", "--seeds", "3", "--workers", "2", "--address", address], log)
    try:
        deadline = time.monotonic() + 300
        while len(head.training()) < 2:
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        preempted = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
        first = head.run("python", "-c", TRAINING, address).stdout.strip()
        end = [f"--node-id={first}", "--deadline-remaining-seconds=60"]
        head.run("ray", "drain-node", f"--address={address}", *end, *preempted)
        assert driver.wait(400) == 0, log.read_text()
    finally:
        kill(driver)
        driver.wait()
    said = log.read_text()
    assert "room for 0 at a time: the others of 2 (--workers) wait for machines" in said
    assert "has joined: room for 2 at a time" in said
    assert re.search("(is about to leave|has left): room for 1 at a time", said), said  # it ends when it is idle
    (run,) = json.loads(head.run("study", "status", "--json").stdout)
    assert (run["outcome"], run["complete"], run["failed"]) == ("complete", 6, 0)
    assert run["epochs_trained"] == run["epochs_needed"]  # the preempted process has saved its last epoch
