"""The heartbeat's tools: each works on real state and answers in the line grammar of `dionysus.findings`.

They share one `Senses`: what this beat sees, and the services behind it. A tool that only reads says so with
`idempotent = True`; it may be called again after a crash.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

from smolagents import ChatMessage, Model, Tool
from smolagents.models import MessageRole

from dionysus.agents.synthesis import synthesize
from dionysus.errors import BadInput
from dionysus.findings import Finding, ago, code, quoted, render
from dionysus.journal import Frame
from dionysus.journal.frame import note_recalled
from dionysus.memory.goals import Goals, reached, touched
from dionysus.memory.mental_models import Happened, MentalModels
from dionysus.memory.semantic import SemanticMemory
from dionysus.stores.contract import AgentExecutionTrace, Beat, Goal, Memory, Note
from dionysus.words import most_of, passages
from dionysus.world import View, machine

_INFORMATION_CHARS = 12_000


@dataclass(kw_only=True)
class Senses:
    """What one episode – a beat, or a question – sees and works with."""

    view: View
    place: str
    """The watched folder, absolute."""
    episode: str
    """`beat 3`, or `ask` and the run's id."""
    now: datetime
    reasons: Sequence[str]
    """Why the beat woke, in words."""
    notes: Sequence[Note]
    due: Sequence[Goal]
    failed: Sequence[AgentExecutionTrace]
    """Runs that failed since the last beat."""
    last: Beat | None
    """The newest beat in which an agent worked to its end."""
    memory: SemanticMemory
    goals: Goals
    models: MentalModels
    open_basin: Callable[[], int]
    """Makes the basin of the episode."""
    coherence: Sequence[tuple[str, float]] = ()
    """The newest runs of this kind, and how low their coherence was; the last one first."""
    frame: Frame | None = None
    """The run that memories are linked to."""
    thinker: Model | None = None
    """The LLM for synthesis; None: extractive."""
    rewords: bool = False
    """Whether the LLM words queries to memory anew, too."""
    captured: dict[str, str] = field(default_factory=dict)
    """What `mosaeic_capture` kept."""
    recalled: dict[int, Memory] = field(default_factory=dict)
    """What `semantic_recall` and `query_wisdom_graph` brought back, by id."""

    @cached_property
    def basin_id(self) -> int:
        """Where its memories lie; made with the first of them."""
        return self.open_basin()

    def wording(self) -> dict[str, str]:
        """The texts that goals are held against: changes, commits, notes."""
        return {**self.view.wording(), **{f"note {note.id}": note.text for note in self.notes}}


class _BeatTool(Tool):
    output_type = "string"
    inputs: ClassVar[dict[str, Any]] = {}
    idempotent = False

    def __init__(self, senses: Senses) -> None:
        super().__init__()
        self.senses = senses


class ObserveEnvironment(_BeatTool):
    """What changed since the last beat, and what waits."""

    name = "observe_environment"
    description = (
        "Look at the watched folder: files added, changed, removed since the last beat, new commits, git state; "
        "unread notes, due goals, failed runs, load and disk."
    )
    idempotent = True

    def forward(self) -> str:
        """One finding per line; `[idle]` where nothing happened."""
        s = self.senses
        if not s.reasons:
            return render([Finding("idle", "nothing changed since the last beat"), *s.view.standing()])
        found = [Finding("beat", f"{s.episode}, {s.now.astimezone():%a %Y-%m-%d %H:%M}: {', '.join(s.reasons)}")]
        found += s.view.observe()
        for note in s.notes:
            when = ago(note.at.timestamp(), s.now.timestamp())
            found.append(Finding("note", f"note {note.id} ({when}): {quoted(note.text, 500)}"))
        found += [Finding("due", f"goal {g.id} is {_when(g, s.now)}: {quoted(g.text)}") for g in s.due]
        for trace in s.failed:
            when = ago(trace.started_at.timestamp(), s.now.timestamp())
            why = f": {quoted(trace.error_message, 120)}" if trace.error_message else ""
            found.append(Finding("run", f"{code(trace.id)} of {trace.agent_name}, {when}, ended {trace.status}{why}"))
        return render([*found, machine(s.view.root)])


_HITS = 4
_REWORDED, _QUERY_CHARS = 2, 300


