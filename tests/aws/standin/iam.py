"""IAM's decision: what a principal's policies, its permissions boundary and the resource's own policy say together.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html and, for conditions,
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html.
What is not understood (an operator, NotPrincipal) raises, so that no policy is evaluated half.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ALLOWED = "allowed"
DENIED = "denied"
NOT_ALLOWED = "not allowed"

Document = Mapping[str, Any]
Context = Mapping[str, Sequence[str]]
"""Condition keys in small letters, with their values."""


@dataclass(frozen=True)
class Asked:
    """One right that a request needs."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)


def decide(
    asked: Asked,
    identity: Iterable[Document],
    boundary: Document | None = None,
    resource_policy: Document | None = None,
    principal_arns: Sequence[str] = (),
) -> str:
    """Decide as IAM does within one account: a denial wins, then an allowance of either side counts.

    Args:
        asked: the right.
        identity: the principal's own policies, inline and attached.
        boundary: the most that the identity policies may give.
        resource_policy: of the bucket.
        principal_arns: the names under which the resource's policy may speak of the principal.
    """
    effects = {effect for document in identity for effect in _effects(document, asked)}
    given = set(_effects(resource_policy, asked, principal_arns)) if resource_policy else set()
    bounds = set(_effects(boundary, asked)) if boundary is not None else {"Allow"}
    if "Deny" in effects | given | bounds:
        return DENIED
    return ALLOWED if ("Allow" in effects and "Allow" in bounds) or "Allow" in given else NOT_ALLOWED


def trusts(document: Document, service: str, context: Context) -> bool:
    """Say whether a role's trust policy lets an AWS service take the role on."""
    asked = Asked("sts:AssumeRole", "*", context)
    effects = set()
    for statement in _listed(document["Statement"]):
        if service in _listed(statement.get("Principal", {}).get("Service", [])):
            effects |= set(_effects({"Statement": [{**statement, "Principal": "*", "Resource": "*"}]}, asked, ["*"]))
    return effects == {"Allow"}


def _effects(document: Document, asked: Asked, principal_arns: Sequence[str] | None = None) -> Iterable[str]:
    for statement in _listed(document["Statement"]):
        if principal_arns is not None and not _is_about(statement, principal_arns):
            continue
        if _matches(statement, asked):
            yield statement["Effect"]


def _is_about(statement: Mapping[str, Any], principal_arns: Sequence[str]) -> bool:
    if "NotPrincipal" in statement:
        raise NotImplementedError("NotPrincipal")
    principal = statement["Principal"]
    named = _listed(principal.get("AWS", []) if isinstance(principal, dict) else principal)
    return "*" in named or bool(set(named) & set(principal_arns))


def _matches(statement: Mapping[str, Any], asked: Asked) -> bool:
    action = any(is_like(asked.action.lower(), p.lower()) for p in _listed(_either(statement, "Action")))
    patterns = [substitute(p, asked.context) for p in _listed(_either(statement, "Resource"))]
    resource = any(is_like(asked.resource, pattern) for pattern in patterns)
    return (
        action == ("Action" in statement)
        and resource == ("Resource" in statement)
        and all(
            _holds(operator, key, _listed(wanted), asked.context)
            for operator, block in statement.get("Condition", {}).items()
            for key, wanted in block.items()
        )
    )


def _either(statement: Mapping[str, Any], name: str) -> Any:
    return statement[name] if name in statement else statement[f"Not{name}"]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@functools.lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in text), re.DOTALL)


def is_like(value: str, pattern: str) -> bool:
    """Say whether a value matches a pattern with ``*`` and ``?``."""
    return _pattern(pattern).fullmatch(value) is not None


def substitute(text: str, context: Context) -> str:
    """Put condition keys in the place of ``${aws:PrincipalAccount}`` and its like."""
    return re.sub(r"\$\{([\w:/-]+)\}", lambda found: "".join(context.get(found[1].lower(), ["\0"])), text)


def _is_arn_like(value: str, pattern: str) -> bool:
    """Compare part by part: a wildcard does not reach over the first five colons."""
    left, right = value.split(":", 5), pattern.split(":", 5)
    return len(left) == len(right) and all(is_like(a, b) for a, b in zip(left, right, strict=True))


_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringEqualsIgnoreCase": lambda value, wanted: value.lower() == wanted.lower(),
    "StringLike": is_like,
    "ArnEquals": _is_arn_like,
    "ArnLike": _is_arn_like,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "NumericEquals": lambda value, wanted: float(value) == float(wanted),
    "NumericLessThan": lambda value, wanted: float(value) < float(wanted),
    "NumericLessThanEquals": lambda value, wanted: float(value) <= float(wanted),
    "NumericGreaterThan": lambda value, wanted: float(value) > float(wanted),
    "NumericGreaterThanEquals": lambda value, wanted: float(value) >= float(wanted),
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}


def _holds(operator: str, key: str, wanted: list[Any], context: Context) -> bool:
    texts = [substitute(_text(value), context) for value in wanted]
    values = context.get(key.lower())
    if operator == "Null":
        return (values is None) == (texts[0] == "true")
    quantifier, _, name = operator.rpartition(":")
    if name.endswith("IfExists"):
        if values is None:
            return True
        name = name.removesuffix("IfExists")
    compare = _COMPARE[_NEGATED.get(name, name)]
    if values is None:  # an absent key fails a comparison, and meets its negation
        return name in _NEGATED or quantifier == "ForAllValues"
    hits = [any(compare(value, text) for text in texts) != (name in _NEGATED) for value in values]
    return any(hits) if quantifier == "ForAnyValue" else all(hits)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
