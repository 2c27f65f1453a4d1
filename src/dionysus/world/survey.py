"""What a tree of files shows by itself: languages, definitions, tests, markers, links that lead nowhere.

One table per question; nothing here knows git.
"""

import os
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from dionysus.findings import Finding, code, plural, quoted

TEXT_BYTES = 2**20
"""Larger files are not read as text."""
_LARGE_LINES = 800
_SURVEYED = 5_000
"""Files that a survey reads at most, those nearest to the root first."""
_LISTED = 3

_C_LIKE = r"^\s*(?:[A-Za-z_][\w:<>,*&\[\] ]*\s+)+\*?(?P<name>[A-Za-z_]\w+)\s*\([^;]*$"
_JAVA_LIKE = r"^\s*(?:(?:public|private|protected|internal|static|final|abstract|open|data|sealed)\s+)*"
DEFINITIONS: Mapping[str, str] = {
    ".py": r"^\s*(?:async\s+)?(?:def|class)\s+(?P<name>\w+)",
    ".js": r"^\s*(?:export\s+)?(?:default\s+)?(?:async\s+)?(?:function\*?|class)\s+(?P<name>\w+)"
    r"|^\s*(?:export\s+)?(?:const|let)\s+(?P<other>\w+)\s*=\s*(?:async\s*)?(?:\(|function)",
    ".go": r"^\s*(?:func(?:\s*\([^)]*\))?|type)\s+(?P<name>\w+)",
    ".rs": r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?(?:fn|struct|enum|trait)\s+(?P<name>\w+)",
    ".java": _JAVA_LIKE + r"(?:class|interface|enum|record|fun|object)\s+(?P<name>\w+)",
    ".c": _C_LIKE,
    ".rb": r"^\s*(?:def|class|module)\s+(?:self\.)?(?P<name>\w+)",
    ".sh": r"^\s*(?:function\s+)?(?P<name>[A-Za-z_]\w*)\s*\(\)",
    ".php": _JAVA_LIKE + r"(?:function|class|trait)\s+(?P<name>\w+)",
}
_SAME = {
    **dict.fromkeys([".ts", ".jsx", ".tsx", ".mjs"], ".js"),
    **dict.fromkeys([".kt", ".cs", ".scala"], ".java"),
    **dict.fromkeys([".h", ".cc", ".cpp", ".hpp"], ".c"),
    ".bash": ".sh",
}
SOURCE = frozenset(DEFINITIONS) | frozenset(_SAME)
_DEFINITION = {suffix: re.compile(pattern) for suffix, pattern in DEFINITIONS.items()}

_TEST_PATH = re.compile(
    r"(^|/)(tests?|specs?|__tests__)/|(^|/)test_[^/]*$|[._-](test|spec)s?\.\w+$|(Test|Tests|Spec)\.\w+$"
)
_TEST_STEMS = ("test_{}", "{}_test", "{}.test", "{}.spec", "{}_spec", "{}Test", "{}Tests", "{}Spec", "test-{}")
_NEEDS_NONE = re.compile(
    r"(^|/)(_[^/]*|conftest|setup|conf|index|main|mod|lib|version|constants|types|settings)\.\w+$"
    r"|(^|/)(docs?|examples?|scripts?|benchmarks?|migrations|vendor|third_party|\.[^/]+)/"
)
MARKER = re.compile(r"(?:#|//|/\*|--|<!--|;|^\s*\*)\W{0,5}(?P<word>TODO|FIXME|XXX|HACK)\b(?!['\"`])")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^()\s<>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_FENCE = re.compile(r"^\s*(?:>\s*)?(`{3,}|~{3,})")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s")
_PAGES = ("", ".md", ".mdx", ".rst")
"""What a site generator may add to the target of a link."""
_RULES = re.compile(r"(?i)^(agents|claude|contributing|copilot-instructions|\.cursorrules|gemini|conventions)(\.\w+)?$")
_IMPERATIVE = re.compile(
    r"(?i)^(always|never|do not|don't|avoid|prefer|keep|use|write|run|make sure|ensure|add|follow|be|put|no|test|"
    r"name|document|check|commit|return|raise|handle|only|one|every|each|all)\b"
)


def suffix_of(path: str) -> str:
    """The ending of a path, lower case."""
    return PurePosixPath(path).suffix.lower()


def is_source(path: str) -> bool:
    """Whether it is source code of a language that is known here."""
    return suffix_of(path) in SOURCE


def is_test(path: str) -> bool:
    """Whether a path is a test, by the conventions of its language."""
    return bool(_TEST_PATH.search(path))


