"""The model's own tokenizer, so that prompts have the lengths that were asked for, and the proof that it is the engine's.

From a folder or the hub it is tokenizer.json. A GGUF file has no such file: it is built from the vocabulary and the merges
in the file's header, by transformers, which knows the kinds that there are. Both are then compared with the engine's own
`/tokenize`, where it has one: a prompt of 200 tokens that the engine counts as 230 is another load.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from draftmark.benchmark_runner.bounded import read_at_most
from draftmark.benchmark_runner.problem import RunRefused
from draftmark.facts.gguf_header import MAX_HEADER_BYTES, GgufHeader, read_gguf_header
from draftmark.facts.models import ShortHeader
from draftmark.measure.order import FromClaim, FromHub, OrderedTarget
from draftmark.model_facts_reader.hub import Hub, Limits, Question, gguf_file
from draftmark.model_facts_reader.problem import ReadingEnds

#: Longest tokenizer.json that is read, in bytes: those of vocabularies of 262,144 have 33 MB. A bound of ours.
MAX_TOKENIZER_BYTES: Final = 128 * 2**20
#: First piece of a GGUF file.
FIRST_BYTES: Final = 2**22
#: Seconds for a tokenizer from the hub, and for one answer of an engine.
HUB_S: Final = 300.0
ANSWER_S: Final = 10.0
#: Longest answer of an engine that is read, in bytes: some 50 tokens, where it likes with their texts. A bound of ours, well above.
MAX_ANSWER_BYTES: Final = 2**20
#: Tokens that an engine may put before a text, or behind it: those of beginning and end.
MAX_ADDED: Final = 4
#: What is compared: words, numbers, signs, spaces, other scripts and bytes that no token may have. None begins with a
#: space: there llama.cpp puts one before a SentencePiece text and transformers does not, and no prompt here does so.
TEXTS: Final = (
    "Hello, how are you? It is what it is.",
    "the 2026 prices: 3.14, 2,718.28 (and 1e-9)",
    "two  spaces,\ttabs\nand\n\nlines",
    "Grüße, naïve café — 東京 и Москва",
    "def f(x):\n    return x**2  # it's x²",
)
FILE: Final = "tokenizer.json"
CODE: Final = "TokenizerUnavailable"
#: How it is told that the hub did not answer.
_UNREACHED: Final = ("HubUnreachable", "HubTimedOut")
#: What the reader of the hub names in its messages, and what a target by url has instead.
_FIELDS_OF_URL: Final = (("model.authSecretRef", "target.authSecretRef"), ("model.uri", "target.tokenizer"))


@dataclass(slots=True, kw_only=True)
class Tokenizer:
    """Text to tokens.

    Args:
        numbers: Tokens of a text, without those that are added.
        text: Text of tokens.
        size: Tokens in the vocabulary.
        added: Tokens that the engine adds to a prompt.
        source: For people.
        is_built: Built from a GGUF header, and not what the model's makers wrote.
    """

    numbers: Callable[[str], Sequence[int]]
    text: Callable[[Sequence[int]], str]
    size: int
    added: int
    source: str
    is_built: bool

    def count(self, text: str) -> int:
        """Tokens of a prompt, those that the engine adds included."""
        return len(self.numbers(text)) + self.added


def get_tokenizer(target: OrderedTarget, *, token: str | None = None) -> Tokenizer:
    """Read or fetch a target's tokenizer.

    Args:
        token: For the hub.

    Raises:
        RunRefused: It cannot be had.
    """
    try:
        match target.tokenizer:
            case FromClaim(path=path):
                return _mounted(Path(path))
            case FromHub() as where:
                return _fetched(where, token)
    except ReadingEnds as ends:
        message = ends.problem.message
        if ends.problem.code in _UNREACHED:
            message += " Let pods of the namespace reach the hub, or bring it on a claim (pvc://) as model.uri."
        if target.facts.service is None:
            for ours, theirs in _FIELDS_OF_URL:
                message = message.replace(ours, theirs)
        raise RunRefused(CODE, f"The tokenizer of {target.model} cannot be had: {message}") from None
    except OSError as error:
        raise RunRefused(
            CODE,
            f"The tokenizer of {target.model} cannot be read: {error}. Look at the volume that it is on, and at who may read it.",
        ) from None


async def compare(tokenizer: Tokenizer, target: OrderedTarget, bases: Sequence[str]) -> None:
    """Ask the engine for the tokens of some texts, and learn how many it adds to each.

    Args:
        bases: URLs of servers that may answer, without a path; the first that does is believed.

    Raises:
        RunRefused: It takes a text apart otherwise, or does not say, and the tokenizer was built by us.
    """
    async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False, follow_redirects=False) as client:
        for base in bases:
            told = list[Sequence[int]]()
            for text in TEXTS:
                tokens = await _ask(client, base, target.model, text)
                if tokens is None:
                    break
                told.append(tokens)
            if len(told) < len(TEXTS):
                continue
            added = {_added(tokenizer, target, text, theirs) for text, theirs in zip(TEXTS, told, strict=True)}
            # Some add nothing to one text and something to another: then no length would hold.
            if len(added) != 1:
                raise RunRefused(
                    CODE,
                    f"{base} adds {sorted(added)} tokens to a text, not always as many, and no prompt of a known length can be made "
                    "then. Name the served model's own tokenizer in target.tokenizer, or measure an engine that adds as many to each.",
                )
            tokenizer.added = added.pop()
            return
    if tokenizer.is_built:
        raise RunRefused(
            CODE,
            f"The tokenizer of {target.model} was built from a GGUF file and cannot be checked: no server at "
            f"{', '.join(bases)} answers /tokenize. Measure an engine that does, or name a tokenizer.json in target.tokenizer.",
        )


def _added(tokenizer: Tokenizer, target: OrderedTarget, text: str, theirs: Sequence[int]) -> int:
    ours = list(tokenizer.numbers(text))
    for before in range(min(MAX_ADDED, len(theirs)) + 1):
        if list(theirs[before : before + len(ours)]) == ours and len(theirs) - len(ours) <= MAX_ADDED:
            return len(theirs) - len(ours)
    differs = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    raise RunRefused(
        CODE,
        f"{tokenizer.source} is not the tokenizer of {target.model} as it is served: {text[:40]!r} is {len(ours)} tokens "
        f"({_shown(ours, differs)}) for one and {len(theirs)} ({_shown(theirs, differs)}) for the other. "
        "Name the served model's own tokenizer in target.tokenizer.",
    )


def _shown(numbers: Sequence[int], at: int) -> str:
    return f"token {at}: {numbers[at] if at < len(numbers) else 'none'}"


async def _ask(client: httpx.AsyncClient, base: str, model: str, text: str) -> Sequence[int] | None:
    """llama-server wants `content`, vLLM and SGLang `prompt`. Each ignores the other's fields, or refuses them."""
    llama = {"content": text, "add_special": True}
    vllm = {"model": model, "prompt": text, "add_special_tokens": True}
    for body in (llama, vllm):
        try:
            # httpx bounds each read, and an answer may come byte by byte.
            async with (
                asyncio.timeout(ANSWER_S),
                client.stream("POST", f"{base.rstrip('/')}/tokenize", json=body) as answer,
            ):
                content = await read_at_most(answer, MAX_ANSWER_BYTES) if answer.status_code == 200 else b""
            found = json.loads(content) if content else None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError):
            return None
        tokens = found.get("tokens") if isinstance(found, Mapping) else None
        # llama-server answers what has no `content` with no tokens at all.
        if isinstance(tokens, list) and tokens and all(isinstance(each, int) for each in tokens):
            return tokens
    return None


