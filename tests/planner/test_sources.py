"""Specs and data that nobody at a desk has named: what is read, letter by letter, and what is refused, and how."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from jobspec.errors import SpecError
from jobspec.grammar.load import parse
from jobspec.grammar.splice import replace_data_path
from jobspec.grammar.yamlfile import MAX_BYTES
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.cloud.record import save_record
from submitter.machines.messages import Ask, Order, Site, Upload
from submitter.machines.places import MOST_SHOWN, data_places, shown, spec_places
from submitter.planner.planner import make_order
from submitter.planner.sources import read_source
from tests.planner.desk import MACHINE, NOW, STORE, make_site
from tests.unit.fakebatch import make_record

ODD_KEYS = [
    "plain.yaml",
    "with spaces and  two.yaml",
    "a+b.yaml",
    "a%2Fb.yaml",
    "a%20b+c d.yaml",
    "ümläut-日本語-😀.yaml",
    "quote'\"`$(x);{y}.yaml",
    "tab\tand\x7f.yaml",
    "deep//double/.//x.yaml",
    "..hidden..yaml",
    "%2e%2e/x.yaml",
    "#frag?query=1&b=2.yaml",
    "back\\slash.yaml",
]

SPEC = """\
name: odd
data: {builtin: iris}
cv: 3
candidates: [{estimator: sklearn.svm.SVC}]
"""

TEMPLATE = b"""\
# Every night.
name: nightly   # the run's name
data:
  target: kind  # what is predicted
  path: 's3://fleet/nightly/old.csv'   # yesterday's
