"""Why a request was never started, decoded by the machine itself: where the queue is stuck, no container can say it."""

from __future__ import annotations

from typing import Final

from submitter.backends.aws.reasons import decode
from submitter.machines.closing import failure
from submitter.machines.states import State, choice, uncaused, when

SIGNS: Final = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
    "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED",
    "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS",
    "ACTION_REQUIRED",
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
    "UNDETERMINED",
    "CannotPull",
    "Canceled by JobStateTimeLimit action",
)
"""What AWS Batch says of requests that do not start. The queue's own words come last, since they quote the others."""


def decoding(default: str, end: str) -> dict[str, State]:
    """Return the states that look for such words in ``$.error.Cause`` and put what they mean into ``$.end``.

    Args:
        default: where it leads if there are none.
        end: where it leads if there are.
    """
    states = {"Uncaused": uncaused("$.error", "Explain")}
    for number, sign in enumerate(SIGNS):
        states[f"Stuck{number}"] = {
            "Type": "Pass",
            "Result": failure("Stuck", explain(sign)),
            "ResultPath": "$.end",
            "Next": end,
        }
    rules = (when("$.error.Cause", "StringMatches", f"*{sign}*", f"Stuck{i}") for i, sign in enumerate(SIGNS))
    nothing_said = when("$.error.Cause", "IsPresent", False, "Uncaused")
    return {"Explain": choice(nothing_said, *rules, default=default), **states}


def explain(sign: str) -> str:
    """Return what such words mean, as the desk says it, and what helps."""
    reason = decode(sign)
    if reason is None:
        raise ValueError(sign)
    return f"A step was not started: {reason.text}. {reason.remedy.replace('{run}', 'RUN')}"