class SemanticRecall(_BeatTool):
    """Memories near a query; activates their basins (by the basin callback)."""

    name = "semantic_recall"
    description = "Find memories – earlier beats, commits, notes, facts – that speak of the query."
    inputs: ClassVar[dict[str, Any]] = {
        "query": {"type": "string", "description": "What to recall, in a few telling words."}
    }
    idempotent = True

    def forward(self, query: str) -> str:
        """What the last beat would have done, then the hits."""
        s = self.senses
        s.memory.learn_commits(s.place, s.view.history)
        s.memory.learn_principles(s.place, s.view.principles())
        found = [self._before(s.last)] if s.last and s.last.next_action else []
        fresh = {f"commit {c.sha}" for c in s.view.new_commits} | ({f"beat {s.last.number}"} if s.last else set())
        kinds = ("beat", "note", "commit", "fact", "turn", "step")
        asked = [query, *self._reworded(query)]
        found_by = [s.memory.recall(one, kinds=kinds, place=s.place, limit=_HITS, without=fresh) for one in asked]
        best = {hit.memory.id: hit for hits in reversed(found_by) for hit in hits}  # its score by the agent's own words
        hits = sorted(best.values(), key=lambda hit: -hit.score)[:_HITS]
        s.recalled |= {hit.memory.id: hit.memory for hit in hits}
        note_recalled((hit.memory.id, hit.score) for hit in hits)
        for hit in hits:
            head, _, tail = hit.memory.text.partition(" | ")
            where = ", ".join(code(path) for path in tail.split()[:2])
            day = f"{hit.memory.at.astimezone():%Y-%m-%d}"
            text = f"{day} {quoted(hit.memory.source, 40)}: {quoted(head, 160)}"
            found.append(Finding("memory", text + (f" ({where})" if where else "")))
        if not hits:
            found.append(Finding("nothing", f"no memory speaks of {quoted(query, 80)!r}"))
        return render(found)

    def _reworded(self, query: str) -> list[str]:
        """Other words for it, by the LLM, if that is wanted."""
        s = self.senses
        if s.thinker is None or not s.rewords:
            return []
        prompt = (
            f"Word this query to a memory in {_REWORDED} other ways, in a few telling words each: one a line, nothing "
            f"else.\n\nQuery: {query}"
        )
        answer = s.thinker.generate([ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": prompt}])])
        lines = [" ".join(line.strip(" -*•\t0123456789.").split()) for line in str(answer.content or "").splitlines()]
        return [line[:_QUERY_CHARS] for line in lines if line][:_REWORDED]

    def _before(self, last: Beat) -> Finding:
        s = self.senses
        when = ago(last.started_at.timestamp(), s.now.timestamp())
        moved = {c.path for c in s.view.changes} | {path for commit in s.view.new_commits for path in commit.files}
        names = Finding("", str(last.next_action)).identifiers
        since = [name for name in names if name in moved]
        then = (
            f" – {', '.join(map(code, since))} changed since"
            if since
            else " – nothing of it was touched since"
            if names
            else ""
        )
        return Finding("before", f"beat {last.number} ({when}) would have done: {last.next_action}{then}")


class QueryWisdomGraph(_BeatTool):
    """Principles and mental models first."""

    name = "query_wisdom_graph"
    description = "Which principles and mental models apply to a topic."
    inputs: ClassVar[dict[str, Any]] = {"topic": {"type": "string", "description": "A path, or a few words."}}
    idempotent = True

    def forward(self, topic: str) -> str:
        """Rules of the place that speak of the topic, then beliefs about the paths it names."""
        s = self.senses
        s.memory.learn_principles(s.place, s.view.principles())
        found = []
        for hit in s.memory.recall(topic, kinds=("principle", "pattern"), place=s.place, limit=2, least=1):
            s.recalled[hit.memory.id] = hit.memory
            note_recalled([(hit.memory.id, hit.score)])
            if hit.memory.kind == "pattern":
                found.append(Finding("pattern", f"{quoted(hit.memory.text, 200)} (told again and again)"))
                continue
            rule, _, path = hit.memory.text.rpartition(" | ")
            found.append(Finding("principle", f"{quoted(rule, 200)} ({code(path)})"))
        found += s.models.about(topic)
        return render(found or [Finding("nothing", f"no principle speaks of {quoted(topic, 80)!r}")])


class MosaeicCapture(_BeatTool):
    """A snapshot of the moment as a memory."""

    name = "mosaeic_capture"
    description = (
        "Keep this moment as a memory: senses (what came in), actions (what was done), emotions (appraisal), "
        "impulses (what to do next), cognitions (the conclusion)."
    )
    inputs: ClassVar[dict[str, Any]] = {
        "senses": {"type": "string", "description": "What came in."},
        "actions": {"type": "string", "description": "What was done."},
        "emotions": {"type": "string", "description": "How it is appraised: surprise, confirmation, worry …"},
        "impulses": {"type": "string", "description": "What to do next, in one sentence."},
        "cognitions": {"type": "string", "description": "What follows from it."},
    }

    def forward(self, senses: str, actions: str, emotions: str, impulses: str, cognitions: str) -> str:
        """The memory's source and size."""
        s = self.senses
        s.captured = {
            "senses": senses,
            "actions": actions,
            "emotions": emotions,
            "impulses": impulses,
            "cognitions": cognitions,
        }
        text = "; ".join(f"{part}: {' '.join(said.split())}" for part, said in s.captured.items())
        s.memory.remember(
            text,
            kind="beat",
            source=s.episode,
            at=s.now,
            place=s.place,
            basin_id=s.basin_id,
            run_id=s.frame.run.id if s.frame else None,
            step=s.frame.step_number if s.frame else None,
        )
        return str(Finding("captured", f"{s.episode} kept as a memory ({len(text)} characters)"))


class ReflectOnTopic(_BeatTool):
    """Looks back at one place."""

    name = "reflect_on_topic"
    description = "Look back at the history of a file, or at where a word is used."
    inputs: ClassVar[dict[str, Any]] = {
        "topic": {"type": "string", "description": "A path in the watched folder, or a word."}
    }
    idempotent = True

    def forward(self, topic: str) -> str:
        """Commits, fixes, companions, and where changed lines come from."""
        return render(self.senses.view.reflect(topic))


class SynthesizeInformation(_BeatTool):
    """Puts findings together: by the configured LLM, else extractively."""

    name = "synthesize_information"
    description = "Say where the pieces of information meet, with regard to a question."
    inputs: ClassVar[dict[str, Any]] = {
        "information": {"type": "string", "description": "What was found so far, line by line."},
        "question": {"type": "string", "description": "What it should answer."},
    }
    idempotent = True

    def forward(self, information: str, question: str) -> str:
        """One or two `[gist]` findings."""
        thinker = self.senses.thinker
        if thinker is None:
            return render(synthesize(information))
        left_out = len(information) - _INFORMATION_CHARS
        more = f"\n[{left_out} more characters were left out]" if left_out > 0 else ""
        prompt = (
            f"{information[:_INFORMATION_CHARS]}{more}\n\nThe question: {question}\n\nIn at most three sentences: "
            "where do these pieces of information meet, and what follows? Say nothing that they do not say."
        )
        answer = thinker.generate([ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": prompt}])])
        return str(Finding("gist", quoted(str(answer.content or "the model gave no answer"))))


class ListGoals(_BeatTool):
    """Open goals, and what touches them."""

    name = "list_goals"
    description = "The open goals, when they are due, and which of them the changes touch or reach."
    idempotent = True

    def forward(self) -> str:
        """A `[goal]` or `[reached]` finding each."""
        s = self.senses
        goals, wording = s.goals.listed(), s.wording()
        done = reached(wording)
        found = []
        for goal in goals:
            due = f", {_when(goal, s.now)}" if goal.due_at else ""
            touch = touched(goal, wording)
            if goal.id in done:
                found.append(
                    Finding("reached", f"goal {goal.id} is reached: {code(done[goal.id])} says so: {goal.text}")
                )
            elif touch:
                by = f"touched by {code(touch.by)} ({', '.join(touch.words)})"
                found.append(Finding("goal", f"goal {goal.id}{due}, {by}: {quoted(goal.text)}"))
            else:
                found.append(Finding("goal", f"goal {goal.id}{due}, not touched: {quoted(goal.text)}"))
        return render(found or [Finding("nogoal", "no goals set")])


class UpdateGoal(_BeatTool):
    """Notes progress on a goal, or closes it."""

    name = "update_goal"
    description = "Note progress on a goal; with status 'done' or 'dropped' it is closed, with 'open' reopened."
    inputs: ClassVar[dict[str, Any]] = {
        "goal_id": {"type": "integer", "description": "The number of the goal."},
        "progress": {"type": "string", "description": "What happened, in one line."},
        "status": {
            "type": "string",
            "enum": ["open", "done", "dropped"],
            "description": "open, done or dropped; leave out to keep it.",
            "nullable": True,
        },
    }

    def forward(self, goal_id: int, progress: str, status: str | None = None) -> str:
        """The goal as it now is."""
        s = self.senses
        if status not in (None, "open", "done", "dropped"):
            raise BadInput(f"status {status!r} is not one of open, done, dropped")
        chosen = cast(Literal["open", "done", "dropped"] | None, status)
        goal = s.goals.update(goal_id, progress=f"{s.episode}: {quoted(progress)}", status=chosen)
        kind = "progress" if goal.status == "open" else "done"
        return str(Finding(kind, f"goal {goal.id} is {goal.status}; noted: {quoted(progress, 160)}"))


class ReviseMentalModel(_BeatTool):
    """Compares expectation and outcome."""

    name = "revise_mental_model"
    description = (
        "Compare what was expected with what came – how coherent the last run was, too – and say what is expected next."
    )

    def forward(self) -> str:
        """`[held]`, `[failed]`, `[missing]`, `[gap]`, `[expect]` … findings."""
        s = self.senses
        view = s.view
        found = s.models.revise(
            Happened(
                first=view.first,
                now=s.now.timestamp(),
                history=view.history,
                new_commits=view.new_commits,
                changed={c.path for c in view.changes} & view.uncommitted(),
                files=view.snapshot.files,
                coherence=s.coherence,
            )
        )
        gaps = view.gaps()
        return render([f for f in found if f.kind != "nothing" or not gaps] + gaps)


_PASSAGES, _PASSAGES_EACH = 6_000, 1_500
"""Characters of passages that are brought back in all, and of one step where all are searched."""


class RecallObservation(Tool):
    """Brings the full text of what pruning cut back; for any agent whose run is recorded."""

    name = "recall_observation"
    description = (
        "Brings back what you saw where now is `[cut N chars; recall_observation(STEP)]`; with a query, its passages; "
        "with a query alone, those of all steps."
    )
    inputs: ClassVar[dict[str, Any]] = {
        "step": {"type": "integer", "description": "STEP", "nullable": True},
        "query": {"type": "string", "description": "Words.", "nullable": True},
    }
    output_type = "string"
    idempotent = True

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame

    def forward(self, step: int | None = None, query: str | None = None) -> str:
        """The text of a step as it was, or its passages that share words with the query.

        Raises:
            BadInput: Neither step nor words, or no such step.
        """
        step = None if step is None else _step(step)
        wanted = str(query).strip() if query is not None else ""
        if step is None:
            if not wanted:
                raise BadInput("say which step, or what to look for: recall_observation(step=1, query='…')")
            own = [number for number, texts in self._cut().items() if texts]
            found = [(number, passages(self._text(number), wanted, most=_PASSAGES_EACH)) for number in own]
            shown = [f"step {number}:\n{text}" for number, text in found if text]
            return most_of(shown, wanted, most=_PASSAGES) or str(
                Finding("nothing", f"no passage of what was cut speaks of {quoted(wanted, 80)!r}")
            )
        text = self._text(step)
        if not wanted:
            return text
        return passages(text, wanted, most=_PASSAGES) or str(
            Finding("nothing", f"no passage of step {step} speaks of {quoted(wanted, 80)!r}")
        )

    def _text(self, step: int) -> str:
        """What of a step was cut; all of it that prompts show, where nothing was."""
        acted = {done.number: done for done in self.frame.finished if done.step_type == "action"}
        texts = {
            number: {"thought": done.thought, "observation": done.observation, "error": done.error}
            for number, done in acted.items()
        }
        known = [number for number, parts in texts.items() if any(parts.values())]
        if step not in known:
            raise BadInput(f"step {step} has no text; steps with one: {', '.join(map(str, known)) or 'none yet'}")
        wanted = self._cut().get(step) or {"observation", "error"}
        return "\n".join(part for name, part in texts[step].items() if part and name in wanted)

    def _cut(self) -> dict[int, set[str]]:
        """By step, which of its parts are shown cut."""
        found: dict[int, set[str]] = {}
        for cuts in self.frame.effects["pruned"]:
            for cut in cuts:
                found.setdefault(cut["step"], set()).add(cut.get("part", "observation"))
        return found


HEARTBEAT_TOOLS = (
    ObserveEnvironment,
    SemanticRecall,
    QueryWisdomGraph,
    MosaeicCapture,
    ReflectOnTopic,
    SynthesizeInformation,
    ListGoals,
    UpdateGoal,
    ReviseMentalModel,
)


def heartbeat_tools(senses: Senses) -> list[Tool]:
    """The heartbeat's tools over one beat's senses."""
    return [tool(senses) for tool in HEARTBEAT_TOOLS]


def _when(goal: Goal, now: datetime) -> str:
    if goal.due_at is None:
        return "open"
    days = (goal.due_at.astimezone().date() - now.astimezone().date()).days
    if goal.due_at < now:
        return f"overdue by {-days} d" if days else "overdue since today"
    return f"due in {days} d" if days else "due today"


def _step(given: Any) -> int:
    """A step's number, in whatever form a model wrote it."""
    try:
        return int(str(given).strip())
    except ValueError as error:
        raise BadInput(f"step {quoted(str(given), 40)!r} is no number") from error
