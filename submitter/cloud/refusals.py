"""What a registry refuses a push with, as errors that name the missing right or the next command."""

from __future__ import annotations

import re
from collections.abc import Callable

from jobspec.errors import AccessError, FoldfleetError, TryLaterError
from submitter.cloud.errors import TOLD_ACTION, missing_right
from submitter.cloud.registry import no_repository
from submitter.cloud.stack import Stack

_AGAIN = "Type the same command again; layers that have arrived are not sent twice."


class ExpiredLoginError(AccessError):
    """The login to the registry has ended while layers were being sent."""


class TagTakenError(TryLaterError):
    """The registry has the tag already, and its tags do not move."""


def explain_push(words: str, stack: Stack) -> FoldfleetError:
    """Return the error for the words with which the Docker engine ended a push."""
    words = " ".join(words.split())
    for pattern, make in _TABLE:
        if re.search(pattern, words, flags=re.IGNORECASE):
            return make(words, stack)
    return TryLaterError(
        f"The image could not be pushed to {stack.repository_uri}: {words}. Check the network and the proxy of the "
        f"Docker engine. {_AGAIN}"
    )


def _missing_right(words: str, stack: Stack) -> AccessError:
    told = TOLD_ACTION.search(words)
    action = told["action"] if told else "ecr:PutImage"
    resource = ((told["resource"] if told else None) or stack.repository_uri).rstrip(".,")
    return missing_right(action, resource, f"Pushing to {stack.repository_uri}")


def _expired(words: str, _: Stack) -> ExpiredLoginError:
    return ExpiredLoginError(
        f"The AWS credentials have expired while the image was being pushed ({words}). Get new ones (for example "
        f"'aws sso login', or export them again). {_AGAIN}"
    )


def _taken(words: str, _: Stack) -> TagTakenError:
    return TagTakenError(f"The registry has this image under its tag already ({words}). {_AGAIN}")


def _gone(_: str, stack: Stack) -> FoldfleetError:
    return no_repository(stack)


def _full(_: str, __: Stack) -> TryLaterError:
    return TryLaterError(
        "The disk of the Docker engine is full: it packs each layer before it sends it. `docker system df` shows what "
        f"is on it and `docker image prune` removes what no tag names. {_AGAIN}"
    )


def _denied(words: str, stack: Stack) -> AccessError:
    return AccessError(
        f"The registry {stack.repository_uri} does not let these credentials push: {words}. Allow "
        "ecr:GetAuthorizationToken, ecr:BatchCheckLayerAvailability, ecr:InitiateLayerUpload, ecr:UploadLayerPart, "
        f"ecr:CompleteLayerUpload and ecr:PutImage (the stack's policy for submitters has them). {_AGAIN}"
    )


def _unnamed(_: str, __: Stack) -> TryLaterError:
    return TryLaterError(f"Another process removed the image's name while it was being pushed. {_AGAIN}")


_TABLE: tuple[tuple[str, Callable[[str, Stack], FoldfleetError]], ...] = (
    (TOLD_ACTION.pattern, _missing_right),
    (r"token has expired|ExpiredToken", _expired),
    (r"already exists.*immutable", _taken),
    (r"name unknown|repository .*does not exist", _gone),
    (r"no space left on device", _full),
    (r"does not exist locally", _unnamed),
    (r"no basic auth|unauthorized|denied|forbidden", _denied),
)
"""The first match counts: a denial that names its action before denials in general."""
