"""Memory through the runtime: what is refused, what is kept, what is found and why."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from conftest import START, Clock, isolate
from dionysus import Runtime
from dionysus.agents.tools import SemanticRecall
from dionysus.errors import BadInput
from dionysus.memory import semantic
from dionysus.memory.semantic import Told
from dionysus.models.scripted import ScriptedModel
from dionysus.settings import Settings, load_settings
from dionysus.stores.contract import Filter, Memory


@pytest.fixture(params=["static", "lexical"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Runtime]:
    settings = load_settings(embedder=request.param)
    with Runtime(f"sqlite:///{tmp_path}/mind.db", settings=settings, clock=clock) as found:
        yield found


def kept(runtime: Runtime) -> list[Memory]:
    """All memories, as they were told."""
    return sorted(runtime._store.memories.newest(limit=100_000), key=lambda memory: memory.id)


def texts(runtime: Runtime, query: str, **options: Any) -> list[str]:
    return [hit.memory.text for hit in runtime.memory.recall(query, **options)]


# -- what is refused ----------------------------------------------------------------------------------

BAD: list[dict[str, Any]] = [
    {"text": ""},
    {"text": " \n\t\u2003"},
    {"text": 5},
    {"text": None},
    {"text": b"bytes"},
    {"text": "fine", "at": datetime(2026, 11, 21)},
    {"text": "fine", "at": "2026-11-21"},
    {"text": "fine", "tags": ("",)},
    {"text": "fine", "tags": ("good", "  ")},
    {"text": "fine", "tags": (7,)},
]


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_used_is_refused_with_all_that_came_with_it(runtime: Runtime, bad: dict[str, Any]) -> None:
    runtime.remember("The sea is calm.", source="sea")
    before = (kept(runtime), runtime._store.memories.totals(), runtime._store.mind.basins())
    with pytest.raises(BadInput):
        runtime.remember_all([Told(text="moon"), Told(text="changed", source="sea"), Told(**bad), Told(text="sun")])
    with pytest.raises(BadInput):
        runtime.remember(**bad)
    assert (kept(runtime), runtime._store.memories.totals(), runtime._store.mind.basins()) == before
    assert texts(runtime, "moon") == []


def test_nothing_is_nothing(runtime: Runtime) -> None:
    assert runtime.remember_all([]) == []
    assert texts(runtime, "anything") == []


def test_an_instant_of_a_filter_needs_its_zone(runtime: Runtime) -> None:
    runtime.remember("The sea is calm.")
    for naive in (Filter(since=datetime(2026, 1, 1)), Filter(until=datetime(2026, 1, 1))):
        with pytest.raises(BadInput, match="2026-01-01T00:00:00 has no time zone"):
            runtime.memory.recall("sea", wanted=naive)


def test_an_instant_that_utc_cannot_hold_spoils_no_store(runtime: Runtime) -> None:
    for at in (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), datetime(1, 1, 1, tzinfo=timezone.max)):
        with pytest.raises(BadInput):
            runtime.remember("The moon is up.", at=at)
        runtime.remember("The sea is calm.")
        assert texts(runtime, "sea")


# -- what is kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "😀🎉",
        "שלום עולם",
        "مرحبا بالعالم كيف حالك",
        "日本語のテキスト",
        "?!…",
        "the",
        "\u200b.",
        "e\u0301té",
        "x" * 90_000,
        "The sea. " * 9_000,
    ],
)
def test_any_text_is_kept_as_it_is_and_harms_no_other(runtime: Runtime, text: str) -> None:
    runtime.remember("The harbour master counts ships.")
    number = runtime.remember(text)
    assert kept(runtime)[-1].text == text.strip()
    assert texts(runtime, "harbour ships")[0] == "The harbour master counts ships."
    found = runtime.memory.recall(text[:300])
    assert all(hit.memory.id != number or hit.memory.text == text.strip() for hit in found)


@pytest.mark.parametrize(
    ("text", "query"), [("שלום עולם", "עולם"), ("مرحبا بالعالم", "مرحبا"), ("über Straße", "STRASSE über")]
)
def test_words_of_other_scripts_are_found(runtime: Runtime, text: str, query: str) -> None:
    runtime.remember_all([Told(text="The harbour master counts ships."), Told(text=text)])
    assert texts(runtime, query, limit=1) == [text]


def test_a_memory_of_a_megabyte_is_kept_and_found(runtime: Runtime) -> None:
    long = "The lighthouse keeper writes down every ship. " * 23_000
    assert len(long) > 1_000_000
    (number, _) = runtime.remember_all([Told(text=long), Told(text="A cat sleeps.")])
    (hit,) = runtime.memory.recall("lighthouse keeper", limit=1)
    assert (hit.memory.id, hit.memory.text) == (number, long.strip())
    assert texts(runtime, "cat", limit=1) == ["A cat sleeps."]


def test_lone_surrogates_and_control_characters_are_kept_as_far_as_utf_8_goes(runtime: Runtime) -> None:
    runtime.remember_all(
        [Told(text="ship \ud800 harbour", actor="\udfff", tags=("\ud800",)), Told(text="a\0b \x1b[1m")]
    )
    assert kept(runtime)[0].text == "ship ? harbour"
    assert texts(runtime, "ship \ud800 harbour", limit=1) == ["ship ? harbour"]
    assert kept(runtime)[1].text == "a\0b \x1b[1m"


def test_what_is_told_twice_is_kept_twice_and_what_is_the_same_once(runtime: Runtime) -> None:
    first = runtime.remember("The moon is up.")
    assert runtime.remember("The moon is up.") != first
    told = Told(text="The moon is up.", at=START)
    one, other = runtime.remember_all([told, told])
    assert one == other
    assert runtime.remember_all([told]) == [one]
    assert len(kept(runtime)) == 3
    assert len(texts(runtime, "moon", limit=9)) == 3
    assert runtime.remember_all([Told(text="The moon is up.", at=START, actor="Ada")]) != [one]


def test_the_same_source_is_told_anew_in_its_place_only(runtime: Runtime) -> None:
    first = runtime.remember("old words here", source="s", place="/a")
    other = runtime.remember("old words there", source="s", place="/b")
    assert runtime.remember("new phrase here", source="s", place="/a") == first
    assert [m.id for m in kept(runtime)] == [first, other]
    assert texts(runtime, "old words") == ["old words there"]
    assert texts(runtime, "new phrase", limit=1) == ["new phrase here"]


# -- what is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "the",
        "",
        " \n",
        "?!.,;:-–…",
        "'",
        '"(',
        "%_*",
        "\0",
        "\ud800",
        "😀",
        "a",
        "9999-99-99",
        "ſix days ago",
        "this may",
        "yesterday",
        "ship harbour moon " * 5_700,
        "x" * 100_000,
        "?" * 100_000,
        " ".join(f"word{n}x" for n in range(9_000)),
    ],
)
def test_any_query_is_answered_or_not_but_never_fails(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    caplog.set_level(logging.WARNING)
    runtime.remember_all([Told(text=f"The ship {n} lies in the harbour.", actor="Ada", session="s") for n in range(12)])
    for hit in runtime.memory.recall(query):
        assert hit.why
    assert runtime.memory.looks_failed is None
    assert caplog.records == []


@pytest.mark.parametrize("query", ["", " ", "\n\t"])
def test_nothing_that_is_asked_brings_nothing_back(runtime: Runtime, query: str) -> None:
    runtime.remember("The sea is calm.")
    assert texts(runtime, query) == []


def test_of_a_very_long_query_the_rarest_words_count(runtime: Runtime) -> None:
    runtime.remember_all([Told(text=f"common talk {n}") for n in range(30)])
    runtime.remember("A walrus met a narwhal.")
    query = " ".join(["common talk", *(f"unheard{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(600))])
    (hit,) = runtime.memory.recall(f"{query} walrus narwhal", limit=1, least=2)
    assert hit.memory.text == "A walrus met a narwhal."
    assert hit.why["words"] > 0


def test_a_limit_is_kept(runtime: Runtime) -> None:
    runtime.remember_all([Told(text=f"The ship {n} lies in the harbour.") for n in range(12)])
    assert [len(texts(runtime, "ship harbour", limit=n)) for n in (0, 1, 5, 100)] == [0, 1, 5, 12]


# -- cues ---------------------------------------------------------------------------------------------


def test_a_day_that_is_asked_for_brings_back_what_was_told_on_it(runtime: Runtime) -> None:
    for month in range(1, 13):
        runtime.remember(f"Entry number {month}.", at=datetime(2023, month, 7, tzinfo=UTC))
    assert texts(runtime, "what was there on 7 May 2023?", limit=1) == ["Entry number 5."]
    assert texts(runtime, "anything in 2023-09?", limit=1) == ["Entry number 9."]


def test_the_person_who_is_asked_for_comes_first(runtime: Runtime) -> None:
    runtime.remember_all([Told(text="I painted a boat.", actor=actor) for actor in ("Bob", "Ada", "Cy")])
    for query in ("What did Ada paint, a boat?", "ada's boat painted", "Which boat was painted by Ada."):
        (hit,) = runtime.memory.recall(query, limit=1)
        assert hit.memory.actor == "Ada"
        assert hit.why.get("actor", 0) > 0


# -- episodes -----------------------------------------------------------------------------------------


def test_a_session_brings_its_neighbours_to_mind_and_a_fact_does_not(runtime: Runtime) -> None:
    said = ["Hello there.", "My walrus is ill.", "Oh no.", "Get well.", "Cheers.", "Fine weather."]
    runtime.remember_all([Told(text=text, session="chat", place="/a") for text in said])
    assert [m.turn for m in kept(runtime)] == [0, 1, 2, 3, 4, 5]
    assert len({m.basin_id for m in kept(runtime)}) == 1
    found = texts(runtime, "walrus", limit=20)
    assert found[0] == said[1]
    assert set(said[:4]) <= set(found)
    for text in ("Hello you.", "My narwhal is ill.", "Oh dear."):
        runtime.remember(text)
    assert [m.turn for m in kept(runtime)][6:] == [None] * 3
    assert texts(runtime, "narwhal", limit=20, least=1) == ["My narwhal is ill."]
    (hit, *others) = runtime.memory.recall("narwhal", limit=20)
    assert hit.memory.text == "My narwhal is ill."
    assert all(not other.why.get("words") for other in others)


def test_a_session_goes_on_where_it_stopped(runtime: Runtime) -> None:
    for session in ("a", "b", "a", "b", "a"):
        runtime.remember("So it goes.", session=session)
    assert [m.turn for m in kept(runtime)] == [0, 0, 1, 1, 2]
    assert [m.basin_id for m in kept(runtime)] == [1, 2, 1, 2, 1]
    runtime.remember("Elsewhere.", session="a", place="/other")
    assert kept(runtime)[-1].turn == 0


def test_what_is_told_within_half_an_hour_is_one_episode(runtime: Runtime, clock: Clock) -> None:
    for minutes in (0, 10, 29, 31, 1, 600):
        clock.now += timedelta(minutes=minutes)
        runtime.remember(f"After {minutes} minutes.")
    one, two, three = (kept(runtime)[n].basin_id for n in (0, 3, 5))
    assert len({one, two, three}) == 3
    assert [m.basin_id for m in kept(runtime)] == [one, one, one, two, two, three]
    runtime.remember("In another place.", place="/a")
    assert kept(runtime)[-1].basin_id not in {one, two, three}


def test_what_is_told_of_the_past_within_half_an_hour_is_one_episode_too(runtime: Runtime) -> None:
    runtime.remember("Now.")
    past = START - timedelta(days=900)
    for minutes in (0, 5, 10):
        runtime.remember(f"Then, {minutes}.", at=past + timedelta(minutes=minutes))
    now, *then = (m.basin_id for m in kept(runtime))
    assert len(set(then)) == 1
    assert now not in then


# -- why ----------------------------------------------------------------------------------------------


def test_every_hit_says_why_and_where_it_comes_from(runtime: Runtime) -> None:
    runtime.remember_all(
        [
            Told(text=f"The ship {n} came yesterday.", actor="Ada", session="s", run_id=f"run-{n}", step=n, tags=("t",))
            for n in range(10)
        ]
    )
    hits = runtime.memory.recall("When did Ada's ship come, on 21 November 2026?", limit=20)
    assert len(hits) == 10
    for hit in hits:
        assert {"words", "actor", "date", "when"} <= hit.why.keys()
        assert hit.score == pytest.approx(sum(hit.why.values()), abs=0.01)
        assert (hit.memory.run_id, hit.memory.step) == (f"run-{hit.memory.turn}", hit.memory.turn)
        assert (hit.memory.actor, hit.memory.tags, hit.memory.source[:5]) == ("Ada", ("t",), "fact ")
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    if runtime.memory.embedder is not None:
        assert any(hit.why.get("meaning", 0) > 0 for hit in hits)


# -- many memories ------------------------------------------------------------------------------------

_MANY = 2_600
_FEW = "The walrus of Rome sang a ballad."


@pytest.fixture(scope="module", params=["static", "lexical"])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """More memories than are all scored: half of them Ada's, a few noted, sessions of ten turns."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("home"))
        folder = tmp_path_factory.mktemp("many")
        with Runtime(f"sqlite:///{folder}/mind.db", settings=load_settings(embedder=request.param)) as runtime:
            told = [
                Told(
                    text=f"Ship {n} brought {('salt', 'iron')[n % 2]} to harbour {chr(97 + n % 26)}{n % 7}port.",
                    source=str(n),
                    actor="Ada" if n % 2 else "Bob",
                    session=str(n // 10),
                    at=START + timedelta(hours=n),
                    tags=("rare",) if n % 500 == 7 else (),
                    run_id="run-1" if n < 1_500 else None,
                )
                for n in range(_MANY)
            ]
            told[1_234] = Told(text=_FEW, source="1234", actor="Bob", session="123", at=START + timedelta(hours=1_234))
            told[7] = Told(text="The walrus slept.", source="7", actor="Ada", tags=("rare",), at=START, run_id="run-1")
            runtime.remember_all(told)
            yield runtime


def test_of_very_many_the_right_one_is_found(many: Runtime) -> None:
    assert texts(many, "Which ballad did the walrus sing in Rome?", limit=1) == [_FEW]
    assert texts(many, "ship 2049 harbour", limit=1)[0].startswith("Ship 2049 ")
    assert set(texts(many, "walrus", limit=2)) == {_FEW, "The walrus slept."}
    assert texts(many, "zeppelin") == []


@pytest.mark.parametrize("masked", [20_000, 1_000])
@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (Filter(), True),
        (Filter(without=frozenset({"0"})), True),
        (Filter(actors=("BOB",)), True),
        (Filter(actors=("ada",)), False),
        (Filter(run_id="run-1"), False),
        (Filter(tags=("rare",)), False),
        (Filter(since=START + timedelta(hours=1_234), until=START + timedelta(hours=1_235)), True),
        (Filter(without=frozenset({"1234"})), False),
        (Filter(place="/elsewhere"), True),
        (Filter(kinds=("note",)), False),
    ],
)
def test_filters_of_very_many_pass_what_they_say(
    many: Runtime, monkeypatch: pytest.MonkeyPatch, masked: int, wanted: Filter, passes: bool
) -> None:
    """Whether a filter is applied before words are looked up or after it depends on how many pass."""
    monkeypatch.setattr(semantic, "_MASKED", masked)
    found = many.memory.recall("the walrus of Rome sang", limit=50, wanted=wanted)
    assert ([hit.memory.text for hit in found[:1]] == [_FEW]) is passes
    passing = many._store.memories.passing([hit.memory.id for hit in found], wanted)
    assert passing == {hit.memory.id for hit in found}
    hits = many.memory.recall("a ship brought salt to the harbour", limit=50, wanted=wanted)
    many_pass = len(many._store.memories.ids(wanted, limit=_MANY)) > 1_000
    assert (len(hits) == 50) or not many_pass


