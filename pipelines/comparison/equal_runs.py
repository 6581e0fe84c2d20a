"""Which runs have equal configurations: a key that was added later with its default changes nothing.

Two runs are equal if all keys that both have are equal, and each key that only one has stands at its default there. The
relation is not transitive if a default was changed, so runs of one group are equal pair by pair: where A lacks a key, B
has it at its default of then, 1, and C at its default of now, 2, B and C are never in one group.
"""

import json
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

from pipelines.config.identity import flatten_config, flatten_lists
from pipelines.config.known_keys import KnownKeys
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_KEY, KNOWN_KEYS_TAG

_NONE = "null"


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
        params = {key: value for key, value in run.configuration.items() if key != DATA_HASH_KEY}
        known = KnownKeys.from_tags(run.tags)
        none = [*known.none, *known.set_none] if known else []
        optional = [*known.default, *known.none] if known else []
        values = {**dict.fromkeys(none, _NONE), **_texts(params), **run.data_digests}
        sections = {key.rsplit(".", depth)[0] for key in values for depth in range(key.count(".") + 1)}
        return cls(values, frozenset(optional), frozenset(sections), known is not None)

    def without(self, ignored: Collection[str]) -> "Configuration":
        """Return the same without some keys; `DATA_HASH_KEY` stands for all splits of the data."""
        data = (f"{DATA_HASH_KEY}.",) if DATA_HASH_KEY in ignored else ()
        values = {key: text for key, text in self.values.items() if key not in ignored and not key.startswith(data)}
        return Configuration(values, self.optional, self.sections, self.is_recorded)

    def part(self, key: str) -> "Configuration":
        """Return one param: its value, or what it was taken apart into."""
        values = {part: text for part, text in self.values.items() if part == key or part.startswith(f"{key}.")}
        kept = {key: values[key]} if key in values else values
        return Configuration(kept, self.optional, self.sections, self.is_recorded)

    def equals(self, other: "Configuration") -> bool:
        """Return whether runs of both belong in one group."""
        shared = self.values.keys() & other.values.keys()
        if any(self.values[key] != other.values[key] for key in shared):
            return False
        return self._adds_only_defaults(other) and other._adds_only_defaults(self)

    def _adds_only_defaults(self, other: "Configuration") -> bool:
        return all(self._may_be_missing(key, other) for key in self.values if key not in other.values)

    def _may_be_missing(self, key: str, other: "Configuration") -> bool:
        """Return whether a key, or the outermost class around it that the other one lacks, is at its default."""
        if key.startswith(f"{DATA_HASH_KEY}.") or (self.values[key] == _NONE and not other.is_recorded):
            return True
        starts = [key[:end] for end, letter in enumerate(key) if letter == "."]
        return next((start for start in starts if start not in other.sections), key) in self.optional


class Shared(NamedTuple):
    """What runs of one row have in common.

    Attributes:
        configuration: Keys whose values are the same in all runs that have them; the others have them at the default.
        optional: Those of them that stand at their defaults.
        varying: Keys whose values are not the same.
        recorded: What the runs recorded, each once.
    """

    configuration: Mapping[str, str] = MappingProxyType({})
    optional: frozenset[str] = frozenset()
    varying: frozenset[str] = frozenset()
    recorded: Sequence[Configuration] = ()


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
            recorded = _recorded(run)
            if recorded not in known:
                known[recorded] = len(self._configurations)
                self._configurations.append(Configuration.of(run))
            self._index[run.run_id] = known[recorded]

    def groups(self, ignored: Sequence[str] = ()) -> dict[str, int]:
        """Return the number of each run's group, by run id.

        Args:
            ignored: Keys in which runs of a group may differ; `DATA_HASH_KEY` stands for all splits of the data.
        """
        kept = [configuration.without(ignored) for configuration in self._configurations]
        ids = [_identity(configuration) for configuration in kept]
        numbers: dict[Hashable, int] = {}
        for bucket in _buckets(list(dict(zip(ids, kept, strict=True)).values())):
            for group in _complete_linkage(bucket):
                numbers |= dict.fromkeys(map(_identity, group), len(numbers))
        return {run_id: numbers[ids[index]] for run_id, index in self._index.items()}

    def shared(self, runs: Sequence[StoredRun]) -> Shared:
        """Return what runs of one row have in common."""
        recorded = {index: self._configurations[index] for index in (self._index[run.run_id] for run in runs)}
        if len(recorded) == 1:
            common = runs[0].configuration
            (only,) = recorded.values()
            return Shared(common, only.optional.intersection(common), frozenset(), [only])
        shared, optional, varying = dict[str, str](), set[str](), set[str]()
        for key in dict.fromkeys(key for run in runs for key in run.configuration):
            known = [run for run in runs if key in run.configuration]
            texts = sorted({run.configuration[key] for run in known}, key=len)
            is_optional = all(key in self._configurations[self._index[run.run_id]].optional for run in known)
            same = len(texts) == 1 or agree(recorded.values(), key)
            if same and (is_optional or len(known) == len(runs)):
                shared[key] = texts[-1]
                optional |= {key} if is_optional else set()
            else:
                varying.add(key)
        return Shared(shared, frozenset(optional), frozenset(varying), list(recorded.values()))


def agree(configurations: Iterable[Configuration], key: str) -> bool:
    """Return whether configurations that have a key have equal values; of lists of classes and data, equal parts."""
    parts = [configuration.part(key) for configuration in configurations]
    distinct = list({_identity(part): part for part in parts if part.values}.values())
    return all(one.equals(other) for one, other in combinations(distinct, 2))


def _recorded(run: StoredRun) -> Hashable:
    tags = [(key, value) for key, value in run.tags.items() if key.startswith((f"{DATA_HASH_KEY}.", KNOWN_KEYS_TAG))]
    return tuple(run.configuration.items()), tuple(sorted(tags))


def _identity(configuration: Configuration) -> Hashable:
    return tuple(sorted(configuration.values.items())), configuration.optional, configuration.is_recorded


def _texts(params: Mapping[str, str]) -> dict[str, str]:
    """Return params with lists of classes taken apart."""
    texts: dict[str, str] = {}
    for key, text in params.items():
        items = _classes(text)
        parts = flatten_lists(flatten_config({key: items})) if items else {}
        texts |= {part: value if isinstance(value, str) else json.dumps(value) for part, value in parts.items()}
        if not items:
            texts[key] = text
    return texts


def _classes(text: str) -> list[object]:
    try:
        return list(json.loads(text)) if text.startswith("[") and '"class_path"' in text else []
    except ValueError:
        return []


def _buckets(configurations: list[Configuration]) -> Iterator[list[Configuration]]:
    """Yield those together that may be equal: they agree in all keys that all of them have."""
    if not configurations:
        return
    common = sorted(set(configurations[0].values).intersection(*(one.values for one in configurations[1:])))
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
