"""What EventBridge Scheduler takes as a time, and what is refused before it is asked."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from jobspec.errors import UsageError
from submitter.events.expressions import check_expression, check_timezone

NOW = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "cron(0 3 * * ? *)",
        "cron(0/15 0-6,22 ? * MON-FRI 2030-2040)",
        "cron(*/5 3 1,15 JAN,jul ? *)",
        "cron(0 3 L * ? *)",
        "cron(0 3 LW * ? *)",
        "cron(0 3 15W * ? *)",
        "cron(0 3 ? * 6L *)",
        "cron(0 3 ? * TUE#3 *)",
        "cron(0 3 ? * SAT-SUN *)",
        "rate(1 minute)",
        "rate(1 hours)",
        "rate(12 hours)",
        "at(2030-06-01T12:00:01)",
    ],
)
def test_what_is_a_schedule(text: str) -> None:
    assert check_expression(text, "UTC", NOW) == text


def test_blanks_do_not_make_another_schedule() -> None:
    assert check_expression("  cron( 0 3  *\t* ? * )", "UTC", NOW) == "cron(0 3 * * ? *)"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "Write 'cron(0 3 * * ? *)'"),
        ("daily", "'rate(12 hours)'"),
        ("0 3 * * *", "Did you mean 'cron(0 3 * * ? *)'?"),
        ("30 2 * * 1-5", "Did you mean 'cron(30 2 ? * MON-FRI *)'?"),
        ("0 3 * * 0", "Did you mean 'cron(0 3 ? * SUN *)'?"),
        ("0 3 * * ? *", "Did you mean 'cron(0 3 * * ? *)'?"),
        ("cron(0 3 * * *)", "it takes six"),
        ("cron(0 3 * * *)", "Did you mean 'cron(0 3 * * ? *)'?"),
        ("cron(0 3 * * ? * *)", "has 7 fields"),
        ("cron(0 3 * * * *)", "must have ?"),
        ("cron(0 3 ? * ? *)", "must have ?"),
        ("cron(0 3 1 * MON *)", "must have ?"),
        ("cron(60 3 * * ? *)", "'60' cannot be the minutes; allowed are 0-59"),
        ("cron(0 24 * * ? *)", "'24' cannot be the hours; allowed are 0-23"),
        ("cron(0 3 0 * ? *)", "'0' cannot be the day of the month; allowed are 1-31"),
        ("cron(0 3 * 13 ? *)", "'13' cannot be the month; allowed are 1-12 or JAN-DEC"),
        ("cron(0 3 ? * 0 *)", "count from 1 = SUN"),
        ("cron(0 3 ? * MON#6 *)", "'MON#6' cannot be the day of the week"),
        ("cron(0 3 * * ? 1969)", "allowed are 1970-2199"),
        ("cron(*/0 3 * * ? *)", "'*/0' cannot be the minutes"),
        ("cron(*-5 3 * * ? *)", "'*-5' cannot be the minutes"),
        ("cron(, 3 * * ? *)", "'' cannot be the minutes"),
        ("cron(L 3 * * ? *)", "'L' cannot be the minutes"),
        ("cron(² 3 * * ? *)", "'²' cannot be the minutes"),
        ("cron(? 3 1 * ? *)", "'?' cannot be the minutes"),
        ("rate(0 hours)", "whole number from 1"),
        ("rate(1 week)", "minutes, hours or days"),
        ("rate(1.5 hours)", "whole number"),
        ("at(2030-06-01)", "year-month-dayThour:minute:second"),
        ("at(2031-02-30T03:00:00)", "is no time"),
        ("at(2031-02-20T03:00:00Z)", "--timezone"),
        ("at(2030-06-01T12:00:00)", "submit run SPEC --on stepfunctions"),
    ],
)
def test_what_is_none_is_told_with_the_remedy(text: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=re.escape(remedy)):
        check_expression(text, "UTC", NOW)


def test_a_time_passes_where_it_is_meant() -> None:
    assert check_expression("at(2030-06-01T11:00:00)", "America/New_York", NOW)
    with pytest.raises(UsageError, match="in Asia/Tokyo has passed"):
        check_expression("at(2030-06-01T20:00:00)", "Asia/Tokyo", NOW)


def test_a_machine_without_time_zones_leaves_them_to_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Did you mean 'Europe/Berlin'"):
        check_timezone("Europe/Berln")
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    assert check_timezone("Europe/Berln") == "Europe/Berln"
    assert check_expression("at(2030-01-01T00:00:00)", "Europe/Berln", NOW)
