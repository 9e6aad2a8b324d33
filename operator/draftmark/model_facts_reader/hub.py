"""Facts of a model on the Hugging Face hub, or on a mirror that speaks as it does.

    list the repository (commit, names of files) → config.json and index, or the beginning of one file by range requests

All files are asked for at the commit that the list told, so that they belong together. A mirror without that list is
asked for the files themselves, at the revision.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from draftmark.facts.gguf_header import MAX_HEADER_BYTES, read_gguf_header
from draftmark.facts.hf_config import facts_from_config
from draftmark.facts.model_answer import ModelAnswer
from draftmark.facts.models import ModelFacts, ShortHeader, UnreadableHeader
from draftmark.facts.safetensors_header import SafetensorsTotals, read_safetensors_header
from draftmark.model_facts_reader.mounted import FIRST_BYTES, checked, gguf_facts, with_index, with_totals
from draftmark.model_facts_reader.problem import (
    MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES,
    MAX_SAFETENSORS_HEADER_BYTES,
    ReadingEnds,
    json_object,
)

#: Longest list of a repository, in bytes: a bound of ours; 10,000 files take about 1 MB.
MAX_LIST_BYTES: Final = 4 * 2**20
MAX_REDIRECTS: Final = 5
#: Seconds before the second and the third try of a request that may pass.
PAUSES_S: Final = (1.0, 3.0)
#: What llama.cpp takes from a repository where the URI names no quantization. Source: llama.cpp, common/arg.cpp, --hf-repo.
DEFAULT_QUANTIZATION: Final = "Q4_K_M"

CONFIG: Final = "config.json"
QUANTIZATION_CONFIG: Final = "hf_quant_config.json"
INDEX: Final = "model.safetensors.index.json"
ONE_FILE: Final = "model.safetensors"

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_TOKEN: Final = re.compile(r"[!-~]{1,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for."""

    repository: str
    #: Branch, tag or commit.
    revision: str = "main"
    #: A GGUF file, or one quantization of several; neither: the checkpoint.
    file: str | None = None
    quantization: str | None = None

    @property
    def source(self) -> str:
        of = f"/{self.file}" if self.file else f":{self.quantization}" if self.quantization else ""
        return f"hf://{self.repository}{of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long may be asked."""

    #: Seconds for everything together.
    total_s: float = 60.0
    #: Seconds until a connection is there, and between two pieces of an answer.
    answer_s: float = 10.0
    pauses_s: Sequence[float] = PAUSES_S


