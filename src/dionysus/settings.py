"""Every setting, with its environment variable: the prefix `DIONYSUS_`, and the mission's `AGENT_MEMORY_WINDOW`.

Read by the runtime and the surfaces only; everyone below is handed values.
"""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dionysus.callbacks.iwmt import Rules
from dionysus.callbacks.see_once import Limits as PruningLimits
from dionysus.errors import BadInput

DEFAULT_STORE = "sqlite:///.dionysus/mind.db"


class Settings(BaseSettings):
    """What can be set; flags of the command line go before the environment, that before the defaults."""

    model_config = SettingsConfigDict(
        env_prefix="DIONYSUS_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    store: str = Field(DEFAULT_STORE, description="Where everything is kept: sqlite:///PATH")
    model: str = Field(
        "reflex",
        description="What the agents think with: reflex, local:FILE.gguf (or smollm2), openai:NAME, scripted:FILE",
    )
    api_base: str | None = Field(None, description="URL of an OpenAI-compatible endpoint, for openai:NAME")
    api_key: SecretStr | None = Field(None, description="Its key; default: OPENAI_API_KEY")
    model_timeout_s: float = Field(120.0, gt=0, description="Seconds that one model call may take")
    tool_calls: Literal["schema", "native"] | None = Field(
        None,
        description="Hold each tool call to a JSON schema of what is offered, or leave its form to the model; "
        "default: schema for local models, native for openai:NAME",
    )
    max_tokens: int | None = Field(
        None, ge=64, description="Of one answer; default: 1024 for local models, the endpoint's for openai:NAME"
    )
    context: int | None = Field(
        None, ge=256, description="For local models: tokens of prompt and answer; default: the model's, up to 16384"
    )
    threads: int | None = Field(
        None, ge=1, le=512, description="For local models; default: the cores that the process may use"
    )
    budget: str | None = Field(None, description="Of each run: calls=N, tokens=N, usd=N, seconds=N, comma-separated")
    daily_budget: str | None = Field(None, description="Of all runs of a UTC day together: calls=N, tokens=N, usd=N")
    in_flight: Literal["report", "fail", "retry"] = Field(
        "report", description="A call that was cut off and may have happened: tell the agent, stop, or make it again"
    )
    secret_pattern: str | None = Field(
        None, description="A regular expression: what matches it is replaced in prompts and store, as known secrets are"
    )
    planning: bool = Field(True, description="Plan before actions 1, 4, 7 and 10")
    beat_steps: int = Field(10, ge=1, le=1000, description="Actions that a heartbeat takes at most")
    coherence: bool = Field(True, description="Put the IWMT coherence into every plan")
    coherence_warning: float = Field(0.5, ge=0, le=1, description="Warn in plans below this coherence")
    coherence_loops: int | None = Field(
        None,
        ge=2,
        description="From so many equal calls in a row with equal results on, the observation says so; default: never",
    )
    incoherent: Literal["warn", "replan", "stop", "ask"] = Field(
        "warn",
        description="What leads on from coherence that stays below the warning: the warning alone, a plan at once, a "
        "stop with status `incoherent`, or a question to you",
    )
    incoherent_after: int = Field(3, ge=1, le=1000, description="Actions that it stays there")
    flow: bool = Field(True, description="Put the river flow into the plans of agents with members")
    basins: bool = Field(True, description="Activate basins on semantic_recall")
    embedder: str = Field(
        "static",
        description="What memories mean: static, minilm (extra), openai:MODEL, sentence-transformers:MODEL, or lexical "
        "to recall by words alone",
    )
    embedder_dims: int = Field(
        192, ge=16, le=384, description="For minilm: bytes that each token of a memory takes in the store"
    )
    embedder_api_base: str | None = Field(None, description="URL for openai:MODEL; default: DIONYSUS_API_BASE")
    recall_by_activation: float = Field(
        0.5, ge=0, le=10, description="What an active basin adds to the score of its memories; 0: it never ranks"
    )
    recall_reworded: bool = Field(
        False, description="Have the LLM word queries of semantic_recall anew, too: one more call for each"
    )
    keep_memories: str = Field(
        "", description="Comma-separated, KIND=DAYS: memories of that kind are forgotten when they are older"
    )
    pruning: Literal["see-once", "window", "off"] = Field(
        "see-once", description="Show each observation whole once, or the newest steps whole, or all"
    )
    memory_window: int | None = Field(
        None,
        ge=1,
        validation_alias="AGENT_MEMORY_WINDOW",
        description="Steps kept whole; setting it chooses the window rule, 999 turns pruning off",
    )
    prune_least: int = Field(
        200, ge=1, description="Observations and errors of fewer characters stay whole; a stub's room for names"
    )
    prune_names: float = Field(
        0.125, ge=0, le=1, description="Or that share of a text, if it is more, for the names that its stub keeps"
    )
    prune_thought: int = Field(
        2_000, ge=0, description="See-once shows longer thoughts, once acted on, by their beginning and end; 0: whole"
    )
    prune_arriving: int = Field(
        100_000, ge=0, description="Longer observations are shown by their beginning and end from the first; 0: whole"
    )
    cache_marks: bool = Field(
        True, description="Mark where the prompt cache should end, for models of Anthropic, which wants to be told"
    )
    keep_whole: str = Field(
        "", description="Comma-separated, TOOL=N: its observations are shown whole in N prompts, not in one"
    )
    trace: bool = Field(True, description="Write execution traces (the journal is always written)")
    mcp_servers: str = Field(
        "", description="MCP servers whose tools our agents get, one a line: URL, URL HEADER: VALUE, or a command"
    )
    mcp_timeout_s: float = Field(60.0, gt=0, description="Seconds that a call of such a tool may take")
    host: str = Field("127.0.0.1", description="Where `serve` and `mcp --http` listen")
    port: int = Field(8765, ge=0, le=65535, description="At which port; 0: any free one")
    allowed_hosts: str = Field("", description="Comma-separated: further names under which the server is reached")
    token: SecretStr | None = Field(
        None, description="What clients of the server must send; default: one is made and kept beside the store"
    )
    agents_api: bool = Field(True, description="Serve `/api/agents`")
    neo4j_uri: str | None = Field(
        None,
        validation_alias="NEO4J_URI",
        description="Where traces are shipped to, once `store init` has set it up: bolt://HOST:7687, neo4j+s://HOST",
    )
    neo4j_username: str = Field("neo4j", validation_alias="NEO4J_USERNAME", description="Its user")
    neo4j_password: SecretStr = Field(SecretStr(""), validation_alias="NEO4J_PASSWORD", description="Its password")
    neo4j_database: str = Field("neo4j", validation_alias="NEO4J_DATABASE", description="Its database")
    neo4j_drain_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds that a process waits at its end for what is not shipped yet; the rest waits",
    )
    traces_from: Literal["store", "neo4j"] = Field(
        "store", description="Where `/api/agents` reads: this store, or all that was shipped to Neo4j"
    )
    audit: Path | None = Field(None, description="File to append an audit log to, as JSON lines")

    @field_validator("keep_whole")
    @classmethod
    def _keeps(cls, value: str) -> str:
        _numbers(value, "TOOL=N, such as read_file=5")
        return value

    @field_validator("keep_memories")
    @classmethod
    def _keeps_for(cls, value: str) -> str:
        _numbers(value, "KIND=DAYS, such as beat=90")
        return value

    @property
    def kept_for(self) -> dict[str, timedelta]:
        """How long memories of a kind are kept."""
        return {kind: timedelta(days=days) for kind, days in _numbers(self.keep_memories, "").items()}

    @property
    def coherence_rules(self) -> Rules:
        """What coherence leads to."""
        return Rules(
            warning_below=self.coherence_warning,
            loops=self.coherence_loops,
            incoherent=self.incoherent,
            after=self.incoherent_after,
        )

    @property
    def pruning_limits(self) -> PruningLimits:
        """What is cut, and what is kept of it."""
        return PruningLimits(
            least=self.prune_least,
            names=self.prune_names,
            thought=self.prune_thought,
            arriving=self.prune_arriving,
            whole=_numbers(self.keep_whole, ""),
        )

    @property
    def pruning_rule(self) -> Literal["see-once", "window", "off"]:
        """The rule in force: a memory window, where set, goes before `pruning`."""
        return "window" if self.memory_window is not None and self.pruning != "off" else self.pruning


def _numbers(text: str, form: str) -> dict[str, int]:
    """`read_file=5, form=3`, read.

    Raises:
        ValueError: It is not of that form.
    """
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, number = map(str.strip, part.partition("="))
        if not name.isidentifier() or not number.isdecimal() or not 0 < int(number) < 1_000_000:
            raise ValueError(f"{part!r} is not {form}")
        found[name] = int(number)
    return found


def load_settings(**flags: object) -> Settings:
    """The settings from flags, environment and defaults; flags that are None are left out.

    Raises:
        BadInput: A value that its setting does not take.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # validated by pydantic, which is what is wanted here
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        variable = name if name.isupper() else f"DIONYSUS_{name.upper()}"
        raise BadInput(f"{variable}={first['input']!r}: {first['msg']}") from error
