"""Files that mean harm: small ones that ask for much memory or time, and ones that ask to be run. Each is refused, or read as what it is,
in one sentence, in little memory and soon."""
import pickle
import time
import tracemalloc

import pytest

import my3yearold.data as data


def peak(call):
    "What the call returns or raises, and the most memory that Python held for it, in megabytes."
    tracemalloc.start()
    try:
        try: found = call()
        except (ValueError, TypeError, OSError) as error: found = error
        return found, tracemalloc.get_traced_memory()[1] / 1e6
    finally: tracemalloc.stop()


def refused(call, *parts, error=ValueError, megabytes=30, seconds=5):
    "The call raises the error in one line that holds each of the parts, in little memory and time."
    start = time.monotonic()
    found, most = peak(call)
    assert type(found) is error and "\n" not in str(found) and all(str(part) in str(found) for part in parts), found
    assert most < megabytes and time.monotonic() - start < seconds, (most, time.monotonic() - start)


# --- pickles

def text(content): return b"X" + len(content).to_bytes(4, "little") + content


LONG = text(b"x" * 99_999)
PICKLES = {                                                                # -> what the refusal says
    "5,000 tuples": (b"\x80\x02}(" + b")" + b"\x85" * 5_000 + b"]u.", "a tuple within a tuple"),
    "300,000 tuples": (b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"U\x01as.", "a tuple within a tuple"),
    "300,000 lists": (b"}U\x01a" + b"]" * 300_000 + b"a" * 299_999 + b"s.", "no caption"),
    "300,000 lists, by memory": (b"}U\x01a]p1\n" + b"]h\x01ap1\n" * 300_000 + b"s.", "in two places"),
    "300,000 marks": (b"(" * 300_000 + b".", "16 deep"),
    "a list in itself": (b"}U\x01a]q\x00h\x00as.", "no caption"),
    "one long string 100,000 times": (b"}U\x01a]" + LONG + b"q\x00a" + b"h\x00a" * 100_000 + b"s.", "text"),
    "one list 100,000 times": (b"}(U\x01a](" + (b"U\xc8" + b"b" * 200) * 1000 + b"eq\x00" + b"".join(text(b"%d" % i) + b"h\x00" for i in range(100_000)) + b"u.", "text"),
    "a string that is too long": (b"}U\x01a]" + text(b"x" * 100_001) + b"as.", "100,000"),
    "a string that is not there": (b"}X\xff\xff\xff\x7f.", "damaged"),
    "a number of a million digits": (b"}p" + b"9" * 1_000_000 + b"\n.", "damaged"),
    "a long integer": (b"\x8b\xff\xff\xff\x7f.", "LONG4"),
    "a function": (b"cos\nsystem\n.", "os.system"),
    "another name": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
    "what steers a terminal": (b"c\x1b[31mos\nsystem\n.", "\\x1b[31mos.system"),
    "dict as a name": (b"}})s.", "no string"),
    "marks left open": (b"}((u.", "too early"),
    "below its mark": (b"](aaa.", "fills a list"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_asks_for_too_much(kind):
    content, part = PICKLES[kind]
    refused(lambda: data._read_pickle(content, "some.pkl"), "some.pkl", part, megabytes=120)


def test_a_large_number_is_as_good_as_a_small_one():
    "The memo of Python's own reader is as long as its largest number: 4 GB for ten bytes."
    found, most = peak(lambda: data._read_pickle(b"}U\x01a]r\xff\xff\xff\xffU\x05a dogas.", "some.pkl"))
    assert found == {"a": ["a dog"]} and most < 1


@pytest.mark.parametrize("limit, value, content", [
    ("MOST_OPERATIONS", 9, b"}" * 20 + b"."), ("MOST_REMEMBERED", 3, b"}" + b"".join(b"q%c" % i for i in range(9)) + b"."),
    ("MOST_TEXT", 200, b"}U\x01a]" + b"U\x01ba" * 9 + b"s."), ("LONGEST_STRING", 3, b"}U\x04abcd]s."), ("DEEPEST", 2, b"(((.")])
def test_every_limit_of_a_pickle_is_kept_and_told(monkeypatch, limit, value, content):
    monkeypatch.setattr(data, limit, value)
    with pytest.raises(ValueError, match=rf"some.pkl .* {value}\b"): data._read_pickle(content, "some.pkl")


def test_the_courses_pickle_is_far_from_the_limits():
    "123,287 names of 25 letters, 616,767 captions of 53: half of what is let in, or less."
    names, captions = 123_287, 616_767
    assert 2 * (10 * names + 2 * captions) < data.MOST_OPERATIONS
    assert 2 * (3 * names + captions) <= data.MOST_REMEMBERED + 50_000
    assert 2 * (75 * names + 103 * captions) < data.MOST_TEXT


def test_half_a_character():
    "Some builds of Python 2 wrote a cat as two halves."
    assert data._read_pickle(b"}V\\ud83d\\udc08\n]Va \\ud83d\nas.", "some.pkl") == {"🐈": ["a ?"]}


PYTHON2 = { # written by Python 2.7.18: OrderedDict of str, unicode, one list in two places, one string in two places
    "protocol 0": b'ccollections\nOrderedDict\np1\n((lp2\n(lp3\nS\'b_1\'\np4\na(lp5\nS\'A caf\\xc3\\xa9, voil\\xc3\\xa0 "quoted" and it\\\'s.\'\np6\naS\'two\\\\n "x"\'\np7\naaa'
                  b"(lp8\nS'a_2'\np9\na(lp10\nVun caf\xe9 \\U0001f408 \\u65e5\np11\naS'a kite'\np12\naaa(lp13\nS'c_3'\np14\nag10\naa(lp15\nS'e_4'\np16\na(lp17\naa"
                  b"(lp18\nV\xe9t\xe9\np19\na(lp20\nS'same'\np21\nag21\naaatRp22\n.",
    "protocol 1": b'ccollections\nOrderedDict\nq\x01(]q\x02(]q\x03(U\x03b_1q\x04]q\x05(U"A caf\xc3\xa9, voil\xc3\xa0 "quoted" and it\'s.q\x06U\ttwo\\n "x"q\x07ee]q\x08('
                  b"U\x03a_2q\t]q\n(X\x11\x00\x00\x00un caf\xc3\xa9 \xf0\x9f\x90\x88 \xe6\x97\xa5q\x0bU\x06a kiteq\x0cee]q\r(U\x03c_3q\x0eh\ne]q\x0f(U\x03e_4q\x10]q\x11e"
                  b"]q\x12(X\x05\x00\x00\x00\xc3\xa9t\xc3\xa9q\x13]q\x14(U\x04sameq\x15h\x15eeetRq\x16.",
    "protocol 2": b'\x80\x02ccollections\nOrderedDict\nq\x01]q\x02(]q\x03(U\x03b_1q\x04]q\x05(U"A caf\xc3\xa9, voil\xc3\xa0 "quoted" and it\'s.q\x06U\ttwo\\n "x"q\x07ee]q\x08('
                  b"U\x03a_2q\t]q\n(X\x11\x00\x00\x00un caf\xc3\xa9 \xf0\x9f\x90\x88 \xe6\x97\xa5q\x0bU\x06a kiteq\x0cee]q\r(U\x03c_3q\x0eh\ne]q\x0f(U\x03e_4q\x10]q\x11e"
                  b"]q\x12(X\x05\x00\x00\x00\xc3\xa9t\xc3\xa9q\x13]q\x14(U\x04sameq\x15h\x15eee\x85Rq\x16.",
}


@pytest.mark.parametrize("protocol", PYTHON2)
def test_python_2_itself(protocol):
    expected = {"b_1": ['A café, voilà "quoted" and it\'s.', 'two\\n "x"'], "a_2": ["un café 🐈 日", "a kite"], "c_3": ["un café 🐈 日", "a kite"], "e_4": [], "été": ["same"] * 2}
    found = data._read_pickle(PYTHON2[protocol], "some.pkl")
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_today(protocol):
    from collections import OrderedDict
    captions = {"a.jpg": ["é", "日本", "naïve café"], "b": "one string"}
    for kind in (dict, OrderedDict):
        assert data._read_pickle(pickle.dumps(kind(captions), protocol), "some.pkl") == {"a": ["é", "日本", "naïve café"], "b": ["one string"]}
