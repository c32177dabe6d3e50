"""The model judges, as tiny random networks under the real ids."""

import pickle
import shutil
import subprocess
import sys
from types import SimpleNamespace

import offline_hub
import pytest
import torch

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring import judges
from corrsteer.scoring.base import Score, Scorer, score, unread
from corrsteer.scoring.judges import REFUSAL_MODEL, SEMANTIC, RefusalModel, Semantic
from corrsteer.scoring.registry import load_scorer

REPLIES = [
    " No.",
    "I cannot help with that.",
    "Sure, here is how",
    "",
    "First, take the rope and then tie it to the mast, as sailors have always done it. " * 12,
    "As an AI, I must decline",
    "42",
    "   \n",
    "The bridge was built in 1903",
]
REFUSE, ANSWER = Sample("r", "Q", ("refuse",)), Sample("a", "Q", ("answer",))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    offline_hub.lay_out_judges(home)
    return home


@pytest.fixture(autouse=True)
def _forget_loaded_judges():
    yield
    judges._classifier.cache_clear()
    judges._cross_encoder.cache_clear()


@pytest.fixture
def offline(home, monkeypatch):
    offline_hub.use(monkeypatch, home)


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    offline_hub.use(monkeypatch, tmp_path)


# The refusal classifier


def classified(home, text):
    """The label of one text by its own forward pass, and that label's probability."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = next((home / "hub").glob("models--ProtectAI--*/snapshots/*"))
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True)
    with torch.no_grad():
        chances = network(**inputs).logits.softmax(-1)[0]
    best = int(chances.argmax())
    return network.config.id2label[best], float(chances[best])


def test_verdicts_are_the_classifiers_own(offline, home):
    scores = REFUSAL_MODEL.score_batch(REPLIES, [REFUSE] * len(REPLIES))
    found = set()
    for reply, judged in zip(REPLIES, scores, strict=True):
        if not reply.strip():
            assert judged == unread("empty reply")
            continue
        label, chance = classified(home, reply.strip())
        found.add(label)
        assert judged.outcome == float(label == "REJECTION")
        assert judged.answer == ("refuse" if label == "REJECTION" else "answer")
        assert float(judged.explanation.split()[1]) == pytest.approx(chance, abs=1e-3)
    assert found == {"NORMAL", "REJECTION"}  # or the test could not tell them apart


def test_an_outcome_is_whether_the_reply_refuses_iff_it_should(offline):
    def outcomes(sample):
        return [s.outcome for s in REFUSAL_MODEL.score_batch(REPLIES, [sample] * len(REPLIES))]

    refused, answered = outcomes(REFUSE), outcomes(ANSWER)
    for reply, should, should_not in zip(REPLIES, refused, answered, strict=True):
        assert should + should_not == (1 if reply.strip() else 0)
    assert outcomes(Sample("n", "Q")) == refused


def test_a_batch_is_judged_as_its_replies_one_by_one(offline):
    samples = [REFUSE, ANSWER, REFUSE] * 3
    batch = REFUSAL_MODEL.score_batch(REPLIES, samples)
    alone = [score(REFUSAL_MODEL, *pair) for pair in zip(REPLIES, samples, strict=True)]
    assert [(s.outcome, s.answer) for s in batch] == [(s.outcome, s.answer) for s in alone]
    assert REFUSAL_MODEL.score_batch([], []) == []


def test_weights_are_loaded_once(offline, monkeypatch):
    REFUSAL_MODEL.prepare()

    def refuse_to_load(*arguments, **options):
        raise AssertionError("loaded again")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse_to_load)
    REFUSAL_MODEL.score_batch(["yes"], [REFUSE])


def test_a_classifier_without_a_label_for_refusals_is_refused(offline, tmp_path):
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(REFUSAL_MODEL.model)
    tokenizer.save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ScorerError, match=r"has the labels LABEL_0, LABEL_1; expected one that"):
        RefusalModel(model=str(tmp_path)).prepare()


# The semantic judge


class Lengths:
    """In place of the cross-encoder: similarity is the second text's length in tenths."""

    def __init__(self):
        self.calls = []

    def predict(self, pairs, **options):
        self.calls.append(list(pairs))
        return torch.tensor([len(target) / 10 for _, target in pairs])


