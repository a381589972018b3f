"Captions: known words come back, padding changes nothing, the numbering depends on the counts alone."
import json

import pytest
import torch
from hypothesis import given as forall, settings, strategies as st

from my3yearold.captions import MOST_TOKENS, PADDING, UNKNOWN, Vocabulary, join_captions, tokens

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


@forall(
    captions=st.lists(st.lists(sentences, max_size=3), max_size=5),
    random=st.randoms(use_true_random=False),
    min_count=st.integers(1, 4),
)
def test_the_numbering_depends_on_counts_alone(captions, random, min_count):
    flat = [c for several in captions for c in several]
    built = Vocabulary.build(captions, min_count)
    random.shuffle(flat)
    assert Vocabulary.build([[c] for c in flat], min_count).words == built.words
    assert Vocabulary.from_json(built.to_json()).words == built.words
    counts = [sum(tokens(c).count(word) for c in flat) for word in built.words[2:]]
    assert counts == sorted(counts, reverse=True) and all(n >= min_count for n in counts)
    assert (
        len(built)
        == len(built.words)
        == 2 + len({t for c in flat for t in tokens(c) if sum(tokens(d).count(t) for d in flat) >= min_count})
    )


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
    for make in (
        lambda: Vocabulary.build([["a"]], level="syllable"),
        lambda: Vocabulary.from_json(json.dumps(dict(level="syllable", words=[]))),
    ):
        with pytest.raises(ValueError, match="'syllable'.*'word'"): make()


# ---- characters ----

@forall(captions=st.lists(sentences | anything, max_size=6))
def test_known_characters_come_back(captions):
    vocabulary = Vocabulary.build([captions], min_count=1, level="char")
    ids, lengths = vocabulary.encode(captions)
    assert vocabulary.decode(ids) == [" ".join(c.lower().split()) for c in captions]
    assert lengths.tolist() == [len(" ".join(c.lower().split())) for c in captions] and not (ids == UNKNOWN).any()
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again.level == "char" and torch.equal(again.encode(captions)[0], ids)


def test_an_unknown_character_is_one_character():
    vocabulary = Vocabulary.build([["abba"] * 5 + ["c"] * 4], level="char")
    assert vocabulary.words[2:] == ["a", "b"] and vocabulary.unknown("cab c") == ["c", " "]
    ids, lengths = vocabulary.encode(["abc"])
    assert ids.tolist() == [[2, 3, UNKNOWN]] and lengths.tolist() == [3]
    assert len(vocabulary.decode(ids)[0]) == 3                            # its sign is a single character ...
    assert torch.equal(vocabulary.encode(vocabulary.decode(ids))[0], ids) # ... which is read as unknown again


def test_level_is_kept_and_old_files_are_of_words(root):
    words = Vocabulary.build([["a dog"] * 5])
    assert json.loads(words.to_json())["level"] == "word" and Vocabulary.from_json(words.to_json()).level == "word"
    assert Vocabulary.from_json('{"words": ["dog"]}').level == "word"
    for file in sorted((root / "my3yearold/weights").glob("*/vocabulary.json")):
        bundled = Vocabulary.from_json(file.read_text())
        assert (
            bundled.level == "word"
            and bundled.words[1] == "<UNK>"
            and bundled.decode(bundled.encode(["a red circle ."])[0])[0].startswith("a ")
        )


def test_a_share_of_the_text_is_known():
    vocabulary = Vocabulary.build([["a a a b"]], min_count=2)
    assert vocabulary.coverage([["a a a b"]]) == 0.75 and vocabulary.coverage([["b"], ["a c"]]) == pytest.approx(1 / 3)
    assert vocabulary.coverage([]) == vocabulary.coverage([[], [""]]) == 1
    assert Vocabulary.build([["ab"]], min_count=1, level="char").coverage([["abc "]]) == pytest.approx(2 / 3)


# ---- joined ----

