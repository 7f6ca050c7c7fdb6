"""What `submit events enable` asks of the stack: prefixes, topics, ceilings, and the setting of a bucket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobspec.errors import UsageError
from submitter.cloud import template
from submitter.cloud.bucket import Home, other_notices, tells_events, turn_on_notices
from submitter.cloud.clients import Clients
from submitter.cloud.network import Network
from submitter.cloud.wishes import Wishes, make_parameters

TEMPLATE = template.load_template()
STANDARD = template.defaults(TEMPLATE)
HOME = Home("fleet", "aws", is_new=True, has_own_policy=True)
NETWORK = Network("vpc-1", ("subnet-1", "subnet-2"), ("rtb-1",))


def parameters(before: dict[str, str] | None = None, **wishes: Any) -> dict[str, str]:
    return make_parameters(Wishes("foldfleet", **wishes), before or {}, STANDARD, NETWORK, HOME)


def test_events_are_off_unless_they_are_asked_for() -> None:
    made = parameters()
    assert (made["Events"], made["SpecPrefix"], made["DataPrefix"], made["NotifyTopicArn"]) == (
        "no", "incoming/", "", "",
    )  # fmt: skip
    made = parameters(events=True, spec_prefix="in/", data_prefix="nightly/", upload_max_cells=7)
    wanted = {"Events": "yes", "SpecPrefix": "in/", "DataPrefix": "nightly/", "UploadMaxCells": "7"}
    assert made.items() >= wanted.items()
    assert parameters(made).items() >= wanted.items()
    assert parameters(made, events=False, data_prefix="").items() >= {"Events": "no", "DataPrefix": ""}.items()


def test_every_parameter_of_the_template_gets_a_value() -> None:
    assert set(parameters()) == set(TEMPLATE["Parameters"])


def test_places_of_data_are_told_as_buckets_and_keys_too() -> None:
    made = parameters(data=("s3://lake/tables/", "s3://lake/more", "s3://other"))
    assert made["DataBucketArns"] == "arn:aws:s3:::lake,arn:aws:s3:::other"
    assert made["DataKeys"] == "tables/*,more/*,*"
    assert (parameters()["DataBucketArns"], parameters()["DataKeys"]) == ("arn:aws:s3:::fleet", "incoming/*")
    assert parameters(made)["DataKeys"] == made["DataKeys"]


@pytest.mark.parametrize("prefix", ["in", "/in/", "in//x/", "in*/", "in/?/", "../", "in/./", "a b/", "ä/", "${X}/", ""])
def test_prefixes_that_have_another_meaning_somewhere_are_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match=r"--prefix .* cannot be watched"):
        Wishes("foldfleet", spec_prefix=prefix).check(TEMPLATE)
    if prefix:
        with pytest.raises(UsageError, match=r"--data-prefix .* cannot be watched"):
            Wishes("foldfleet", data_prefix=prefix).check(TEMPLATE)


def test_usual_prefixes_are_taken() -> None:
    Wishes("foldfleet", spec_prefix="team-a/v1.2/in_box/", data_prefix="nightly/").check(TEMPLATE)
    Wishes("foldfleet", data_prefix="", notify_topic="").check(TEMPLATE)


@pytest.mark.parametrize(
    ("spec", "data"),
    [
        ("foldfleet/", ""),
        ("foldfleet/specs/", ""),
        ("in/", "in/"),
        ("in/", "in/data/"),
        ("in/specs/", "in/"),
        ("in/", "foldfleet/runs/"),
    ],
)
def test_prefixes_that_lie_in_one_another_or_in_the_store_are_refused(spec: str, data: str) -> None:
    with pytest.raises(UsageError, match="lie in one another"):
        parameters(spec_prefix=spec, data_prefix=data)


def test_prefixes_that_merely_begin_alike_are_taken() -> None:
    assert parameters(spec_prefix="in/", data_prefix="in-data/")["DataPrefix"] == "in-data/"
    assert parameters(spec_prefix="foldfleet-in/")["SpecPrefix"] == "foldfleet-in/"


@pytest.mark.parametrize(
    "topic",
    [
        "searches",
        "arn:aws:sns:us-east-1:999999999999:searches",
        "arn:aws:sns:eu-west-1:123456789012:searches",
        "arn:aws:sns:us-east-1:123456789012:searches.fifo",
        "arn:aws:sqs:us-east-1:123456789012:searches",
    ],
)
def test_topics_to_which_the_machine_cannot_publish_are_refused(topic: str) -> None:
    with pytest.raises(UsageError, match="standard topic of this account and region"):
        Wishes("foldfleet", notify_topic=topic).check_topic("aws", "us-east-1", "123456789012")
    Wishes("foldfleet", notify_topic="arn:aws:sns:us-east-1:123456789012:searches").check_topic(
        "aws", "us-east-1", "123456789012"
    )


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("upload_max_cells", 0, "--max-cells"),
        ("upload_max_task_vcpus", 193, "--max-task-vcpus"),
        ("upload_max_task_memory_gib", 0, "--max-task-memory-gib"),
        ("upload_max_hours", 721, "--max-hours"),
        ("upload_max_vcpu_hours", 0, "--max-vcpu-hours"),
    ],
)
def test_ceilings_have_bounds(name: str, value: int, flag: str) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=flag):
        Wishes("foldfleet", **given).check(TEMPLATE)


# --- the setting of a bucket ----------------------------------------------------------------------------------------


class FakeS3:
    """The notifications of one bucket."""

    def __init__(self, **there: Any) -> None:
        self.there, self.asked = there, list[dict[str, Any]]()

    def get_bucket_notification_configuration(self, Bucket: str) -> dict[str, Any]:
        return {**self.there, "ResponseMetadata": {}}

    def put_bucket_notification_configuration(self, **given: Any) -> None:
        self.asked.append(given)
        self.there = given["NotificationConfiguration"]


def clients_of(s3: FakeS3) -> Clients:
    return cast("Clients", SimpleNamespace(s3=s3, account="123456789012", region="us-east-1", partition="aws"))


def test_a_bucket_goes_on_telling_others_what_it_tells_them() -> None:
    others = {"QueueConfigurations": [{"QueueArn": "arn:aws:sqs:us-east-1:1:q", "Events": ["s3:ObjectCreated:*"]}]}
    s3 = FakeS3(**others)
    assert not tells_events(clients_of(s3), "mine")
    assert turn_on_notices(clients_of(s3), "mine")
    assert s3.there == {**others, "EventBridgeConfiguration": {}}
    assert s3.asked[0]["ExpectedBucketOwner"] == "123456789012"
    assert tells_events(clients_of(s3), "mine")
    assert not turn_on_notices(clients_of(s3), "mine")
    assert len(s3.asked) == 1


def test_notices_of_others_are_told_from_eventbridge() -> None:
    assert other_notices(clients_of(FakeS3(TopicConfigurations=[{"TopicArn": "t"}])), "mine")
    assert not other_notices(clients_of(FakeS3(EventBridgeConfiguration={})), "mine")
    assert not other_notices(clients_of(FakeS3()), "mine")


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_a_definition_is_cut_where_no_blank_gets_lost() -> None:
    text = "x" * (template.MAX_PARAMETER_BYTES - 2) + "a b" * 3 + "y" * template.MAX_PARAMETER_BYTES
    pieces = dict(template._pieces("M", text))
    assert "".join(pieces.values()) == text
    assert list(pieces) == ["MDefinition01", "MDefinition02", "MDefinition03"]
    for piece in pieces.values():
        assert piece == piece.strip()
        assert len(piece) <= template.MAX_PARAMETER_BYTES
