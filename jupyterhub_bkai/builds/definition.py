"""What a definition says: the files of `<family>/<version>/` → an `ImageVersion`, or one sentence per problem.

Pure; the files come in as bytes. Finding and reading them is the catalog's, making an environment from one is
`environment`'s.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from jupyterhub_bkai import options

LABEL, REQUIREMENTS, VERIFY, LOCK = "image.yml", "requirements.txt", "verify", "requirements.lock"
NEEDED = (LABEL, REQUIREMENTS, VERIFY)
ROLES = ("COMPUTE", "INFERENCE", "SYSTEM")
ANY = "any"
KEY_LENGTH = 12

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._]|-(?!-)){0,38}\Z")
_MODULE = re.compile(r"[A-Za-z_]\w{0,63}(?:\.[A-Za-z_]\w{0,63}){0,5}\Z")
_RELEASE = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}\Z")
# The oldest Python in which a session can run is our own oldest.
_PYTHON = re.compile(r"3\.(1[1-9]|[2-9][0-9])\Z")
_SLOT = re.compile(r"[a-z][a-z0-9._-]{0,39}\Z")
# Where packages come from may be said in requirements.txt; nothing else that an installer understands.
SOURCES = ("--index-url", "--extra-index-url", "--find-links")


@dataclass(frozen=True, slots=True)
class ImageVersion:
    """One version of one image family, as its definition describes it.

    `imports` and `imports_version` are the promise on the label: importing that module gives that version. `python`
    is the minor version of the interpreter the image insists on, "" when any will do. `accelerators` names the slots
    the software can use; "any" stands for all. `key` changes whenever the environment made from it would.
    """

    family: str
    version: str
    title: str
    description: str
    minimum_cpu_milli: int
    minimum_memory_mib: int
    preferred_cpu_milli: int
    preferred_memory_mib: int
    accelerators: tuple[str, ...]
    imports: str
    imports_version: str
    python: str
    role: str
    runtime_type: str
    runtime_path: str
    path: Path = Path()
    key: str = ""

    @property
    def name(self) -> str:
        """What people choose: `family/version`."""
        return f"{self.family}/{self.version}"

    def accepts(self, slot: str) -> bool:
        """True when the software can use that kind of accelerator."""
        return ANY in self.accelerators or slot in self.accelerators


def parse(
    family: str, version: str, files: Mapping[str, bytes]
) -> tuple[ImageVersion | None, list[tuple[str, str]]]:
    """The image version, or None and (file, sentence) for everything that is wrong."""
    problems = [(name, "this file is missing.") for name in NEEDED if name not in files]
    problems += [("", sentence) for sentence in _name_problems(family, version)]
    if REQUIREMENTS in files:
        problems += [(REQUIREMENTS, sentence) for sentence in requirement_problems(files[REQUIREMENTS])]
    if LABEL not in files:
        return None, problems
    label = _Label(files[LABEL])
    image = label.image(family, version)
    problems += [(LABEL, sentence) for sentence in label.problems]
    return (None if problems else image), problems


def key_of(files: Mapping[str, bytes], foundation: str) -> str:
    """The digest of a definition's files and of what the environment is founded on."""
    digest = hashlib.sha256(foundation.encode())
    for name in sorted(files):
        digest.update(f"\n{name}\n{len(files[name])}\n".encode())
        digest.update(files[name])
    return digest.hexdigest()[:KEY_LENGTH]


def requirement_problems(content: bytes) -> Iterator[str]:
    """One sentence per line of a requirements.txt that is not an exact pin."""
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        yield "this is not a text in UTF-8."
        return
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if text and (wrong := _pin_problem(text)):
            yield f"line {number}: {wrong}"


def sources(content: str) -> list[str]:
    """The lines of a requirements.txt that say where packages come from."""
    return [line.strip() for line in content.splitlines() if line.strip().startswith(SOURCES)]


def _pin_problem(text: str) -> str | None:
    shown = options.shown(text)
    if text.startswith("-"):
        if re.split(r"[=\s]", text)[0] in SOURCES:
            return None
        return f"“{shown}” is not allowed; of the options only {', '.join(SOURCES)} are."
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"“{shown}” is not a requirement such as numpy==2.4.6."
    if requirement.url:
        return f"“{shown}” names an address; name a version, as in {requirement.name}==1.2.3."
    pins = [pin for pin in requirement.specifier if pin.operator in ("==", "===") and "*" not in pin.version]
    if len(pins) != 1 or len(requirement.specifier) != 1:
        return f"“{shown}” is not pinned; write one exact version, as in {requirement.name}==1.2.3."
    return None


def _name_problems(family: str, version: str) -> Iterator[str]:
    for what, text in (("family", family), ("version", version)):
        if not _NAME.match(text):
            yield (
                f"“{options.shown(text)}” cannot be the name of a {what}: "
                "up to 39 of a–z, 0–9, dot, underscore and single hyphens, a letter or digit first."
            )


