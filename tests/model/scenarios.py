"""What is explored: who takes part and what may go wrong, small enough for every state to be seen."""

from dataclasses import dataclass, replace

from tests.model.explore import Exploration, explore
from tests.model.rules import Rules
from tests.model.state import Budget, beginning


@dataclass(frozen=True)
class Scenario:
    """`prompt`, `channel` and `owner_lags` as in `Rules`."""

    left: Budget
    replicas: int = 1
    owners: int = 1
    prompt: bool = True
    channel: int = 0
    owner_lags: bool = False

    def explore(self, rules: Rules, most: int) -> Exploration:
        """Play it by `rules`."""
        rules = replace(rules, prompt=self.prompt, channel=self.channel, owner_lags=self.owner_lags)
        return explore(beginning(self.replicas, self.owners, self.left), rules, most)


# Seen as a whole on every run of the tests.
SMALL = {
    "heartbeats and answers are under way for any time": Scenario(Budget(changes=1), prompt=False),
    "two changes follow each other": Scenario(Budget(changes=2)),
    "the owner's own tables are late": Scenario(Budget(changes=1), owner_lags=True),
    "a message to a replica is lost": Scenario(Budget(changes=1, losses=1), channel=2),
    "a message to a replica comes twice": Scenario(Budget(changes=1, repeats=1), channel=2),
    "messages to a replica overtake each other": Scenario(Budget(changes=1, swaps=1), channel=2),
    "a replica is killed and starts again": Scenario(Budget(changes=1, kills=1, late=1)),
    "the owner is killed between commit and log": Scenario(Budget(changes=1, crashes=1)),
    "what was given up arrives later": Scenario(Budget(changes=1, late=1)),
    "NATS restarts": Scenario(Budget(changes=1, restarts=1), channel=1),
    "a replica is paused": Scenario(Budget(changes=1, pauses=2)),
}

# Seen by `python -m tests.model`.
LARGE = {
    "the owner is killed, and its write arrives later": Scenario(Budget(changes=1, crashes=1, late=1)),
    "a late write meets a second change": Scenario(Budget(changes=2, late=1)),
    "two processes of the owner": Scenario(Budget(changes=2), owners=2),
    "two processes of the owner, and a late write": Scenario(Budget(changes=2, late=1), owners=2),
    "two replicas": Scenario(Budget(changes=1), replicas=2),
    "the log is lost and written anew": Scenario(Budget(changes=1, lost_logs=1)),
    "the log is lost while much is under way": Scenario(Budget(changes=1, lost_logs=1), prompt=False),
    "NATS restarts while the owner is killed": Scenario(
        Budget(changes=1, restarts=1, crashes=1, late=1), channel=1
    ),
    "two changes with everything under way": Scenario(Budget(changes=2), prompt=False),
    "two replicas, one of them killed": Scenario(Budget(changes=1, kills=1), replicas=2),
}
