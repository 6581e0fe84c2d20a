"""The part of Ray that litlab uses although it is for developers of Ray, tried with Ray 2.60.

- `ray._private.state.available_resources_per_node`: what other programs leave of each node. `ray.available_resources`
  has only the sum over the cluster.
"""

from ray._private.state import available_resources_per_node


def available_resources() -> dict[str, dict[str, float]]:
    """Return what is available of each node that is alive, by the node's id and the name of the resource."""
    return {node: dict(amounts) for node, amounts in available_resources_per_node().items()}
