"""The state machine against a model of it: whatever happens in whatever order, the database says what the model
says.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.engine import Connection

from scanner.errors import LeaseLost
from scanner.model.reference import Digest
from scanner.model.scan import Lane
from scanner.store import images, scans
from scanner.store.schema import scan
from scanner.store.session import Database
from tests.databases import BACKENDS, migrated_url
from tests.scanner.store import factories

TARGETS = ("h.io/a:1", "h.io/a:2", "h.io/b:1")
ENDED = ("done", "failed", "dead", "cancelled")
URGENCY = {"gate": 0, "push": 1, "background": 2, "quarantine": 3}


@dataclass
class Modelled:
    """What a scan should be by now. ``joinable``: a like request may still join it. ``due``: its time has come."""

    target: str
    lane: str
    force: bool
    state: str = "queued"
    attempt: int = 0
    lost: int = 0
    fence: int = 0
    due: bool = True
    joinable: bool = True
    expired: bool = False
    waits: bool = False
    digest: str = ""
    settled: bool = False


class Machine(RuleBasedStateMachine):
    """One database, and the model beside it. Claims are kept after they are lost: zombies try to write too."""

    backend: ClassVar[str]
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="dockwarden-machine-"))
        self.database = Database(migrated_url(self.backend, self.home))
        self.model: dict[str, Modelled] = {}

    def teardown(self) -> None:
        self.database.engine.dispose()
        shutil.rmtree(self.home, ignore_errors=True)

    def do(self, work: Callable[[Connection], Any]) -> Any:
        with self.database.session() as session:
            return work(session)

    def draw(self, data: st.DataObject, scan_ids: list[str]) -> str:
        """One of them, by its place: their ids are other ones when an example is tried again."""
        return scan_ids[data.draw(st.integers(0, len(scan_ids) - 1))]

    def under(self, held: scans.Claim, work: Callable[[Connection], Any]) -> tuple[Modelled, Any] | None:
        """Do something as the holder of a claim; None, and nothing done, when it is held no more."""
        one = self.model[held.scan_id]
        if one.state != "running" or one.fence != held.fence:
            with pytest.raises(LeaseLost):
                self.do(work)
            return None
        return one, self.do(work)

    def end(self, one: Modelled, state: str) -> None:
        one.state = state
        for other in self.model.values():
            if other.state == "queued" and other.waits and other.digest == one.digest:
                other.due = True

    @rule(
        target_=st.sampled_from(TARGETS),
        lane=st.sampled_from([Lane.GATE, Lane.PUSH, Lane.BACKGROUND]),
        force=st.booleans(),
    )
    def ask(self, target_: str, lane: Lane, force: bool) -> None:
        ticket = self.do(lambda s: scans.request(s, factories.request(target_, lane=lane, force=force)))
        like = [
            i
            for i, m in self.model.items()
            if m.target == target_ and m.joinable and m.state == "queued" and not m.force
        ]
        if force or not like:
            assert ticket.created
            self.model[ticket.scan_id] = Modelled(target_, lane, force)
            # SQLite's clock knows milliseconds: two of the same would come in any order, and no example could be tried
            # again.
            later = scan.c.created_epoch + len(self.model)
            self.do(lambda s: s.execute(scan.update().where(scan.c.id == ticket.scan_id).values(created_epoch=later)))
            return
        assert (ticket.scan_id, ticket.created) == (like[0], False)
        joined = self.model[like[0]]
        if joined.lane != "quarantine" and URGENCY[lane] < URGENCY[joined.lane]:
            joined.lane = lane.value

    @rule(target=claims, lanes=st.sets(st.sampled_from(["gate", "push", "background"]), min_size=1))
    def claim(self, lanes: set[str]) -> Any:
        held = self.do(lambda s: scans.claim(s, "w", sorted(lanes), 60))
        free = not any(m.state == "running" and m.lane == "quarantine" for m in self.model.values())
        wanted = lanes | ({"quarantine"} if "background" in lanes and free else set())
        ready = {i: m for i, m in self.model.items() if m.state == "queued" and m.due and m.lane in wanted}
        if held is None:
            assert not ready
            return multiple()
        one = ready[held.scan_id]
        assert URGENCY[one.lane] == min(URGENCY[m.lane] for m in ready.values())
        one.state, one.fence, one.expired, one.waits, one.settled, one.joinable = (
            "running",
            one.fence + 1,
            False,
            False,
            False,
            False,
        )
        assert (held.fence, held.attempt, held.lost) == (one.fence, one.attempt, one.lost)
        return held

    @rule(held=claims)
    def heartbeat(self, held: scans.Claim) -> None:
        if found := self.under(held, lambda s: scans.heartbeat(s, held, 60)):
            found[0].expired = False

    @rule(held=claims, name=st.sampled_from(["one", "two"]))
    def settle(self, held: scans.Claim, name: str) -> None:
        digest = Digest.of(name.encode())
        found = self.under(held, lambda s: scans.settle(s, held, digest, "db"))
        if found is None:
            return
        one, alone = found
        like = (
            m
            for i, m in self.model.items()
            if i != held.scan_id and m.state == "running" and m.settled and m.digest == digest
        )
        twin = None if one.force else next((m for m in like if not m.force), None)
        one.digest, one.settled = digest, twin is None
        assert alone == (twin is None)
        if twin is None:
            return
        if twin.target == one.target:
            self.end(one, "cancelled")
        else:
            one.state, one.waits, one.due = "queued", True, False

    @rule(held=consumes(claims))
    def record(self, held: scans.Claim) -> None:
        found = factories.report("one")
        made = [factories.decided(found)]
        if ended := self.under(held, lambda s: images.record(s, held, found, factories.evidence(found), made)):
            ended[0].digest = found.digest
            self.end(ended[0], "done")

    @rule(held=consumes(claims))
    def fail(self, held: scans.Claim) -> None:
        if found := self.under(held, lambda s: scans.fail(s, held, "malformed_image", "broken")):
            self.end(found[0], "failed")

    @rule(held=consumes(claims))
    def retry(self, held: scans.Claim) -> None:
        if found := self.under(held, lambda s: scans.retry(s, held, "registry_error", "reset")):
            one = found[0]
            one.attempt += 1
            one.due = False
            if one.attempt == 3:
                self.end(one, "dead")
            else:
                one.state = "retry_wait"

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.model:
            return
        scan_id = self.draw(data, list(self.model))
        one = self.model[scan_id]
        assert self.do(lambda s: scans.cancel(s, scan_id)) == (one.state not in ENDED)
        if one.state not in ENDED:
            one.fence += 1
            self.end(one, "cancelled")

    @rule(data=st.data())
    def a_worker_vanishes(self, data: st.DataObject) -> None:
        running = [i for i, m in self.model.items() if m.state == "running"]
        if not running:
            return
        scan_id = self.draw(data, running)
        self.do(lambda s: s.execute(scan.update().where(scan.c.id == scan_id).values(lease_until=0.0)))
        self.model[scan_id].expired = True

    @rule()
    def time_passes(self) -> None:
        waiting = scan.c.state.in_(["queued", "retry_wait"])
        self.do(lambda s: s.execute(scan.update().where(waiting).values(next_at=0.0)))
        for one in self.model.values():
            one.due = one.due or one.state in ("queued", "retry_wait")

    @rule()
    def sweep(self) -> None:
        swept = self.do(scans.sweep)
        lost = [m for m in self.model.values() if m.state == "running" and m.expired]
        dead = [m for m in lost if m.lost == 4]
        for one in lost:
            one.lost, one.fence = one.lost + 1, one.fence + 1
        for one in dead:
            self.end(one, "dead")
        for one in (m for m in lost if m not in dead):
            one.state, one.due, one.lane = "queued", True, "quarantine" if one.lost >= 2 else one.lane
        for one in self.model.values():
            if one.state == "retry_wait" and one.due:
                one.state = "queued"
        assert (swept.dead, swept.requeued) == (len(dead), len(lost) - len(dead))

    @invariant()
    def the_database_agrees(self) -> None:
        with self.database.read() as session:
            assert scans.invariants(session) == []
            rows = session.execute(
                sa.select(scan.c.id, scan.c.state, scan.c.lane, scan.c.attempt, scan.c.lost, scan.c.fence)
            )
            there = {row[0]: tuple(row[1:]) for row in rows}
        assert there == {i: (m.state, m.lane, m.attempt, m.lost, m.fence) for i, m in self.model.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_machine_does_what_its_model_does(backend: str) -> None:
    machine = type("Machine", (Machine,), {"backend": backend})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    many = {"sqlite": 40, "postgresql": 15}[backend]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=many, stateful_step_count=40, deadline=None, suppress_health_check=checks),
    )
