"""The house: public names, docs that run, examples that run, extras that stay optional."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dionysus
from openai_server import openai_server

ROOT = Path(__file__).parents[2]
BENCHMARK = (sys.executable, "-m", "benchmarks")
DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_all_there() -> None:
    assert sorted(dionysus.__all__) == sorted(dionysus._WHERE)
    for name in dionysus.__all__:
        assert getattr(dionysus, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dionysus.nonsense  # noqa: B018


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == dionysus.__version__


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run_and_are_short(
    example: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "graph" in example.name:
        for name, value in request.getfixturevalue("bolt").environment.items():
            monkeypatch.setenv(name, value)
    if "local" in example.name:
        request.getfixturevalue("smollm2")
    assert len(example.read_text().splitlines()) < 60
    with openai_server([{"text": "<code>\nfinal_answer('Oslo')\n"}] * 9) as server:
        arguments = [server.url, "test"] if "endpoint" in example.name else []
        assert run(sys.executable, str(example), *arguments, cwd=tmp_path)


def blocks() -> list[tuple[str, str]]:
    found = []
    for path in DOCS:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.S)):
            found.append((f"{path.name}:{number}", block))
    return found


@pytest.mark.parametrize(("name", "block"), blocks(), ids=[name for name, _ in blocks()])
def test_python_blocks_of_the_docs_run(name: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    assert run(sys.executable, "-c", block, cwd=tmp_path)


def test_commands_of_the_docs_exist() -> None:
    helps: dict[tuple[str, ...], str] = {}
    for path in DOCS:
        for line in re.findall(r"^ {4}(?:\.venv/bin/)?dionysus (.+)$", path.read_text(), re.M):
            words = line.split("#")[0].split()
            command = tuple(w for w in words[:2] if re.fullmatch(r"[a-z]+", w))
            if command not in helps:
                helps[command] = run(sys.executable, "-m", "dionysus", *command, "--help", cwd=ROOT)
            for option in re.findall(r"(?<= )--[a-z-]+", line.split("#")[0]):
                assert option in helps[command], f"{path.name}: {line}"


def test_links_of_the_docs_lead_somewhere() -> None:
    for path in [*DOCS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_graph_page_has_the_queries_that_are_asked() -> None:
    page = run(sys.executable, "-c", "import graph_page; print(graph_page.page(), end='')", cwd=ROOT / "scripts")
    assert (ROOT / "docs/graph.md").read_text() == page, "run: python scripts/graph_page.py"
    assert page.count("```cypher") == 4


def test_the_settings_page_is_the_settings() -> None:
    page = run(sys.executable, "-c", "import settings_page; print(settings_page.page(), end='')", cwd=ROOT / "scripts")
    assert (ROOT / "docs/settings.md").read_text() == page, "run: python scripts/settings_page.py"


def test_spec_names_tests_and_files_that_exist() -> None:
    text = (ROOT / "docs/spec.md").read_text()
    for path in re.findall(r"`((?:src|tests|docs|examples|scripts)/[\w./]+\.\w+)", text):
        assert (ROOT / path).exists(), path
    for path, name in re.findall(r"`(tests/[\w./]+\.py)::(\w+)`", text):
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_every_module_says_what_it_is_for() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {extras!r} else find(name, package)
sys.argv = ["dionysus", {command}]
from dionysus.cli import main
main()
"""


def test_a_beat_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    code = WITHOUT.format(extras=["openai", "fastapi", "uvicorn", "mcp", "mcpadapt"], command="'beat', '-q'")
    assert "Beat 1" in run(sys.executable, "-c", code, cwd=tmp_path)


