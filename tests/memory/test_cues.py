"""Times, people and forms that a query asks for."""

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dionysus.memory.cues import Span, asked, date_match, is_question, names, says_a_time, spans

TODAY = date(2026, 11, 21)
"""A Saturday."""


def days_of(text: str, today: date = TODAY) -> list[Span]:
    return list(spans(text, today=today))


def a_day(year: int, month: int, day: int, *, yearly: bool = False) -> Span:
    return Span(date(year, month, day), date(year, month, day), yearly)


# -- dates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("what happened in 2023-05", Span(date(2023, 5, 1), date(2023, 5, 31))),
        ("in 2024-02", Span(date(2024, 2, 1), date(2024, 2, 29))),
        ("on 2023-05-07", a_day(2023, 5, 7)),
        ("7 May 2023", a_day(2023, 5, 7)),
        ("7th of May, 2023", a_day(2023, 5, 7)),
        ("May 7, 2023", a_day(2023, 5, 7)),
        ("MAY 7TH 2023", a_day(2023, 5, 7)),
        ("Sep. 3 2021", a_day(2021, 9, 3)),
        ("in May 2023", Span(date(2023, 5, 1), date(2023, 5, 31))),
        ("December 2023", Span(date(2023, 12, 1), date(2023, 12, 31))),
        ("29 February 2024", a_day(2024, 2, 29)),
    ],
)
def test_a_date_that_is_written_out(text: str, span: Span) -> None:
    assert days_of(text) == [span]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("yesterday", a_day(2026, 11, 20)),
        ("tonight", a_day(2026, 11, 21)),
        ("tomorrow", a_day(2026, 11, 22)),
        ("last Friday", a_day(2026, 11, 20)),
        ("last Saturday", a_day(2026, 11, 14)),
        ("this Saturday", a_day(2026, 11, 21)),
        ("next Saturday", a_day(2026, 11, 28)),
        ("next Monday", a_day(2026, 11, 23)),
        ("last week", Span(date(2026, 11, 9), date(2026, 11, 15))),
        ("last weekend", Span(date(2026, 11, 14), date(2026, 11, 15))),
        ("this month", Span(date(2026, 11, 1), date(2026, 11, 30))),
        ("next month", Span(date(2026, 12, 1), date(2026, 12, 31))),
        ("last year", Span(date(2025, 1, 1), date(2025, 12, 31))),
        ("two weeks ago", Span(date(2026, 11, 2), date(2026, 11, 8))),
        ("a day ago", a_day(2026, 11, 20)),
        ("11 months ago", Span(date(2025, 12, 1), date(2025, 12, 31))),
        ("ten years ago", Span(date(2016, 1, 1), date(2016, 12, 31))),
    ],
)
def test_a_time_that_is_said_from_today(text: str, span: Span) -> None:
    assert days_of(f"what did we do {text}?") == [span]


@pytest.mark.parametrize(
    ("today", "year"),
    [(date(2026, 11, 21), 2026), (date(2026, 5, 31), 2025), (date(2026, 4, 30), 2025), (date(2026, 6, 1), 2026)],
)
def test_last_may_is_the_last_one_that_is_over(today: date, year: int) -> None:
    assert days_of("where were we last May", today) == [Span(date(year, 5, 1), date(year, 5, 31))]


@pytest.mark.parametrize("gap", [" ", "  ", "     ", "\t", "\n"])
def test_white_space_between_two_words_changes_no_date(gap: str) -> None:
    assert days_of(f"last{gap}May") == days_of("last May")


@pytest.mark.parametrize(
    "text",
    ["this may help", "perhaps this may be so", "you may go", "May I?", "and that may be", "nothing at all", ""],
)
def test_a_verb_is_no_month(text: str) -> None:
    assert days_of(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "31 February 2023",
        "February 31, 2023",
        "29 February 2023",
        "2023-02-31",
        "2023-13",
        "2023-00-01",
        "in 0000-00",
        "in 0000-01-01",
        "99999-99",
        "7 May 0000",
        "9999 years ago",
        "2030 years ago",
        "31 April",
    ],
)
def test_what_is_no_day_is_left_out(text: str) -> None:
    assert days_of(text) == []