@dataclass(slots=True)
class Hub:
    """One endpoint. Use it as a context: it keeps connections.

    Args:
        endpoint: Its URL; with a path where a mirror has one.
        redirect_hosts: Hosts that it may send us to; `*.example.com` is every host below. The endpoint's own is one.
        token: Sent to the endpoint, and to no other host.
        allow_http: Take http:// as well.
    """

    endpoint: str
    redirect_hosts: Sequence[str] = ()
    token: str | None = None
    allow_http: bool = False
    limits: Limits = field(default_factory=Limits)
    commit: str | None = None
    _until: float = 0.0
    _client: httpx.Client = field(init=False)

    def __enter__(self) -> "Hub":
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            # The client would refuse it, too, and print it.
            raise ReadingEnds(
                "UnreadableToken", "The token of model.authSecretRef is no word of printable ASCII. Correct the Secret."
            )
        self._until = time.monotonic() + self.limits.total_s
        # Neither the environment's proxies nor a .netrc: who is asked is the administrator's choice.
        self._client = httpx.Client(timeout=self.limits.answer_s, follow_redirects=False, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def list(self, question: Question) -> Sequence[str] | None:
        """Names of the repository's files; None where this endpoint has no list. Notes the commit."""
        try:
            text = self._read(
                f"/api/models/{question.repository}/revision/{_quoted(question.revision)}", most=MAX_LIST_BYTES
            )
        except ReadingEnds as ends:
            if ends.problem.code == "NotFound" and self.commit is None:
                return None
            raise
        found = json_object("the repository's list", text)
        sha, files = found.get("sha"), found.get("siblings")
        if isinstance(sha, str) and _COMMIT.fullmatch(sha):
            self.commit = sha
        if not isinstance(files, list):
            return None
        names = (item.get("rfilename") for item in files if isinstance(item, Mapping))
        return [name for name in names if isinstance(name, str)]

    def file(self, question: Question, name: str, *, most: int) -> bytes:
        """A whole file, which must not be longer than that many bytes."""
        return self._read(self._path(question, name), most=most)

    def beginning(self, question: Question, name: str, n_bytes: int) -> bytes:
        """The first bytes of a file; fewer where it ends before."""
        return self._read(self._path(question, name), most=n_bytes, is_part=True)

    def _path(self, question: Question, name: str) -> str:
        revision = self.commit or _quoted(question.revision)
        return f"/{question.repository}/resolve/{revision}/{'/'.join(map(_quoted, name.split('/')))}"

    def _read(self, path: str, *, most: int, is_part: bool = False) -> bytes:
        for pause in (*self.limits.pauses_s, None):
            try:
                return self._once(path, most=most, is_part=is_part)
            except _MayPass as failure:
                if pause is None or time.monotonic() + pause >= self._until:
                    raise ReadingEnds(failure.code, str(failure)) from None
                time.sleep(pause)
        raise AssertionError("the last try has no pause")

    def _once(self, path: str, *, most: int, is_part: bool) -> bytes:
        url = httpx.URL(self.endpoint.rstrip("/") + path)
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url)
            if time.monotonic() > self._until:
                raise self._too_slow(url)
            headers = {"Accept-Encoding": "identity", "User-Agent": "draftmark"}
            if is_part:
                headers["Range"] = f"bytes=0-{most - 1}"
            if self.token is not None and _origin(url) == _origin(httpx.URL(self.endpoint)):
                headers["Authorization"] = f"Bearer {self.token}"
            try:
                with self._client.stream("GET", url, headers=headers) as answer:
                    self._note_commit(answer)
                    if not answer.has_redirect_location:
                        _refuse(answer, self.endpoint, has_token=self.token is not None)
                        return self._body(answer, most, is_part)
                    url = _target(url, answer.headers["location"])
            except httpx.TimeoutException:
                raise _MayPass("HubTimedOut", f"{url.host} did not answer within {self.limits.answer_s:g} s.") from None
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
                raise _MayPass("HubUnreachable", f"{url.host} cannot be reached from the namespace: {why}.") from None
        raise ReadingEnds("RedirectRefused", f"{self.endpoint} redirects more than {MAX_REDIRECTS} times.")

    def _check(self, url: httpx.URL) -> None:
        mine = httpx.URL(self.endpoint)
        if url.scheme != "https" and not (url.scheme == "http" and self.allow_http):
            raise ReadingEnds(
                "RedirectRefused" if url.host != mine.host else "HttpRefused",
                f"{url.scheme}://{url.host} is not asked: https is needed, or the administrator's hub.allowHttp.",
            )
        if url.userinfo or not (url.host == mine.host or any(_matches(url.host, p) for p in self.redirect_hosts)):
            raise ReadingEnds(
                "RedirectRefused",
                f"{mine.host} redirects to {url.host}, which is not in the administrator's hub.redirectHosts. Add it "
                "there if it is the hub's.",
            )

    def _too_slow(self, url: httpx.URL) -> ReadingEnds:
        return ReadingEnds("HubTimedOut", f"{url.host} is too slow: {self.limits.total_s:g} s were not enough.")

    def _note_commit(self, answer: httpx.Response) -> None:
        commit = answer.headers.get("x-repo-commit", "")
        if self.commit is None and _COMMIT.fullmatch(commit):
            self.commit = commit

    def _body(self, answer: httpx.Response, most: int, is_part: bool) -> bytes:
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise ReadingEnds(
                "UnexpectedAnswer", f"{answer.url.host} answers compressed, though it was asked not to. It is not read."
            )
        place = answer.headers.get("content-range", "")
        if answer.status_code == 206 and not place.startswith("bytes 0-"):
            raise ReadingEnds("UnexpectedAnswer", f"{answer.url.host} sends another part than was asked for.")
        pieces, size = [], 0
        # As it is sent: nothing is unpacked.
        for piece in answer.iter_raw():
            if time.monotonic() > self._until:
                raise self._too_slow(answer.url)
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
        if size > most and not is_part:
            raise ReadingEnds("TooLarge", f"{answer.url.path} has more than {most} bytes, and is not read.")
        return b"".join(pieces)[:most]


