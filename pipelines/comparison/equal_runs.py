"""Which runs have equal configurations: a key that was added later with its default changes nothing.

Two runs are equal if all keys that both have are equal, and each key that only one has stands at its default there. The
relation is not transitive if a default was changed, so runs of one group are equal pair by pair. Example: A lacks a
key, B has its former default, C its current default; B and C never share a group.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from pipelines.config.identity import DERIVED_KEYS, flat_keys, prefixes
from pipelines.config.known_keys import KnownKeys
from pipelines.runtime.text import param_text
from pipelines.tracking.passive import class_list, without_passive
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CALLBACKS_PARAM, DATA_HASH_KEY, KNOWN_KEYS_TAG

_NONE = "null"
_SPLITS = f"{DATA_HASH_KEY}."  # what the keys of the splits' digests begin with


@dataclass(frozen=True)
class Configuration:
    """What runs record of a configuration.

    Attributes:
        values: Flat keys with their texts. Lists of classes are taken apart, and each split of the data has a key.
        optional: Keys without which it would be the same: they stand at their defaults.
        sections: All keys, and what they begin with: `model` and `model.optimizer` of `model.optimizer.lr`.
        is_recorded: Whether the runs recorded their known keys; otherwise a missing key may be unknown or None.
    """

    values: dict[str, str]
    optional: frozenset[str]
    sections: frozenset[str]
    is_recorded: bool

    @classmethod
    def of(cls, run: StoredRun) -> "Configuration":
        """Return the configuration of a run."""
        known = KnownKeys.from_tags(run.tags)
        none = [*known.none, *known.set_none] if known else []
        optional = [*known.default, *known.none] if known else []
        if without_passive(run.params).get(CALLBACKS_PARAM) != run.params.get(CALLBACKS_PARAM):
            none, optional = (
                [key for key in keys if not key.startswith(f"{CALLBACKS_PARAM}.")] for keys in (none, optional)
            )
        params = {key: class_list(text) or text for key, text in run.configuration.items() if key != DATA_HASH_KEY}
        texts = {key: param_text(value) for key, value in flat_keys(params).items()}
        values = {**dict.fromkeys(none, _NONE), **texts, **run.data_digests}
        sections = {prefix for key in values for prefix in prefixes(key)}
        return cls(values, frozenset(optional), frozenset(sections), known is not None)

    def without(self, ignored: Collection[str]) -> "Configuration":
        """Return the same without some keys; `DATA_HASH_KEY` stands for all splits of the data."""
        data = _SPLITS if DATA_HASH_KEY in ignored else "\0"
        values = {key: text for key, text in self.values.items() if key not in ignored and not key.startswith(data)}
        return replace(self, values=values)

    def part(self, key: str) -> "Configuration":
        """Return one param: its value, or what it was taken apart into."""
        if key in self.values:
            return replace(self, values={key: self.values[key]})
        return replace(self, values={part: text for part, text in self.values.items() if part.startswith(f"{key}.")})

    def identity(self) -> Hashable:
        """Return what is equal for equal configurations."""
        return frozenset(self.values.items()), self.optional, self.sections, self.is_recorded

    def equals(self, other: "Configuration") -> bool:
        """Return whether runs of both belong in one group."""
        shared = self.values.keys() & other.values.keys()
        if any(self.values[key] != other.values[key] and not self._is_derived(other, key) for key in shared):
            return False
        return self._adds_only_defaults(other) and other._adds_only_defaults(self)

    def _is_derived(self, other: "Configuration", key: str) -> bool:
        """Return whether a key is None in one, and in the other what the same data determine."""
        if key not in DERIVED_KEYS or _NONE not in (self.values[key], other.values[key]):
            return False
        return any(name.startswith(_SPLITS) and name in other.values for name in self.values)  # shared ones are equal

    def _adds_only_defaults(self, other: "Configuration") -> bool:
        return all(self._may_be_missing(key, other) for key in self.values if key not in other.values)

    def _may_be_missing(self, key: str, other: "Configuration") -> bool:
        """Return whether a key, or the outermost class around it that the other one lacks, is at its default."""
        if key.startswith(_SPLITS) or (self.values[key] == _NONE and not other.is_recorded):
            return True
        return next((start for start in prefixes(key) if start not in other.sections), key) in self.optional


class EqualRuns:
    """Groups runs by their configurations, oldest first.

    Args:
        runs: The runs.
    """

    def __init__(self, runs: Sequence[StoredRun]) -> None:
        self._configurations: list[Configuration] = []  # as recorded, each once
        self._index: dict[str, int] = {}  # of a run's configuration, by run id
        known: dict[Hashable, int] = {}
        for run in sorted(runs, key=lambda run: run.started):
            tags = {key: text for key, text in run.tags.items() if key.startswith((_SPLITS, KNOWN_KEYS_TAG))}
            recorded = tuple(run.configuration.items()), frozenset(tags.items())
            if recorded not in known:
                known[recorded] = len(self._configurations)
                self._configurations.append(Configuration.of(run))
            self._index[run.run_id] = known[recorded]

    def groups(self, ignored: Sequence[str] = ()) -> dict[str, int]:
        """Return the number of each run's group, by run id.

        Args:
            ignored: Keys in which runs of a group may differ; `DATA_HASH_KEY` stands for all splits of the data.
        """
        compared = [configuration.without(ignored) for configuration in self._configurations]
        identities = [configuration.identity() for configuration in compared]
        numbers: dict[Hashable, int] = {}
        for bucket in _buckets(list(dict(zip(identities, compared, strict=True)).values())):
            for group in _complete_linkage(bucket):
                numbers |= dict.fromkeys((configuration.identity() for configuration in group), len(numbers))
        return {run_id: numbers[identities[index]] for run_id, index in self._index.items()}

    def common(self, runs: Sequence[StoredRun]) -> tuple[dict[str, str], list[Configuration]]:
        """Return what runs have in common, and the configurations that they recorded, each once.

        In common are the keys in which they do not differ; a run that lacks one has it at its default.
        """
        recorded = [self._configurations[index] for index in {self._index[run.run_id]: None for run in runs}]
        if len(recorded) == 1:
            return runs[0].configuration, recorded
        common = {}
        for key in dict.fromkeys(key for run in runs for key in run.configuration):
            texts = {run.configuration.get(key) for run in runs}
            if len(texts) == 1 or not differ(recorded, key):
                common[key] = max((text for text in texts if text is not None), key=len)
        return common, recorded


def differ(configurations: Iterable[Configuration], key: str) -> bool:
    """Return whether configurations differ in a param, or in `DATA_HASH_KEY`.

    One that lacks it, or has None, is like those that have it at its default.
    """
    parts = {part.identity(): part for part in (configuration.part(key) for configuration in configurations)}
    present = [part for part in parts.values() if set(part.values.values()) - {_NONE}]
    if len(present) < len(parts) and key != DATA_HASH_KEY and not all(key in part.optional for part in present):
        return True
    return any(not one.equals(other) for one, other in combinations(present, 2))


def _buckets(configurations: list[Configuration]) -> Iterator[list[Configuration]]:
    """Yield those together that may be equal: they agree in all keys that all of them have."""
    if not configurations:
        return
    shared = set(configurations[0].values).intersection(*(one.values for one in configurations[1:]))
    common = sorted(shared.difference(DERIVED_KEYS))
    buckets: dict[tuple[str, ...], list[Configuration]] = {}
    for configuration in configurations:
        buckets.setdefault(tuple(configuration.values[key] for key in common), []).append(configuration)
    if len(buckets) == 1:
        yield configurations
        return
    for bucket in buckets.values():
        yield from _buckets(bucket)


def _complete_linkage(configurations: Sequence[Configuration]) -> list[list[Configuration]]:
    """Put each configuration in the first group in which it equals all others."""
    groups: list[list[Configuration]] = []
    for configuration in configurations:
        group = next((group for group in groups if all(configuration.equals(one) for one in group)), None)
        if group is None:
            groups.append([configuration])
        else:
            group.append(configuration)
    return groups
