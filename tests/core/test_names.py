"""Users' names where not every name can stand."""

import unicodedata

import pytest

from genaug.core.names import LIMITS, safe_name

LONG = "gâteau_" * 60


def test_plain_names_stay_as_they_are():
    for place in ("folder", "wandb", "tag"):
        assert safe_name("digits 2-a_b.c", place) == "digits 2-a_b.c"
    assert safe_name("digits_2", "token") == "digits_2"
    assert safe_name("digits 2", "latex") == safe_name("digits 2", "html") == safe_name("digits 2", "csv") == "digits 2"


def test_a_folder_has_one_part_no_dot_in_front_and_a_name():
    assert safe_name("owner/set\\a:b", "folder") == "owner_set_a_b"
    assert safe_name("../../etc", "folder") == "___.._etc"
    assert safe_name(".hidden", "folder") == "_hidden"
    assert safe_name("", "folder") == safe_name(" \n", "folder") == "unnamed"
    assert safe_name("tab\there", "folder") == "tab here"


def test_one_name_in_two_unicode_forms_is_one_name():
    for place in ("folder", "tag", "token"):
        assert safe_name(unicodedata.normalize("NFD", "Gâteau"), place) == safe_name("Gâteau", place)


@pytest.mark.parametrize("place", ["folder", "wandb", "tag", "token"])
def test_a_long_name_is_cut_to_the_limit_and_told_from_its_like(place):
    first, second = safe_name(LONG + "a" + LONG, place), safe_name(LONG + "b" + LONG, place)
    assert first != second
    assert first == safe_name(LONG + "a" + LONG, place)
    length = len(first.encode()) if place == "folder" else len(first)
    assert LIMITS[place] - 8 <= length <= LIMITS[place]
    assert first.startswith("gâteau_")
    assert safe_name(LONG + "_s3", "folder").endswith("_s3")


def test_a_letter_of_several_bytes_is_never_cut_in_two():
    for shift in range(5):
        cut = safe_name("x" * shift + "🐱" * 100, "folder")
        assert len(cut.encode()) <= LIMITS["folder"]
        assert set(cut) <= set("x_🐱0123456789abcdef")


def test_a_token_is_one_word_also_of_a_name_without_letters():
    assert [safe_name(name, "token") for name in ("cyclamen ", "Dining Table", "bishop of llandaff", "c++")] == [
        "cyclamen",
        "dining_table",
        "bishop_of_llandaff",
        "c",
    ]
    cat, dog = safe_name("🐱", "token"), safe_name("🐶", "token")
    assert cat != dog
    assert cat.isidentifier()


def test_latex_shows_every_character_and_runs_none():
    assert safe_name("a_b & 50 % of $x^2$ ~ #1 {}", "latex") == (
        r"a\_b \& 50 \% of \$x\textasciicircum{}2\$ \textasciitilde{} \#1 \{\}"
    )
    assert safe_name("\\input{x}", "latex") == r"\textbackslash{}input\{x\}"
    assert "\n" not in safe_name("a\nb", "latex")


def test_markup_in_a_name_is_shown_not_obeyed():
    assert safe_name('<b>x</b> & "y"', "html") == "&lt;b&gt;x&lt;/b&gt; &amp; &quot;y&quot;"
    assert safe_name("<b>|", "markdown") == "&lt;b&gt;\\|"


def test_no_field_of_a_csv_file_is_a_formula():
    for formula in ("=1+1", "+cmd", "@SUM(A1)", "-x", "\t=1"):
        assert safe_name(formula, "csv").startswith("'")
    for number in ("-1", "+0.5", "-1e-3"):
        assert safe_name(number, "csv") == number