def test_a_filter_that_most_seeds_fail_still_finds_what_passes(many: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that all have, in a filter that few of the best pass: the first stage goes on until it has enough."""
    monkeypatch.setattr(semantic, "_MASKED", 1_000)
    monkeypatch.setattr(semantic, "_SEEDS", 4)
    wanted = Filter(since=START + timedelta(hours=1), until=START + timedelta(hours=1_100))
    hits = many.memory.recall("ship brought salt iron harbour", limit=4, wanted=wanted)
    assert len(hits) == 4
    assert all(wanted.since <= hit.memory.at < wanted.until for hit in hits if wanted.since and wanted.until)


def test_of_very_many_neighbours_come_along(many: Runtime) -> None:
    found = [hit.memory.source for hit in many.memory.recall("ballad of a walrus in Rome", limit=5)]
    assert found[0] == "1234"
    assert {"1233", "1235"} <= set(found)


def test_of_very_many_those_of_a_day_are_found_whatever_their_words(many: Runtime) -> None:
    day = START + timedelta(hours=1_000)
    hits = many.memory.recall(f"what happened on {day:%Y-%m-%d}", limit=5)
    assert len(hits) == 5
    assert {hit.memory.at.date() for hit in hits} == {day.date()}


# -- other words, by an LLM ---------------------------------------------------------------------------------


def test_an_llm_words_queries_anew_only_if_that_is_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    with Runtime(f"sqlite:///{tmp_path}/mind.db", settings=Settings(embedder="lexical")) as mind:
        mind.remember("The ferry sails from the northern quay")
        with mind.senses(folder, git=False) as senses:
            model = senses.thinker = ScriptedModel([], final="1. ferry quay\n- northern ferry\nthird is one too many")
            recall = SemanticRecall(senses)
            assert "no memory speaks of" in recall.forward("boat leaves harbour")
            senses.rewords = True
            assert "The ferry sails" in recall.forward("boat leaves harbour")
            assert len(model.prompts) == 1
            assert "boat leaves harbour" in str(model.prompts[0])


def test_an_active_basin_ranks_by_half_a_point_unless_it_is_switched_off(tmp_path: Path) -> None:
    for weight, first in ((0.5, "old"), (0.0, "new")):
        with Runtime(f"sqlite:///{tmp_path}/{first}.db", settings=Settings(recall_by_activation=weight)) as mind:
            at = datetime(2026, 1, 1, tzinfo=UTC)
            mind.remember("The tide table hangs here", source="old", session="sea", at=at)
            mind.remember("The tide table hangs here", source="new", session="bay", at=at + timedelta(days=1))
            assert [h.memory.source for h in mind.memory.recall("tide table")] == ["new", "old"]
            basin = mind.memory.recall("tide table")[1].memory.basin_id
            assert basin is not None
            mind.basins.activate_basin(basin, 2.0)
            hits = mind.memory.recall("tide table")
            assert hits[0].memory.source == first
            assert ("active" in hits[0].why) == bool(weight)