@pytest.mark.parametrize(
    ("extras", "command", "extra"),
    [
        (["openai"], "'beat', '--model', 'openai:x'", "openai"),
        (["xllamacpp"], "'beat', '--model', 'local:x.gguf'", "local"),
        (["fastapi"], "'serve'", "api"),
        (["uvicorn"], "'serve'", "api"),
        (["mcp"], "'mcp'", "mcp"),
        (["mcp"], "'beat', '--mcp-server', 'true'", "mcp"),
    ],
)
def test_a_missing_extra_says_how_to_get_it(tmp_path: Path, extras: list[str], command: str, extra: str) -> None:
    code = WITHOUT.format(extras=extras, command=command)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 1
    assert f"pip install 'dionysus-agents[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_benchmarks_run_and_say_what_they_ran_on(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    (tmp_path / "watched/a.py").write_text("x = 1\n")
    arguments = ["beat", "--short", "--seed", "7", "--data", str(tmp_path / "watched"), "--json", str(tmp_path / "out")]
    run(sys.executable, "-m", "benchmarks", *arguments, cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    assert {"benchmark", "commit", "machine", "seed", "files", "first_s", "idle_s"} <= set(figures)
    assert (figures["seed"], figures["files"]) == (7, 1)


def test_coherence_is_measured_on_runs_with_faults_put_in(tmp_path: Path) -> None:
    run(*BENCHMARK, "coherence", "--short", "--limit", "16", "--json", str(tmp_path / "out"), cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    assert {"false_warning_rate_on_successful", "success_auc", "success_auc_baseline", "cost"} <= set(figures)
    rows = {row["corruption"]: row for row in figures["rows"]}
    assert {"shuffled", "permuted", "foreign", "loop_x2", "loop_x5", "stuck", "errors", "late", "garbled"} <= set(rows)
    for name in ("loop_x5", "loop_abab", "stuck", "errors"):
        assert (rows[name]["p_real_over_twin"], rows[name]["runs"]) == (1.0, 16), name
        assert rows[name]["detection_rate"] > 0.5, name
    assert rows["loop_x5"]["median_delay_steps"] <= 3
    assert rows["loop_x5"]["fired_first"] == {"autonomy": 1.0}


def test_runs_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text('{"id": 1}\n')
    done = subprocess.run(
        [*BENCHMARK, "coherence", "--data", str(tmp_path / "runs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "line 1: no recorded run" in done.stderr
    assert "Traceback" not in done.stderr


def test_control_by_coherence_is_measured(tmp_path: Path) -> None:
    run(*BENCHMARK, "control", "--short", "--json", str(tmp_path / "out"), cwd=ROOT)
    rows = {(row["agent"], row["arm"]): row for row in json.loads((tmp_path / "out").read_text())["rows"]}
    for kind in ("insists", "flaky"):
        assert rows[kind, "rules"]["finished"] == 1.0
        assert rows[kind, "rules"]["repeated_calls_mean"] < rows[kind, "off"]["repeated_calls_mean"]
        assert rows[kind, "rules"]["prompt_tokens_mean"] < rows[kind, "off"]["prompt_tokens_mean"]


def test_the_endpoints_are_measured_on_given_texts(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("the tides follow the moon\n" * 300)
    arguments = ["api", "--short", "--seed", "7", "--data", str(tmp_path / "texts"), "--json", str(tmp_path / "out")]
    run(sys.executable, "-m", "benchmarks", *arguments, cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    kinds = {"list", "list_an_agent", "list_failures", "list_from_the_middle", "get", "replay", "token_usage"}
    assert set(figures["ms"]["1000_traces"]) == kinds
    assert all(0 < times["p50"] <= times["p99"] for times in figures["ms"]["1000_traces"].values())


def test_local_models_are_measured_on_given_tasks(tmp_path: Path, smollm2: Path) -> None:
    task = {"id": "seat", "question": "Where is the seat?", "files": {"a.txt": "Its seat is Tampere."}, "answer": ["x"]}
    (tmp_path / "tasks").write_text(json.dumps(task))
    run(*BENCHMARK, "local", "--short", "--data", str(tmp_path / "tasks"), "--json", str(tmp_path / "out"), cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    assert (figures["model"], figures["tasks"], figures["schema"]["valid_share"]) == ("local:smollm2", 1, 1.0)
    for way in ("schema", "native"):
        assert 0 < figures[way]["cached_tokens"] < figures[way]["input_tokens"]
        assert figures[way]["tokens_per_s_median"] > 0


def recorded(path: Path) -> Path:
    """Runs as `benchmarks.recorded` reads them, with the provider's counts."""
    lines = []
    for number in range(3):
        steps = [
            {
                "thought": f"Page {n} of book {number}.",
                "action": f"open pages/book_{number}/page_{n}.txt",
                "raw": f"Page {n} of book {number}. open pages/book_{number}/page_{n}.txt",
                "obs": f"page_{n} of book {number}: next is pages/book_{number}/page_{n + 1}.txt. "
                + "and so on " * 150,
                "prompt_tokens": str(200 + 420 * n),
            }
            for n in range(8)
        ]
        prefix = [
            {"role": "system", "content": "You {{read}} {%- endraw -%}."},
            {"role": "user", "content": "Read on."},
        ]
        lines.append(json.dumps({"id": f"book {number}", "prefix": prefix, "steps": steps}))
    path.write_text("\n".join(lines))
    return path


def test_tokens_are_measured_on_given_runs(tmp_path: Path) -> None:
    given = ["--data", str(recorded(tmp_path / "runs")), "--limit", "2", "--json", str(tmp_path / "out")]
    run(*BENCHMARK, "tokens", *given, cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    rows = {row["policy"]: row for row in figures["rows"]}
    assert list(rows) == ["none", "naive-1", "naive-3", "naive-5", "batched", "ours"]
    assert (figures["benchmark"], figures["runs"], figures["actions"]) == ("tokens", 2, 16)
    assert figures["check"]["calls"] == 16
    assert figures["check"]["correlation"] > 0.95
    none, naive, ours = rows["none"], rows["naive-3"], rows["ours"]
    for name in ("tokens_reduction_pooled", "lost", "verbatim_lost", "recalls_needed", "runs_dearer_share"):
        assert none[name] == 0
    assert ours["tokens_reduction_pooled"] > naive["tokens_reduction_pooled"] > 0.1
    assert set(ours["billed_reduction_pooled"]) == {"read0.1", "read0.1_write1.25", "read0.02", "uncached"}
    assert ours["billed_reduction_pooled"]["uncached"] == ours["tokens_reduction_pooled"]
    assert ours["billed_reduction_pooled"]["read0.1"] > 0.1 > naive["billed_reduction_pooled"]["read0.1"]
    assert (ours["lost"], ours["compounds_lost"]) == (0, 0)
    assert rows["naive-1"]["compounds_lost"] == 0  # its first hundred characters hold the path
    assert ours["tokens_saved_as_reported"] == pytest.approx(ours["tokens_saved"], rel=0.1)


def test_garbage_is_no_recorded_run(tmp_path: Path) -> None:
    no_task = '{"prefix": [{"role": "system", "content": "x"}], "steps": []}'
    for text, said in (
        (b"", "holds no run"),
        (b"{]", "line 1: no recorded run"),
        (b'{"steps": 5}', "no recorded run"),
        (no_task.encode(), "has no task"),
        (b"\xff\xfe", "cannot be read"),
    ):
        (tmp_path / "runs").write_bytes(text)
        command = (*BENCHMARK, "tokens", "--data", str(tmp_path / "runs"))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_what_was_seen_early_is_found_again(tmp_path: Path) -> None:
    run(*BENCHMARK, "facts", "--short", "--seed", "3", "--json", str(tmp_path / "out"), cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    assert [row["kind"] for row in figures["rows"]] == ["fact", "file", "table"]
    for row in figures["rows"]:
        assert row["answered_to_the_byte"] == {"off": row["questions"], "see-once": row["questions"]}
        assert row["visible_in_prompt"]["off"] == row["questions"] >= 4
        assert row["recalls"] >= row["questions"] - row["visible_in_prompt"]["see-once"]
    assert any(row["recalls"] > 0 for row in figures["rows"])


def test_the_missions_token_benchmark(tmp_path: Path) -> None:
    script = str(ROOT / "scripts/benchmark_token_usage.py")
    for n in range(12):
        (tmp_path / f"page_{n:02}.py").write_text(f"PAGE = {n}\n" + f"# and so it goes on and on, page {n}\n" * 120)
    given = ["--data", str(tmp_path), "--json", str(tmp_path / "out"), "--ci"]
    run(sys.executable, script, "--reading", "--steps", "14", *given, cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    whole, pruned = figures["unpruned"], figures["pruned"]
    assert figures["steps"] == 14
    assert figures["reduction"] == round(1 - pruned["prompt_tokens"] / whole["prompt_tokens"], 4) >= 0.3
    assert 0 < pruned["of_plans"] < whole["of_plans"]
    own = subprocess.run((sys.executable, script, *given), cwd=ROOT, capture_output=True, text=True, check=False)
    assert own.returncode == 1  # short answers: the reason is in docs/spec.md
    assert "wanted: 30 %" in own.stderr


def test_a_real_cache_shows_what_pruning_costs(tmp_path: Path, smollm2: Path) -> None:
    """Evaluated tokens are llama.cpp's; the naive rule breaks the prefix at every step, see-once does not."""
    steps = [{"thought": f"Page {n}.", "action": f"page {n}", "obs": f"Word{n} of page. " * 50} for n in range(9)]
    prefix = [{"role": "system", "content": "You read."}, {"role": "user", "content": "Read all pages."}]
    (tmp_path / "runs").write_text(json.dumps({"id": "pages", "prefix": prefix, "steps": steps}))
    run(*BENCHMARK, "cache", "--short", "--data", str(tmp_path / "runs"), "--json", str(tmp_path / "out"), cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    none, naive, ours = (figures[policy] for policy in ("none", "naive", "ours"))
    assert none["calls"] == 9
    assert none["evaluated"] < none["last_prompt_tokens"] * 1.1  # each token once
    assert naive["evaluated"] > 1.3 * ours["evaluated"]
    assert ours["prompt_tokens"] < naive["prompt_tokens"] < none["prompt_tokens"]
    assert all(0.8 < found["agreement"] < 1.25 for found in (none, naive, ours))


def test_killed_runs_do_no_wrong(tmp_path: Path) -> None:
    """Some at random instants, and one in each gap between two journal writes; the full figures are quoted in docs."""
    run(sys.executable, "-m", "benchmarks", "kill", "--short", "--seed", "7", "--json", str(tmp_path / "out"), cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    wrong = ("completed_repeated", "events_lost", "wrong_answers", "effects_doubled", "corrupt_stores")
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert figures["kills"] >= 30
    assert figures["gaps"] > 60
    assert figures["effects_reported_uncertain"] > 0
    assert figures["calls_completed"] > 1000


def test_a_long_run_is_linear(tmp_path: Path) -> None:
    run(sys.executable, "-m", "benchmarks", "long", "--short", "--json", str(tmp_path / "out"), cwd=ROOT)
    figures = json.loads((tmp_path / "out").read_text())
    assert [each["steps"] for each in figures["lengths"]] == [20, 40, 80]
    assert figures["bytes_a_step_ratio"] < 1.2
    assert figures["prompt_memory_ratio"] < 1.5
