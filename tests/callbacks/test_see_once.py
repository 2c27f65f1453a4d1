"""The rules of pruning, as pure functions of a history."""

import re
import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dionysus.callbacks.see_once import Acted, Cut, Limits, SeeOnce, Whole, Window, cuts_of, rule_of

FILE = "\n".join(f"line {i} of src/storage/table_{i % 9}.py says value_{i} since 2024-05-11" for i in range(80))
PLAIN = "and so it is on a day " * 60
"""No identifiers."""
SAID = re.compile(r"\[cut (\d+) chars; recall_observation\((\d+)\)\]")


def look(number: int, observation: str = FILE, **more: Any) -> Acted:
    return Acted(number=number, thought=f"look {number}", tools=frozenset({"look"}), observation=observation, **more)


def about(topic: str) -> str:
    return "\n".join(f"{topic} holds entry_{topic}_{i} and nothing else of any interest to us" for i in range(60))


def by_step(cuts: list[Cut]) -> dict[int, Cut]:
    return {cut.step: cut for cut in cuts}


def test_an_observation_is_cut_when_it_was_in_one_prompt() -> None:
    cuts = cuts_of(SeeOnce(), [], [look(1, about("tides")), look(2, about("bread")), look(3, "short")])
    assert [(cut.step, cut.before_step) for cut in cuts] == [(1, 3), (2, 4)]
    assert all(cut.chars_saved == len(about("tides")) - len(cut.stub) for cut in cuts[:1])
    assert SAID.match(cuts[0].stub)


def test_a_stub_keeps_what_is_visible_nowhere_else() -> None:
    text = PLAIN + "\nthe account is number_8841 of harbour_office, opened 2031-02-28 by ada@example.org"
    rule = SeeOnce()
    kept = cuts_of(rule, ["harbour_office is known"], [look(1, text), look(2, "short")])[0].stub.split()
    assert "number_8841" in kept
    assert "harbour_office" not in kept  # the prompt says it
    assert {"2031-02-28", "ada@example.org"} <= set(kept)


def test_short_names_go_before_long_ones_and_paths_have_room_of_their_own() -> None:
    long = [f"a_rather_long_identifier_number_{n:02}" for n in range(20)]
    short = [f"name_{n:02}" for n in range(20)]
    text = f"{PLAIN} {' '.join(long)} {' '.join(short)} in tests/data/name_07.txt"
    kept = cuts_of(SeeOnce(Limits(names=0)), [], [look(1, text), look(2, "")])[0].stub.split()
    assert set(short) - {"name_07"} <= set(kept)
    assert len(set(long) & set(kept)) < 5
    assert "tests/data/name_07.txt" in kept
    assert "name_07" not in kept  # the path says it


def test_what_one_stub_keeps_needs_no_place_in_the_next() -> None:
    first, second = PLAIN + " common_name first_name", PLAIN[::-1] + " common_name second_name"
    stubs = by_step(cuts_of(SeeOnce(), [], [look(1, first), look(2, second), look(3, "")]))
    assert {"common_name", "first_name"} <= set(stubs[1].stub.split())
    assert "common_name" not in stubs[2].stub
    thought = "so " * 400 + "common_name" + " so" * 400
    acted = [replace(look(1, "short"), thought=thought), look(2, second), look(3, "")]
    cuts = by_step(cuts_of(SeeOnce(), [], acted))
    assert "common_name" in cuts[1].stub
    assert "common_name" not in cuts[2].stub


def test_what_a_plan_or_a_call_says_needs_no_place_in_a_stub() -> None:
    rule = SeeOnce()
    rule.read("plan: mind the secret_harbour")
    first = look(1, PLAIN + "\nsecret_harbour and called_harbour and other_harbour")
    cuts = [*rule.acted(first), *rule.acted(replace(look(2, "short"), calls="look(called_harbour)"))]
    kept = cuts[0].stub.split()
    assert "other_harbour" in kept
    assert not {"secret_harbour", "called_harbour"} & set(kept)


