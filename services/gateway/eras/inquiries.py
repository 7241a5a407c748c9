"""What the server asks in one legacy session, and the one call in it that may be asked."""

from services.gateway import messages
from services.gateway.eras import failures, inputs
from services.gateway.eras.calls import Call, Question
from services.gateway.links.port import Emit
from services.gateway.messages import Message
from services.gateway.protocol import INTERNAL_ERROR

MOST_OPEN, OPEN_BYTES = 64, 16 * 1024 * 1024  # of questions of one call
MOST_UNCLAIMED = 8  # questions outside of any call


class Inquiries:
    """`capabilities` are the client's, raw JSON; `say` sends an answer of our own."""

    def __init__(self, capabilities: bytes, say: Emit) -> None:
        self.asked: Call | None = None
        self._capabilities, self._say = capabilities, say
        self._unclaimed: list[Question] = []

    def attend(self, call: Call) -> None:
        """From now on questions go to `call`, and first those that nobody could be asked."""
        self.asked = call
        for question in self._unclaimed:
            call.ask(question)
        self._unclaimed = []

    def leave(self, call: Call) -> None:
        if call is self.asked:
            self.asked = None

    def take(self, request: Message) -> None:
        """A request of the server."""
        if request.method == "ping":
            self._say(messages.result(request.id, {}))
            return
        try:
            inputs.refuse_undeclared(request.method, request.params, self._capabilities)
        except failures.RequestFailed as refusal:
            self._say(refusal.response(request.id))
            return
        question = Question(request.id, request.method, request.params)
        if not self.asked:
            self._keep(question, "it belongs to no request, so the client cannot be asked")
        elif self._has_room(self.asked, question):
            self.asked.ask(question)
        else:
            self._refuse(question, f"{MOST_OPEN} questions, or {OPEN_BYTES} bytes of them, are open already")

    @staticmethod
    def _has_room(call: Call, question: Question) -> bool:
        open_ones = call.questions.values()
        size = len(question.params) + sum(len(each.params) for each in open_ones)
        return len(open_ones) < MOST_OPEN and size <= OPEN_BYTES

    def withdraw(self, id: bytes) -> None:
        """The server does not want to know any more. `id` is raw JSON."""
        open_ones = [*self._unclaimed, *(self.asked.questions.values() if self.asked else ())]
        for question in open_ones:
            if question.id == id:
                question.open = False
        self._unclaimed = [question for question in self._unclaimed if question.open]

    def settle(self, call: Call) -> None:
        """`call` is over: what it was asked and nobody saw waits for another call, or is refused."""
        for question in call.questions.values():
            self._keep(question, "the request that it belongs to is over")

    def refuse(self, call: Call, reason: str) -> None:
        """Nobody answers what `call` was asked."""
        for question in call.questions.values():
            self._refuse(question, reason)

    def _keep(self, question: Question, reason: str) -> None:
        """Let the roots wait, for which servers ask as soon as they are initialized; nothing else."""
        if question.method == "roots/list" and len(self._unclaimed) < MOST_UNCLAIMED:
            self._unclaimed.append(question)
        else:
            self._refuse(question, reason)

    def _refuse(self, question: Question, reason: str) -> None:
        question.open = False
        self._say(failures.failed(INTERNAL_ERROR, reason).response(question.id))