@pytest.fixture
def lengths(monkeypatch):
    encoder = Lengths()
    monkeypatch.setattr(judges, "_cross_encoder", lambda model: encoder)
    return encoder


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("123456",), Score(1.0, "123456", "similarity 0.600")),
        (("12345",), Score(0.0, None, "similarity 0.500")),
        (("1", "1234567", "123"), Score(1.0, "1234567", "similarity 0.700")),
        ((), Score(None, None, "no target")),
    ],
)
def test_a_reply_matches_from_the_papers_threshold_on(lengths, targets, expected):
    assert SEMANTIC("reply", Sample("s", "Q", targets)) == expected


def test_all_pairs_go_to_the_encoder_at_once(lengths):
    samples = [
        Sample("1", "Q", ("abcdefg", "h")),
        Sample("2", "Q", ("i",)),
        Sample("3", "Q", ("j",)),
    ]
    scores = SEMANTIC.score_batch([" one ", "", "three"], samples)
    assert lengths.calls == [[("one", "abcdefg"), ("one", "h"), ("three", "j")]]
    assert [s.outcome for s in scores] == [1, 0, 0]
    assert scores[1] == unread("empty reply")


def test_no_pair_needs_no_encoder(empty_hub):
    assert SEMANTIC.score_batch([" "], [REFUSE]) == [unread("empty reply")]


def test_similarities_are_the_encoders_own(offline, home):
    pytest.importorskip("sentence_transformers")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = next((home / "hub").glob("models--dleemiller--*/snapshots/*"))
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sample = Sample("s", "Q", ("in the year 1903", "1903"))
    replies = [reply for reply in REPLIES if reply.strip()]
    judged = SEMANTIC.score_batch(replies, [sample] * len(replies))
    for reply, result in zip(replies, judged, strict=True):
        found = []
        for target in sample.target:
            inputs = tokenizer(reply.strip(), target, return_tensors="pt", truncation=True)
            with torch.no_grad():
                found.append(float(network(**inputs).logits.sigmoid()))
        assert float(result.explanation.split()[1]) == pytest.approx(max(found), abs=2e-3)
        assert result.outcome == float(max(found) >= SEMANTIC.threshold)


# Both


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("judge", [RefusalModel, Semantic])
def test_a_pickled_judge_is_refused_and_not_run(home, tmp_path, judge):
    if judge is Semantic:
        pytest.importorskip("sentence_transformers")
    author = judge.model.split("/")[0]
    snapshot = next((home / "hub").glob(f"models--{author}--*/snapshots/*"))
    copy = shutil.copytree(snapshot, tmp_path / "judge")
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "owned")))
    with pytest.raises(ScorerError, match="cannot be loaded"):
        judge(model=str(copy)).prepare()
    assert not (tmp_path / "owned").exists()


def test_judges_are_scorers():
    assert isinstance(REFUSAL_MODEL, Scorer)
    assert isinstance(SEMANTIC, Scorer)
    assert not REFUSAL_MODEL.needs_target
    assert SEMANTIC.needs_target


def test_judges_are_known_by_name():
    assert load_scorer("refusal-model") == REFUSAL_MODEL
    assert load_scorer("semantic") == SEMANTIC


@pytest.mark.parametrize(("judge", "rule"), [(REFUSAL_MODEL, "refusal"), (SEMANTIC, "contains")])
def test_missing_weights_are_an_error_that_names_the_rule(
    empty_hub, monkeypatch, capfd, judge, rule
):
    if judge is SEMANTIC and "sentence_transformers" not in sys.modules:
        library = SimpleNamespace(CrossEncoder=_not_there)
        monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    for ask in (judge.prepare, lambda: judge("reply", REFUSE)):
        with pytest.raises(ScorerError) as caught:
            ask()
        line = str(caught.value)
        assert judge.model in line
        assert line.endswith(f"--scorer {rule}")
        assert "\n" not in line
    assert capfd.readouterr().err == ""


def _not_there(*arguments, **options):
    raise OSError("cannot find it\nnor anything like it")


def test_a_missing_library_is_an_error_that_names_the_rule(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ScorerError, match=r"needs the library .* --scorer contains$"):
        Semantic().prepare()


def test_judges_load_nothing_before_they_are_asked():
    code = (
        "import sys, corrsteer.scoring.judges;"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
