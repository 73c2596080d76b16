"""What the commands of one node can ask for about files: the door to sending and receiving.

It stands alone because it is all that the node's control API knows of them.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager

from overlay.api import Node
from overlay.apps.files import receiving, sending
from overlay.apps.files.telling import Rows


class Files:
    """One node's files, with the questions that are open about them."""

    def __init__(self) -> None:
        self._questions = receiving.Questions()

    def send(
        self, node: Node, peer: str, paths: Sequence[str]
    ) -> AbstractAsyncContextManager[Rows]:
        """See `overlay.apps.files.sending.rows`."""
        return sending.rows(node, peer, paths)

    def receive(
        self, node: Node, directory: str, senders: Collection[str], *, asks: bool
    ) -> AbstractAsyncContextManager[Rows]:
        """See `overlay.apps.files.receiving.rows`; `asks`: somebody answers questions."""
        return receiving.rows(node, directory, senders, self._questions if asks else None)

    def answer(self, question: str, *, accept: bool) -> None:
        """What the user says to an offer; CommandFailed: it is gone."""
        self._questions.answer(question, accept=accept)
