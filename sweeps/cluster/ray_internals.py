"""The part of Ray that litlab uses although it is for developers of Ray, tried with Ray 2.60.

- `ray._private.worker.global_worker.gcs_client`: asks the head with a time limit. `ray.nodes` waits for a minute for a
  head that does not answer, deaf to Ctrl-C; `ray.available_resources` has only the sum over the cluster.
"""

from collections.abc import Iterator
from typing import Any

from ray._private.worker import global_worker

Resources = dict[str, float]  # by name


def node_table(timeout_s: float) -> Iterator[tuple[tuple[str, str, str], tuple[Resources, Resources]]]:
    """Yield id, host name and address of each node that is alive, and its resources: all, and those available.

    Raises:
        ray.exceptions.RpcError: The head does not answer within this time.
    """
    head: Any = global_worker.gcs_client
    infos = head.get_all_node_info(timeout=timeout_s)
    usage = head.get_all_resource_usage(timeout=timeout_s).resource_usage_data.batch
    available = {one.node_id: dict(one.resources_available) for one in usage}
    for info in infos.values():
        if info.state == info.ALIVE:
            names = info.node_id.hex(), info.node_manager_hostname, info.node_manager_address
            yield names, (dict(info.resources_total), available.get(info.node_id, {}))
