"""What a query asks for beside its words – a time, a person – and what in a memory answers to it. Pure.

The rules come from two-person chats (docs/decisions/0018) and are plain English; where they find nothing, they say
nothing, and recall goes by words and meaning alone.
"""

import calendar
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from dionysus.words import stems

_MONTHS = {name.lower(): n for n, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name and n != 5}
_DAYS = {name.lower(): n for n, name in enumerate(calendar.day_name)}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_NUMBERS = {word: n for n, word in enumerate("zero one two three four five six seven eight nine ten".split())} | {
    "a": 1
}
_ISO = re.compile(r"(?a:\b(\d{4})-(\d{1,2})(?:-(\d{1,2}))?(?=T\d|\b))")
_NAMED = re.compile(
    rf"\b(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?)?(?P<month>{_MONTH})\b\.?"
    r"(?:\s+(?P<after>\d{1,2})(?:st|nd|rd|th)?\b(?!\s*:))?(?:\s*,?\s*(?:of\s+)?(?P<year>\d{4})\b)?",
    re.I,
)
_BEFORE_MAY = re.compile(
    r"\b(?:in|of|on|since|by|during|early|late|mid|until|before|after|from|last|next)[\s-]+$", re.I
)
_RELATIVE = re.compile(rf"\b(last|this|next)\s+(week|month|year|weekend|{'|'.join(_DAYS)}|{_MONTH})\b", re.I)
_AGO = re.compile(rf"\b(\d{{1,4}}|{'|'.join(_NUMBERS)})\s+(day|week|month|year)s?\s+ago\b", re.I)
_FOLDED = str.maketrans({"ı": "·", "İ": "·", "ſ": "·", "\N{KELVIN SIGN}": "·"})
_LOOKED_AT = 10_000
"""Characters of a text that are searched for dates."""
_LEAP = 2000
"""Stands for any year: it has all days."""
_NEAR = {"today": 0, "tonight": 0, "yesterday": -1, "tomorrow": 1}
_TIME_WORD = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|ago|last|next|days?|weeks?|weekend|months?|years?|recently|soon|since|"
    rf"morning|evening|night|{'|'.join(_DAYS)}|{'|'.join(m for m in _MONTHS if len(m) > 3)}|20\d\d)\b",
    re.I,
)
_WHEN = re.compile(
    r"\bwhen\b|^\s*how (?:long|many (?:days|weeks|months|years))\b|"
    r"\b(?:what|which) (?:day|date|year|month|week|time)\b",
    re.I,
)
_NAME = re.compile(r"[^\W\d_][\w.@-]*")


@dataclass(frozen=True)
class Span:
    """Days that a text speaks of, both ends included."""

    first: date
    last: date
    yearly: bool = False
    """No year was said: it means these days of any year."""

    @property
    def is_a_day(self) -> bool:
        """Whether it is one day."""
        return self.first == self.last


@dataclass(frozen=True)
class Asked:
    """What a query asks for."""

    text: str
    terms: tuple[str, ...]
    """Its content words, stemmed, each once; without those that say a time or name an actor."""
    actors: frozenset[str] = frozenset()
    """Those that it names, case folded."""
    days: tuple[Span, ...] = ()
    when: bool = False
    """It asks for a time."""


def asked(query: str, *, today: date, actors: Collection[str] = ()) -> Asked:
    """Reads a query.

    Args:
        actors: Those of its `names` that are actors of memories.
    """
    named = {word for actor in actors for word in stems(actor)}
    found = spans(query, today=today)
    said = {stem for place in found.values() if _NAMED.search(place) or _ISO.search(place) for stem in stems(place)}
    return Asked(
        text=query,
        terms=tuple(term for term in dict.fromkeys(stems(query)) if term not in named and term not in said),
        actors=frozenset(actor.casefold() for actor in actors),
        days=tuple(found),
        when=bool(_WHEN.search(query)),
    )


def names(query: str, *, most: int = 100) -> list[str]:
    """What in a query may name an actor: its words, and each two that follow each other."""
    said = _NAME.findall(query[:_LOOKED_AT].replace("'s", " ").replace("’s", " "))
    words = list(dict.fromkeys(word.rstrip(".-@") for word in said))[:most]
    return [*words, *(" ".join(pair) for pair in pairwise(words))]


def _plain(text: str) -> str:
    """The text as our patterns read it: the letters that only ignoring case makes alike are told apart."""
    return text.translate(_FOLDED)