@forall(captions=st.lists(sentences | anything, max_size=6))
def test_joined_captions_can_be_told_apart_again(captions):
    said = [c for c in (" ".join(c.replace("|", " ").split()) for c in captions) if c]
    joined = join_captions(captions)
    assert joined.split(" | ") == (said or [""])
    assert tokens(joined).count("|") == tokens(joined, "char").count("|") == max(0, len(said) - 1)
    assert [t for t in tokens(joined) if t != "|"] == [t for c in said for t in tokens(c)]


def test_the_mark_is_a_token_of_its_own():
    several = [["A dog.", "It runs."]] * 5
    joined = [[join_captions(captions)] for captions in several]
    for level in ("word", "char"):
        vocabulary = Vocabulary.build(joined, level=level)
        mark = vocabulary.index["|"]
        assert (vocabulary.encode(joined[0])[0] == mark).sum() == 1
        assert "|" not in Vocabulary.build(several, level=level).index    # unjoined captions do not teach it


# ---- what a user may hand in ----

def test_of_a_book_the_beginning_is_read_and_it_is_said():
    "A megabyte took half a minute and 2.7 GB in the network."
    vocabulary = Vocabulary.build([["a dog runs"]], min_count=1)
    book = "a dog " * 170_000
    with pytest.warns(UserWarning) as told: ids, lengths = vocabulary.encode(["a dog", book, "a " * 1025])
    assert [str(w.message) for w in told] == ["2 of 3 captions were cut: the longest has 340,000 tokens, and the "
                                              "first 1,024 are read"]
    assert ids.shape == (3, MOST_TOKENS) and lengths.tolist() == [2, 1024, 1024]
    assert torch.equal(ids[1], vocabulary.encode(["a dog " * 512])[0][0])
    letters = Vocabulary.build([["a dog runs"]], min_count=1, level="char")
    with pytest.warns(UserWarning, match="1 of 1 captions were cut: the longest has 1,019,999 tokens"):
        assert letters.encode([book])[1].tolist() == [1024]


@pytest.mark.filterwarnings("error")
def test_a_thousand_words_are_read_whole():
    assert Vocabulary.build([["a"]], 1).encode(["a " * MOST_TOKENS])[1].tolist() == [MOST_TOKENS]


def refused(call, error, *parts):
    with pytest.raises(error) as caught: call()
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in parts), caught.value


def test_what_is_no_list_of_captions():
    vocabulary = Vocabulary.build([["a cat"]], min_count=1)
    for call in (vocabulary.encode, join_captions, lambda captions: Vocabulary.build([captions]),
                 lambda captions: vocabulary.coverage([captions]), Vocabulary):
        for wrong in ("a cat", b"a cat", None, 3):
            refused(lambda: call(wrong), TypeError, "list of strings", type(wrong).__name__)
        for wrong in ([3], ["a cat", None], [["a cat"]], [b"a cat"], [float("nan")]):
            refused(lambda: call(wrong), TypeError, "a caption is a string")
    refused(lambda: Vocabulary.build(["a cat"]), TypeError, "list of strings", "[caption]")
    for wrong in (None, 3, ["a cat"], b"a cat"):
        for call in (tokens, vocabulary.unknown): refused(lambda: call(wrong), TypeError, "a caption is a string")
    for wrong in ("5", None, 2.5, float("nan")): refused(lambda: Vocabulary.build([["a"]], wrong), TypeError, "integer")


def test_what_cannot_be_decoded():
    vocabulary = Vocabulary.build([["a cat"]], min_count=1)
    for wrong in ("a", None, [[2]], torch.tensor([2])): refused(lambda: vocabulary.decode(wrong), TypeError, "(N, T)")
    for wrong in (4, -1, 10**9):
        refused(lambda: vocabulary.decode(torch.tensor([[2, wrong]])), ValueError, "0 to 3", str(wrong))
    assert vocabulary.decode(torch.zeros(0, 3, dtype=torch.long)) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"words": "abc"}', '{"words": [1]}', '{"level": 3, "words": []}',
                                  '{"level": "word"}', "[" * 100_000, '{"words": ["\\ud800"]}'])
def test_a_vocabulary_that_is_none(text): refused(lambda: Vocabulary.from_json(text), ValueError, "the vocabulary")
