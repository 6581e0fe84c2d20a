"""Whether the two sides of a claim are compared seed by seed."""

import re
from collections.abc import Mapping, Sequence

from sweeps.reproduction.claims import Claim
from sweeps.reproduction.published_job import PublishedJob

# Keys that change neither the network and its initial weights nor the examples and their order.
PAIRED_KEYS = re.compile(r"--(model\.(optimizer\..+|dropout|conv_dropout)|data\.batch_size|C)")


def are_paired(claim: Claim, jobs: Mapping[str, PublishedJob]) -> bool:
    """Return whether the two sides of a claim are to be compared seed by seed.

    If the claim does not say: they are if they are metrics of the same runs, explain the same networks, or differ only
    in keys that change neither the network and its initial weights nor the examples and their order.
    """
    if claim.paired is not None:
        return claim.paired
    one, other = (jobs[label] for label in claim.labels)
    if one.explains or other.explains:
        return one.explains == other.explains
    (names, keys), (other_names, other_keys) = (_split_arguments(job.arguments) for job in (one, other))
    differing = {key for key, _ in keys.items() ^ other_keys.items()}
    return one.verb == other.verb and names == other_names and all(map(PAIRED_KEYS.fullmatch, differing))


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names that arguments begin with, and the keys with their values."""
    first = next((index for index, token in enumerate(arguments) if token.startswith("--")), len(arguments))
    keys = arguments[first:]
    return list(arguments[:first]), dict(zip(keys[::2], keys[1::2], strict=True))
