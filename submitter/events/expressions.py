"""Check when a schedule starts, before AWS is asked: `cron`, `rate` and `at` as EventBridge Scheduler reads them.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime

from jobspec.errors import UsageError
from jobspec.names import closest

_FORM = re.compile(r"(cron|rate|at)\((.*)\)", re.DOTALL)
_RATE = re.compile(r"([0-9]{1,9}) (minute|hour|day)s?")
_STEP = re.compile(r"(?P<first>\*|[^-/]+)(?:-(?P<last>[^-/]+))?(?:/(?P<step>[0-9]{1,4}))?")

FORMS = (
    "'cron(0 3 * * ? *)' (minutes, hours, day of the month, month, day of the week, year), 'rate(12 hours)' or "
    "'at(2030-01-31T03:00:00)'"
)


@dataclass(frozen=True)
class _Field:
    """One of the six fields: what numbers it takes, what names stand for them, and what else it takes."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    special: re.Pattern[str] | None = None
    """Forms that only this field takes, such as the last day of a month."""

    def number(self, text: str) -> int | None:
        """Return what a number or a name stands for, None for neither."""
        if text.upper() in self.names:
            return self.first + self.names.index(text.upper())
        return int(text) if text.isascii() and text.isdigit() and self.first <= int(text) <= self.last else None

    @property
    def allowed(self) -> str:
        """Say what the field takes."""
        names = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.first}-{self.last}{names}"


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("day of the month", 1, 31, special=re.compile(r"L|LW|(?:[1-9]|[12][0-9]|3[01])W")),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 1, 7, _DAYS, special=re.compile(rf"(?:(?:[1-7]|{'|'.join(_DAYS)})(?:#[1-5]|L)|L)")),
    _Field("year", 1970, 2199),
)
_DAY_OF_MONTH, _DAY_OF_WEEK = 2, 4


def check_timezone(name: str) -> str:
    """Return a time zone's name if there is one of it.

    Raises:
        UsageError: there is none.
    """
    known = zoneinfo.available_timezones()
    if known and name not in known:  # a machine without a database of them knows none: AWS decides then
        raise UsageError(
            f"There is no time zone {name!r}.{closest(name, known)} Name one as in --timezone Europe/Berlin, or leave "
            "it out for UTC."
        )
    return name


def check_expression(text: str, timezone: str, now: datetime) -> str:
    """Return a schedule's expression with single blanks, if EventBridge Scheduler takes it.

    Args:
        text: what was typed.
        timezone: where the times of day in it are meant.
        now: the present, with its time zone.

    Raises:
        UsageError: it is none, or its only time has passed.
    """
    flat = " ".join(text.split())
    form = _FORM.fullmatch(flat)
    if form is None:
        raise UsageError(f"{text!r} is no schedule.{_meant(flat)} Write {FORMS}.")
    kind, inner = form[1], form[2].strip()
    match kind:
        case "cron":
            _check_cron(inner)
        case "rate":
            _check_rate(inner)
        case _:
            _check_at(inner, timezone, now)
    return f"{kind}({inner})"


def _meant(flat: str) -> str:
    """Guess at what crontab's users type."""
    if len(flat.split(" ")) == len(_FIELDS):
        return f" Did you mean 'cron({flat})'?"
    return f" Did you mean {_from_crontab(flat)!r}?" if len(flat.split(" ")) == len(_FIELDS) - 1 else ""


def _from_crontab(flat: str) -> str:
    """Return crontab's five fields as AWS's six, as far as that goes without thought: its days begin with 0."""
    fields = flat.split(" ")
    if fields[4] == "*":
        fields[4] = "?"
    elif fields[2] == "*":
        fields[2] = "?"
        fields[4] = re.sub(r"[0-7]", lambda day: _DAYS[int(day[0]) % 7], fields[4])
    return f"cron({' '.join(fields)} *)"


def _check_rate(inner: str) -> None:
    form = _RATE.fullmatch(inner)
    if form is None or int(form[1]) < 1:
        raise UsageError(
            f"'rate({inner})' is no schedule: it takes a whole number from 1 and minutes, hours or days, as in "
            "'rate(12 hours)'."
        )


def _check_at(inner: str, timezone: str, now: datetime) -> None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", inner) or (meant := _read(inner)) is None:
        raise UsageError(
            f"'at({inner})' is no time: write year-month-dayThour:minute:second without a zone, as in "
            "'at(2030-01-31T03:00:00)', and the zone with --timezone."
        )
    try:
        there = meant.replace(tzinfo=UTC if timezone == "UTC" else zoneinfo.ZoneInfo(timezone))
    except zoneinfo.ZoneInfoNotFoundError:
        return
    if there <= now:
        raise UsageError(
            f"'at({inner})' in {timezone} has passed: it would never start anything. Name a later time, or run it now: "
            "`submit run SPEC --on stepfunctions`."
        )


def _read(inner: str) -> datetime | None:
    try:
        return datetime.fromisoformat(inner)
    except ValueError:
        return None


def _check_cron(inner: str) -> None:
    fields = inner.split(" ")
    if len(fields) != len(_FIELDS):
        meant = f" Did you mean {_from_crontab(inner)!r}?" if len(fields) == len(_FIELDS) - 1 else ""
        raise UsageError(
            f"'cron({inner})' has {len(fields)} fields; it takes six: minutes, hours, day of the month, month, day of "
            f"the week, year.{meant}"
        )
    if [fields[_DAY_OF_MONTH], fields[_DAY_OF_WEEK]].count("?") != 1:
        raise UsageError(
            f"'cron({inner})' must have ? as its day of the month or as its day of the week, and not as both: "
            "'cron(0 3 * * ? *)' is every night, 'cron(0 3 ? * MON-FRI *)' every night of a working day."
        )
    for field, text in zip(_FIELDS, fields, strict=True):
        if text == "?" and field in (_FIELDS[_DAY_OF_MONTH], _FIELDS[_DAY_OF_WEEK]):
            continue
        for item in text.split(","):
            if not _is_item(field, item):
                raise UsageError(
                    f"'cron({inner})': {item!r} cannot be the {field.name}; allowed are {field.allowed}, *, ranges "
                    "with -, lists with commas and steps with /. Days of the week count from 1 = SUN."
                )


def _is_item(field: _Field, item: str) -> bool:
    """Say whether one item of a field's list can stand there: ``*``, ``5``, ``1-5``, ``0/15``, ``L``."""
    if field.special is not None and field.special.fullmatch(item.upper()):
        return True
    form = _STEP.fullmatch(item)
    if form is None or (form["step"] is not None and int(form["step"]) < 1):
        return False
    if form["first"] == "*":
        return form["last"] is None
    first = field.number(form["first"])
    last = first if form["last"] is None else field.number(form["last"])
    return first is not None and last is not None
