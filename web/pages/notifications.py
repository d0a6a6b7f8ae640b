"""Notifications: channels with a test button, subscriptions, what was sent, and dead letters.

Every form answers with a redirect, so that a reload sends nothing twice. A refused form comes back as it was typed,
without its secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.errors import NotFoundError
from scanner.model.notification import SUBSCRIBABLE
from scanner.services import notifications as use_cases
from scanner.store import channels, notifications, projects
from web.auth import permission, principal
from web.pages import once
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.pages.forms import RefusedForm, attempt, showable, whole_number
from web.resources import resources

bp = Blueprint("notifications_page", __name__)
NAVIGATION = NavigationItem(82, "notifications_page.index", "Notifications", "read")
_LATE_SECONDS = 300


@bp.get("/notifications")
@permission("read")
def index() -> str:
    """List channels and subscriptions."""
    who = principal()
    with resources().database.read() as session:
        configured = use_cases.configurable_channels(session, who) if who.may("manage") else []
        subscribed = use_cases.subscriptions(session, who)
        offered = use_cases.open_to_people(session, who) if who.user_id else []
        figures = notifications.figures(session)
    late = figures.oldest_seconds if who.may("manage") and not any(c.failures for c in configured) else 0
    return page(
        "notifications.html",
        section="channels",
        configured=configured,
        subscribed=subscribed,
        offered=offered,
        formats=catalog.channels(),
        kinds={kind.value: kind.label for kind in SUBSCRIBABLE},
        late=int(late // 60) if late > _LATE_SECONDS else 0,
        may_manage=who.may("manage"),
    )


# Channels


@bp.get("/notifications/channels/new")
@permission("manage")
def new() -> str:
    """Show the form for a channel of a format."""
    form = _format(request.args.get("format", ""))
    return _render_new(form, {"name": form.title})


@bp.post("/notifications/channels")
@permission("manage")
def create() -> Response:
    """Add a channel."""
    form = _format(request.form.get("format", ""))
    own = resources()

    def make() -> channels.ChannelView:
        return use_cases.create(
            own.database,
            own.settings,
            own.secret_key,
            principal(),
            name=request.form.get("name", "").strip(),
            format_=form.id,
            values=_form_settings(form),
            project=request.form.get("project", ""),
        )

    try:
        made = attempt(make)
    except RefusedForm as refused:
        return make_response(_render_new(form, _typed_values(form), refused.problems, refused.fields), 422)
    return _to_channel(made.id)


@bp.get("/notifications/channels/<uuid:channel_id>")
@permission("manage")
def channel(channel_id: UUID) -> Response:
    """Show a channel. The result of a test is shown once."""
    return once.drop(make_response(_channel(str(channel_id), tested=once.carried_values())))


@bp.post("/notifications/channels/<uuid:channel_id>")
@permission("manage")
def change(channel_id: UUID) -> Response:
    """Change a channel. An empty secret keeps the stored one."""
    own, identifier = resources(), str(channel_id)
    with own.database.read() as session:
        form = _format(use_cases.visible(session, principal(), identifier).format)

    def work() -> channels.ChannelView:
        name = request.form.get("name", "").strip()
        return use_cases.change(
            own.database, own.settings, own.secret_key, principal(), identifier, name=name, values=_form_settings(form)
        )

    try:
        attempt(work)
    except RefusedForm as refused:
        return make_response(_channel(identifier, _typed_values(form), refused.problems, refused.fields), 422)
    return _to_channel(identifier)


@bp.post("/notifications/channels/<uuid:channel_id>/test")
@permission("manage")
def test(channel_id: UUID) -> Response:
    """Send a test, and show what the receiver answered."""
    own, identifier = resources(), str(channel_id)
    recipient = request.form.get("recipient", "").strip()

    def work() -> use_cases.ChannelTest:
        return use_cases.send_test(own.database, own.settings, own.secret_key, principal(), identifier, recipient)

    try:
        tested = attempt(work)
    except RefusedForm as refused:
        return make_response(_channel(identifier, problems=refused.problems, wrong=refused.fields), 422)
    # The result is carried in a cookie, which may have four kilobytes.
    shown = {name: str(value)[:900] for name, value in asdict(tested).items()}
    return once.carry(_to_channel(identifier), {**shown, "delivered": "yes" if tested.delivered else ""})


@bp.post("/notifications/channels/<uuid:channel_id>/<action>")
@permission("manage")
def act(channel_id: UUID, action: str) -> Response:
    """Enable, disable or delete a channel, or send its dead letters again."""
    who, identifier = principal(), str(channel_id)
    actions: dict[str, Callable[[Connection], object]] = {
        "enable": lambda session: use_cases.set_disabled(session, who, identifier, False),
        "disable": lambda session: use_cases.set_disabled(session, who, identifier, True),
        "remove": lambda session: use_cases.remove(session, who, identifier),
        "replay": lambda session: use_cases.replay_all(session, who, identifier),
    }
    if action not in actions:
        raise NotFoundError("unknown action")
    with resources().database.session() as session:
        actions[action](session)
    if action == "remove":
        return _redirect("notifications_page.index")
    return _to_channel(identifier)


def _render_new(form: Any, kept: Mapping[str, Any], problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        offered = projects.list_projects(session, principal().projects)
    return page(
        "notification_channel.html",
        channel=None,
        form=form,
        values=showable(kept),
        offered=offered,
        everybody=principal().projects is None,
        problems=problems,
        wrong=wrong,
        tested=None,
        subscribed=[],
        dead=[],
        kinds={},
    )


def _channel(
    identifier: str,
    kept: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    wrong: Collection[str] = (),
    tested: Mapping[str, str] | None = None,
) -> str:
    who = principal()
    with resources().database.read() as session:
        found = use_cases.visible(session, who, identifier)
        subscribed = [one for one in use_cases.subscriptions(session, who) if one.channel_id == identifier]
        dead = use_cases.deliveries(session, who, channel_id=identifier, states=("dead",), limit=10).items
    return page(
        "notification_channel.html",
        channel=found,
        # None: the format's plug-in was removed. The channel is shown, and can be deleted.
        form=catalog.channels().get(found.format),
        values={"name": found.name, **found.settings, **showable(kept)},
        problems=problems,
        wrong=wrong,
        tested=tested if tested and "delivered" in tested else None,
        subscribed=subscribed,
        dead=dead,
        kinds={kind.value: kind.label for kind in SUBSCRIBABLE},
        offered=[],
        everybody=True,
    )


def _format(name: str) -> Any:
    found = catalog.channels().get(name)
    if found is None:
        raise NotFoundError("there is no such channel format")
    return found


def _form_settings(form: Any) -> dict[str, str]:
    # An empty field is left out, so that an empty secret keeps the stored one.
    return {one.name: request.form.get(one.name, "") for one in form.fields if request.form.get(one.name)}


def _typed_values(form: Any) -> dict[str, str]:
    """What was typed, without secrets: a page never shows one again."""
    names = ["name", "project", *(one.name for one in form.fields if not one.secret)]
    return {name: request.form.get(name, "") for name in names}


# Subscriptions


@bp.get("/notifications/subscriptions/new")
@permission("read")
def new_subscription() -> str:
    """Show the form for a subscription, shared or one's own."""
    given = request.args
    # A link on a page may fill the form: only with what is visible in it, never with a recipient.
    values = {"channel_id": given.get("channel", ""), "personal": given.get("personal") == "1"}
    values |= {"name": given.get("name", "")[:200], "condition": given.get("condition", "")[:1000]}
    return _subscription(None, {**_defaults(), **values})