def defined(path: str, lines: Iterable[str]) -> list[str]:
    """Names that lines of a file define, in order."""
    suffix = suffix_of(path)
    pattern = _DEFINITION.get(_SAME.get(suffix, suffix))
    found = []
    for line in lines if pattern else ():
        match = pattern.match(line) if pattern else None
        if match:
            found.append(next(name for name in match.groups() if name))
    return list(dict.fromkeys(found))


def markers(path: str, lines: Sequence[str]) -> list[tuple[int, str]]:
    """(line number from 1, text) of TODO, FIXME, XXX and HACK that open a comment.

    Args:
        lines: The whole file, so that comments can be told from text that looks like them.
    """
    if not is_source(path) or not any(map(MARKER.search, lines)):
        return []
    if suffix_of(path) == ".py" and (comments := _python_comments(lines)) is not None:
        opening = [(number, MARKER.match(text)) for number, text in comments]
        return [(number, m.string[m.start("word") :].strip()) for number, m in opening if m]
    found = []
    for number, line in enumerate(lines, 1):
        if len(line) < 1000:
            said = [line[m.start("word") :] for m in MARKER.finditer(line) if not _in_string(line, m.start())]
            found += [(number, text.strip().rstrip("*/->").strip()) for text in said[:1]]
    return found


def read_lines(root: Path, path: str) -> list[str] | None:
    """The lines of a text file; None where it is missing, large, binary or not readable."""
    full = root / path
    try:
        if full.is_symlink() or not full.is_file() or full.stat().st_size > TEXT_BYTES:
            return None
        data = full.read_bytes()
    except OSError:
        return None
    return None if b"\0" in data[:8192] else _split(data.decode("utf-8", "replace"))


def has_test(path: str, stems: Iterable[str]) -> bool:
    """Whether a source file has a test of its name, or of its folder's name.

    Args:
        stems: The names without ending of all test files, as `stems_of_tests` gives them.
    """
    parts = PurePosixPath(path).parts
    names = [parts[-1].rsplit(".", 1)[0], *parts[-2:-1]]
    return any(form.format(name) in stems for name in names for form in _TEST_STEMS)


def stems_of_tests(files: Iterable[str]) -> frozenset[str]:
    """The names without ending of the test files; `tests/x.py` counts as `test_x`."""
    tests = [PurePosixPath(f) for f in files if is_test(f) and is_source(f)]
    within = {f"test_{f.stem}" for f in tests if {"test", "tests"} & set(f.parts[:-1])}
    return frozenset({f.name.rsplit(".", 1)[0] for f in tests} | within)


def wants_test(path: str) -> bool:
    """Whether one would expect a test for this file."""
    return is_source(path) and not is_test(path) and not _NEEDS_NONE.search(path) and suffix_of(path) != ".h"


def survey(root: Path, files: Mapping[str, int]) -> list[Finding]:
    """What is worth doing in a tree that is seen for the first time.

    Args:
        files: Path → size in bytes.
    """
    wanted = sorted((p for p in files if is_source(p) or p.endswith(".md")), key=lambda p: (p.count("/"), p))
    texts = {p: lines for p in wanted[:_SURVEYED] if (lines := read_lines(root, p)) is not None}
    documents = {p: lines for p, lines in texts.items() if p.endswith(".md") and not is_test(p)}
    more = len(wanted) - _SURVEYED
    return [
        *_broken_links(root, documents),
        *_left_markers(texts),
        *_untested(files, texts),
        *_large({p: len(lines) for p, lines in texts.items() if is_source(p) and not is_test(p)}),
        *([Finding("more", f"{more:,} further files were not surveyed")] if more > 0 else []),
    ]


def principles(root: Path, files: Iterable[str]) -> list[tuple[str, str]]:
    """(path, rule): what documents for contributors and agents tell one to do or not to do."""
    found = []
    for path in sorted(files):
        lines = read_lines(root, path) if _RULES.match(PurePosixPath(path).name) and path.count("/") <= 1 else None
        text = _COMMENT.sub("", "\n".join(_outside_code(lines or ())))
        for item in re.findall(r"^\s*(?:[-*]|\d+\.)\s+(?!\[[ x]\])(.{12,300}(?:\n {2,}\S.{0,300})*)", text, re.M):
            rule = re.sub(r"\s+", " ", item).strip()
            plain = re.sub(r"[*_`]", "", rule)
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
            if _IMPERATIVE.match(plain):
                found.append((path, plain))
    return found


