"""Load a spec: bytes to a frozen, fully checked `Spec`, with the place of everything in the file.

Importing this module imports neither numpy nor scikit-learn nor the YAML parser, and loading a spec
imports nothing that the spec names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobspec import settings
from jobspec.errors import DataError, SpecError
from jobspec.grammar.convert import Converter
from jobspec.grammar.document import SpecDocument, check_document
from jobspec.grammar.problems import Problem, Problems, kind_of, shorten
from jobspec.grammar.resolve import Resolver
from jobspec.grammar.scoring_forms import convert_cv, convert_refit, convert_scoring
from jobspec.grammar.spaces import convert_entry
from jobspec.grammar.spec import CandidateEntry, Spec
from jobspec.grammar.yamlfile import MAX_BYTES, Locations, read_yaml, to_plain
from jobspec.names import MAX_NAME, closest, is_plain_name
from jobspec.stores.objects import is_object_url, open_object


@dataclass(frozen=True)
class LoadedSpec:
    """A spec with where it came from; relative paths in it start at ``folder``."""

    spec: Spec
    path: Path | None
    folder: Path
    text: bytes
    locations: Locations


def load(path: Path) -> LoadedSpec:
    """Read and check the spec in a file.

    Raises:
        SpecError: the file cannot be read, or something in it cannot be run as it is written.
        UsageError: the user's own configuration file is wrong.
    """
    return parse(_read(path), str(path), path=path)


def load_object(url: str) -> LoadedSpec:
    """Read and check the spec in an object of S3, which can name no file: nobody knows on which machine.

    Raises:
        SpecError: as `load`; or its data are a file.
        NotFoundError: there is no such bucket.
    """
    loaded = parse(_read_object(url), url)
    check_no_file(loaded, "a spec that is read from S3")
    return loaded


def check_no_file(loaded: LoadedSpec, what: str) -> None:
    """Refuse data that are a file where nobody knows on which machine; ``what`` is refused, as in "a spec from S3".

    Raises:
        SpecError: they are.
    """
    path = loaded.spec.data.path
    if path is not None and not is_object_url(path):
        raise SpecError(
            f"{loaded.locations.of(('data', 'path'))}: `path` is {shorten(path)}, but {what} can name no file, only "
            "objects. Upload the data (`aws s3 cp FILE s3://BUCKET/FOLDER/`) and write `path: "
            "s3://BUCKET/FOLDER/FILE`, or run the spec on the machine that has the file: `submit run SPEC`."
        )


def parse(text: bytes, name: str, *, path: Path | None = None, allowed: Iterable[str] = ()) -> LoadedSpec:
    """Check a spec given as bytes; ``name`` is what messages call the file.

    Args:
        text: the YAML.
        name: for messages.
        path: where relative paths begin; None for a text without a place.
        allowed: modules that may be named beside those of the user's settings. A stored run has been checked when it
            was submitted, and looking at it runs nothing; whoever builds an estimator checks once more.

    Raises:
        SpecError: as `load`.
    """
    locations = read_yaml(text, name)
    given = to_plain(locations.root)
    problems = Problems(locations)
    if not isinstance(given, dict):
        problems.add(Problem((), f"a spec is a mapping, but the file holds {kind_of(given)}; {_BEGIN}"))
        problems.raise_any()
    spec = _convert(given, problems, (*settings.allowed_modules(), *allowed))
    problems.raise_any()
    if spec is None:
        raise SpecError(f"{name}: the spec cannot be read.")
    folder = path.parent if path is not None else Path()
    return LoadedSpec(spec, path, folder, text, locations)


_BEGIN = "begin with `name: my-run`. `submit init` writes an example."


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        beside = [item.name for item in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise SpecError(
            f"There is no spec {path}.{closest(path.name, beside)} `submit init` writes one to begin with."
        ) from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder; name the spec file in it.") from None
    except OSError as error:
        raise SpecError(f"The spec {path} cannot be read: {error.strerror}.") from None


def _read_object(url: str) -> bytes:
    try:
        store, key = open_object(url)
    except DataError:
        raise SpecError(f"The spec {url!r} names no object. Name one: `--spec s3://BUCKET/FOLDER/SPEC.yaml`.") from None
    size = store.size(key)
    if size is None:
        raise SpecError(f"There is no spec {url}. Check the URL; keys are taken letter by letter.")
    return store.get_range(key, 0, min(size, MAX_BYTES + 1))


def _convert(given: dict[Any, Any], problems: Problems, allowed: tuple[str, ...]) -> Spec | None:
    """Check all parts, so that one run tells several problems; None if there were any."""
    named = {key: value for key, value in given.items() if isinstance(key, str)}
    for key in given.keys() - named.keys():
        problems.add(Problem((key,), f"{kind_of(key)} is no key of a spec; keys are names.", at_key=True))
    document = check_document(named, problems)
    converter = Converter(Resolver(allowed))
    search = named.get("search")
    random = isinstance(search, dict) and search.get("kind") == "random"
    entries: tuple[CandidateEntry, ...] = ()
    if "candidates" in named:  # else `check_document` has told it
        entries = _convert_entries(named["candidates"], converter, problems, random=random)
    cv: Any = None
    scoring: Any = None
    refit: bool | str = False
    with problems.collect():
        cv = convert_cv(named.get("cv", 5), document.data if document else None, converter)
    with problems.collect():
        scoring = convert_scoring(named.get("scoring"), converter)
        refit = convert_refit(document.refit if document else False, scoring)
    with problems.collect():
        check_name(named.get("name"))
    if document is None or problems.any:
        return None
    return _assemble(document, cv, entries, scoring, refit)


def _convert_entries(
    given: Any, converter: Converter, problems: Problems, *, random: bool
) -> tuple[CandidateEntry, ...]:
    path = ("candidates",)
    if not isinstance(given, list) or not given:
        example = "`- estimator: sklearn.svm.SVC`"
        problems.add(Problem(path, f"`candidates` is {kind_of(given)}; write a list of at least one, as {example}."))
        return ()
    entries = [
        convert_entry(item, (*path, index), converter, problems, random=random) for index, item in enumerate(given)
    ]
    return tuple(entry for entry in entries if entry is not None)


def check_name(name: Any) -> None:
    """Refuse a run name that could not be part of a path, a URL and an AWS Batch name.

    Raises:
        Problem: what is allowed, with a name made from the given one.
    """
    if not isinstance(name, str) or is_plain_name(name):
        return
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:MAX_NAME] or "my-run"
    raise Problem(
        ("name",),
        f"`name` is {shorten(name)} ({len(name)} characters); allowed are letters, digits, `-` and `_`, "
        f"at most {MAX_NAME}, beginning with a letter or digit. Write `name: {plain}`.",
    )


def _assemble(
    document: SpecDocument, cv: Any, entries: tuple[CandidateEntry, ...], scoring: Any, refit: bool | str
) -> Spec:
    return Spec(
        format=document.format,
        name=document.name,
        data=document.data,
        cv=cv,
        candidates=entries,
        search=document.search,
        scoring=scoring,
        refit=refit,
        train_score=document.train_score,
        numerics=document.numerics,
        resources=document.resources,
        limits=document.limits,
    )
