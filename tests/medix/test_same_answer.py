"""The one equality: what it passes over, what it never does, and that no edit of a sign, digit or word gets by it."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix.same_answer import answer_key, same_answer

EQUAL = [
    ("pneumonia", "Pneumonia"), ("PNEUMONIA", "pneumonia"), ("pleural effusion", " pleural\n effusion "),
    ("X-ray", "x ray"), ("chest X-ray", "Chest x-ray"), ("Non-Hodgkin lymphoma", "non Hodgkin lymphoma"),
    ("non‐small cell", "non-small cell"), ("A fracture", "a fracture"), ("A", "a"), ("CT", "ct"), ("5 mV", "5\u00a0mV"),
    ("ﬁbrosis", "fibrosis"), ("Ｐneumonia", "pneumonia"), ("５ mg", "5 mg"), ("−5", "-5"), ("3–7 mm", "3-7 mm"),
    ("5 µg", "5 μg"), ("e\u0301tat", "état"), ("Type 2 diabetes", "type 2 diabetes"), ("310 \u212a", "310 K"),
]  # fmt: skip

DIFFERENT = [
    # What an issue found paid or counted as equal.
    ("α-thalassemia", "β-thalassemia"), ("↑ICP", "↓ICP"), ("ER+ PR-", "ER- PR+"), ("♂ pelvis", "♀ pelvis"),
    ("¬pneumonia", "pneumonia"), ("pneumonia ✗", "pneumonia"), ("pneumonia?", "pneumonia"),
    ("Is it pneumonia?", "pneumonia"), (".5 mg", "5 mg"), ("10²", "102"), ("10² cells", "102 cells"),
    ("5 mV", "5 MV"), ("T2*", "T2"), ("1½", "11⁄2"), ("-2.5", "2.5"), ("<5 mm", ">5 mm"), ("+3", "-3"),
    ("Is it ER+?", "Is it ER-?"), ("A. pneumonia is wrong", "A. pneumonia"), ("Answer: A, B, C, D", "A"),
    *((f"{word} pneumonia", "pneumonia") for word in ("не", "无", "無", "ない", "لا", "אין", "नहीं", "δεν", "없음")),
    *((f"{word} pneumonia", "pneumonia") for word in ("not", "nicht", "pas", "ninguna", "geen")),
    # Further cases of the same kinds.
    ("mV", "MV"), ("Mg", "mg"), ("pH", "PH"), ("5 Mg", "5 mg"), ("anti-K", "anti-k"), ("Maße", "Masse"),
    ("ER-PR-", "ER PR-"), ("er-pr-", "er pr-"), ("ER-PR", "ER PR"), ("5-10", "5 10"), ("1:2", "1/2"), ("x-ray", "xray"),
    ("5.0", "50"), ("1,000", "1.000"), ("H₂O", "H2O"), ("①", "1"), ("Ⅳ", "IV"), ("℃", "°C"), ("no-one", "none"),
    ("pneumonia.", "pneumonia"), ("(pneumonia)", "pneumonia"), ("pneu\u00admonia", "pneumonia"), ("10%", "10‰"),
    ("right", "right right"), ("left right", "right left"), ("a\u200bb", "ab"), ("résumé", "resume"),
]  # fmt: skip

NO_ANSWER = ["", " ", ".", "...", "-", "\u200b", "\u2800", "\u3164", "?", "👍", "()", "\ufeff"]

CONFUSABLE = {
    "a": "аɑα", "b": "Ьᖯ", "c": "сϲⅽ", "d": "ԁⅾ", "e": "еҽ", "g": "ɡց", "h": "һհ", "i": "іıɩ", "j": "ј", "k": "κк",
    "l": "ӏⅼ1I|", "m": "ⅿ", "n": "ոռ", "o": "оοօ0", "p": "рρ", "q": "ԛգ", "r": "гᴦ", "s": "ѕ", "u": "υս", "v": "νѵⅴ",
    "w": "ԝѡ", "x": "хⅹ×", "y": "уγ", "z": "ᴢ", "A": "ΑА", "B": "ΒВß", "C": "СⅭ", "E": "ΕЕ", "H": "ΗН", "I": "ΙІlⅠ1",
    "K": "ΚК", "M": "ΜМⅯ", "N": "Ν", "O": "ΟО0", "P": "ΡР", "S": "Ѕ", "T": "ΤТ", "X": "ΧХⅩ", "Y": "ΥҮ", "Z": "Ζ",
    "0": "Oо٥०", "1": "lI١", "2": "Ƨ²₂", "3": "ЗӠ³", "4": "Ꮞ⁴", "5": "Ƽ", "8": "Ȣ৪", "+": "᛭➕⁺", "-": "‑⁃ー—",
    "<": "‹ᐸ", ">": "›ᐳ", "/": "⁄∕", ":": "∶ː", ".": "․٠", "*": "∗⁎",
}  # fmt: skip
"""Character -> others that look like it (Unicode technical standard 39 calls them confusable)."""
ONE_SIGN = frozenset("‑")  # U+2011 is the hyphen itself, without a line break


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_what_never_changes_a_meaning_is_passed_over(left: str, right: str) -> None:
    assert same_answer(left, right)
    assert same_answer(right, left)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_everything_else_is_a_difference(left: str, right: str) -> None:
    assert not same_answer(left, right)
    assert not same_answer(right, left)


@pytest.mark.parametrize("text", NO_ANSWER)
def test_a_text_without_a_letter_or_digit_equals_nothing(text: str) -> None:
    assert answer_key(text) is None
    assert not same_answer(text, text)


@pytest.mark.parametrize("char", CONFUSABLE)
def test_a_character_that_only_looks_the_same_is_a_difference(char: str) -> None:
    for other in set(CONFUSABLE[char]) - ONE_SIGN:
        assert not same_answer(f"ab{char}cd 7", f"ab{other}cd 7"), other


def test_of_all_compatibility_forms_only_width_and_ligatures_are_folded() -> None:
    folded = set()
    for char in map(chr, range(128, sys.maxunicode + 1)):
        plain = unicodedata.normalize("NFKC", char)
        is_form = plain != unicodedata.normalize("NFC", char) and not char.isspace()
        if is_form and same_answer(f"7{char}7", f"7{plain}7"):
            folded.add(char)
    kinds = {unicodedata.decomposition(char).split()[0] for char in folded - set("ﬀﬁﬂﬃﬄﬅﬆµ")}
    assert kinds == {"<wide>", "<narrow>", "<noBreak>"}


WORDS = [
    "left", "Right", "no", "pneumonia", "X-ray", "5", "mg", "mV", "T2*", "ER+", "PR-", "1:2", "<", "α", "grade", "II",
]  # fmt: skip
SIGNS = list("+-*/<>=:;,.?!%()[]'\"#&~^|±≥≤×÷↑↓°²½¬✗♂αβ07")
phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)


@given(phrases, st.data())
def test_no_edit_of_a_word_leaves_two_texts_equal(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.sampled_from(WORDS))
    text, before, after = " ".join(words), words[:place], words[place + 1 :]
    assert not same_answer(text, " ".join([*before, other, words[place], *after]))
    assert not same_answer(text, " ".join([*before, *after]))
    if words[place] != other:
        assert not same_answer(text, " ".join([*before, other, *after]))


@given(phrases, st.data())
def test_no_edit_of_a_sign_or_digit_leaves_two_texts_equal(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    place = data.draw(st.integers(0, len(text)))
    sign = data.draw(st.sampled_from(SIGNS))
    assert not same_answer(text, text[:place] + sign + text[place:])
    for other in ("", sign):
        if text[place : place + 1] not in ("", " ", other) and not text[place].isalpha():
            assert not same_answer(text, text[:place] + other + text[place + 1 :])


@given(st.text(), st.text())
def test_the_key_decides_and_equality_is_symmetric(left: str, right: str) -> None:
    assert same_answer(left, right) == same_answer(right, left)
    assert same_answer(left, left) == (answer_key(left) is not None)