@pytest.mark.parametrize("today", [date.min, date.max])
@pytest.mark.parametrize(
    "text",
    "yesterday,tomorrow,last Friday,next Friday,last week,next weekend,last month,next month,last year,next year,"
    "last May,next May,two weeks ago,a day ago,9999 years ago".split(","),
)
def test_what_lies_outside_of_the_calendar_is_left_out(text: str, today: date) -> None:
    for span in days_of(text, today):
        assert date.min <= span.first <= span.last <= date.max


@pytest.mark.parametrize("text", ["APRİL 2023", "thıs week", "laſt year", "ſix days ago", "FRİDAY", "last frİday"])
def test_letters_that_are_alike_only_without_case_raise_nothing(text: str) -> None:
    """`re.IGNORECASE` takes ı, İ and ſ for i and s; `str.lower` does not."""
    assert asked(text, today=TODAY).days == tuple(days_of(text))


def test_an_instant_in_iso_form_is_its_day() -> None:
    assert days_of("what came at 2023-05-07T10:00:00Z") == [a_day(2023, 5, 7)]


def test_a_month_without_a_year_is_of_any_year() -> None:
    (march,) = days_of("what did we do in March")
    assert march.yearly
    for year in (1999, 2023, 2024):
        assert date_match([march], date(year, 3, 1)) == 1.0
        assert date_match([march], date(year, 3, 31)) == 1.0
        assert date_match([march], date(year, 4, 1)) == 0.0


def test_a_leap_day_without_a_year() -> None:
    (leap,) = days_of("on 29 February")
    assert date_match([leap], date(2024, 2, 29)) == 1.0
    assert date_match([leap], date(2023, 3, 1)) == 0.6


def test_several_dates_are_all_found() -> None:
    assert set(days_of("between 2023-05-07 and May 9, 2023, or yesterday")) == {
        a_day(2023, 5, 7),
        a_day(2023, 5, 9),
        a_day(2026, 11, 20),
    }


# -- how near a memory is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "match"),
    [
        (date(2023, 5, 7), 1.0),
        (date(2023, 5, 5), 0.6),
        (date(2023, 5, 4), 0.0),
        (date(2023, 5, 15), 0.6),
        (date(2023, 5, 16), 0.0),
        (date(2024, 5, 7), 0.0),
    ],
)
def test_a_memory_near_a_day_counts_less_than_one_of_it(at: date, match: float) -> None:
    assert date_match([a_day(2023, 5, 7)], at) == match


def test_of_a_month_or_week_all_days_count_and_none_beside_it() -> None:
    (month,) = days_of("in 2023-05")
    matches = [date_match([month], at) for at in (date(2023, 4, 30), date(2023, 5, 1), date(2023, 6, 1))]
    assert matches == [0.0, 1.0, 0.0]


def test_the_best_of_several_dates_counts() -> None:
    assert date_match([a_day(2023, 5, 7), a_day(2023, 5, 9)], date(2023, 5, 9)) == 1.0
    assert date_match([a_day(2023, 5, 9), a_day(2023, 5, 7)], date(2023, 5, 9)) == 1.0
    assert date_match([], date(2023, 5, 9)) == 0.0


@pytest.mark.parametrize(("text", "at"), [("30 December", date(2024, 1, 2)), ("January 1", date(2023, 12, 31))])
def test_a_day_without_a_year_is_near_beyond_the_turn_of_the_year(text: str, at: date) -> None:
    assert date_match(days_of(text), at) == 0.6


# -- what is asked ------------------------------------------------------------------------------------


def test_terms_are_without_dates_and_without_names_of_actors() -> None:
    found = asked("What did Caroline paint on May 7, 2023, and last June?", today=TODAY, actors=["Caroline"])
    assert found.terms == ("paint",)
    assert found.actors == {"caroline"}
    assert found.days == (a_day(2023, 5, 7), Span(date(2026, 6, 1), date(2026, 6, 30)))