def _mounted(path: Path) -> Tokenizer:
    if path.is_dir():
        file = path / FILE
        if not file.is_file():
            gguf = sorted(path.glob("*.gguf"))
            if len(gguf) == 1:
                return _of_gguf_file(gguf[0])
            raise ReadingEnds(CODE, f"{path.name or path} has no {FILE}. Put it there, or name another tokenizer.")
        if file.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ReadingEnds(CODE, f"{FILE} has more than {MAX_TOKENIZER_BYTES} bytes. Name another tokenizer.")
        return _of_json(file.read_bytes(), f"{FILE} in {path.name}")
    if path.suffix == ".gguf":
        return _of_gguf_file(path)
    raise ReadingEnds(CODE, f"{path.name} is neither a folder with {FILE} nor a GGUF file. Name one of them.")


def _of_gguf_file(path: Path) -> Tokenizer:
    length = FIRST_BYTES
    while True:
        with path.open("rb") as file:
            data = file.read(length)
        header = read_gguf_header(data, arrays=_ARRAYS)
        if not isinstance(header, ShortHeader) or len(data) < length or length >= MAX_HEADER_BYTES:
            return _of_gguf(header, path.name)
        length = min(MAX_HEADER_BYTES, max(header.needed_bytes, 2 * length))


def _fetched(where: FromHub, token: str | None) -> Tokenizer:
    question = Question(
        repository=where.repository,
        revision=where.revision or "main",
        file=where.file,
        quantization=where.quantization,
    )
    limits = Limits(total_s=HUB_S)
    hub = Hub(where.endpoint, where.redirect_hosts, token=token, allow_http=where.allow_http, limits=limits)
    with hub:
        names = hub.list(question)  # notes the commit
        file = where.file or _gguf_file(question, names)
        if file is None:
            return _of_json(hub.file(question, FILE, most=MAX_TOKENIZER_BYTES), f"{FILE} of {question.source}")
        length = FIRST_BYTES
        while True:
            data = hub.beginning(question, file, length)
            header = read_gguf_header(data, arrays=_ARRAYS)
            if not isinstance(header, ShortHeader) or len(data) < length or length >= MAX_HEADER_BYTES:
                return _of_gguf(header, file)
            length = min(MAX_HEADER_BYTES, max(header.needed_bytes, 2 * length))