cv: 3
candidates: [{estimator: sklearn.svm.SVC}]
"""


class Bucket:
    """The bucket of a stack in moto, and what its machine asks of the planner."""

    def __init__(self, url: str, client: Any) -> None:
        self.store: Store = open_store(f"{url}/foldfleet")
        self.name, _, self.base = url.removeprefix("s3://").partition("/")
        self.client = client
        incoming, nightly = f"{self.base}/incoming/", f"{self.base}/nightly/"
        places = f"arn:aws:s3:::{self.name}/{incoming}*"
        self.site: Site = make_site(
            bucket=self.name, store=self.store.url, spec_prefix=incoming, data_prefix=nightly, data_places=places
        )
        save_record(self.store, make_record())

    def put(self, key: str, body: bytes) -> str:
        """Write an object, and return the tag that an event tells of it."""
        return str(self.client.put_object(Bucket=self.name, Key=key, Body=body)["ETag"]).strip('"')

    def upload(self, key: str, body: bytes, kind: Any = "spec") -> Upload:
        return Upload(kind=kind, bucket=self.name, key=key, etag=self.put(key, body), size=len(body))

    def ask(self, **given: Any) -> Order:
        ask = Ask(execution=f"{MACHINE.replace('stateMachine', 'execution')}:e1", **given)
        return make_order(self.site, ask, "t-p1", self.store, lambda: NOW)


@pytest.fixture
def bucket(moto_url: str, moto_s3: Any) -> Bucket:
    return Bucket(moto_url, moto_s3.client())


def refused(order: Order, code: int, *words: str) -> None:
    assert order.error is not None, order
    assert (order.next, order.error.exit) == ("refuse", code)
    assert [word for word in words if word not in order.error.message] == []
    assert "\n" not in order.error.message or "problems" in order.error.message
    assert len(order.model_dump_json()) < 100_000


@pytest.mark.parametrize("name", ODD_KEYS)
def test_an_uploaded_spec_is_that_very_object(bucket: Bucket, name: str) -> None:
    body = SPEC.encode() + f"# {name!r}\n".encode()
    for decoy in {name.replace("%2F", "/"), name.replace("+", " "), name.replace("%20", " ")} - {name}:
        bucket.put(bucket.site.spec_prefix + decoy, b"name: decoy\n")
    order = bucket.ask(upload=bucket.upload(bucket.site.spec_prefix + name, body))
    assert order.next == "prepare"
    assert order.prepare is not None
    # Prepare reads a copy: its own key is plain, no later upload changes it, and it is no older than its reader.
    assert order.prepare.spec == f"{bucket.store.url}/{Layout.upload(order.prepare.token, 'spec.yaml')}"
    assert bucket.store.get(order.prepare.spec.removeprefix(f"{bucket.store.url}/")) == body


@pytest.mark.parametrize("name", ODD_KEYS)
def test_uploaded_data_take_the_place_of_the_template_s(bucket: Bucket, name: str) -> None:
    bucket.store.put(Layout.template("letters"), TEMPLATE)
    key = f"{bucket.site.data_prefix}letters/{name}.csv"
    order = bucket.ask(upload=bucket.upload(key, b"a,kind\n1,x\n", "data"))
    assert order.prepare is not None, order
    text = bucket.store.get(order.prepare.spec.removeprefix(f"{bucket.store.url}/"))
    assert parse(text, "x").spec.data.path == f"s3://{bucket.name}/{key}"
    before, behind = TEMPLATE.split(b"'s3://fleet/nightly/old.csv'")
    assert text.startswith(before)
    assert text.endswith(behind)


@pytest.mark.parametrize("climb", ["../x.yaml", "a/../../foldfleet/runs/r/spec.yaml", ".."])
def test_keys_that_climb_are_refused(bucket: Bucket, climb: str) -> None:
    upload = Upload(kind="spec", bucket=bucket.name, key=bucket.site.spec_prefix + climb)
    refused(bucket.ask(upload=upload), 4, "incoming")


def test_a_foreign_bucket_or_another_prefix_is_refused(bucket: Bucket) -> None:
    for changes in ({"bucket": "elsewhere"}, {"key": "other/x.yaml"}, {"kind": "data"}):
        usual = {"kind": "spec", "bucket": bucket.name, "key": bucket.site.spec_prefix + "x.yaml"}
        upload: dict[str, Any] = usual | changes
        refused(bucket.ask(upload=Upload(**upload)), 2, "watches")


def test_an_upload_that_was_replaced_is_left_to_its_successor(bucket: Bucket) -> None:
    key = bucket.site.spec_prefix + "x.yaml"
    first = bucket.upload(key, SPEC.encode())
    second = bucket.upload(key, SPEC.encode() + b"# anew\n")
    order = bucket.ask(upload=first)
    assert (order.next, order.summary) == ("done", None)
    assert "superseded" in order.message
    assert bucket.ask(upload=second).next == "prepare"
    bucket.store.put(Layout.template("letters"), TEMPLATE)
    key = bucket.site.data_prefix + "letters/x.csv"
    first = bucket.upload(key, b"1", "data")
    assert bucket.ask(upload=bucket.upload(key, b"2", "data")).next == "prepare"
    assert "superseded" in bucket.ask(upload=first).message


def test_an_upload_that_is_gone_is_told(bucket: Bucket) -> None:
    for kind, prefix in (("spec", bucket.site.spec_prefix), ("data", bucket.site.data_prefix + "letters/")):
        upload = bucket.upload(prefix + "x.yaml", b"1", kind)
        bucket.client.delete_object(Bucket=bucket.name, Key=upload.key)
        refused(bucket.ask(upload=upload), 5, "Upload it again")


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [
        ("x.csv", 2, "NAME/FILE"),
        ("/x.csv", 2, "NAME/FILE"),
        ("no template/x.csv", 2, "NAME/FILE"),
        ("%2e%2e/x.csv", 2, "NAME/FILE"),
        ("unknown/x.csv", 5, "submit events template unknown SPEC"),
    ],
)
def test_data_without_a_template_are_refused(bucket: Bucket, key: str, code: int, words: str) -> None:
    refused(bucket.ask(upload=bucket.upload(bucket.site.data_prefix + key, b"1", "data")), code, words)


def test_a_template_without_a_path_is_refused(bucket: Bucket) -> None:
    bucket.store.put(Layout.template("letters"), SPEC.encode())
    order = bucket.ask(upload=bucket.upload(bucket.site.data_prefix + "letters/x.csv", b"1", "data"))
    refused(order, 2, "no `path` of its own")


def data(path: str) -> bytes:
    return SPEC.replace("{builtin: iris}", f"{{path: {json.dumps(path)}, target: t}}").encode()


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/etc/passwd", 2, "can name no file"),
        ("table.csv", 2, "can name no file"),
        ("file:///etc/passwd", 2, "can name no file"),
        ("http://169.254.169.254/latest/meta-data/", 2, "can name no file"),
        ("S3://BUCKET/incoming/x.csv", 2, "can name no file"),
        ("s3://elsewhere/x.csv", 4, "--data s3://"),
        ("s3://BUCKET/INCOMINGx/../secret.csv", 4, "a key without it"),
        ("s3://BUCKET/BASE/foldfleet/runs/r-1/views/cv_results.csv", 4, "--data s3://"),
        ("s3://BUCKET/BASE/foldfleet/images/e-1.json", 4, "--data s3://"),
        ("s3://BUCKET/BASE/foldfleet/templates/x.yaml", 4, "--data s3://"),
        ("s3://BUCKET/BASE/other/x.csv", 4, "--data s3://"),
        ("s3://BUCKET/BASE/INCOMING/x.csv", 4, "--data s3://"),
        ("s3://169.254.169.254/BASE/incoming/x.csv", 4, "--data s3://"),
    ],
)
def test_data_outside_of_the_listed_places_are_refused(bucket: Bucket, path: str, code: int, words: str) -> None:
    path = path.replace("BUCKET", bucket.name).replace("BASE", bucket.base)
    for given in (
        {"upload": bucket.upload(bucket.site.spec_prefix + "x.yaml", data(path))},
        {"spec": kept(bucket, data(path))},
    ):
        refused(bucket.ask(**given), code, words)


def test_the_store_stays_closed_whatever_the_places_say(bucket: Bucket) -> None:
    bucket.site = bucket.site.model_copy(update={"data_places": f"arn:aws:s3:::{bucket.name}/*"})
    spec = kept(bucket, data(f"{bucket.store.url}/runs/r-1/views/cv_results.csv"))
    refused(bucket.ask(spec=spec), 4, "--data s3://")
    refused(bucket.ask(spec=kept(bucket, data(f"{bucket.store.url}/uploads/x/t.csv"))), 4, "--data s3://")
    refused(bucket.ask(spec=f"{bucket.store.url}/uploads/x/spec.yaml"), 4, "The spec is")
    assert bucket.ask(spec=kept(bucket, data(f"s3://{bucket.name}/{bucket.base}/any.csv"))).next == "prepare"


def kept(bucket: Bucket, text: bytes) -> str:
    """Return the URL of a spec that lies where schedules keep theirs."""
    key = Layout.scheduled(hashlib.sha256(text).hexdigest())
    bucket.store.create(key, text)
    return f"{bucket.store.url}/{key}"


def test_a_spec_elsewhere_is_refused(bucket: Bucket) -> None:
    for url in ("s3://elsewhere/x.yaml", f"{bucket.store.url}/runs/r-1/spec.yaml", f"s3://{bucket.name}/x.yaml", "x"):
        refused(bucket.ask(spec=url), 4, "The spec is")
    refused(bucket.ask(spec=f"{bucket.store.url}/{Layout.scheduled('0')}"), 5, "There is no object")
    refused(bucket.ask(spec=f"{bucket.store.url}/{Layout.templates()}"), 2, "names no object")
    refused(bucket.ask(), 2, "was given no spec")


def test_the_spec_within_an_input_is_read_by_its_own_execution_alone(bucket: Bucket) -> None:
    keys = {}
    for name in ("e1", "e2"):
        execution = f"{MACHINE.replace('stateMachine', 'execution')}:{name}"
        keys[name] = Layout.given_spec(hashlib.sha256(execution.encode()).hexdigest())
        bucket.store.create(keys[name], json.dumps(SPEC).encode())
    assert bucket.ask(spec=f"{bucket.store.url}/{keys['e1']}").next == "prepare"
    refused(bucket.ask(spec=f"{bucket.store.url}/{keys['e2']}"), 4, "The spec is")


@pytest.mark.parametrize("text", [SPEC, SPEC.replace("odd", "ödd")])
def test_a_text_within_the_input_is_read_through_its_quotation_marks(bucket: Bucket, text: str) -> None:
    """Step Functions writes a text as JSON does; an object in the input is YAML as it is."""
    ask = Ask(execution="e", spec=kept(bucket, json.dumps(text).encode()))
    if "ö" in text:
        refused(bucket.ask(spec=ask.spec), 2, "Write `name:")
    else:
        assert read_source(bucket.site, ask, bucket.store).text == text.encode()
    as_object = json.dumps({"name": "odd", "data": {"builtin": "iris"}, "candidates": [{"estimator": "x"}]})
    refused(bucket.ask(spec=kept(bucket, as_object.encode())), 2, ".yaml:1:")


HOSTILE: dict[str, tuple[bytes | str, str]] = {
    "duplicate key": (b"name: a\nname: b\n", "line 1 and line 2"),
    "unknown key": (SPEC.encode() + b"candidatess: 1\n", "candidates"),
    "tab": (SPEC.encode() + b"\tx: 1\n", "a tab"),
    "conflict": (b"<<<<<<< HEAD\n" + SPEC.encode(), "merge-conflict"),
    "not yaml": (b"{]", "not YAML"),
    "empty": (b"", "empty"),
    "a list": (b"- 1\n", "mapping"),
    "os.system": (SPEC.replace("sklearn.svm.SVC", "os.system").encode(), "os.system"),
    "reaching": (SPEC.replace("sklearn.svm.SVC", "sklearn._config.os.system").encode(), "sklearn._config"),
    "memory": (
        SPEC.replace("[{estimator: sklearn.svm.SVC}]", "[{pipeline: [{a: sklearn.svm.SVC}], memory: /x}]"),
        "memory",
    ),
    "n_jobs": (SPEC.replace("SVC}", "SVC, params: {n_jobs: 4}}"), "n_jobs"),
    "fetcher": (SPEC.replace("iris", "fetch_openml"), "fetch_openml"),
    "too long": (SPEC.encode() + b"#" * (5 << 20), "a spec may hold"),
    "brackets": (b"[" * 100_000, "levels deep"),
    "alias bomb": (
        b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (i, i, b",".join([b"*%c" % (i - 1)] * 9)) for i in range(98, 110)),
        "more than",
    ),
    "tag": (b"name: !!python/object/apply:os.system [id]\n", "tag"),
    "latin-1": ("name: ü".encode("latin-1"), "UTF-8"),
    "utf-16": ("name: x".encode("utf-16"), "UTF-8"),
    "binary": (bytes(range(256)), "UTF-8"),
    "climbing name": (SPEC.replace("odd", "../../x"), "allowed are letters"),
    "long name": (SPEC.replace("odd", "x" * 300), "300 characters"),
    "native": (SPEC + "numerics: native\n", "portable"),
    "allowed modules": (SPEC + "allowed_modules: [os]\n", "allowed_modules"),
    "image": (SPEC + "image: mine\n", "image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_specs_are_refused_with_a_place(bucket: Bucket, name: str) -> None:
    body, words = HOSTILE[name]
    upload = bucket.upload(bucket.site.spec_prefix + "x.yaml", body if isinstance(body, bytes) else body.encode())
    order = bucket.ask(upload=upload)
    refused(order, 2, words)
    assert bucket.store.folders("uploads/") == []  # nothing of it is kept, nothing is started


def test_no_more_is_read_than_a_spec_may_have(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobspec.stores.s3ranges import S3Ranges

    asked: list[int] = []
    read_into = S3Ranges.read_into

    def counting(self: S3Ranges, offset: int, target: memoryview) -> None:
        asked.append(len(target))
        read_into(self, offset, target)

    monkeypatch.setattr(S3Ranges, "read_into", counting)
    refused(bucket.ask(upload=bucket.upload(bucket.site.spec_prefix + "x.yaml", b"#" * (5 << 20))), 2, "may hold")
    assert asked == [MAX_BYTES + 1]


def test_places_are_matched_as_policies_match_them() -> None:
    site = make_site(data_places="arn:aws:s3:::a-b/x/*, arn:aws:s3:::other/t?b/[1]*.csv,arn:aws-cn:s3:::cn/*")
    allowed = [
        "a-b/x/y",
        "a-b/x/y/z q+%2F\n.csv",
        "other/tab/[1].csv",
        "cn/x",
        "fleet/nightly/x",
        "fleet/incoming/x",  # beside the specs
    ]
    refused = [
        "a-b/x",
        "a-b/xy",
        "A-B/x/y",
        "other/tab/1.csv",
        "other/tb/[1].csv",
        "a-b/x/../y",
        "aXb/x/y",
        "fleet/foldfleet/templates/x.yaml",
        "fleet/foldfleet/uploads/x",
    ]
    places = data_places(site)
    assert [url for url in allowed if not places.allows(f"s3://{url}")] == []
    assert [url for url in refused if places.allows(f"s3://{url}")] == []
    for url in ("s3://fleet/incoming/x", f"{STORE}/templates/x.yaml", f"{STORE}/{Layout.scheduled('0')}"):
        assert spec_places(site).allows(url)
    assert not data_places(make_site(data_places="", data_prefix="", spec_prefix="")).allows("s3://fleet/incoming/x")


def test_odd_urls_are_shown_in_one_short_line() -> None:
    assert shown("s3://b/plain ü") == "s3://b/plain ü"
    assert shown("s3://b/a\nb") == "s3://b/a\\nb"
    assert len(shown("s3://b/" + "x" * 2000)) < MOST_SHOWN + 10


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("data: {path: x, target: t}", 'data: {path: "NEW", target: t}'),
        (
            "\ufeffdata:\r\n  path: &p x # c\r\n  target: *p\r\n",
            '\ufeffdata:\r\n  path: &p "NEW" # c\r\n  target: *p\r\n',
        ),
        ("data:\n  path: >-\n    s3://a/b\n  target: t\n", 'data:\n  path: "NEW"\n  target: t\n'),
        ("a: {path: 1}\ndata:\n  cv: {path: 2}\n  path: 3\n", 'a: {path: 1}\ndata:\n  cv: {path: 2}\n  path: "NEW"\n'),
        ('{"data": {"path": "x"}, "cv": 5}', '{"data": {"path": "NEW"}, "cv": 5}'),
        ("name: &n foo\ndata:\n  path: *n\nx: 1\n", 'name: &n foo\ndata:\n  path: "NEW"\nx: 1\n'),
    ],
)
def test_only_the_path_is_written_anew(text: str, made: str) -> None:
    assert replace_data_path(text.encode(), "t", "NEW").decode() == made


@pytest.mark.parametrize(
    "text",
    [
        "- data: {path: x}\n",
        "x\n",
        "data: x\n",
        "data: {path: [x]}\n",
        "data: {path: , target: y}\n",
        "data:\n  path:\n  target: y\n",
        "d: &d {path: x}\ndata: *d\n",
        "k: &k path\ndata: {*k : x}\n",
    ],
)
def test_a_template_without_a_path_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="no `path` of its own"):
        replace_data_path(text.encode(), "t", "NEW")


@pytest.mark.parametrize("value", [*ODD_KEYS, "line\nbreak\r\u2028\u0085\ufeff \U0001f600", " : # - {}[],&*!|>'\"%@` "])
def test_any_key_is_read_again_letter_by_letter(value: str) -> None:
    url = f"s3://bucket/{value}"
    assert parse(replace_data_path(TEMPLATE, "t", url), "t").spec.data.path == url