class _Label:
    """Reads image.yml, one sentence for each problem. Every scalar stays text: `version: 1.10` is not 1.1."""

    KEYS = ("title", "description", "role", "runtime", "minimum", "preferred", "accelerators")
    PROMISE = ("imports", "version", "python")

    def __init__(self, content: bytes) -> None:
        self.problems: list[str] = []
        self.raw = self._load(content)
        for key in self.raw:
            if key not in self.KEYS + self.PROMISE:
                self.problems.append(options.unknown("image.yml", str(key), [*self.KEYS, *self.PROMISE]))

    def _load(self, content: bytes) -> Mapping[Any, Any]:
        try:
            raw = yaml.load(content, yaml.BaseLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.problems.append(f"line {line} is not YAML ({error.problem}).")
            return {}
        # A hostile file: not text, or nested more deeply than the parser can follow.
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
            self.problems.append("this is not a YAML text.")
            return {}
        if not isinstance(raw, dict):
            self.problems.append("this must be a list of `key: value` lines.")
            return {}
        return raw

    def image(self, family: str, version: str) -> ImageVersion | None:
        """The image version; None as soon as anything was wrong."""
        minimum, preferred = self.section("minimum"), self.section("preferred")
        cpu, memory = self.cpu("minimum", minimum, 100), self.memory("minimum", minimum, 256)
        runtime = self.section("runtime", ("type", "path"))
        image = ImageVersion(
            family=family,
            version=version,
            title=self.text("title", 80) or f"{family} {version}",
            description=self.text("description", 500),
            minimum_cpu_milli=cpu,
            minimum_memory_mib=memory,
            preferred_cpu_milli=max(cpu, self.cpu("preferred", preferred, cpu)),
            preferred_memory_mib=max(memory, self.memory("preferred", preferred, memory)),
            accelerators=self.accelerators(),
            imports=self.matching("imports", _MODULE, "the name of a module, such as sklearn"),
            imports_version=self.matching("version", _RELEASE, "a version, such as 1.7.2"),
            python=self.matching("python", _PYTHON, "a version of Python, 3.11 or newer"),
            role=self.role(),
            runtime_type=self.part("runtime.type", runtime.get("type", "python"), 40),
            runtime_path=self.part("runtime.path", runtime.get("path", "bin/python"), 200),
        )
        self.check_promise(image)
        return None if self.problems else image

    def check_promise(self, image: ImageVersion) -> None:
        """A label that promises nothing cannot be verified."""
        if bool(image.imports) != bool(image.imports_version):
            missing = "version" if image.imports else "imports"
            self.problems.append(f"“{missing}” is missing: imports and version are one promise.")
        elif not image.imports and not image.python and not self.problems:
            self.problems.append("say what the label promises: imports and version, or python.")

    def section(self, key: str, known: Sequence[str] = ("cpu", "memory")) -> Mapping[str, Any]:
        value = self.raw.get(key, {})
        if not isinstance(value, dict):
            self.problems.append(f"“{key}” must hold {' and '.join(known)}.")
            return {}
        for name in value:
            if name not in known:
                self.problems.append(options.unknown(key, str(name), list(known)))
        return value

    def cpu(self, key: str, section: Mapping[str, Any], default: int) -> int:
        if "cpu" not in section:
            return default
        cores = options.amount(section["cpu"])
        if cores is None or not 0 < cores <= 4096:
            self.problems.append(
                f"{key}.cpu: “{options.shown(section['cpu'])}” is not a number of cores such as 0.5."
            )
            return default
        return int(cores * 1000)

    def memory(self, key: str, section: Mapping[str, Any], default: int) -> int:
        if "memory" not in section:
            return default
        mib = options.size_mib(section["memory"])
        if not mib:
            self.problems.append(
                f"{key}.memory: “{options.shown(section['memory'])}” is not a size such as 512m."
            )
            return default
        return mib

    def accelerators(self) -> tuple[str, ...]:
        value = self.raw.get("accelerators", [])
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list) and all(isinstance(name, str) and _SLOT.match(name) for name in names):
            return tuple(dict.fromkeys(names))
        self.problems.append("“accelerators” must be a list of slot names such as [cuda], or any.")
        return ()

    def role(self) -> str:
        role = self.text("role", 40) or ROLES[0]
        if role not in ROLES:
            self.problems.append(options.unknown("role", role, list(ROLES)))
        return role

    def matching(self, key: str, pattern: re.Pattern[str], example: str) -> str:
        text = self.text(key, 200)
        if text and not pattern.match(text):
            self.problems.append(f"{key}: “{options.shown(text)}” is not {example}.")
        return text

    def text(self, key: str, longest: int) -> str:
        return self.part(key, self.raw.get(key, ""), longest)

    def part(self, place: str, value: object, longest: int) -> str:
        text = " ".join(value.split()) if isinstance(value, str) else None
        if text is None or len(text) > longest or not text.isprintable():
            self.problems.append(f"{place}: expected a text of at most {longest} characters.")
            return ""
        return text