def test_a_name_that_is_no_actor_is_a_word_as_any_other() -> None:
    assert asked("What did Caroline paint?", today=TODAY).terms == ("carolin", "paint")


def test_terms_are_stemmed_and_each_once() -> None:
    assert asked("painting paints and a painted wall", today=TODAY).terms == ("paint", "wall")


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("When did we meet?", True),
        ("tell me when it was", True),
        ("How long did it take?", True),
        ("how many weeks until then", True),
        ("Which month was that?", True),
        ("What time is it?", True),
        ("How many apples?", False),
        ("whenever you like", False),
        ("Who came?", False),
        ("", False),
    ],
)
def test_a_question_for_a_time_is_one(text: str, when: bool) -> None:
    assert asked(text, today=TODAY).when is when


def test_names_are_words_and_pairs_of_words() -> None:
    assert names("did Ada Lovelace's sister") == [
        "did", "Ada", "Lovelace", "sister", "did Ada", "Ada Lovelace", "Lovelace sister",
    ]  # fmt: skip
    assert "agent-7" in names("what did agent-7 do")
    assert "ada@example.org" in names("mail of ada@example.org?")
    assert names("") == []
    assert names("42, 7!") == []


@pytest.mark.parametrize("query", ["Tell me about Ada.", "It was Ada...", "Ask Ada – or Bob.", "(Ada.)", "by Ada-"])
def test_the_end_of_a_sentence_is_no_part_of_a_name(query: str) -> None:
    assert "Ada" in names(query)


def test_of_a_long_query_only_the_first_names_are_looked_for() -> None:
    assert len(names(" ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(500)))) == 199


@pytest.mark.parametrize(("text", "is_one"), [("Why?", True), ("لماذا؟", True), ("为什么？", True), ("So.", False)])
def test_what_asks_is_a_question(text: str, is_one: bool) -> None:
    assert is_question(text) is is_one


@pytest.mark.parametrize(
    ("text", "says"),
    [("It was yesterday", True), ("on MONDAY", True), ("in 2023", True), ("It was red", False), ("lasting", False)],
)
def test_words_of_time_are_told_from_others(text: str, says: bool) -> None:
    assert says_a_time(text) is says


# -- whatever is asked --------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        *"0 1 9 31 32 99 0000 2023 9999 99999 2023-05 0000-00 9999-12-31 ٢٠٢٣-٠٥".split(),
        *"last this next in of a ten day days week weeks weekend month months year years ago".split(),
        *"yesterday tomorrow today friday may May march FEB Sept december st th , . - : ? 's".split(),
        *["İ", "ı", "ſ", "K", "ſeptember", "aprİl", "\ud800", "\0", "🜚", "مرحبا"],
    ]
)
_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.lists(_WORDS, max_size=8).map(" ".join),
    st.lists(_WORDS, max_size=5).map("".join),
)


@given(_TEXTS, st.dates())
@example("tomorrow", date.max)
@example("yesterday", date.min)
@example("aprİl", TODAY)
@example("laſt week", TODAY)
def test_any_text_on_any_day_is_read(text: str, today: date) -> None:
    found = spans(text, today=today)
    assert all(span.first <= span.last for span in found)
    assert all(found.values())
    ask = asked(text, today=today, actors=names(text)[:2])
    assert ask.days == tuple(found)
    assert len(set(ask.terms)) == len(ask.terms)
    assert all(0.0 <= date_match(ask.days, at) <= 1.0 for at in (date.min, today, date(2024, 2, 29), date.max))


@given(st.dates(date(1000, 1, 1)), st.dates())
def test_a_day_that_is_written_is_found_again(day: date, today: date) -> None:
    for text in (f"{day:%Y-%m-%d}", f"{day.day} {day:%B %Y}", f"{day:%B} {day.day}, {day.year}", f"{day:%b %d %Y}"):
        assert days_of(f"on {text}?", today) == [Span(day, day)]
        assert date_match(days_of(text, today), day) == 1.0
