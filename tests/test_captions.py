"Captions: known words come back, padding changes nothing, the numbering depends on the counts alone."
import json

import pytest
import torch
from hypothesis import given as forall, settings, strategies as st

from my3yearold.captions import PADDING, UNKNOWN, Vocabulary, tokens

sentences = st.text(alphabet=st.sampled_from("abCdÉß'-.!?,| \t\n"), max_size=25)
anything = st.text(max_size=25)


@forall(captions=st.lists(sentences | anything, max_size=6))
def test_known_captions_come_back(captions):
    vocabulary = Vocabulary.build([captions], min_count=1)
    ids, lengths = vocabulary.encode(captions)
    assert vocabulary.decode(ids) == [" ".join(tokens(c)) for c in captions]
    assert not (ids == UNKNOWN).any()
    again, same = vocabulary.encode(vocabulary.decode(ids))           # and what came back is read as before
    assert torch.equal(again, ids) and torch.equal(same, lengths)


@forall(captions=st.lists(sentences, min_size=1, max_size=6), known=st.lists(sentences, max_size=3))
def test_rows_are_padded_at_their_end_only(captions, known):
    ids, lengths = Vocabulary.build([known], min_count=1).encode(captions)
    assert ids.dtype == lengths.dtype == torch.int64
    assert ids.shape == (len(captions), max(1, lengths.max())) and lengths.shape == (len(captions),)
    assert torch.equal(ids != PADDING, torch.arange(ids.shape[1]) < lengths[:, None])


@forall(captions=st.lists(sentences, min_size=2, max_size=6))
def test_a_row_does_not_depend_on_the_others(captions):
    vocabulary = Vocabulary.build([captions], min_count=2)
    ids, lengths = vocabulary.encode(captions)
    for caption, row, length in zip(captions, ids, lengths):
        alone, alone_length = vocabulary.encode([caption])
        assert alone_length.item() == length and torch.equal(alone[0, :length], row[:length])


@forall(captions=st.lists(st.lists(sentences, max_size=3), max_size=5), random=st.randoms(use_true_random=False), min_count=st.integers(1, 4))
def test_the_numbering_depends_on_counts_alone(captions, random, min_count):
    flat = [c for several in captions for c in several]
    built = Vocabulary.build(captions, min_count)
    random.shuffle(flat)
    assert Vocabulary.build([[c] for c in flat], min_count).words == built.words
    assert Vocabulary.from_json(built.to_json()).words == built.words
    counts = [sum(tokens(c).count(word) for c in flat) for word in built.words[2:]]
    assert counts == sorted(counts, reverse=True) and all(n >= min_count for n in counts)
    assert len(built) == len(built.words) == 2 + len({t for c in flat for t in tokens(c) if sum(tokens(d).count(t) for d in flat) >= min_count})


def test_equally_frequent_words_stand_in_alphabetical_order():
    assert Vocabulary.build([["b a c c", "d d"]], min_count=1).words[2:] == ["c", "d", "a", "b"]


@pytest.mark.parametrize("caption", ["", " ", "\t\n"])
def test_nothing_said_has_length_zero_and_a_tensor_of_width_one(caption):
    ids, lengths = Vocabulary.build([]).encode([caption])
    assert ids.tolist() == [[PADDING]] and lengths.tolist() == [0]


def test_no_captions_at_all():
    ids, lengths = Vocabulary.build([[], []]).encode([])
    assert ids.shape == (0, 1) and lengths.shape == (0,) and ids.dtype == lengths.dtype == torch.int64
    assert len(Vocabulary.build([])) == 2


@settings(max_examples=20)
@forall(mark=st.sampled_from(".!?,|"))
def test_marks_stand_alone_whether_they_touch_a_word_or_not(mark):
    assert tokens(f"One{mark}two {mark}{mark} three{mark}") == ["one", mark, "two", mark, mark, "three", mark]


def test_fewer_than_five_times_is_unknown_and_can_be_asked_for():
    vocabulary = Vocabulary.build([["cat"] * 5 + ["zebra"] * 4])
    ids, lengths = vocabulary.encode(["cat zebra cat"])
    assert ids.tolist() == [[2, UNKNOWN, 2]] and lengths.tolist() == [3]
    assert vocabulary.decode(ids) == ["cat <UNK> cat"]
    assert vocabulary.unknown("A Zebra, a cat, a zebra") == ["a", "zebra", ","]
    assert vocabulary.unknown("cat") == vocabulary.unknown("") == []


def test_the_marker_of_the_unknown_is_no_way_to_name_it():
    "A caption that says <UNK> is an unknown word like any other, and one that was learnt is not the number 1."
    assert Vocabulary.build([]).encode(["<UNK>"])[0].tolist() == [[UNKNOWN]]
    assert Vocabulary.build([["<unk>"]], min_count=1).encode(["<UNK>"])[0].tolist() == [[2]]


def test_another_level_is_refused():
    for make in (lambda: Vocabulary.build([["a"]], level="syllable"), lambda: Vocabulary.from_json(json.dumps(dict(level="syllable", words=[])))):
        with pytest.raises(ValueError, match="'syllable'.*'word'"): make()
