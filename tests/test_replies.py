"""What of a reply is read, and lists of labelled replies: `benchmarks/scorer_errors.py`."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from corrsteer.scoring.replies import before_next_question, before_own_question, without_thinking

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scorer_errors.py"
spec = importlib.util.spec_from_file_location("scorer_errors", SCRIPT)
scorer_errors = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = scorer_errors
spec.loader.exec_module(scorer_errors)

LIMIT = 0.03


@pytest.mark.parametrize("part", ["tuned", "held out"])
@pytest.mark.parametrize("scorer", scorer_errors.READINGS)
def test_few_replies_are_misread(scorer, part):
    found = scorer_errors.errors(scorer, part)
    assert found.rows >= 75
    assert found.rate <= LIMIT, found.misread


@pytest.mark.parametrize("scorer", scorer_errors.READINGS)
def test_a_list_repeats_no_reply(scorer):
    lines = (scorer_errors.LISTS / f"{scorer}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({json.dumps({**row, "part": ""}, sort_keys=True) for row in rows}) == len(rows)
    assert len(rows) >= 150


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("<think>\n\n</think>\n\nb", "\n\nb"),
        ("said before <think>a</think>b", "b"),
        ("opened by the prompt</think>b", "b"),
        ("<think>a</think>b<think>never closed", "b"),
        ("<think>cut off", ""),
        ("<THINKING>a</THINKING>b", "b"),
        ("<|thinking|>a<|/thinking|>b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        ("<reasoning>a</reasoning><answer>b</answer>", "<answer>b</answer>"),
        ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>", "b"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("\u25c1think\u25b7a\u25c1/think\u25b7b", "b"),
        ("<unused94>thought\na<unused95>b", "b"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
            "b",
        ),
        ("analysisWe need a.assistantfinalb", "b"),
        ("analysis of the data", "analysis of the data"),
        ("I think so", "I think so"),
    ],
)
def test_marked_thoughts_are_dropped(reply, answer):
    assert without_thinking(reply) == answer


@pytest.mark.parametrize(
    "next_one",
    [
        "Question: what?",
        "Q: what?",
        "Q2. what?",
        "**Problem 3:** what?",
        "# Question 4) what?",
        "Human: hi",
        "User: hi",
        "The following are questions",
        "Choose one of these",
        "[INST] hi",
    ],
)
def test_a_reply_ends_where_the_next_question_starts(next_one):
    assert before_next_question(f"B\n\n{next_one}\nAnswer: C").rstrip() == "B"
    assert before_next_question(f"{next_one}\nAnswer: C") == f"{next_one}\nAnswer: C"


def test_a_reply_that_opens_with_its_answer_ends_before_a_question_of_its_own():
    assert before_own_question("B\n\nWhat is it?\nA. x\nB. y\nAnswer: A") == "B\n\nWhat is it?"
    assert before_own_question("B\n\nWhat is it?\n\nAnswer: A") == "B\n"
    whole = "B\n\nIs that right?\nYes, it is."
    assert before_own_question(whole) == whole
