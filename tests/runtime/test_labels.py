"""Labels in the forms that people have."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import LabelsError
from edge_fg.label_files import parse_labels, read_labels
from edge_fg.labels import Label, Labels


def test_binomials_are_understood(tmp_path: Path):
    path = tmp_path / "labels.txt"
    path.write_text("Athene cunicularia (Burrowing Owl)\nAthene noctua (Little Owl)\nbackground\n")
    labels = read_labels(path, classes=3)
    assert labels[0].label == "Athene cunicularia (Burrowing Owl)"
    assert (labels[0].genus, labels[0].species) == ("Athene", "cunicularia")
    assert labels[0].common_name == "Burrowing Owl"
    assert labels[0].is_sibling_of(labels[1])
    assert not labels[0].is_sibling_of(labels[2])
    assert not labels[2].is_sibling_of(labels[2])


def test_speciesnet_lines_are_understood():
    line = "aa-1;aves;strigiformes;strigidae;athene;noctua;little owl"
    label = parse_labels(line.encode())[0]
    assert (label.uuid, label.family, label.genus) == ("aa-1", "strigidae", "Athene")
    assert label.label == "little owl"


def test_csv_in_any_order_with_quotes():
    text = 'label,index,class\n"Tit, Great",1,aves\nOwl,0,aves\n'
    labels = parse_labels(text.encode())
    assert labels.names == ["Owl", "Tit, Great"]
    assert labels[1].class_ == "aves"


@pytest.mark.parametrize(
    "header",
    [
        "index,label",
        " index , label ",
        "Index,Label",
        '"index","label"',
        '\ufeff"Index", "LABEL"',
        '"", "index","label"',
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_header_however_it_is_written(header: str, newline: str):
    row_name = '"1",' if header.count(",") == 2 else ""
    text = newline.join([header, f'{row_name}1,"Tit, Great"', f"{row_name} 0 , Owl ", ""])
    assert parse_labels(text.encode()).names == ["Owl", "Tit, Great"]


def test_what_only_begins_like_csv_stays_one_label_a_line():
    assert parse_labels(b'"Owl\nTit, Great\n').names == ['"Owl', "Tit, Great"]
    assert parse_labels(b"n01440764\ttench\nn01443537\tgoldfish\n")[0].label == "n01440764\ttench"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no labels"),
        ("label,index\nowl,0\ntit,2\n", "without a gap"),
        ("label,index\nowl,0\ntit,0\n", "without a gap"),
        ("label,index\nowl,x\n", "class index"),
        ("label,index\nowl\n", "cells"),
        ("owl\n\ntit\n", "empty"),
        ("index,label\n" + "7" * 5000 + ",owl\n", "class index"),
        ('index,label\n0,"owl\ntit"\n', "control character"),
        ("owl\x1b[2J\n", "control character"),
        ("index,label,genus\n0,owl,\x9b2J\n", "control character"),
        ("aa;aves;s;s;athene;noc\x07tua;owl\n", "control character"),
        ("index,label\n0,owl\u2028tit\n", "control character"),
    ],
)
def test_wrong_labels_say_what_is_wrong(text, said):
    with pytest.raises(LabelsError) as caught:
        parse_labels(text.encode())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "genus", "species"),
    [
        ("label,genus,species\nx,Athene,Athene noctua", "Athene", "noctua"),
        ("label,genus,species\nx,Athene,noctua", "Athene", "noctua"),
        ("label,genus,species\nx,athene,Athene noctua vidalii", "athene", "noctua"),
        ("label,species\nx,Athene noctua", "Athene", "noctua"),
        ("label,scientific_name\nx,Athene noctua", "Athene", "noctua"),
        ("id,scientific_name\n0,Nannopterum novae-zelandiae", "Nannopterum", "novae-zelandiae"),
        ("label,genus,scientific_name\nx,Athene,Athene noctua", "Athene", "noctua"),
        ("label,species,scientific_name\nx,noctua,Athene noctua", "Athene", "noctua"),
        ("aa;aves;strigiformes;strigidae;athene;Athene noctua;owl", "Athene", "noctua"),
        # What isn't genus and epithet stays as it is written.
        ("label,genus,species\nx,Parus,Athene noctua", "Parus", "Athene noctua"),
        ("label,common_name,species\nx,House sparrow,House sparrow", "", "House sparrow"),
        ("label,species\nx,Athene sp.", "", "Athene sp."),
        ("label,scientific_name\nx,Athene", "", ""),
        ("label,species,scientific_name\nx,major,Athene noctua", "", "major"),
    ],
)
def test_the_species_is_the_epithet(text: str, genus: str, species: str):
    (label,) = parse_labels(text.encode())
    assert (label.genus, label.species) == (genus, species)
    assert list(parse_labels(Labels([label]).to_csv().encode())) == [label]


def test_a_wrong_number_names_both(tmp_path: Path):
    path = tmp_path / "labels.txt"
    path.write_text("owl\ntit\n")
    with pytest.raises(LabelsError, match=r"2 labels but the model has 3"):
        read_labels(path, classes=3)


def test_missing_and_binary_files(tmp_path: Path):
    with pytest.raises(LabelsError, match="can't read"):
        read_labels(tmp_path / "none.txt")
    for path in ("a" * 5000, "null\0character"):
        with pytest.raises(LabelsError, match="can't read"):
            read_labels(Path(path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00owl")
    with pytest.raises(LabelsError, match="UTF-8"):
        read_labels(tmp_path / "binary")


names = (
    st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=30)
    .map(str.strip)
    .filter(bool)
)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=20))
def test_what_is_written_is_what_is_read(pairs):
    labels = Labels([Label(i, name, genus=genus) for i, (name, genus) in enumerate(pairs)])
    assert list(parse_labels(labels.to_csv().encode())) == list(labels)


@given(st.binary(max_size=300))
def test_any_bytes_are_labels_or_an_error_of_ours(data):
    try:
        labels = parse_labels(data)
        assert len(labels) > 0
        assert not any(unicodedata.category(c) == "Cc" for c in "".join(labels.names) if c != "\t")
    except LabelsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("label", "asked", "found"),
    [
        ("Mallard ♀", "mallard_♀", True),
        ("Mallard ♀", "Mallard ♂", False),
        ("कि", "का", False),
        ("हिन्दी पक्षी", "हिन्दी_पक्षी", True),
        ("A+", "A-", False),
        ("Steller's Jay", "stellers-jay", True),
        ("Steller`s Jay", "Steller\u2019s jay", True),
        ("Café au lait", "cafe\u0301_au_lait", True),
        ("Ara ararauna (adult)", "ara ararauna adult", True),
    ],
)
def test_a_name_may_differ_in_what_stands_between_its_words(label, asked, found):
    assert Labels([Label(0, label), Label(1, "heron")]).find(asked) == ((0,) if found else ())
