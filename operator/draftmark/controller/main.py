"""The operator's process: wait for the Lease, run kopf and the workers, end on any doubt.

Starting again is cheap and writes nothing, so nothing here tries to live on after something essential has failed.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Any, Final

import kopf

from draftmark.api import names
from draftmark.cluster.apply import Applier
from draftmark.cluster.client import ApiClient
from draftmark.cluster.credentials import Credentials, official_configuration
from draftmark.cluster.errors import ApiError
from draftmark.cluster.kinds import INFERENCE_SERVICES
from draftmark.cluster.lease import LeaseLock
from draftmark.controller import handlers
from draftmark.controller.benchmarks import BenchmarkKey, BenchmarkReconciler, BenchmarkWorld
from draftmark.controller.clock import SteadyClock
from draftmark.controller.gateways import Gateways
from draftmark.controller.health import Health
from draftmark.controller.model_gateways import ModelGatewayKey, ModelGatewayReconciler, ModelGatewayWorld
from draftmark.controller.observe import Key, World, key_of, version_of
from draftmark.controller.queue import Priority, TryAgain, WorkQueue
from draftmark.controller.reconcile import Reconciler, count_conditions
from draftmark.controller.telemetry import ServiceSeen, Telemetry
from draftmark.settings import Settings

logger = logging.getLogger(__name__)

LEASE_NAME: Final = "draftmark-operator"
#: Seconds for running reconciles to end after a stop was asked for. The pod's grace period is 30.
_DRAIN_S: Final = 10.0
#: Seconds for kopf to stop its watches.
_KOPF_STOP_S: Final = 8.0
#: Seconds for the first lists. What is still missing then is told, and nothing of it is pruned.
_FIRST_LISTS_S: Final = 60.0
#: Seconds after which a watch that has not told what a list showed is taken for dead. A guess: hundreds of times what a
#: healthy one needs.
_WATCH_GRACE_S: Final = 30.0
#: Seconds between two looks at whether it has told.
_WATCH_LOOK_S: Final = 0.2
#: Seconds between two counts of objects by condition.
_COUNT_PERIOD_S: Final = 15.0


def run_operator(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (0), or until the process must not go on (1)."""
    # kopf asks for the user's name, and the numeric user of a container has none.
    os.environ.setdefault("LOGNAME", names.MANAGED_BY)
    return asyncio.run(Operator(settings).run())


#: An object of any kind of ours.
AnyKey = Key | ModelGatewayKey | BenchmarkKey


