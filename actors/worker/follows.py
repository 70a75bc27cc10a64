"""What follows a body in the same commit: callbacks and the rest of a chain after a success, errbacks after a failure.

Owns the way from the signatures that a message carries to the messages that its settle publishes. Each of them names
this message as its parent. What is followed here counts among the children of the task, as in Celery.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...transport.message import Envelope, Follow
from ..tasks.call import Prepared
from ..tasks.eager import takes_failure
from ..tasks.signature import Signature, maybe_signature

if TYPE_CHECKING:
    from ..app import App
    from ..tasks.request import Context


def after_success(app: App, request: Context, value: object) -> list[Follow] | None:
    """Return the messages of `link` and of the chain. Raises what making them raises (EncodeError, say)."""
    prepared: list[Prepared] = []
    for callback in request.callbacks or ():
        prepared += _prepare(app, request, callback, (value,))
    chain = request.chain
    if chain:
        # Celery's order: the next one is the last.
        *rest, following = chain
        prepared += _prepare(app, request, following, (value,), chain=rest or None)
    return _grouped(prepared)


def after_failure(app: App, request: Context) -> tuple[list[Follow] | None, list[Signature[Any]]]:
    """Return the messages of old-style errbacks, which get the failed task's id, and the ones to be called here."""
    prepared: list[Prepared] = []
    called: list[Signature[Any]] = []
    for errback in request.errbacks or ():
        signature = maybe_signature(errback, app)
        if signature is None:
            continue
        registered = signature.type
        if registered is not None and takes_failure(registered):
            called.append(signature)
        else:
            prepared += _prepare(app, request, signature, (request.id,))
    return _grouped(prepared), called


def _prepare(app: App, request: Context, link: Any, args: tuple[Any, ...], **options: Any) -> Iterable[Prepared]:
    signature = maybe_signature(link, app)
    if signature is None:
        return ()
    made = signature.prepare(args, parent_id=request.id, root_id=request.root_id, **options)
    request.children.append(app.AsyncResult(made.envelope.id))
    return (made,)


def _grouped(prepared: list[Prepared]) -> list[Follow] | None:
    mailboxes: dict[str, list[Envelope]] = {}
    for mailbox, envelope in prepared:
        mailboxes.setdefault(mailbox, []).append(envelope)
    return [Follow(mailbox, envelopes) for mailbox, envelopes in mailboxes.items()] or None
