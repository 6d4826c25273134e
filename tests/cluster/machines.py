"""A Ray cluster of three machines, with servers on a fourth one; see `cluster.nodes`."""

from __future__ import annotations

import subprocess

from cluster.nodes import Network, Node
from cluster.servers import Servers

SECONDS = 240  # for the start of Ray, which takes 10 s where nothing else runs


class Cluster:
    """A Ray cluster with one CPU on each of its machines, `node1` to `node3`, the first of which is its head.

    Attributes:
        network: all machines, to which a test may add.
        servers: S3, PostgreSQL and MLflow.
        nodes: the machines of the cluster.
        address: the cluster's HOST:PORT.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.servers = Servers(network.services)
        variables = self.servers.variables
        # A busy machine, or a test that freezes a node for a while, must not end the node for good.
        # One that crashes is noticed after 10 s.
        variables = variables | {"RAY_health_check_failure_threshold": "10", "RAY_health_check_period_ms": "1000"}
        self.nodes = [network.add(f"node{number}", **variables) for number in (1, 2, 3)]
        self.address = f"{self.nodes[0].address}:6379"
        head = self._start(self.nodes[0], "--head", "--port=6379", f"--dashboard-host={self.nodes[0].address}")
        assert head.wait(SECONDS) == 0, (self.nodes[0].folder / "ray.log").read_text()
        for node, process in [(node, self.join(node)) for node in self.nodes[1:]]:
            if process.wait(SECONDS):  # on a busy machine the head does not always answer within Ray's 30 s
                process = self.join(node)
            assert process.wait(SECONDS) == 0, (node.folder / "ray.log").read_text()
        self.servers.wait()

    def join(self, node: Node, *options: str) -> subprocess.Popen[str]:
        """Let a machine join the cluster: the start of its Ray, to be waited for."""
        return self._start(node, f"--address={self.address}", *options)

    @staticmethod
    def _start(node: Node, *options: str) -> subprocess.Popen[str]:
        size = ["--num-cpus=1", f"--object-store-memory={100 << 20}", "--disable-usage-stats"]
        command = ["ray", "start", f"--node-ip-address={node.address}", *size, *options]
        return node.popen(command, node.folder / "ray.log")
