"""Changes while streams of real vLLM run: what was begun is answered to its end."""

import time

from e2e.tools import RESOURCE
from tests.e2e.api import Namespace, eventually, is_ready
from tests.e2e.flow import current_revision, revisions
from tests.e2e.installed import Client, Installed
from tests.e2e.load import Load, send, sending
from tests.e2e_vllm.conftest import PLAIN, START_S


def tokens_of(seconds: float, installed: Installed, url: str) -> int:
    """Tokens of a stream that lasts about so long, three at once, as fast as the engine is now."""
    told = send(installed.tools, Load(url=url, model=PLAIN, ids="speed", count=3, workers=3, tokens=100, is_noise=True))
    assert told.count() == {"whole": 3}, told.others()
    slowest = max(answer["took"] for answer in told.answers)
    return min(int(seconds * 100 / slowest), 12_000)


#: Streams at once while something changes for minutes: a second engine needs the cores, too.
STREAMS = 2


def streams_meanwhile(installed: Installed, url: str, ids: str) -> Load:
    """Streams of about 10 s, one after another, until something is over."""
    tokens = tokens_of(10, installed, url)
    # While a second engine starts, names are resolved late on two cores.
    return Load(
        url=url, model=PLAIN, ids=ids, count=0, workers=STREAMS, gap_s=2, retry_s=30, tokens=tokens, is_noise=True
    )


def test_streams_outlive_the_deletion_of_their_pod(
    plain: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    (pod,) = plain.pods(PLAIN)
    load = Load(
        url=url, model=PLAIN, ids="deleted", count=3, workers=3, tokens=tokens_of(25, installed, url), is_noise=True
    )
    with sending(installed.tools, load) as told:
        time.sleep(3)
        began = time.time()
        plain.tools.kubectl("delete", "pod", pod["metadata"]["name"], f"--namespace={plain.name}", "--wait=false")
    assert told[0].count() == {"whole": 3}, told[0].others()
    after = min(answer["at"] + answer["took"] for answer in told[0].answers) - began
    assert after > 6, "the streams ended before the pod was told to stop, 5 s after its deletion"
    measured.append(f"streams went on for {after:.0f} s and more after the deletion of their pod")
    eventually("a pod takes its place", lambda: [is_ready(p) for p in plain.pods(PLAIN)] == [True], within_s=START_S)


def test_no_stream_is_cut_by_scaling_up_and_down(
    plain: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    with sending(installed.tools, streams_meanwhile(installed, url, "scaled")) as told:
        began = time.monotonic()
        _scale(plain, 2)
        eventually(
            "two replicas are ready",
            lambda: plain.service(PLAIN)["status"]["readyReplicas"] == 2 and len(plain.pods(PLAIN)) == 2,
            within_s=START_S,
        )
        measured.append(
            f"kubectl scale 1→2 under {STREAMS} streams, until two are ready: {time.monotonic() - began:.0f} s"
        )
        time.sleep(20)
        _scale(plain, 1)
        eventually("one replica is left", lambda: len(plain.pods(PLAIN)) == 1, within_s=60)
        time.sleep(10)
    measured.append(f"streams while a replica came and went: {told[0].count()}")
    assert set(told[0].count()) == {"whole"}, told[0].others()[:5]


def test_no_stream_is_cut_by_a_rolling_update(
    plain: Namespace, installed: Installed, client: Client, measured: list[str]
) -> None:
    url = plain.service(PLAIN)["status"]["url"]
    before = current_revision(plain, PLAIN)
    engine = plain.service(PLAIN)["spec"]["engine"]
    with sending(installed.tools, streams_meanwhile(installed, url, "rolled")) as told:
        time.sleep(2)
        began = time.monotonic()
        plain.edit(PLAIN, engine={**engine, "args": ["--seed", "7"]})
        eventually(
            "the new revision serves alone",
            lambda: [(r["hash"] != before, r["weight"]) for r in revisions(plain, PLAIN).values()] == [(True, 100)],
            within_s=START_S + 240,
        )
        measured.append(f"rolling update of one replica under {STREAMS} streams: {time.monotonic() - began:.0f} s")
        time.sleep(10)
    measured.append(f"streams meanwhile: {told[0].count()}, by revision {told[0].count('revision')}")
    assert set(told[0].count()) == {"whole"}, told[0].others()[:5]
    assert set(told[0].count("revision")) == {before, current_revision(plain, PLAIN)}
    (pod,) = plain.pods(PLAIN)
    assert pod["spec"]["containers"][0]["args"][-2:] == ["--seed", "7"]


def _scale(namespace: Namespace, replicas: int) -> None:
    namespace.tools.kubectl("scale", f"{RESOURCE}/{PLAIN}", f"--replicas={replicas}", f"--namespace={namespace.name}")
