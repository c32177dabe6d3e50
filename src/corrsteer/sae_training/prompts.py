"""Own prompts, whose replies are the text that SAEs are trained on where none is given.

Changes when the replies should cover more. Every prompt is a request about a subject, so that
prompts about one subject can be held out whole.
"""

from __future__ import annotations

REQUESTS = (
    "Explain {} to a child.",
    "Write a short story about {}.",
    "List five facts about {}.",
    "What are the advantages and disadvantages of {}?",
    "Write a short poem about {}.",
    "How did people think about {} a hundred years ago?",
    "Give me three questions one could ask about {}, with answers.",
    "Describe {} in one sentence.",
    "Write a polite e-mail to a colleague about {}.",
    "What is the most common mistake that people make with {}?",
    "Write a review of a book about {}. You liked it.",
    "Write a review of a film about {}. You did not like it.",
    "Compare {} with something that it is often confused with.",
    "Write a dialogue of two friends who argue about {}.",
    "Which numbers should one know about {}?",
    "Give step-by-step advice to somebody who is new to {}.",
    "Summarise what matters about {} in three bullet points.",
    "Write a JSON object with the fields name, kind and use that describes {}.",
    "Is it dangerous to deal with {}? Explain why or why not.",
    "Translate the sentence 'I like {}' into French and Spanish.",
    "Write the opening paragraph of a newspaper article about {}.",
    "What would a doctor, a lawyer and an engineer each say about {}?",
    "Somebody complains about {}. Answer in a friendly way.",
    "Write a Python function that has to do with {}.",
)
"""What is asked about a subject."""

SUBJECTS = (
    "rain",
    "bicycles",
    "the moon",
    "bread",
    "bank accounts",
    "cats",
    "railway stations",
    "chess",
    "vaccines",
    "volcanoes",
    "divorce",
    "potatoes",
    "the Roman Empire",
    "mobile phones",
    "swimming",
    "taxes",
    "whales",
    "jazz",
    "fractions",
    "coffee",
    "photosynthesis",
    "football",
    "earthquakes",
    "marriage",
    "solar panels",
    "spiders",
    "poetry",
    "elevators",
    "diabetes",
    "the Amazon",
    "knives",
    "gravity",
    "airports",
    "gardening",
    "elections",
    "ice cream",
    "robots",
    "glass",
    "insurance",
    "mountains",
    "violins",
    "fire",
    "plastic",
    "dreams",
    "honey",
    "traffic jams",
    "mathematics",
    "dentists",
    "deserts",
    "passwords",
    "wolves",
    "novels",
    "batteries",
    "weddings",
    "noise",
    "bridges",
    "cheese",
    "school uniforms",
    "satellites",
    "loneliness",
)
"""What is asked about."""


def requests() -> list[tuple[str, str]]:
    """(subject, request) of every request about every subject."""
    return [(subject, request.format(subject)) for subject in SUBJECTS for request in REQUESTS]