@bp.post("/notifications/subscriptions")
@permission("read")
def subscribe() -> Response:
    """Subscribe a channel, or oneself."""
    wanted = _wanted_subscription()

    def work() -> channels.SubscriptionView:
        with resources().database.session() as session:
            return use_cases.subscribe(session, principal(), wanted)

    return _save_subscription(None, work, wanted)


@bp.get("/notifications/subscriptions/<uuid:subscription_id>")
@permission("read")
def subscription(subscription_id: UUID) -> str:
    """Show a subscription for editing."""
    with resources().database.read() as session:
        found = use_cases.visible_subscription(session, principal(), str(subscription_id))
    return _subscription(found, {**asdict(found), "personal": bool(found.owner_id)})


@bp.post("/notifications/subscriptions/<uuid:subscription_id>")
@permission("read")
def change_subscription(subscription_id: UUID) -> Response:
    """Change a subscription."""
    with resources().database.read() as session:
        found = use_cases.visible_subscription(session, principal(), str(subscription_id))
    wanted = _wanted_subscription()

    def work() -> channels.SubscriptionView:
        with resources().database.session() as session:
            return use_cases.change_subscription(session, principal(), found.id, wanted)

    return _save_subscription(found, work, wanted)


@bp.post("/notifications/subscriptions/<uuid:subscription_id>/remove")
@permission("read")
def unsubscribe(subscription_id: UUID) -> Response:
    """End a subscription."""
    with resources().database.session() as session:
        use_cases.unsubscribe(session, principal(), str(subscription_id))
    return _redirect("notifications_page.index")


