"""Wiring of a gateway replica."""

import re
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.common import errors, health
from libs.common.bus import Bus
from libs.common.clock import iso, now
from libs.common.control.entries import Replica
from libs.common.control.follower import Follower
from libs.common.control.lease import Lease
from libs.common.decision.ladder import Call, Decision, decide
from libs.common.journal import Journal
from libs.common.lifecycle import running
from libs.common.shipper import Shipper
from libs.common.tokens import Claims, Verifier
from services.gateway import metadata
from services.gateway.aggregate.changes import Changes
from services.gateway.aggregate.endpoint import Aggregate, Names, Surroundings
from services.gateway.asgi import Receive, Scope, Send
from services.gateway.authentication import Authenticator
from services.gateway.bridge.governed import Governor
from services.gateway.bridge.host import Whole
from services.gateway.bridge.wiring import Bridge
from services.gateway.credentials import Wallet
from services.gateway.dialing import tls_context
from services.gateway.ingress import Ingress
from services.gateway.learn import Learning
from services.gateway.links.port import Endpoint
from services.gateway.links.processes import Processes
from services.gateway.links.spoken_eras import SpokenEras
from services.gateway.pins.pins import Pins
from services.gateway.pins.reports import Reports
from services.gateway.pool import Pools
from services.gateway.quotas.admission import Quotas
from services.gateway.quotas.ledger import Ledger
from services.gateway.quotas.report import Reporting
from services.gateway.running import Running
from services.gateway.sessions import Sessions
from services.gateway.settings import GatewaySettings
from services.gateway.ticket import Caller, Shared

# The server, empty for the gateway as a whole, and the old transport. What is no slug gets an ordinary 404.
_MCP_PATH = re.compile(r"/mcp(?:/(?!sse$|sse/)([a-z0-9][a-z0-9-]{0,62}))?(/sse)?")
# Metadata is asked for by browser-based clients too; it holds nothing secret.
PUBLIC = {"access-control-allow-origin": "*", "cache-control": "max-age=300"}