def test_what_stays_whole_needs_no_place_in_later_stubs() -> None:
    stays, later = "short_harbour is small", PLAIN + " short_harbour and other_harbour"
    kept = by_step(cuts_of(SeeOnce(), [], [look(1, stays), look(2, later), look(3, "")]))[2].stub.split()
    assert "other_harbour" in kept
    assert "short_harbour" not in kept


def test_what_was_fetched_again_stays_and_only_that() -> None:
    tides, bread = about("tides"), about("bread")
    cuts = cuts_of(
        SeeOnce(), [], [look(1, tides), look(2, bread), look(3, tides), look(4, bread), look(5), look(6, "")]
    )
    assert sorted(by_step(cuts)) == [1, 2, 5]


def test_a_pinned_text_that_comes_a_third_time_is_cut() -> None:
    tides = about("tides")
    cuts = cuts_of(SeeOnce(), [], [look(n, tides) for n in (1, 2, 3, 4)] + [look(5, "")])
    # 2 comes before 1 is cut, so it is the copy that stays; the later ones are seen already
    assert sorted(by_step(cuts)) == [1, 3, 4]


def test_a_stub_that_is_no_bargain_is_none() -> None:
    names = " ".join(f"identifier_{i:03}" for i in range(16))  # 16 characters each: all of it would be kept
    assert cuts_of(SeeOnce(), [], [look(1, names), look(2, "")]) == []
    assert cuts_of(SeeOnce(), [], [look(1, names + " and" * 600), look(2, "")])


def test_long_thoughts_are_shown_by_their_ends_once_acted_on() -> None:
    thought = "first I think. " + "and then again, " * 200 + "with middle_matter " + "or so, " * 200 + "so: go on."
    acted = [replace(look(1, "short"), thought=thought), look(2, "short")]
    (cut,) = cuts_of(SeeOnce(), [], acted)
    assert (cut.part, cut.step, cut.before_step) == ("thought", 1, 3)
    assert cut.stub.startswith("first I think.")
    assert cut.stub.endswith("so: go on.")
    assert "middle_matter" in cut.stub
    assert len(cut.stub) < 1_400
    assert cuts_of(SeeOnce(Limits(thought=0)), [], acted) == []
    assert cuts_of(Window(1), [], acted) == []


def test_long_errors_are_cut_like_observations() -> None:
    failed = Acted(number=1, error=PLAIN + " broke_here")
    (cut,) = cuts_of(SeeOnce(), [], [failed, look(2, "")])
    assert cut.part == "error"
    assert "broke_here" in cut.stub


def test_chosen_tools_are_shown_whole_for_longer() -> None:
    limits = Limits(whole={"look": 3})
    for rule in (SeeOnce(limits), Window(1, limits)):
        cuts = cuts_of(rule, [], [look(n, about(f"page{n}")) for n in range(1, 7)])
        assert {cut.step: cut.before_step for cut in cuts} == {1: 5, 2: 6, 3: 7}
    other = [replace(look(n, about(f"page{n}")), tools=frozenset({"other"})) for n in range(1, 4)]
    assert {c.step: c.before_step for c in cuts_of(SeeOnce(limits), [], other)} == {1: 3, 2: 4}


def test_the_window_keeps_the_newest_actions() -> None:
    cuts = cuts_of(Window(3), [], [look(n, about(f"page{n}")) for n in range(1, 7)])
    assert {cut.step: cut.before_step for cut in cuts} == {1: 5, 2: 6, 3: 7}
    assert all(cut.stub.endswith("…") and len(cut.stub) < 160 for cut in cuts)


def test_what_is_too_large_is_shown_by_its_ends_from_the_first() -> None:
    text = "begin " + about("tides") * 100 + " end"
    for rule in (SeeOnce(Limits(arriving=10_000)), Window(3, Limits(arriving=10_000))):
        (cut,) = rule.acted(look(1, text))
        assert cut.before_step == 2
        assert cut.stub.startswith("begin ")
        assert cut.stub.endswith(" end")
        assert f"[cut {len(text)} chars; recall_observation(1)]" in cut.stub
        later = [c for n in (2, 3, 4) for c in rule.acted(look(n, "short"))]
        assert [c.step for c in later] == [1]
        assert later[0].chars_saved == len(cut.stub) - len(later[0].stub)  # against what was shown before
    assert SeeOnce(Limits(arriving=0)).acted(look(1, text)) == []