def _save_subscription(
    found: channels.SubscriptionView | None, work: Callable[[], object], wanted: use_cases.WantedSubscription
) -> Response:
    try:
        attempt(work)
    except RefusedForm as refused:
        return make_response(_subscription(found, asdict(wanted), refused.problems, refused.fields), 422)
    return _redirect("notifications_page.index")


def _subscription(
    found: channels.SubscriptionView | None,
    values: Mapping[str, Any],
    problems: Sequence[str] = (),
    wrong: Collection[str] = (),
) -> str:
    who = principal()
    with resources().database.read() as session:
        offered = projects.list_projects(session, who.projects)
        choices = use_cases.open_to_people(session, who) if values["personal"] else []
        if not values["personal"] and who.may("manage"):
            choices = use_cases.configurable_channels(session, who)
    return page(
        "notification_subscription.html",
        subscription=found,
        values=values,
        choices=choices,
        may_manage=who.may("manage"),
        offered=offered,
        kinds={kind.value: kind.label for kind in SUBSCRIBABLE},
        variables=sorted({*use_cases.VARIABLES, "kind", "level", "project", "resolved", "subject"}),
        problems=problems,
        wrong=wrong,
    )


def _defaults() -> dict[str, Any]:
    return asdict(use_cases.WantedSubscription(""))


def _wanted_subscription() -> use_cases.WantedSubscription:
    form = request.form
    plain = ("name", "project", "recipient", "condition", "digest", "quiet_from", "quiet_to")
    minutes = form.get("group_minutes", "1")
    return use_cases.WantedSubscription(
        form.get("channel", ""),
        **{name: form.get(name, "").strip().replace("\r\n", "\n") for name in plain},
        personal=form.get("personal") == "1",
        kinds=tuple(form.getlist("kinds")),
        group_seconds=-1 if minutes != "0" and not whole_number(minutes) else whole_number(minutes) * 60,
        timezone=form.get("timezone", "").strip() or "UTC",
        disabled=form.get("disabled") == "1",
    )


# Deliveries


@bp.get("/notifications/deliveries")
@permission("manage")
def deliveries() -> str:
    """List messages, newest first, with a tab for each state."""
    chosen = request.args.get("state", "")
    states = {"waiting": ("collecting", "waiting", "sending"), "sent": ("sent",), "dead": ("dead",)}
    with resources().database.read() as session:
        found = use_cases.deliveries(
            session,
            principal(),
            channel_id=request.args.get("channel", ""),
            states=states.get(chosen, ()),
            cursor=request.args.get("cursor"),
            limit=PAGE_SIZE,
        )
    return page("notification_deliveries.html", section="deliveries", found=found, chosen=chosen, here=here)


@bp.get("/notifications/deliveries/<uuid:delivery_id>")
@permission("manage")
def delivery(delivery_id: UUID) -> str:
    """Show a message: its events, its attempts, what the receiver answered."""
    with resources().database.read() as session:
        found = use_cases.delivery(session, principal(), str(delivery_id))
    return page("notification_delivery.html", found=found)


@bp.post("/notifications/deliveries/<uuid:delivery_id>/replay")
@permission("manage")
def replay(delivery_id: UUID) -> Response:
    """Send a dead letter again."""
    with resources().database.session() as session:
        use_cases.replay(session, principal(), str(delivery_id))
    return _redirect("notifications_page.delivery", delivery_id=delivery_id)


def _to_channel(identifier: str) -> Response:
    return _redirect("notifications_page.channel", channel_id=identifier)


def _redirect(endpoint: str, **values: Any) -> Response:
    return redirect(url_for(endpoint, **values), 303)  # type: ignore[return-value]
