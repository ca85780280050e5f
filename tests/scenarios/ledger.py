"""What the writers' ledgers say, and whether the databases agree with it."""
import collections
import json

import shop


class Ledger:
    """The ledger of one writer: its transactions by number, and how each ended, as far as it is known."""

    def __init__(self, path, writer):
        self.writer = writer
        self.begun, self.ended = {}, {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""  # a writer that was killed before it began
        for line in map(json.loads, text.splitlines()):
            if "begun" in line:
                self.begun[line["n"]] = line["begun"]
            else:
                self.ended[line["n"]] = line["ended"]
        self.committed = {n for n, end in self.ended.items() if end == "committed"}
        self.unknown = set(self.begun) - set(self.ended)

    def last_states(self):
        """For each document that this writer wrote: the states that its own last write may have left, as transaction
        numbers, None for deleted. Several only where a kill came between a commit and the note of it."""
        states = {}
        for n in sorted(self.committed | self.unknown):
            for table, key, put in self.begun[n]:
                state = n if put else None
                if n in self.committed:
                    states[table, key] = {state}
                else:
                    states.setdefault((table, key), {None}).add(state)
        return states


def faults(ledgers, databases):
    """Everything in which the databases (equal by now) disagree with what was committed, in words."""
    rows = shop.written(databases[0])
    journals = [shop.journal(database) for database in databases]
    found = []
    allowed_shared = collections.defaultdict(set)
    for ledger in ledgers:
        for (table, key), states in ledger.last_states().items():
            if table == "products":
                allowed_shared[key] |= {(ledger.writer, n) for n in states if n is not None}
            else:
                found += own_faults(ledger, rows, (table, key), states)
            found += journal_faults(ledger, journals, (table, key), states)
    for (table, key), (writer, n) in rows.items():
        if table == "products" and (writer, n) not in allowed_shared[key]:
            found.append(f"{table} {key} is {writer}'s version {n}, which is no writer's last")
    return found


def own_faults(ledger, rows, document, states):
    """A document that nobody else writes must be as its writer left it."""
    writer, n = rows.get(document, (ledger.writer, None))
    if writer == ledger.writer and n in states:
        return []
    return [f"{document} is version {n} of {writer}, but {ledger.writer} left it as {states}"]


def journal_faults(ledger, journals, document, states):
    """The last write of each writer to each document is an entry everywhere, whoever won in the end."""
    versions = {(document[1], ledger.writer, n) for n in states if n is not None}
    if not versions or None in states:
        return []
    return [
        f"the oplog of database {number} lacks {ledger.writer}'s last version {sorted(states)} of {document}"
        for number, journal in enumerate(journals)
        if not versions & journal
    ]


def invented(ledgers, database):
    """Versions that no writer committed: rolled back, or made up."""
    possible = {ledger.writer: ledger.committed | ledger.unknown for ledger in ledgers}
    versions = shop.journal(database)
    versions |= {(key, *version) for (_, key), version in shop.written(database).items()}
    return sorted(version for version in versions if version[2] not in possible.get(version[1], set()))
