"""Where a spec comes from: an object, a template and the data that arrived for it, or an upload that started it all."""

from __future__ import annotations

import json
from dataclasses import dataclass

from jobspec.errors import DataError, FoldfleetError, NotFoundError, SpecError
from jobspec.grammar.load import LoadedSpec, check_no_file, parse
from jobspec.grammar.splice import replace_data_path
from jobspec.grammar.yamlfile import MAX_BYTES
from jobspec.names import is_plain_name
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.objects import open_object
from submitter.backends.stepfunctions.request import answers_of
from submitter.machines.messages import Ask, Site, Upload
from submitter.machines.places import data_places, shown, spec_places


class SupersededError(FoldfleetError):
    """Another upload has taken this one's place, and starts a run of its own."""


@dataclass(frozen=True)
class _Text:
    """An object as it was read: ``tag`` is that of its version, without quotes."""

    content: bytes
    tag: str


def read_source(site: Site, ask: Ask, store: Store) -> LoadedSpec:
    """Read and check the spec that an execution is about; at most so many bytes as a spec may have.

    Raises:
        SupersededError: the upload was replaced since.
        SpecError: it is no spec that can be run without a desk.
        AccessError: it lies, or its data lie, where nothing may be read.
        NotFoundError: the object is gone, or there is no such template.
    """
    if ask.upload is not None:
        text, name = _read_upload(site, ask.upload, store)
    elif ask.spec is not None:
        is_given = ask.spec == _given_url(ask, store)
        if not is_given:
            spec_places(site).check(ask.spec, "The spec")
        text = _unquoted(_read(ask.spec, "spec").content)
        name = "the spec in the input" if is_given else ask.spec
    else:
        raise SpecError(
            'The execution was given no spec. Start one with {"spec": "s3://BUCKET/KEY"}, {"spec": "<the text of a '
            'spec>"}, or {"run": "<the id of a run>"}.'
        )
    loaded = parse(text, shown(name))
    _check_data(site, loaded)
    return loaded


def keep_text(store: Store, text: bytes, token: str) -> str:
    """Keep a spec's text where the prepare step with this token finds it, whatever becomes of its source.

    Returns:
        Its URL. It is as young as its reader, so that no `submit gc` takes it from under a step that waits for a host.
    """
    store.create(_kept(token), text)
    return kept_url(store, token)


def kept_url(store: Store, token: str) -> str:
    """Return where the text of a spec is kept for a prepare step."""
    return f"{store.url}/{_kept(token)}"


def _kept(token: str) -> str:
    return Layout.upload(token, "spec.yaml")


def _read_upload(site: Site, upload: Upload, store: Store) -> tuple[bytes, str]:
    """Return the text of the spec that an upload stands for, and what messages call it."""
    url = f"s3://{upload.bucket}/{upload.key}"
    prefix = site.spec_prefix if upload.kind == "spec" else site.data_prefix
    if upload.bucket != site.bucket or not prefix or not upload.key.startswith(prefix):
        raise SpecError(
            f"The upload {shown(url)} lies in no place that this stack watches for {upload.kind} files "
            f"({f's3://{site.bucket}/{prefix}' if prefix else 'it watches none'}). `submit events enable` tells how "
            "to watch one."
        )
    if upload.kind == "spec":
        spec_places(site).check(url, "The spec")
        text = _read(url, "upload")
        _check_current(upload, url, text.tag)
        return text.content, url
    data_places(site).check(url, "The upload")
    place, key = open_object(url)
    tag = place.tag(key)
    if tag is None:
        raise _gone(url, "upload")
    _check_current(upload, url, tag.strip('"'))
    return _fill_template(site, upload, url, store)


def _check_current(upload: Upload, url: str, tag: str) -> None:
    """Leave an upload that was replaced to the execution which its successor has started."""
    if upload.etag and upload.etag.strip('"') != tag:
        raise SupersededError(
            f"{shown(url)} was uploaded anew since, superseded by an upload that starts a run itself."
        )


def _fill_template(site: Site, upload: Upload, url: str, store: Store) -> tuple[bytes, str]:
    folder, slash, _ = upload.key.removeprefix(site.data_prefix).partition("/")
    if not slash or not is_plain_name(folder):
        raise SpecError(
            f"The upload {shown(url)} names no template: data are uploaded as "
            f"s3://{site.bucket}/{site.data_prefix}NAME/FILE, where NAME is that of a template (letters, digits, `-` "
            "and `_`), made by `submit events template NAME SPEC`."
        )
    template = f"{store.url}/{Layout.template(folder)}"
    try:
        text = _read(template, "template").content
    except NotFoundError:
        raise NotFoundError(
            f"There is no template {folder!r} for the upload {shown(url)}. `submit events template {folder} SPEC` "
            "makes one; then upload the data again."
        ) from None
    return replace_data_path(text, template, url), template


def _read(url: str, what: str) -> _Text:
    try:
        store, key = open_object(url)
    except DataError:
        raise SpecError(f"The {what} {shown(url)} names no object: write s3://BUCKET/FOLDER/SPEC.yaml.") from None
    try:
        with store.ranges(key) as ranges:
            size = min(ranges.size, MAX_BYTES + 1)  # one more tells that there are too many
            content = bytearray(size)
            if size:
                ranges.read_into(0, memoryview(content))
            return _Text(bytes(content), ranges.tag.strip('"'))
    except NotFoundError:
        raise _gone(url, what) from None


def _given_url(ask: Ask, store: Store) -> str:
    """Return where the machine has put a spec that came within the input of this very execution."""
    return f"{store.url}/{Layout.given_spec(answers_of(ask.execution))}"


def _unquoted(content: bytes) -> bytes:
    """Return the text of a spec that came within an execution's input: Step Functions writes a text as JSON does."""
    if not content.startswith(b'"'):
        return content
    try:
        text = json.loads(content)
    except ValueError:
        return content
    return text.encode(errors="surrogatepass") if isinstance(text, str) else content


def _gone(url: str, what: str) -> NotFoundError:
    return NotFoundError(
        f"There is no object {shown(url)} (any more), which is the {what}. Upload it again; keys are taken letter by "
        "letter."
    )


def _check_data(site: Site, loaded: LoadedSpec) -> None:
    path = loaded.spec.data.path
    if path is None:  # one of scikit-learn's own sets, which the image holds
        return
    check_no_file(loaded, "a spec that is started without a desk")
    data_places(site).check(path, f"{loaded.locations.of(('data', 'path'))}: `path`")