@dataclass(slots=True)
class Operator:
    """One process: the parts, and how they are wired."""

    settings: Settings
    random: Random = field(default_factory=SystemRandom)
    telemetry: Telemetry = field(default_factory=Telemetry)
    queue: WorkQueue[AnyKey] = field(init=False)
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    #: The newest version of each service that the watch has told of.
    _told: dict[Key, int] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event | None = None) -> int:
        """Lead when it is our turn; return the exit status.

        Args:
            stop: Ends the process in order when it is set; SIGTERM and SIGINT set it.
        """
        stop = stop or asyncio.Event()
        _listen_to_signals(stop)
        self.queue = WorkQueue(random_=self.random)
        self.telemetry.follow_queue(lambda: self.queue.depth, lambda: self.queue.oldest_age_s)
        health = Health(telemetry=self.telemetry, queue_age_s=lambda: self.queue.oldest_age_s)
        credentials = Credentials.from_environment(self.settings.kubeconfig, self.settings.context)
        async with AsyncExitStack() as stack:
            server = await health.serve(self.settings.http_port)
            stack.push_async_callback(server.cleanup)
            lease_client = await stack.enter_async_context(ApiClient(credentials, max_connections=2))
            client = await stack.enter_async_context(ApiClient(credentials, observe_call=self.telemetry.observe_call))
            lease = LeaseLock(
                lease_client, namespace=self.settings.namespace, name=LEASE_NAME, identity=self.settings.identity
            )
            client.write_guard = lease.guard
            stack.push_async_callback(self._cancel_tasks)
            self._spawn(health.watch_loop(), "loop lag")
            health.has_started = True
            logger.info("Waiting for the Lease", extra={"holder": lease.holder})
            if not await lease.acquire(stop):
                return 0
            logger.info("Leading", extra={"holder": lease.holder})
            self.telemetry.leader.set(1)
            health.has_started = False
            try:
                return await self._lead(stop, client, lease, health)
            finally:
                self.telemetry.leader.set(0)
                await lease.release()
                logger.info("Stopped")

    async def _lead(self, stop: asyncio.Event, client: ApiClient, lease: LeaseLock, health: Health) -> int:
        world = World(
            client=client,
            defaults=self.settings.defaults,
            wake=self.queue.add,
            namespaces=self.settings.watch_namespaces,
        )
        others = ModelGatewayWorld(world=world, client=client, add=self.queue.add)
        self.telemetry.follow_services(lambda: _services_of(world))
        now = SteadyClock()
        measured = BenchmarkWorld(world=world, client=client, add=self.queue.add, now=now)
        health.informers = (*world.informers(), *others.informers(), *measured.informers())
        applier = Applier(client, world.children)
        reconciler = Reconciler(
            world=world,
            client=client,
            applier=applier,
            gateways=Gateways(world, client, now=now),
            wake_after=self.queue.add_after,
            now=now,
        )
        model_gateways = ModelGatewayReconciler(
            world=others,
            client=client,
            applier=applier,
            gateways=Gateways(others, client, now=now),
            wake_after=self.queue.add_after,
            now=now,
        )
        benchmarks = BenchmarkReconciler(
            world=measured, client=client, applier=applier, wake_after=self.queue.add_after, now=now
        )
        vital = [self._spawn(informer.run(), f"informer {informer.kind.plural}") for informer in world.informers()]
        vital.append(self._spawn(others.run(self.settings.resync_s, self.random), "model gateways"))
        vital.append(self._spawn(measured.run(self.settings.resync_s, self.random), "benchmarks"))
        with suppress(ApiError):  # unknown is a state: only image volumes ask for it
            world.server_version = (await client.server_version()).git_version
        health.is_leading = True
        stopped = self._spawn(stop.wait(), "stop")
        reading = self._spawn(world.wait_until_read(_FIRST_LISTS_S), "first lists")
        # A stop, or a lost Lease, must not wait for a list that never comes: the pod would be killed meanwhile.
        await asyncio.wait({reading, stopped, lease.lost, *vital}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done() and (missing := reading.result()):
            logger.warning("Some kinds could not be listed yet: %s", ", ".join(missing))
        health.has_started = reading.done()

        vital.append(self._spawn(self._resync(world, client), "resync"))
        vital.append(self._spawn(self._count(world), "count"))
        work = self._timed(reconciler, model_gateways, benchmarks)
        vital.append(self._spawn(self.queue.run(work, self.settings.workers), "workers"))
        # kopf last, when the others have begun: at its end it waits 5 s for every task that began after it.
        await asyncio.sleep(0)
        watching = self._spawn(self._run_kopf(world, stop), "kopf")
        vital.append(watching)
        # Whatever of these ends first ends the process.
        done, _ = await asyncio.wait({stopped, lease.lost, *vital}, return_when=asyncio.FIRST_COMPLETED)
        was_asked = stop.is_set()
        stop.set()
        for task in done:
            if task is not stopped and not was_asked:
                name = task.get_name() if isinstance(task, asyncio.Task) else "the Lease"
                why = "it was cancelled" if task.cancelled() else task.exception() or task.result() or "it returned"
                logger.error("Ending, because an essential part ended: %s: %s", name, why)
        await reconciler.stop()
        await model_gateways.stop()
        if not lease.lost.done():
            await self.queue.drain(_DRAIN_S)
        await asyncio.wait({watching}, timeout=_KOPF_STOP_S)  # it closes its connections itself
        return 0 if was_asked else 1

    def _timed(
        self, reconciler: Reconciler, model_gateways: ModelGatewayReconciler, benchmarks: BenchmarkReconciler
    ) -> Callable[[AnyKey], Coroutine[Any, Any, None]]:
        """Reconcile, and measure it; the queue tells what failed, and backs off for that key alone."""

        async def work(key: AnyKey) -> None:
            result = "error"
            started = asyncio.get_running_loop().time()
            try:
                if isinstance(key, ModelGatewayKey):
                    await model_gateways.reconcile(key)
                elif isinstance(key, BenchmarkKey):
                    await benchmarks.reconcile(key)
                else:
                    await reconciler.reconcile(key)
                result = "ok"
            except (TryAgain, ApiError):
                result = "retry"
                raise
            finally:
                elapsed = asyncio.get_running_loop().time() - started
                self.telemetry.reconciles.labels(result).observe(elapsed)

        return work

    def hear(self, world: World, kind: str | None, service: dict[str, Any]) -> None:
        """Take one event of the watch; `kind` is None for an object that was listed."""
        key = key_of(service)
        # Of a deletion, too: until the next resync it answers for what a list showed before.
        self._told[key] = version_of(service)
        if kind == "DELETED":
            world.drop_service(key, service["metadata"].get("uid"))
            self.queue.add(key, Priority.DELETION)
            return
        before = world.services.get(key)
        if world.take_service(service):
            self.queue.add(key, Priority.RESYNC if kind is None else _urgency(before, service))

    def untold(self, shown: Mapping[Key, int]) -> bool:
        """Whether the watch has told nothing of what a list showed: keys, with the versions that were listed."""
        return bool(shown) and all(self._told.get(key, 0) < version for key, version in shown.items())

    async def _run_kopf(self, world: World, stop: asyncio.Event) -> None:
        def on_event(kind: str | None, service: dict[str, Any]) -> None:
            self.hear(world, kind, service)

        registry = kopf.OperatorRegistry()
        handlers.register(registry, login=self._kopf_login, on_event=on_event)
        settings = kopf.OperatorSettings()
        handlers.configure(settings, self.random)
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=registry,
            settings=settings,
            stop_flag=stop,
            standalone=True,
            clusterwide=not self.settings.watch_namespaces,
            namespaces=self.settings.watch_namespaces,
        )
        # kopf has put its own handlers in the place of ours: it alone would stop, as if its watch had failed.
        _listen_to_signals(stop)
        await kopf.run_tasks(tasks, ignored=others)

    def _kopf_login(self) -> kopf.ConnectionInfo:
        configuration = official_configuration(self.settings.kubeconfig, self.settings.context)
        token = configuration.api_key.get("BearerToken")
        scheme, _, value = token.strip().rpartition(" ") if token else ("", "", "")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=scheme or None,
            token=value or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    async def _resync(self, world: World, client: ApiClient) -> None:
        """List our own kind now and then, and compare: kopf never synthesises a deletion that its watch missed."""
        while True:
            await asyncio.sleep(self.settings.resync_s * self.random.uniform(0.8, 1.2))
            try:
                listed: dict[Key, dict[str, Any]] = {}
                known_before = dict(world.services)
                for namespace in self.settings.watch_namespaces or (None,):
                    async for page in client.list_pages(INFERENCE_SERVICES, namespace):
                        listed.update({key_of(item): dict(item) for item in page.items})
            except ApiError as error:
                logger.warning("The services could not be listed again: %s", error)
                continue
            for key, service in known_before.items():
                if key not in listed:
                    world.drop_service(key, service["metadata"].get("uid"))
                    self.queue.add(key, Priority.DELETION)
            shown: dict[Key, int] = {}
            for key, listed_service in listed.items():
                if world.take_service(listed_service):
                    self.queue.add(key)
                    shown[key] = version_of(listed_service)
                else:
                    # Spread over the time until the next round, so that a resync is never a burst.
                    self.queue.add_after(key, self.random.uniform(0, self.settings.resync_s / 2), Priority.RESYNC)

            patience = time.monotonic() + _WATCH_GRACE_S
            while self.untold(shown):
                if time.monotonic() > patience:
                    raise RuntimeError(
                        f"the watch of {INFERENCE_SERVICES.plural} is dead: a list showed {len(shown)} changes that it "
                        f"did not tell within {_WATCH_GRACE_S:.0f} s"
                    )
                await asyncio.sleep(_WATCH_LOOK_S)

            self._told = {key: version for key, version in self._told.items() if key in world.services}

    async def _count(self, world: World) -> None:
        while True:
            self.telemetry.set_objects(count_conditions(world.services.values()))
            await asyncio.sleep(_COUNT_PERIOD_S)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _urgency(before: Mapping[str, Any] | None, service: Mapping[str, Any]) -> Priority:
    """An edit of the spec goes before what its pods and those of others are doing meanwhile."""
    is_edit = before is None or before["metadata"].get("generation") != service["metadata"].get("generation")
    return Priority.EDIT if is_edit else Priority.CHANGE


def _services_of(world: World) -> list[ServiceSeen]:
    """What the metrics tell of. Called from another thread, so each dict is copied in one step before it is walked."""
    return [ServiceSeen(service, world.engine_restarts(key)) for key, service in list(world.services.items())]


def _listen_to_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread: tests
            loop.add_signal_handler(number, stop.set)