def _gguf_file(question: Question, names: Sequence[str] | None) -> str | None:
    """The GGUF file that the tokenizer is built from; None: it is tokenizer.json. A quantization that is named is a GGUF file's,
    whatever else the repository has."""
    if question.quantization is None and names is not None and FILE in names:
        return None
    return gguf_file(question, names)


def _of_json(content: bytes, source: str) -> Tokenizer:
    from tokenizers import Tokenizer as Loaded  # the one library of the image that tests have not

    try:
        # Lengths are ours: a file may say that texts are cut or filled up.
        described = json.loads(content)
        described["truncation"] = described["padding"] = None
        loaded = Loaded.from_str(json.dumps(described))
    except Exception as error:  # noqa: BLE001 -- the library raises Exception itself
        raise ReadingEnds(CODE, f"{source} is no tokenizer that can be read: {error}. Bring the model's own.") from None
    added = len(loaded.encode("a").ids) - len(loaded.encode("a", add_special_tokens=False).ids)
    return _wrapped(loaded, added, source, is_built=False)


def _wrapped(loaded: Any, added: int, source: str, *, is_built: bool) -> Tokenizer:
    return Tokenizer(
        numbers=lambda text: loaded.encode(text, add_special_tokens=False).ids,
        text=lambda numbers: loaded.decode(numbers, skip_special_tokens=True),
        size=loaded.get_vocab_size(),
        added=added,
        source=source,
        is_built=is_built,
    )


_ARRAYS: Final = (
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
)
#: Keys of the header under the names that transformers' converter wants. Source: transformers 5.24,
#: integrations/gguf/gguf_tokenizer_mapping.py, GGUF_TOKENIZER_MAPPING; its own reader of files needs torch.
_CONVERTED: Final = {
    "tokenizer.ggml.model": "tokenizer_type",
    "tokenizer.ggml.pre": "pre_tokenizer_type",
    "tokenizer.ggml.tokens": "tokens",
    "tokenizer.ggml.scores": "scores",
    "tokenizer.ggml.token_type": "token_type",
    "tokenizer.ggml.merges": "merges",
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.unknown_token_id": "unk_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
    "tokenizer.ggml.add_space_prefix": "add_prefix_space",
}


def _of_gguf(header: object, name: str) -> Tokenizer:
    if not isinstance(header, GgufHeader):
        why = "its header ends too early" if isinstance(header, ShortHeader) else getattr(header, "reason", "no header")
        raise ReadingEnds(
            CODE, f"{name} is no GGUF file that can be read: {why.removesuffix('.')}. Bring the file anew."
        )
    found: dict[str, Any] = {}
    for key, as_name in _CONVERTED.items():
        if key in header.arrays:
            found[as_name] = list(header.arrays[key])
        elif key in header.metadata:
            found[as_name] = header.metadata[key]
    if "tokens" not in found:
        raise ReadingEnds(
            CODE,
            f"{name} has no vocabulary. Take a GGUF file that has one, or name a tokenizer.json in target.tokenizer.",
        )
    kind = found.get("tokenizer_type")
    # It says itself which kinds of vocabulary it knows.
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

        loaded, _ = convert_gguf_tokenizer(str(header.metadata.get("general.architecture")), found)
    except Exception as error:  # noqa: BLE001 -- what it raises depends on what is wrong with the vocabulary
        why = str(error) or type(error).__name__
        raise ReadingEnds(
            CODE,
            f"No tokenizer can be built from {name} ({kind}): {why[:300]}. Name a tokenizer.json in target.tokenizer.",
        ) from None
    # llama.cpp adds a beginning to a SentencePiece vocabulary that does not say otherwise. Source: the same file.
    begins = header.metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")
    ends = header.metadata.get("tokenizer.ggml.add_eos_token", False)
    return _wrapped(loaded, int(bool(begins)) + int(bool(ends)), f"The vocabulary of {name}", is_built=True)
