"""Template specs: what is searched when data arrive, kept in the store by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jobspec.errors import SpecError, UsageError
from jobspec.grammar.load import LoadedSpec
from jobspec.grammar.splice import replace_data_path
from jobspec.names import MAX_NAME, is_plain_name
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.cloud.stack import Stack


@dataclass(frozen=True)
class Template:
    """A template spec; ``watched`` is the URL below which an upload starts it, None where nothing is watched."""

    name: str
    url: str
    watched: str | None
    written: float
    """In seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


def check_template(name: str, loaded: LoadedSpec) -> None:
    """Refuse a spec that no upload of data could start.

    Raises:
        UsageError: the name cannot be that of a folder.
        SpecError: the spec names no data that an upload could take the place of.
    """
    if not is_plain_name(name):
        raise UsageError(
            f"The template's name {name!r} cannot be used: it is the folder below which data are uploaded, and must "
            f"begin with a letter or a digit and hold up to {MAX_NAME} letters, digits, '-' and '_', such as 'letters'."
        )
    if loaded.spec.data.path is None:
        raise SpecError(
            f"{loaded.locations.of(('data',))}: a template needs `data: {{path: ...}}`: the data that are uploaded "
            "take the place of that path. scikit-learn's built-in sets never change."
        )
    replace_data_path(loaded.text, str(loaded.path or name), f"s3://bucket/{name}/data.csv")


def save_template(store: Store, stack: Stack, name: str, loaded: LoadedSpec, now: float) -> Template:
    """Keep a spec as the template of this name, in place of an earlier one.

    Raises:
        FoldfleetError: as `check_template`.
    """
    check_template(name, loaded)
    key = Layout.template(name)
    store.put(key, loaded.text)
    return Template(name, f"{store.url}/{key}", watched_url(stack, name), now)


def list_templates(store: Store, stack: Stack) -> list[Template]:
    """Return the templates of a stack by name; costs a listing."""
    found = ((Layout.template_name(entry.key), entry) for entry in store.entries(Layout.templates()))
    return sorted(
        (
            Template(name, f"{store.url}/{entry.key}", watched_url(stack, name), entry.written)
            for name, entry in found
            if name is not None
        ),
        key=lambda template: template.name,
    )


def watched_url(stack: Stack, name: str) -> str | None:
    """Return where data must be uploaded to start a template, None where no such place is watched."""
    if not (stack.events and stack.data_prefix):
        return None
    return f"s3://{stack.bucket_name}/{stack.data_prefix}{name}/"
