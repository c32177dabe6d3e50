"""Neutral text: what steering for a task should leave as it is.

Changes when the text should cover more. It is short, since every arm reads it; `--neutral FILE`
takes another.
"""

from __future__ import annotations

from collections.abc import Sequence

from corrsteer.lm.models import LanguageModel
from corrsteer.tasks import load_task
from corrsteer.tasks.base import target_reply

BUILT_IN_MODEL = "mini"

NEUTRAL = (
    "The ferry leaves the northern pier at seven in the morning and again at noon. Passengers"
    " with bicycles wait on the left. In winter the second crossing is cancelled when the "
    "wind is strong.",
    "To make a simple soup, cut two onions and three carrots, fry them slowly in a little "
    "oil, add a litre of water and a handful of lentils, and let everything simmer for half "
    "an hour.",
    "My grandfather kept bees behind the house. Every spring he painted the hives a new "
    "colour, and he claimed that the bees preferred blue, although nobody else could see any "
    "difference.",
    "A triangle has three sides and three angles, and the angles add up to one hundred and "
    "eighty degrees. If two of its sides are equal, the angles opposite to them are equal as "
    "well.",
    "Dear Mr Okafor, thank you for sending the plans of the new library. We have read them "
    "with interest and suggest moving the entrance to the other side, where there is more "
    "room.",
    "The town lies in a valley between two rivers. Its market was founded in the fourteenth "
    "century, and the old bridge, built of grey stone, still carries the road to the coast.",
    "def mean(values):\n"
    "    total = 0\n"
    "    for value in values:\n"
    "        total = total + value\n"
    "    return total / len(values)\n",
    "She opened the window and listened. Somewhere a dog barked, a train passed, and then "
    'there was only the rain. "We should go to bed," she said, but neither of them moved.',
)
"""In own words: a notice, a recipe, a memory, a fact, a letter, a description, code, a story."""


def neutral_texts(lm: LanguageModel, given: Sequence[str] = ()) -> Sequence[str]:
    """The texts given, or ours; the built-in model's own, which knows no English.

    Args:
        lm: the model that reads them.
        given: a user's own.
    """
    if given:
        return given
    if lm.id != BUILT_IN_MODEL:
        return NEUTRAL
    probes = [load_task(name) for name in ("probe-copy", "probe-lookup", "probe-harmless")]
    rows = [sample for probe in probes for sample in probe.fit[:12]]
    return [sample.prompt + target_reply(sample) for sample in rows]