class _MayPass(Exception):
    """A failure that is worth another try."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_hub(hub: Hub, question: Question) -> ModelAnswer:
    """The facts of a model on the hub.

    Raises:
        ReadingEnds: There are none.
    """
    names = hub.list(question)
    file = question.file or gguf_file(question, names)
    facts = _of_gguf(hub, question, file) if file is not None else _of_checkpoint(hub, question, names)
    return ModelAnswer(facts=facts, commit=hub.commit)


def gguf_file(question: Question, names: Sequence[str] | None) -> str | None:
    """The GGUF file that the engine would take; None: the repository holds a checkpoint.

    Args:
        names: What `Hub.list` told.

    Raises:
        ReadingEnds: It has no file of the quantization that is asked for, or cannot be listed to find one.
    """
    if names is None:
        if question.quantization is None:
            return None
        raise ReadingEnds(
            "NotFound",
            f"The files of {question.repository} cannot be listed here to find {question.quantization}. Name the file: "
            f"hf://{question.repository}/FILE.gguf.",
        )
    files = sorted(n for n in names if n.endswith(".gguf") and not n.rpartition("/")[2].startswith("mmproj"))
    if question.quantization is None and (not files or any(n.endswith(".safetensors") for n in names)):
        return None
    wanted = question.quantization or DEFAULT_QUANTIZATION
    word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted)}(?![A-Za-z0-9_])", re.IGNORECASE)
    found = next((name for name in files if word.search(name)), None)
    if found is None and question.quantization is None:
        return files[0]
    if found is None:
        there = ", ".join(files[:5]) or "no GGUF file"
        raise ReadingEnds(
            "NotFound", f"{question.repository} has no GGUF file of {wanted} (it has: {there}). Correct model.uri."
        )
    return found


def _of_gguf(hub: Hub, question: Question, name: str) -> ModelFacts:
    data, wanted = b"", FIRST_BYTES
    while True:
        more = hub.beginning(question, name, wanted)
        header = read_gguf_header(more)
        if not isinstance(header, ShortHeader):
            return gguf_facts(name, header, _source(hub, question))
        if len(more) < wanted or len(more) <= len(data) or wanted >= MAX_HEADER_BYTES:
            ends = UnreadableHeader(reason="it ends inside its header; is it complete?")
            return gguf_facts(name, ends, _source(hub, question))
        data, wanted = more, min(MAX_HEADER_BYTES, max(header.needed_bytes, 4 * wanted))


def _of_checkpoint(hub: Hub, question: Question, names: Sequence[str] | None) -> ModelFacts:
    if names is not None and CONFIG not in names:
        raise ReadingEnds(
            "NotAModel",
            f"{question.repository} has neither config.json nor a GGUF file. Correct model.uri, or write model.architecture.",
        )
    config = json_object(CONFIG, hub.file(question, CONFIG, most=MAX_CONFIG_BYTES))
    beside = None
    if names is not None and QUANTIZATION_CONFIG in names:
        beside = json_object(QUANTIZATION_CONFIG, hub.file(question, QUANTIZATION_CONFIG, most=MAX_CONFIG_BYTES))
    source = f"{CONFIG} of {_source(hub, question)}"
    facts = checked(CONFIG, facts_from_config(config, quantization=beside, source=source[:200]))
    if names is None or INDEX in names:
        try:
            return with_index(facts, hub.file(question, INDEX, most=MAX_INDEX_BYTES))
        except ReadingEnds as ends:
            if ends.problem.code not in ("NotFound", "TooLarge"):
                raise
    if names is None or ONE_FILE in names:
        totals = _totals(hub, question)
        return with_totals(facts, totals) if totals is not None else facts
    return facts


def _totals(hub: Hub, question: Question) -> SafetensorsTotals | None:
    """Sums of a checkpoint of one file. Facts without them are facts, too."""
    wanted = FIRST_BYTES // 4
    for _ in range(2):
        try:
            data = hub.beginning(question, ONE_FILE, wanted)
        except ReadingEnds as ends:
            if ends.problem.code == "NotFound":
                return None
            raise
        header = read_safetensors_header(data)
        if isinstance(header, SafetensorsTotals):
            return header
        if not isinstance(header, ShortHeader) or not wanted < header.needed_bytes <= MAX_SAFETENSORS_HEADER_BYTES:
            return None
        wanted = header.needed_bytes
    return None


def _source(hub: Hub, question: Question) -> str:
    return f"{question.source} at {hub.commit[:12] if hub.commit else question.revision}"


def _refuse(answer: httpx.Response, endpoint: str, *, has_token: bool) -> None:
    """Nothing for an answer with a body that was asked for."""
    status, host = answer.status_code, answer.url.host
    why = answer.headers.get("x-error-message", "")
    said = f" It says: {why[:160].rstrip('.')}." if why.isascii() and why.isprintable() and why else ""
    match status:
        case 200 | 206:
            return
        case 401 | 403:
            way_out = (
                "Let the owner of the token in model.authSecretRef accept the model's terms there, or correct model.uri."
                if has_token
                else "Set model.authSecretRef to a token that may read it, or correct model.uri."
            )
            raise ReadingEnds("NotAuthorized", f"{host} does not give the model to us ({status}).{said} {way_out}")
        case 404 | 410:
            raise ReadingEnds(
                "NotFound", f"{host} has no {answer.url.path} ({status}).{said} Correct model.uri or model.revision."
            )
        case 429:
            raise _MayPass("RateLimited", f"{host} asks for fewer requests (429).{said}")
        case _ if status >= 500:
            raise _MayPass("HubFailed", f"{host} failed ({status}).{said}")
        case _:
            raise ReadingEnds("UnexpectedAnswer", f"{host} answered {status}.{said} Is {endpoint} the hub?")


def _target(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except httpx.InvalidURL:
        raise ReadingEnds("RedirectRefused", f"{url.host} redirects to what is no URL.") from None


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _quoted(part: str) -> str:
    """A part of a path that cannot become two. `..` would be one of another place."""
    if part in ("", ".", ".."):
        raise ReadingEnds("NotFound", "A part of the path is empty or a dot. Correct model.uri.")
    return part.replace("%", "%25").replace("/", "%2F").replace("?", "%3F").replace("#", "%23")