def _split(text: str) -> list[str]:
    """Lines as editors and git count them: a form feed or an exotic separator ends none."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines


def _python_comments(lines: Sequence[str]) -> list[tuple[int, str]] | None:
    """(line number, text) of the comments of a Python file; None where it is not understood."""
    try:
        tokens = list(tokenize.generate_tokens((line + "\n" for line in lines).__next__))
    except (tokenize.TokenError, SyntaxError):
        return None
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def _outside_code(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a Markdown document that are not in a fenced or an indented code block."""
    fence, was_blank, in_list = "", True, False
    for line in lines:
        opening = _FENCE.match(line)
        if fence:
            fence = "" if opening and opening[1].startswith(fence) else fence
        elif opening:
            fence = opening[1]
        elif line[:4] == "    " and was_blank and not in_list:
            continue
        else:
            in_list = bool(_ITEM.match(line)) or (in_list and (not line.strip() or line[:1].isspace()))
            was_blank = not line.strip()
            yield line


def _is_nowhere(root: Path, document: str, target: str) -> bool:
    """Whether a relative link leads to nothing. What lies outside the watched folder is not judged."""
    full = os.path.normpath(os.path.join(root, os.path.dirname(document), target))
    if os.path.relpath(full, root).startswith(".."):
        return False
    page = full.removesuffix(".html")
    return not any(os.path.lexists(place + ending) for place in (full, page) for ending in _PAGES)


def _in_string(line: str, position: int) -> bool:
    """Whether a position lies within a quoted string, as far as one line tells."""
    before = line[:position]
    return any(before.count(quote) % 2 for quote in ("'", '"', "`"))


def _broken_links(root: Path, documents: Mapping[str, list[str]]) -> list[Finding]:
    found = []
    for path, lines in sorted(documents.items(), key=lambda item: (item[0].count("/"), item[0])):
        prose = _COMMENT.sub("", "\n".join(_outside_code(lines)))
        for target in dict.fromkeys(_LINK.findall(re.sub(r"(`+)[^`\n]+\1", "", prose))):
            plain = unquote(target.split("#")[0].split("?")[0])
            if plain and not re.match(r"[a-z][a-z0-9+.-]*:|/|\{|\$", plain, re.I) and _is_nowhere(root, path, plain):
                found.append(Finding("broken", f"{code(path)} links to {code(plain)}, which does not exist"))
    return _first(found, "further link that leads nowhere", "further links that lead nowhere")


def _left_markers(texts: Mapping[str, list[str]]) -> list[Finding]:
    found = [
        Finding("left", f"{code(path)} line {number}: {quoted(text, 80)}")
        for path, lines in sorted(texts.items())
        for number, text in markers(path, lines)
    ]
    return _first(found, "further marker", "further markers")


def _untested(files: Mapping[str, int], texts: Mapping[str, list[str]]) -> list[Finding]:
    stems = stems_of_tests(files)
    sources = [p for p in files if wants_test(p) and p in texts and len(texts[p]) >= 20]
    inside = {p for p in sources if any("#[cfg(test)]" in line for line in texts[p])}
    missing = [p for p in sources if p not in inside and not has_test(p, stems)]
    if sources and not stems and not inside:
        biggest = max(sources, key=lambda p: (len(texts[p]), p))
        beside = f"no test found beside {plural(len(sources), 'source file')}; the largest is {code(biggest)}"
        return [Finding("untested", beside)]
    if missing and 2 * len(missing) <= len(sources):
        missing.sort(key=lambda p: (-len(texts[p]), p))
        names = ", ".join(map(code, missing[:_LISTED]))
        more = f" +{len(missing) - _LISTED}" if len(missing) > _LISTED else ""
        have = "has" if len(missing) == 1 else "have"
        count = f"{len(missing)} of {len(sources)} source files {have} no test of their name"
        return [Finding("untested", f"{count}: {names}{more}")]
    return []


def _large(lines: Mapping[str, int]) -> list[Finding]:
    order = sorted(lines, key=lambda p: (-lines[p], p))
    if not order or lines[order[0]] <= _LARGE_LINES:
        return []
    rest = f", the next largest {lines[order[1]]:,}" if len(order) > 1 else ""
    return [Finding("large", f"{code(order[0])} has {lines[order[0]]:,} lines{rest}")]


def _first(found: list[Finding], one: str, many: str) -> list[Finding]:
    more = len(found) - _LISTED
    return [*found[:_LISTED], *([Finding("more", f"{more} {one if more == 1 else many}")] if more > 0 else [])]