class Gateway:
    """The ASGI application. `/mcp/{server}` goes straight to the lane, the rest through Starlette."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.bus = Bus(settings, "gateway")
        self.follower = Follower(self.bus, settings)
        self.journal = Journal(journal_directory(settings.data_dir))
        self.pools = Pools(settings.gateway_upstream_connections, tls_context(settings.gateway_ca_file))
        self.lease: Lease | None = None
        self.running = Running(
            self.decide_by_log,
            lambda: self.follower.complete,
            settings.gateway_user_concurrency,
            settings.gateway_user_streams,
        )
        self.reports = Reports(self.bus, self.follower.tables)
        self.pins = Pins(
            self.follower.tables, self.reports, lambda slug: self.running.review(f"server.{slug}", None, 0)
        )
        self.ledger = Ledger(self.bus, settings.nats_replicas)
        # Without NATS, a replica that is to serve on counts alone; others refuse when the lease would end.
        patience = settings.lease if settings.on_stale == "refuse" else float("inf")
        self.quotas = Quotas(self.ledger, self.follower.tables, patience)
        self.reporting = Reporting(self.bus, self.ledger, self.quotas)
        wallet = Wallet(self.bus, self.follower.tables)
        authenticator = Authenticator(
            settings, Verifier(self.follower.tables, settings.public_url), self.journal
        )
        shared = Shared(
            settings=settings,
            tables=self.follower.tables,
            authenticator=authenticator,
            decide=self.decide,
            wallet=wallet,
            sessions=Sessions(settings.session_key),
            journal=self.journal,
            pools=self.pools,
            running=self.running,
            quotas=self.quotas,
            pins=self.pins,
        )
        self.eras = SpokenEras()
        self.changes = Changes()
        self.processes = Processes(settings, self.follower.tables, lambda: self.follower.complete)
        self.bridge = Bridge(
            shared,
            self.bus,
            self.eras,
            self.processes,
            decide=self.decide_by_log,
            complete=lambda: self.follower.complete,
            whole=self._whole,
        )
        self.learning = Learning(self.bus, self.follower, wallet, self.bridge.upstreams)
        self._ingress = Ingress(shared, self.bridge.gate)
        # In this order: a change has ended what it forbids before the lease reports it as applied.
        self.follower.subscribe(self.pins.review)
        self.follower.subscribe(wallet.forget)
        self.follower.subscribe(self.running.review)
        self.follower.subscribe(self.processes.review)
        self.follower.subscribe(self.bridge.review)
        self.follower.subscribe(self.changes.noticed)
        self._rest = self._others()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (path := _MCP_PATH.fullmatch(scope["path"])):
            await self._ingress(scope, receive, send, path[1] or "", "sse" if path[2] else "http")
        else:
            await self._rest(scope, receive, send)

    def decide(self, claims: Claims, call: Call) -> Decision:
        """The ladder over this replica's tables, now."""
        return decide(self.follower.tables, self.follower.applied, self.fresh, claims, call, self.pins.seen)

    def decide_by_log(self, claims: Claims, call: Call) -> Decision:
        """The same, whether the lease is valid or not."""
        return decide(self.follower.tables, self.follower.applied, True, claims, call, self.pins.seen)

    @property
    def fresh(self) -> bool:
        """Whether the tables may be decided on."""
        if not self.follower.complete or self.lease is None:
            return False
        return self.lease.valid or self.settings.on_stale == "serve"

    def _whole(self, governor: Governor) -> Whole:
        tables, names = self.follower.tables, Names()

        def whole(caller: Caller) -> Endpoint:
            def servers() -> list[str]:
                group = tables.group_of(caller.claims.subject)
                usable = [tables.servers.get(slug) for slug in sorted(group.servers)] if group else []
                return [server.slug for server in usable if server and server.enabled]

            def known(slug: str) -> list[str]:
                server = tables.servers.get(slug)
                return list(server.tools) if server else []

            endpoint = partial(governor.endpoint_for, caller)
            deadline = self.settings.gateway_aggregate_deadline
            return Aggregate(Surroundings(servers, endpoint, known, names, self.changes, deadline))

        return whole

    async def start(self) -> None:
        """The replica's name comes from its journal, so the lease begins after it."""
        replica = Replica(
            id=self.journal.replica,
            revision=0,
            applied_at=iso(now()),
            lease=self.settings.lease,
            on_stale=self.settings.on_stale,
        )
        self.lease = Lease(self.bus, self.follower, replica)
        await self.follower.start()
        await self.processes.start()
        await self.processes.serve(self.bus, self.journal.replica)
        await self.bridge.start()
        await self.learning.start()
        await self.reports.start()
        await self.ledger.start()
        await self.reporting.start()
        await self.lease.start()

    async def stop(self) -> None:
        """Give up the lease. The server has ended what was in flight."""
        if self.lease:
            await self.lease.stop()
        await self.reports.stop()
        await self.bridge.stop()
        await self.processes.stop()
        await self.ledger.stop()
        await self.eras.stop()
        await self.follower.stop()

    def _others(self) -> Starlette:
        async def protected_resource(request: Request) -> Response:
            path = request.url.path.removeprefix(metadata.METADATA)
            return JSONResponse(metadata.document(self.settings, path), headers=PUBLIC)

        checks = {
            "lease": lambda: (
                None if self.fresh else "no proof that the rules are up to date: is NATS reachable?"
            ),
            "journal": self.journal.problem,
        }
        app = Starlette(
            routes=[
                *(
                    Route(metadata.METADATA + path, protected_resource, methods=["GET"])
                    for path in ("/mcp", "/mcp/{server}", "/mcp/{server}/sse")
                ),
                *health.routes(checks),
            ],
            lifespan=lambda _: running(
                self.bus, self.journal, Shipper(self.bus, self.journal, self.settings), self.pools, self
            ),
        )
        errors.install(app)
        return app


def journal_directory(data_dir: Path) -> Path:
    """Where the journal of the replica with this data directory lies."""
    return data_dir / "gateway-journal"


def create_app(settings: GatewaySettings) -> Gateway:
    """A gateway replica as an ASGI application with a lifespan."""
    return Gateway(settings)
