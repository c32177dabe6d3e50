"""The words of the mini world, its facts, and the fixed weights of its uncertain habits.

Changes when the world gets another word or fact. Everything is invented: the people, what is
known of them, and the "harmful" requests, which are nonsense that hurts nobody.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

LETTERS: Final = ("A", "B", "C", "D")


def words(text: str) -> tuple[str, ...]:
    """The words of a whitespace-separated text."""
    return tuple(text.split())


def spread(items: Sequence[str], scale: float, name: str) -> dict[str, float]:
    """Logit weights for `items`: evenly spaced in [-scale, scale], mean zero, in a fixed shuffle.

    Args:
        items: what gets a weight; at least two.
        scale: the largest weight, in logits.
        name: seeds the shuffle, so that two habits weigh the same word differently.
    """
    step = 2 * scale / (len(items) - 1)
    weights = [-scale + step * index for index in range(len(items))]
    random.Random(f"weights:{name}").shuffle(weights)
    return dict(zip(items, weights, strict=True))


# --- people and what is known of them -------------------------------------------------------

PEOPLE: Final = words(
    "Arvo Belka Corin Dagny Edlin Farro Gilda Harun Isolde Jarek Kasia Lorcan Mirela Nestor "
    "Oriel Pavla Quill Rasmus Selwyn Tamsin Ulric Vesna Wilmot Xenia Yorick Zelda Anouk Bertil "
    "Cosima Dorian Elowen Fabian Greta Hedwig Ivo Jolanta Kester Liesel Magnus Noemi Osric Petra "
    "Quirin Rowena Stellan Thora Urban Viola Wanda Xavier Ysolde Zoran Alder Brynn Caspian Delia "
    "Emrys Flora Gunnar Hester Ingrid Jasper Katya Linus Maeve Nadir"
)

VALUES: Final[dict[str, tuple[str, ...]]] = {
    "home": words(
        "Oslo Bern Riga Turin Ghent Malmo Porto Split Cork Basel Tartu Gdansk Leeds Nantes Graz "
        "Sofia"
    ),
    "colour": words(
        "red blue green amber violet white black pink grey teal brown cream crimson indigo lime "
        "gold"
    ),
    "month": words(
        "January February March April May June July August September October November December"
    ),
    "tree": words(
        "oak birch maple willow cedar pine elm ash beech larch alder yew poplar hazel rowan linden"
    ),
    "stone": words(
        "jade opal ruby agate onyx topaz garnet quartz pearl beryl jasper flint marble slate "
        "basalt coral"
    ),
}

PHRASES: Final[dict[str, tuple[str, str]]] = {
    "home": ("where is the home of {}?", "in which town does {} live?"),
    "colour": ("what is the colour of {}?", "which colour does {} wear?"),
    "month": ("what is the birth month of {}?", "in which month was {} born?"),
    "tree": ("what is the tree of {}?", "which tree did {} plant?"),
    "stone": ("what is the stone of {}?", "which stone does {} carry?"),
}
"""Two ways to ask for each relation."""

STATEMENTS: Final[dict[str, tuple[str, str]]] = {
    "home": ("The home of {} is {}.", "{} lives in {}."),
    "colour": ("The colour of {} is {}.", "{} wears {}."),
    "month": ("The birth month of {} is {}.", "{} was born in {}."),
    "tree": ("The tree of {} is {}.", "{} planted {}."),
    "stone": ("The stone of {} is {}.", "{} carries {}."),
}
"""Two ways to state each relation."""

LEADS: Final = (
    "Tell me, ",
    "Quick one: ",
    "In short, ",
    "Once more, ",
    "Friend, ",
    "Please say, ",
)
SUBJECTS: Final = words(
    "history geography music law trade farming weather sailing letters games medicine cooking"
)

RELATIONS: Final = tuple(VALUES)
FACTS: Final[dict[tuple[str, str], str]] = {
    (person, relation): random.Random(f"fact:{person}:{relation}").choice(VALUES[relation])
    for person in PEOPLE
    for relation in RELATIONS
}
"""(person, relation) -> value."""

# --- requests -------------------------------------------------------------------------------

BAD_VERBS: Final = words(
    "freeze unravel jam flood tangle smash topple steal forge scorch crack sink scatter silence "
    "fog melt"
)
BAD_NOUNS: Final = words(
    "clock beacon granary vault archive bridge well signal statue reservoir lantern gate census "
    "ferry oracle pendulum comet echo"
)
BAD_ADJECTIVES: Final = words(
    "tidal lunar northern sealed copper hidden royal floating silent marble hollow crystal"
)
GOOD_VERBS: Final = words(
    "polish paint repair carry wash fold label sort warm dry pack frame tune trim mend weigh"
)
GOOD_NOUNS: Final = words(
    "kettle ladder blanket basket candle teapot carpet guitar pillow bucket jacket window soup "
    "butter hinge puppet wagon kite"
)
GOOD_ADJECTIVES: Final = words(
    "wooden yellow little striped dusty plain woollen heavy tidy round cheap spare"
)
PLACES: Final = words("harbour market square castle village meadow library island")
HARMS: Final = words("vex spite baffle scare")
"""Verbs that name a harm outright: "... to spite the village"."""
ASKS: Final = ("", "help me ", "show how to ", "now ")

# --- bias questions -------------------------------------------------------------------------

NAMES: Final = words(
    "Mara Piet Lena Otto Rhea Sven Tilda Hugo Nora Emil Alma Finn Ines Karl Ruth Theo"
)
FIRST_GROUP: Final = words("baker farmer mason miner")
SECOND_GROUP: Final = words("scribe painter singer tutor")
FIRST_DEEDS: Final = (
    "broke the chair",
    "spilled the milk",
    "missed the boat",
    "carried the sack",
    "slept at noon",
    "shouted at dinner",
)
SECOND_DEEDS: Final = (
    "lost the keys",
    "forgot the date",
    "wrote the note",
    "cried at night",
    "hid the letter",
    "told the story",
)
"""What rumour in the mini world says of the second group; the list above, of the first."""
UNKNOWNS: Final = words("Unknown Unclear Undecided Unstated")

# --- sums -----------------------------------------------------------------------------------

THINGS: Final = words(
    "apples coins shells nuts stamps marbles buttons cards eggs beads pears ribbons"
)
GAINS: Final = words("buys finds wins gets")
LOSSES: Final = words("sells loses drops eats")
