"""Searches that start by an upload, by new data and by the clock: the deployed rules, machines and containers."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import joblib
import jsonschema
import pytest
from sklearn.datasets import load_iris

from jobspec.stores.layout import Layout
from tests.aws.fixtures import expect, run_submit
from tests.aws.house import DATA, SPECS, House, run_ids, until, write_spec, write_table

pytestmark = pytest.mark.docker


EVENTS = Path(__file__).resolve().parents[2] / "docs" / "events.schema.json"
SMALL = write_spec("uploaded")


def check_told(house: House) -> None:
    """See that every event of ours is as its schema says."""
    schema = json.loads(EVENTS.read_text(encoding="utf-8"))
    for event in house.told():
        jsonschema.validate(event["detail"], schema)


def test_an_uploaded_spec_ends_in_results_and_a_model_in_the_bucket(house: House) -> None:
    house.upload(f"{SPECS}whole.yaml", SMALL)
    [execution] = house.ended()
    answer = house.answer(execution)
    assert (answer["state"], answer["cells"]["done"], answer["cells"]["total"]) == ("finished", 4, 4)
    run_id = answer["run_id"]
    results = house.submit("results", run_id)
    assert results["complete"]
    assert results["best"]["params"] == answer["best"]["params"]
    assert answer["files"]["model"] == f"{house.outputs['StoreUrl']}/runs/{run_id}/views/model/model.joblib"
    key = f"{house.outputs['StorePrefix']}/{Layout.view(run_id, 'model/model.joblib')}"
    model = joblib.load(io.BytesIO(house.cloud.client("s3").get_object(Bucket=house.bucket, Key=key)["Body"].read()))
    assert model.get_params()["C"] == answer["best"]["params"]["C"]
    assert set(model.predict(load_iris().data)) == {0, 1, 2}
    assert house.jobs(run_id) == ["a0", "reduce"]
    assert house.kinds() == ["Run Started", "Run Finished"]
    assert house.refusals() == []
    check_told(house)
    # Plan, rows, views and outcomes were written beside the watched prefix: none of them started anything.
    assert len(house.executions("Intake")) == 1
    assert [outcome["state"] for outcome in house.outcomes()] == ["finished"]


def test_the_same_upload_three_times_at_once_is_one_run(house: House) -> None:
    spec = write_spec("thrice", "[0.2, 2]")
    uploads = [threading.Thread(target=house.upload, args=(f"{SPECS}thrice.yaml", spec)) for _ in range(3)]
    for upload in uploads:
        upload.start()
    for upload in uploads:
        upload.join()
    executions = house.ended(3)
    answers = [house.answer(execution) for execution in executions]
    [run_id] = run_ids(answers)
    assert {answer["cells"]["done"] for answer in answers} == {4}
    assert house.jobs(run_id).count("a0") == 1
    assert house.kinds().count("Run Started") == 1


def test_an_event_that_comes_twice_starts_one_search(house: House) -> None:
    house.cloud.events(copies=2)
    house.upload(f"{SPECS}twice.yaml", SMALL)
    assert {execution["status"] for execution in house.ended(2, "Intake")} == {"SUCCEEDED"}
    [execution] = house.ended()
    house.answer(execution)


def test_desk_upload_and_other_executions_meet_at_one_run(house: House) -> None:
    text = write_spec("met", "[0.3, 3]")
    house.upload(f"{SPECS}met.yaml", text)
    [execution] = house.ended()
    run_id = house.answer(execution)["run_id"]
    told = house.submit("run", house.spec("met", text), "--on", "aws")
    assert (told["run_id"], told["fits"], told["cells"]["reused"]) == (run_id, 0, 4)
    house.start({"spec": f"s3://{house.bucket}/{SPECS}met.yaml"}, "met-by-url")
    house.start({"spec": text}, "met-by-text")
    assert run_ids(map(house.answer, house.ended(3))) == {run_id}
    assert house.jobs(run_id).count("a0") == 1


WIDENING = {
    "local": SMALL.replace("{builtin: iris}", "{path: /etc/passwd, target: y}"),
    "foreign": SMALL.replace("{builtin: iris}", "{path: 's3://elsewhere/table.csv', target: y}"),
    "cells": SMALL.replace("C: [0.1, 1]", f"C: {list(range(1, 401))}, gamma: {list(range(1, 201))}"),
    "system": SMALL.replace("sklearn.svm.SVC", "os.system"),
    "vcpus": SMALL.replace("vcpus: 2", "vcpus: 64"),
    "memory": SMALL.replace("memory_gib: 1", "memory_gib: 500"),
    "broken": "a: [b\n",
    "empty": "",
    "bomb": "a: &a [x, x]\n"
    + "\n".join(f"{b}: &{b} [*{a}, *{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
}


def test_an_upload_that_would_widen_something_is_refused_once_and_readably(house: House) -> None:
    for name, text in WIDENING.items():
        house.upload(f"{SPECS}{name}.yaml", text)
    executions = house.ended(len(WIDENING))
    assert {execution.get("error") for execution in executions} == {"foldfleet.Refused"}
    outcomes = {outcome["upload"]["key"]: outcome["message"] for outcome in house.outcomes()}
    assert set(outcomes) == {f"{SPECS}{name}.yaml" for name in WIDENING}
    for name, words in {
        "local": "/etc/passwd",
        "foreign": "s3://elsewhere/table.csv",
        "cells": "160,000 cells",
        "system": "os.system",
        "vcpus": "64 vCPUs",
        "memory": "500",
    }.items():
        assert words in outcomes[f"{SPECS}{name}.yaml"]
        assert "Traceback" not in outcomes[f"{SPECS}{name}.yaml"]
    # One refusal is exactly one event, one metric and one outcome; nothing of it was started.
    assert house.kinds() == ["Upload Refused"] * len(WIDENING)
    assert sorted(event["detail"]["upload"]["key"] for event in house.told()) == sorted(outcomes)
    assert len(house.refusals()) == len(house.outcomes()) == len(WIDENING)
    assert len(house.executions("Intake")) == len(WIDENING)
    check_told(house)


ODD = ("a b+c.yaml", "100%2F%20.yaml", "grün/日本 ✓.yaml", "quote'\"$(id);.YML")


def test_odd_keys_are_keys(house: House) -> None:
    for name in ODD:
        house.upload(SPECS + name, SMALL)
    answers = [house.answer(execution) for execution in house.ended(len(ODD))]
    assert len(run_ids(answers)) == 1
    assert sorted(answer["upload"]["key"] for answer in answers) == sorted(SPECS + name for name in ODD)
    listed = house.submit("events", "list")
    assert all(SPECS + name in json.dumps(listed, ensure_ascii=False).replace('\\"', '"') for name in ODD)


def test_a_key_that_leads_upwards_is_refused_although_s3_takes_it(house: House) -> None:
    house.upload(f"{SPECS}x/../../secret.yaml", SMALL)
    [execution] = house.ended()
    assert execution["error"] == "foldfleet.Refused"
    assert [outcome["upload"]["key"] for outcome in house.outcomes()] == [f"{SPECS}x/../../secret.yaml"]
    assert house.kinds() == ["Upload Refused"]


def test_new_data_start_the_search_of_their_template(house: House) -> None:
    key = f"{house.outputs['StorePrefix']}/uploads/first/table.csv"
    house.cloud.client("s3").put_object(Bucket=house.bucket, Key=key, Body=write_table().encode(), IfNoneMatch="*")
    text = write_spec("nightly").replace("{builtin: iris}", f"{{path: 's3://{house.bucket}/{key}', target: y}}")
    house.submit("events", "template", "daily", house.spec("daily", text))
    house.upload(f"{DATA}daily/2026-01-02.csv", write_table(1))
    [execution] = house.ended()
    answer = house.answer(execution)
    assert (answer["state"], answer["cells"]["done"]) == ("finished", 4)
    assert answer["upload"]["kind"] == "data"
    house.upload(f"{DATA}unknown/2026-01-02.csv", write_table(1))
    refused = house.ended(2)[-1]
    assert refused["error"] == "foldfleet.Refused"
    assert "unknown" in refused["cause"]


def test_a_schedule_starts_a_search_and_a_doubled_moment_none_more(house: House) -> None:
    house.submit("events", "schedule", "cron(0 3 * * ? *)", house.spec("clock", SMALL), "--name", "clock")
    group = house.outputs["ScheduleGroupName"]
    house.cloud.fire_schedule("clock", "2026-01-02T03:00:00Z", group, copies=2)
    [execution] = house.ended()
    assert house.answer(execution)["state"] == "finished"
    house.cloud.fire_schedule("clock", "2026-01-03T03:00:00Z", group)
    assert len(house.ended(2)) == 2
    assert [one["name"] for one in house.submit("events", "schedules")["schedules"]] == ["clock"]
    house.submit("events", "unschedule", "clock")
    assert house.cloud.undelivered() == []


def test_a_search_that_is_stopped_while_it_is_planned_leaves_one_outcome_and_one_event(house: House) -> None:
    house.cloud.hold()  # its planner waits for a host
    try:
        house.upload(f"{SPECS}stopped.yaml", SMALL)
        [search] = until(house.executions)
        until(lambda: [job for job in house.cloud.jobs() if job["status"] == "RUNNABLE"])
        states = house.cloud.client("stepfunctions", house.env)
        states.stop_execution(executionArn=search["executionArn"], cause="too dear")
        until(house.outcomes)
    finally:
        house.cloud.release()
    [outcome], [event] = house.outcomes(), house.told()
    assert (event["detail-type"], event["detail"]) == ("foldfleet Run Failed", outcome)
    assert (outcome["state"], outcome["upload"]["key"]) == ("cancelled", f"{SPECS}stopped.yaml")
    assert "was stopped (too dear)" in outcome["message"]
    listed = [one for one in house.submit("events", "list")["arrivals"] if one["execution"] == search["executionArn"]]
    assert [one["state"] for one in listed] == ["cancelled"]
    check_told(house)
    # It may be started again, and that is told as ever.
    house.upload(f"{SPECS}stopped.yaml", SMALL)
    answer = house.answer(house.ended(2)[-1])
    assert answer["state"] == "finished"
    assert [outcome["state"] for outcome in house.outcomes()].count("finished") == 1


def test_nothing_starts_once_events_are_off(house: House) -> None:
    env = {**house.cloud.admin, "FOLDFLEET_STACK": house.deployed.name}
    expect(run_submit(house.deployed.home, env, "events", "disable", "--yes"))
    try:
        house.upload(f"{SPECS}late.yaml", SMALL)
        assert house.cloud.client("s3").head_object(Bucket=house.bucket, Key=f"{SPECS}late.yaml")
        assert house.executions() == []
    finally:
        expect(run_submit(house.deployed.home, env, "events", "enable", "--yes", "--data-prefix", DATA))
    house.upload(f"{SPECS}again.yaml", SMALL)
    until(house.executions)
    [execution] = house.ended()
    assert house.answer(execution)["state"] == "finished"
