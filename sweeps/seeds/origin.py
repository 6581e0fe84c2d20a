"""Several seeds of the configuration of a run."""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.tracking.existing import existing_store
from pipelines.tracking.labels import Labels
from pipelines.tracking.run_names import find_run
from pipelines.tracking.tags import FROM_TAG


def with_origin(
    run: str, arguments: Sequence[str], labels: Labels, tracking_uri: str | None
) -> tuple[list[str], Labels]:
    """Return the arguments with the configuration of a run as first file, and the labels with its id as a tag.

    Raises:
        UserError: There is no such run, or it has no configuration.
    """
    found = find_run(existing_store(tracking_uri), run)
    tags = {**labels.tags, FROM_TAG: found.run_id}
    return ["-c", str(found.file("config.yaml")), *arguments], replace(labels, tags=tags)
