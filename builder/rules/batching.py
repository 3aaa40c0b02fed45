"""Rules about dynamic batching: sizes, priorities, queue policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.findings import KeyPath
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

_AT = "dynamic_batching"


def preferred_hits(sizes: Any, limit: int, path: KeyPath) -> Iterator[Hit]:
    """Preferred batch sizes that are none, or above the largest batch."""
    for index, size in enumerate(sizes):
        if size <= 0:
            yield Hit(f"a preferred batch of {size}", "write sizes of 1 and more, or none", (*path, index))
        elif size > limit:
            reason = f"max_batch_size is {limit}" if limit else "max_batch_size is 0 or not there"
            fix = f"write {limit} or less, or a larger max_batch_size" if limit else "write max_batch_size first"
            yield Hit(f"a preferred batch of {size}, and {reason}", fix, (*path, index))


PREFERRED = Rule(
    id="preferred-batch-size",
    severity="error",
    title="a preferred batch size is 0, negative, or above max_batch_size",
    reason='"dynamic batching preferred size must be positive", "must be <= max batch size". This is looked at before '
    "the backend completes max_batch_size: with preferred sizes it has to be written.",
    fix="Write sizes between 1 and max_batch_size; most models need none.",
    bad="max_batch_size: 8\ndynamic_batching { preferred_batch_size: [4, 16] }",
    good="max_batch_size: 16\ndynamic_batching { preferred_batch_size: [4, 16] }",
)


def preferred_batch_size(subject: Subject) -> Iterator[Hit]:
    """Of the dynamic batcher and of the sequence batcher's oldest strategy."""
    config = subject.config
    limit = max(config.max_batch_size, 0)
    yield from preferred_hits(config.dynamic_batching.preferred_batch_size, limit, (_AT, "preferred_batch_size"))
    oldest = ("sequence_batching", "oldest", "preferred_batch_size")
    yield from preferred_hits(config.sequence_batching.oldest.preferred_batch_size, limit, oldest)


DEFAULT = Rule(
    id="default-priority-level",
    severity="error",
    title="default_priority_level is not one of the levels",
    reason='"default priority level must be in range [1, levels]": with priorities, every request has one, and 0 is '
    "none.",
    fix="Write a level between 1 (the highest) and priority_levels.",
    bad="dynamic_batching { priority_levels: 3 }",
    good="dynamic_batching { priority_levels: 3, default_priority_level: 2 }",
)


def default_priority_level(subject: Subject) -> Iterator[Hit]:
    """Only where there are priorities: alone the field is not looked at."""
    batching = subject.config.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield Hit(
            f"default_priority_level is {default}, the levels are 1 to {levels}"
            if default
            else f"priority_levels is {levels} and default_priority_level is not there",
            f"write default_priority_level: 1 to {levels}",
            (_AT, "default_priority_level" if default else "priority_levels"),
        )


POLICY = Rule(
    id="priority-queue-policy",
    severity="error",
    title="a queue policy for a priority that does not exist",
    reason='"priority queue policy must have priority level in range [1, levels]".',
    fix="Take the entry out, or raise priority_levels.",
    bad="dynamic_batching { priority_levels: 2, default_priority_level: 1\n"
    "  priority_queue_policy { key: 3, value { max_queue_size: 8 } } }",
    good="dynamic_batching { priority_levels: 2, default_priority_level: 1\n"
    "  priority_queue_policy { key: 2, value { max_queue_size: 8 } } }",
)


def priority_queue_policy(subject: Subject) -> Iterator[Hit]:
    """The keys are levels."""
    batching = subject.config.dynamic_batching
    levels = batching.priority_levels
    for key in sorted(batching.priority_queue_policy):
        if levels and not 1 <= key <= levels:
            yield Hit(
                f"a queue policy for priority {key}, the levels are 1 to {levels}",
                "take the entry out, or raise priority_levels",
                (_AT, "priority_queue_policy", key),
            )


ORDER = Rule(
    id="preserve-ordering",
    severity="error",
    title="preserve_ordering with priorities, or with delayed requests",
    reason='Answers in the order of the requests leave no place for requests that overtake or fall behind: "Only one '
    "priority level is allowed when 'preserve_ordering' is true\", \"Queue policy can not have DELAY as timeout action "
    "when 'preserve_ordering' is true\".",
    fix="Take `preserve_ordering` out, or the priorities, or write timeout_action: REJECT.",
    bad="dynamic_batching { preserve_ordering: true, priority_levels: 2, default_priority_level: 1 }",
    good="dynamic_batching { priority_levels: 2, default_priority_level: 1 }",
)


def preserve_ordering(subject: Subject) -> Iterator[Hit]:
    """Against levels, the default policy and each level's policy."""
    batching = subject.config.dynamic_batching
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        yield Hit(
            f"preserve_ordering with {batching.priority_levels} priority levels",
            "take one of both out",
            (_AT, "preserve_ordering"),
        )
    policies: list[tuple[Any, KeyPath]] = [(batching.default_queue_policy, (_AT, "default_queue_policy"))]
    keyed = batching.priority_queue_policy
    policies += [(keyed[key], (_AT, "priority_queue_policy", key)) for key in sorted(keyed)]
    for policy, path in policies:
        if policy.default_timeout_microseconds and enum_name(policy, "timeout_action") == "DELAY":
            yield Hit(
                "preserve_ordering with a timeout whose action is DELAY",
                "write timeout_action: REJECT, or take preserve_ordering out",
                (*path, "timeout_action"),
            )


RULES: tuple[ConfigRule, ...] = (
    (PREFERRED, preferred_batch_size),
    (DEFAULT, default_priority_level),
    (POLICY, priority_queue_policy),
    (ORDER, preserve_ordering),
)