def spans(text: str, *, today: date) -> dict[Span, str]:
    """The days that a text speaks of, each with the words that say so; what is no day (31 February) is left out."""
    text = _plain(text[:_LOOKED_AT])
    found: dict[Span, str] = {}

    def keep(said: str, first: date | None, last: date | None, *, yearly: bool = False) -> None:
        if first is not None and last is not None:
            found.setdefault(Span(first, last, yearly), said)

    for match in _ISO.finditer(text):
        year, month, day = int(match[1]), int(match[2]), match[3]
        keep(match[0], *(_day(year, month, int(day)) if day else _month(year, month)))
    relative = [(m.start(), m.end()) for m in _RELATIVE.finditer(text)]
    for match in _NAMED.finditer(text):
        name, day = match["month"].lower(), match["day"] or match["after"]
        if name == "may" and not (
            day or match["year"] or _BEFORE_MAY.search(text[max(0, match.start() - 12) : match.start()])
        ):
            continue  # the verb
        if any(start <= match.start("month") < end for start, end in relative):
            continue
        number = _MONTHS[name]
        year = int(match["year"]) if match["year"] else _LEAP
        keep(match[0], *(_day(year, number, int(day)) if day else _month(year, number)), yearly=not match["year"])
    for match in _RELATIVE.finditer(text):
        if match[1].lower() == "this" and match[2].lower() == "may":
            continue  # the verb
        keep(match[0], *_relative(match[1].lower(), match[2].lower(), today))
    for match in _AGO.finditer(text):
        count = int(match[1]) if match[1].isdecimal() else _NUMBERS[match[1].lower()]
        keep(match[0], *_ago(count, match[2].lower(), today))
    for word in re.findall(r"\w+", text.lower()):
        if word in _NEAR:
            keep(word, *_ago(-_NEAR[word], "day", today))
    return found


def date_match(days: Sequence[Span], at: date) -> float:
    """How near a memory of day `at` is to what a query asks for: 1 on that day, or within that month or week; 0.6
    from two days before to eight days after a day, for what happens is told later; else 0."""
    best = 0.0
    for span in days:
        day = at.replace(year=_LEAP) if span.yearly else at
        if span.first <= day <= span.last:
            return 1.0
        apart = (day - span.first).days
        if span.yearly:
            apart = (apart + 20) % 366 - 20  # over the turn of the year
        if span.is_a_day and -2 <= apart <= 8:
            best = 0.6
    return best


def is_question(text: str) -> bool:
    """Whether a memory asks."""
    return "?" in text or "؟" in text or "？" in text


def says_a_time(text: str) -> bool:
    """Whether a memory has a word of time."""
    return bool(_TIME_WORD.search(text))


def _day(year: int, month: int, day: int) -> tuple[date, date] | tuple[None, None]:
    try:
        found = date(year, month, day)
    except ValueError:
        return None, None
    return found, found


def _month(year: int, month: int) -> tuple[date, date] | tuple[None, None]:
    try:
        return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
    except ValueError:
        return None, None


def _last_with(month: int, today: date) -> int:
    """The year of the last such month that has begun."""
    return today.year - (month > today.month)


def _relative(which: str, unit: str, today: date) -> tuple[date, date] | tuple[None, None]:
    step = {"last": -1, "this": 0, "next": 1}[which]
    try:
        if unit in _DAYS:
            back = (today.weekday() - _DAYS[unit]) % 7
            day = (
                today - timedelta(days=back or 7) if which == "last" else today + timedelta(days=-back % 7 or 7 * step)
            )
            return day, day
        if unit in _MONTHS:
            year = _last_with(_MONTHS[unit], today) + (which == "next")
            if which == "last" and (year, _MONTHS[unit]) == (today.year, today.month):
                year -= 1
            return _month(year, _MONTHS[unit])
        if unit == "year":
            return date(today.year + step, 1, 1), date(today.year + step, 12, 31)
        if unit == "month":
            months = today.year * 12 + today.month - 1 + step
            return _month(months // 12, months % 12 + 1)
        monday = today - timedelta(days=today.weekday()) + timedelta(weeks=step)
        return monday + timedelta(days=5 if unit == "weekend" else 0), monday + timedelta(days=6)
    except (ValueError, OverflowError):
        return None, None


def _ago(count: int, unit: str, today: date) -> tuple[date, date] | tuple[None, None]:
    try:
        if unit == "day":
            return today - timedelta(days=count), today - timedelta(days=count)
        if unit == "week":
            monday = today - timedelta(days=today.weekday()) - timedelta(weeks=count)
            return monday, monday + timedelta(days=6)
        if unit == "month":
            months = today.year * 12 + today.month - 1 - count
            return _month(months // 12, months % 12 + 1)
        return date(today.year - count, 1, 1), date(today.year - count, 12, 31)
    except (ValueError, OverflowError):
        return None, None