@pytest.mark.parametrize("name", ["off", "window"])
def test_off_is_no_rule(name: Any) -> None:
    assert rule_of(name, window=999, limits=Limits()) is None


@pytest.mark.parametrize(
    "text",
    [
        "x" * 50_000_000,
        "word " * 10_000_000,
        "\x00\x1b\x07" * 300_000,
        " ".join(f"value_{i}" for i in range(4_000_000)),
        "a" * 300 + "\ud800" * 300,
        "🙂" * 100_000,
    ],
    ids=["one line", "one word", "control characters", "names only", "surrogates", "emoji"],
)
def test_odd_and_huge_observations(text: str) -> None:
    for rule in (SeeOnce(), SeeOnce(Limits(arriving=0)), Window(1)):
        cuts = [cut for number, seen in ((1, text), (2, text), (3, "")) for cut in rule.acted(look(number, seen))]
        assert all(len(cut.stub) < max(40_200, 0.36 * len(text)) for cut in cuts)
        shown = {1: len(text), 2: len(text)}
        for cut in cuts:
            shown[cut.step] -= cut.chars_saved
            assert shown[cut.step] == len(cut.stub)


TEXTS = st.one_of(
    st.sampled_from([about(topic)[:900] for topic in ("tides", "bread", "salt")]),
    st.text(alphabet=string.ascii_letters + string.digits + "_./- \n", max_size=600),
    st.lists(st.sampled_from(["alpha_one", "beta_two", "2024-05-01", "x/y/z.py", "and", "1234567"]), max_size=60).map(
        " ".join
    ),
)
HISTORIES = st.lists(
    st.builds(
        Acted,
        number=st.just(0),
        thought=TEXTS,
        calls=TEXTS,
        observation=TEXTS,
        error=st.one_of(st.just(""), TEXTS),
        tools=st.sampled_from([frozenset({"look"}), frozenset({"read"}), frozenset[str]()]),
    ),
    max_size=6,
).map(lambda acted: [replace(one, number=n) for n, one in enumerate(acted, 1)])
LIMITS = st.builds(
    Limits,
    least=st.sampled_from([1, 50, 200]),
    thought=st.sampled_from([0, 400, 2_000]),
    arriving=st.sampled_from([0, 500, 100_000]),
    whole=st.sampled_from([{}, {"look": 3}]),
)
RULES: Any = st.one_of(
    st.builds(lambda limits: lambda: SeeOnce(limits), LIMITS),
    st.builds(lambda window, limits: lambda: Window(window, limits), st.integers(1, 4), LIMITS),
)


@settings(max_examples=150, deadline=None)
@given(HISTORIES, RULES)
def test_any_history(history: list[Acted], rule: Any) -> None:
    cuts = cuts_of(rule(), ["the task"], history)
    assert cuts == cuts_of(rule(), ["the task"], history)  # nothing but the history counts
    shown = {(a.number, part): getattr(a, part) for a in history for part in ("thought", "observation", "error")}
    whole = dict(shown)
    for cut in cuts:
        place = cut.step, cut.part
        assert cut.step < cut.before_step <= len(history) + 1
        assert cut.chars_saved == len(shown[place]) - len(cut.stub)
        assert len(shown[place]) > len(cut.stub) or cut.before_step == cut.step + 1
        assert SAID.search(cut.stub)
        shown[place] = cut.stub
        assert shown[place] != whole[place]
    for at in range(len(history)):  # what comes later changes nothing before
        assert cuts_of(rule(), ["the task"], history[:at]) == [c for c in cuts if c.before_step <= at + 1]


def test_nothing_is_cut_of_what_was_never_shown_whole() -> None:
    assert Whole().acted(look(1)) == []
