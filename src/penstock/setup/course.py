"""The course of a setup: which steps in which order, carried out with a record, and taken back from it.

Steps come in stages, for the later ones need what the earlier ones make: a server that lets us in, then one that decodes, then the
statements. A stage is looked at when it is its turn, and again after it: what is still not right then is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from penstock.errors import ConfigError, SourceError, SourceRefusedError
from penstock.finding import Fix
from penstock.language import joined, phrase, said, spoken
from penstock.postgres import slot
from penstock.postgres.providers import Support
from penstock.setup import aws, azure, later_tables, network, password, server, source, tokens
from penstock.setup.step import State, Step, by_hand

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.setup.asked import Asked
    from penstock.setup.record import Done, Record
    from penstock.setup.step import Back

    Stage = Callable[[Asked], list[Step]]

USUAL: tuple[Stage, ...] = (server.steps, source.steps)
AMAZON = (network.steps, aws.steps, *USUAL)
STAGES: dict[str, tuple[Stage, ...]] = {"aurora": AMAZON, "rds": AMAZON, "azure": (azure.steps, *USUAL)}
"""By provider; those that are not named have the usual ones."""


class Talk(Protocol):
    """How setup tells what it does, and asks."""

    def tell(self, name: str, subject: str, what: str) -> None:
        """Say what is done now."""

    def may_restart(self, what: str) -> bool:
        """Ask whether this may be gone for a moment."""


def look(asked: Asked) -> list[Step]:
    """Every step, as far as it can be known now: a server that cannot be reached yet is a step for people."""
    found: list[Step] = []
    for stage in stages(asked):
        if stage in USUAL:
            try:
                _ = asked.source
            except SourceError as error:
                return [*found, _unreachable(asked, error, seen=bool(found))]
        found += stage(asked)
    return found


def stages(asked: Asked) -> tuple[Stage, ...]:
    """The stages of the source's provider. Raises SourceRefusedError for one that no pipe of this kind can have."""
    facts = asked.provider
    if facts.support is Support.NONE or (facts.support is Support.SNAPSHOT and asked.streams):
        once = phrase('Set mode = "snapshot" in [pipe]: the tables are copied once.')
        hint = once if facts.support is Support.SNAPSHOT else phrase("Give the DSN of a PostgreSQL.")
        raise SourceRefusedError(joined(facts.title, phrase(facts.refusal), between=": "), hint=hint)
    return STAGES.get(asked.provider.name, USUAL)


def _unreachable(asked: Asked, error: SourceError, *, seen: bool) -> Step:
    """Where nobody answers, the way through the provider's firewall, unless a step before said it (``seen``)."""
    what = said("what it needs inside cannot be seen yet: {error}", error=error.message)
    fix = Fix(advice=spoken(error.hint))
    if not (seen or asked.answers()):
        fix += asked.provider.allow.filled(asked.facts(role=f'"{asked.role}"'))
    return by_hand("reach the source", asked.connector.where, what, fix)


def apply(asked: Asked, record: Record, talk: Talk) -> list[Step]:
    """Make what is needed, stage by stage; returns all steps as they are then. What may not be restarted stays needed.

    Raises what a step raises, with everything before it made and recorded; the same again goes on from there.
    """
    after: list[Step] = []
    for stage in stages(asked):
        after += _carry_out(stage, asked, record, talk)
    return after


def _carry_out(stage: Stage, asked: Asked, record: Record, talk: Talk) -> list[Step]:
    """Until a look finds nothing more to do: some steps are seen only when others are made."""
    made: set[tuple[str, str]] = set()
    declined: set[tuple[str, str]] = set()
    while True:
        steps = stage(asked)
        todo = [each for each in steps if each.state is State.NEEDED and (each.name, each.subject) not in declined]
        if not todo:
            return steps
        for step in todo:
            which = (step.name, step.subject)
            if which in made:
                raise SourceRefusedError(
                    phrase(
                        "{subject}: {step} was set up, and is still not right: {what}",
                        subject=step.subject,
                        step=phrase(step.name),
                        what=step.what,
                    ),
                    hint=phrase(
                        "The administrator may do only a part of it, or something takes it back; the server's log may say more."
                    ),
                )
            if step.restarts and not talk.may_restart(step.restarts):
                declined.add(which)
            else:
                _make(step, asked, record, talk)
                made.add(which)


def _make(step: Step, asked: Asked, record: Record, talk: Talk) -> None:
    if step.apply is None:
        raise AssertionError(f"{step.name} has nothing to apply")
    record.add(step, asked.system)
    talk.tell(step.name, step.subject, step.what)
    step.apply()


def undo(asked: Asked, record: Record, talk: Talk) -> list[Done]:
    """Take back what was made, the last first; returns it. Raises ConfigError while the pipe is still there.

    What is gone by itself is taken back. After an error the same again goes on from there.
    """
    if not record.done:
        return []
    if record.system:
        _require_same(asked, record)
    gone = list(reversed(record.done))
    for done in gone:
        if done.restarts and not talk.may_restart(done.restarts):
            raise ConfigError(
                phrase(
                    "{subject}: {step} is not taken back, nor what was made before it",
                    subject=done.subject,
                    step=phrase(done.name),
                ),
                hint=phrase("Run it again when the restart may be."),
            )
        talk.tell(done.name, done.subject, said("taken back"))
        for back in done.back:
            UNDO[back.kind](asked, back)
            record.taken_back(back)
    return gone


def _require_same(asked: Asked, record: Record) -> None:
    """The server that was set up, and no pipe on it any more. Raises SourceError where it cannot be asked."""
    if slot.system(asked.source).system_identifier != record.system:
        raise ConfigError(
            phrase("{server} is not the server that was set up", server=asked.connector.where),
            hint=phrase("Point the pipe, and the administrator's DSN, to the server as it was then."),
        )
    if slot.slot_state(asked.source, asked.pipe.slot) is not None:
        raise ConfigError(
            phrase('the pipe still has its replication slot "{slot}"', slot=asked.pipe.slot),
            hint=phrase("Drop the pipe first: {command}", command="penstock drop PIPE.toml"),
        )


def _undo_statement(asked: Asked, back: Back) -> None:
    asked.run_if_there(back.what)


def _undo_file(_asked: Asked, back: Back) -> None:
    password.remove_file(back)


UNDO: dict[str, Callable[[Asked, Back], None]] = {
    "sql": _undo_statement,
    "file": _undo_file,
    **later_tables.UNDO,
    **aws.UNDO,
    **tokens.UNDO,
    **network.UNDO,
    **azure.UNDO,
}
"""How each kind of ``Back`` is done."""
