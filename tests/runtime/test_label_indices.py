"""Label files that state their indices: the index decides, never the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import LabelsError
from edge_fg.label_files import parse_labels, read_labels

SHUFFLED = {
    "blank": "0 red\n2 blue\n1 green\n",
    "colon": "0: red\n2: blue\n1: green\n",
    "colon alone": "0:red\n2:blue\n1:green\n",
    "full stop": "0. red\n2. blue\n1. green\n",
    "bracket": "0) red\n2) blue\n1) green\n",
    "tab": "2\tblue\n0\tred\n1\tgreen\n",
    "leading zeros and blanks": " 00  red \r\n 02  blue \r\n 01  green \r\n",
    "comma": "2,blue\n0,red\n1,green\n",
    "comma, quoted": '2,"blue"\n0, "red"\n1,"green"\n',
    "semicolon": "2;blue\n0;red\n1;green\n",
    "name first, comma": "blue,2\ngreen,1\nred,0\n",
    "name first, semicolon": "blue; 2\ngreen; 1\nred; 0\n",
    "name first, colon": "blue: 2\ngreen: 1\nred: 0\n",
    "name first, tab": "blue\t2\ngreen\t1\nred\t0\n",
    "id,name": "id,name\n0,red\n2,blue\n1,green\n",
    "index;label": "index;label\n2;blue\n0;red\n1;green\n",
    "tabs with header": "class_id\tclass_name\n2\tblue\n0\tred\n1\tgreen\n",
    "capitals and blanks": "Class ID, Scientific Name\n2,blue\n0,red\n1,green\n",
    "common_name and others": "country,common_name,idx\nx,blue,2\nx,red,0\nx,green,1\n",
    "id,class": "class,id\nblue,2\nred,0\ngreen,1\n",
    "label,name": "label,name\n2,blue\n0,red\n1,green\n",
    "class,name": "class,name\n2,blue\n0,red\n1,green\n",
    "label,id": "label,id\nblue,2\nred,0\ngreen,1\n",
    "json index to name": '{"2": "blue", "0": "red", "1": "green"}',
    "json name to index": '{"blue": 2, "red": 0, "green": 1}',
    "json id2label": '{"model": {}, "id2label": {"2": "blue", "0": "red", "1": "green"}}',
    "json label2id": '{"label2id": {"blue": 2, "red": 0, "green": 1}}',
    "json names": '{"nc": 3, "names": ["red", "green", "blue"]}',
    "json classes": '{"classes": {"2": "blue", "0": "red", "1": "green"}}',
    "json class_to_idx": '{"epoch": 3, "class_to_idx": {"blue": 2, "red": 0, "green": 1}}',
    "bar": "0|red\n2 | blue\n1| green\n",
    "bar, name first": "red|0\nblue | 2\ngreen|1\n",
    "id|name": "id|name\n2|blue\n0|red\n1|green\n",
    "dash": "0 - red\n2 - blue\n1 - green\n",
    "arrow": "0 -> red\n2 -> blue\n1 -> green\n",
    "double arrow": "0 => red\n2=>blue\n1 =>green\n",
    "quoted without header": '"2","blue"\n"0", "red"\n"1","green"\n',
    "json list": '\n[ "red", "green",\n "blue"]\n',
    "yaml mapping": "path: x\nnames:\n  2: blue # sky\n  0: 'red'\n  1: \"green\"\n\nnc: 3\n",
    "yaml list": "nc: 3\nnames: # all\n# of them\n- red\n- green\n- 'blue'\ntrain: x\n",
    "yaml indented list": "names:\n  - red\n  - green\n  - blue\n",
    "yaml flow list": "names: [red, 'green',\n  \"blue\"] # end\nnc: 3\n",
    "yaml flow mapping": "names: {2: blue, 0: red, 1: green}\n",
    "pbtxt from 1": (
        'item { id: 3 name: "blue" }\nitem {\n  name: \'red\', id: 1\n}\nitem: {id:2 name:"green"}'
    ),
    "pbtxt from 0": '#\nitem {id: 2\nname:"blue"}\nitem{id:0 name:"red"}item{id:1 name:"green"}',
    "pbtxt display_name": (
        'item {name: "/m/2" id: 2 display_name: "green"} item {name: "/m/1" id: 1 '
        'display_name: "red"} item {name: "/m/3" id: 3 display_name: "blue"}'
    ),
}


@pytest.mark.parametrize("text", SHUFFLED.values(), ids=SHUFFLED.keys())
def test_a_stated_index_decides(text: str):
    assert parse_labels(text.encode()).names == ["red", "green", "blue"]


@pytest.mark.parametrize(
    "names",
    [
        ["3-toed sloth", "2-toed sloth"],
        ["owl", "10 spotted ladybird", "7 spotted ladybird"],
        ["background", "1 euro", "2 euro"],
        ["0", "1", "10", "2"],
        ["Boeing 737-300", "Boeing 737-400"],
        ["Airbus 320", "Boeing 737"],
        ["class 0", "class 1"],
        ["001.Black_footed_Albatross", "002.Laysan_Albatross"],
        ["Tit, Great", "Owl, 2 spots"],
        ["[unknown]", "owl"],
        ["red;0", "green"],
    ],
)
def test_a_number_in_some_names_is_no_index(names: list[str]):
    assert parse_labels("\n".join(names).encode()).names == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 red\n2 blue\n", "index 1 is missing"),
        ("0 red\n0 blue\n", "index 0 is stated twice"),
        ("1 red\n2 blue\n", "index 0 is missing.*if they are no indices, write a CSV"),
        ("red,1\nblue,2\n", "index 0 is missing"),
        ("0,red\n2,\n1,blue\n", "label of class 2 is empty"),
        ("0,1\n1,0\n", "two numbers"),
        ("0: 5\n1: 4\n", "two numbers"),
        ("red 1\nblue 0\n", "has what may be an index"),
        ("[0] red\n[2] blue\n[1] green\n", "has what may be an index"),
        ("#1 red\n#3 blue\n#2 green\n", "has what may be an index"),
        ("red (0)\nblue (2)\ngreen (1)\n", "has what may be an index"),
        ("class 0: red\nclass 2: blue\nclass 1: green\n", "has what may be an index"),
        ("n7 0 red\nn9 2 blue\nn8 1 green\n", "has what may be an index"),
        ("- 0: red\n- 2: blue\n- 1: green\n", "has what may be an index"),
        ('"red","1"\n"blue","0"\n', "has what may be an index"),
        ("002.red\n001.blue\n", "has what may be an index"),
        ("1_red\n0_blue\n", "has what may be an index"),
        ('{"names": 4}', "holds no labels|index 0 is missing"),
        ("nr,vogel\n0,red\n2,blue\n1,green\n", "after line 1 state an index"),
        ("# birds\n# of us\n0 red\n1 blue\n", "after line 2 state an index"),
        ("id,name\n1,red\n2,blue\n", "index 0 is missing"),
        ("id,id,name\n0,0,red\n", "`id` twice"),
        (",label\n1,red\n0,blue\n", "seems to hold the indices"),
        ("number,label\n1,red\n0,blue\n", "`number` seems to hold the indices"),
        ("id,class,order\n0,aves,strigiformes\n", "no column `label`"),
        ('{"0": "red", "0": "blue"}', "key '0' is there twice"),
        ('{"0": "red", "2": "blue"}', "index 1 is missing"),
        ('{"1": "red", "01": "blue"}', "index 1 is stated twice"),
        ('{"red": 0, "blue": 0}', "index 0 is stated twice"),
        ('{"0": 1, "1": 0}', "numbers for numbers"),
        ('{"red": true}', "holds no labels"),
        ('{"red": -1}', "holds no labels"),
        ('{"0": ["n0", "tench"]}', "holds no labels"),
        ('{"0": "red", "x": "blue"}', "holds no labels"),
        ("{}", "holds no labels"),
        ("[]", "no labels"),
        ('["red", 1]', "holds no labels"),
        ('{"0": "red",', "not valid JSON"),
        ('{"0": "\\u001b[2J"}', "control character"),
        ('{"0": "\\ud800"}', "control character"),
        ('["' + "[" * 3 + '"', "not valid JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("names:\n  0: red\n  2: blue\n", "index 1 is missing"),
        ("names:\n  0: red\n  0: blue\n", "index 0 is stated twice"),
        ("names:\n  0: red\n  - blue\n", "all or none"),
        ("names:\n  0: &a red\n  1: *a\n", "line 2.*YAML that is not understood"),
        ("names:\n  0:\n    en: red\n", "YAML that is not understood"),
        ("names:\n  0: |\n    red\n", "YAML that is not understood"),
        ("names: *others\n", "YAML that is not understood"),
        ("names: names.txt\n", "YAML that is not understood"),
        ("names: [red, [blue]]\n", "YAML that is not understood"),
        ("names: [red, blue\nnc: 2\n", "no end"),
        ('names:\n- "red" blue\n', "YAML that is not understood"),
        ("names:\n- red\nnames:\n- blue\n", "must be there once"),
        ("names:\n", "no labels"),
        ('item { id: 1 name: "red" } item { id: 3 name: "blue" }', "index 2 is missing"),
        ('item { id: 1 name: "red" } item { id: 1 name: "blue" }', "index 1 is stated twice"),
        ('item { id: 1 name: "red"\n', "line 1 is not understood"),
        ('item { id: 1\n name: "red }\n', "line 2 is not understood"),
        ("item { id: 1 }\n", "line 1 is not understood"),
        ('item { id: 1 id: 2 name: "red" }\n', "line 1 is not understood"),
        ('item { id: 1 name: "red" keypoints { id: 2 } }\n', "line 1 is not understood"),
        ("item { id:", "line 1 is not understood"),
        ("item { id", "line 1 is not understood"),
    ],
)
def test_what_is_unclear_is_refused(text: str, said: str):
    with pytest.raises(LabelsError, match=said):
        parse_labels(text.encode())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "0: red\n1: blue\n", "names:"),
        ("a.YML", "classes: [red]\n", "names:"),
        ("a.json", "red\nblue\n", "not valid JSON"),
        ("a.pbtxt", "red\nblue\n", "line 1 is not understood"),
        ("a.json", "[" + " " * (9 << 20) + "]", "larger than 8 MB"),
    ],
)
def test_a_suffix_demands_its_format(tmp_path: Path, name: str, text: str, said: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(LabelsError, match=said):
        read_labels(tmp_path / name)


def test_a_csv_without_its_last_class_is_noticed(tmp_path: Path):
    (tmp_path / "labels.csv").write_text("id,name\n0,red\n1,green\n")
    with pytest.raises(LabelsError, match="2 labels but the model has 3"):
        read_labels(tmp_path / "labels.csv", classes=3)


@pytest.mark.parametrize(
    "text",
    [
        "names: [" + " " * 1_000_000 + "#",
        "names:\n- " + '"' + "\\\\" * 500_000,
        "names:\n- " + "a'" * 500_000,
        "item" + " " * 1_000_000,
        'item { name: "' + "\\\\" * 500_000,
        "0" + " " * 1_000_000 + "\n1",
        "a" + "\t" * 1_000_000 + "b1",
        "label," + "a," * 500_000,
    ],
)
def test_hostile_text_costs_little(text: str):
    try:
        parse_labels(text.encode())
    except LabelsError as error:
        assert len(str(error)) < 1000


def test_quotes_and_signs_in_names():
    text = "names:\n- Steller's jay # of Bewick's\n- 'it''s: #1'\n- \"a \\\"b\\\"\"\n- C#\n"
    assert parse_labels(text.encode()).names == ["Steller's jay", "it's: #1", 'a "b"', "C#"]
    text = r"""item { id: 1 name: 'Steller\'s {jay}' }"""
    assert parse_labels(text.encode()).names == ["Steller's {jay}"]


def test_the_taxonomy_is_read_beside_a_stated_index():
    text = "id;scientific_name;family\n1;Athene noctua;strigidae\n0;Parus major;paridae\n"
    labels = parse_labels(text.encode())
    assert [(x.label, x.family) for x in labels] == [
        ("Parus major", "paridae"),
        ("Athene noctua", "strigidae"),
    ]
    assert parse_labels(b'{"0": "Athene noctua (Little Owl)"}')[0].genus == "Athene"


WRITERS = {
    "blank": lambda i, name: f"{i} {name}\n",
    "colon": lambda i, name: f"{i}: {name}\n",
    "tab": lambda i, name: f"{i}\t{name}\n",
    "comma": lambda i, name: f"{i},{name}\n",
    "semicolon": lambda i, name: f"{i};{name}\n",
    "name first": lambda i, name: f"{name},{i}\n",
    "csv": lambda i, name: f'{i},"{name}"\n',
    "semicolon csv": lambda i, name: f'"{name}";{i}\n',
    "yaml": lambda i, name: f"  {i}: {name}\n",
    "quoted yaml": lambda i, name: "  {}: '{}'\n".format(i, name.replace("'", "''")),
    "pbtxt": lambda i, name: f'item {{ name: "{name}" id: {i + 1} }}\n',
}
HEADS = {"csv": "id,name\n", "semicolon csv": "name;idx\n", "yaml": "names:\n"}
HEADS["quoted yaml"] = HEADS["yaml"]
names = st.from_regex(r"[A-Za-zäøß][A-Za-zäøß' .()-]{0,20}[a-z]", fullmatch=True)


@pytest.mark.parametrize("form", [*WRITERS, "json", "json by name"])
@given(data=st.data())
def test_shuffled_labels_come_back_in_order(form: str, data: st.DataObject):
    wanted = data.draw(st.lists(names, min_size=1, max_size=12, unique=True))
    shuffled = data.draw(st.permutations(list(enumerate(wanted))))
    if form == "json":
        text = json.dumps({str(i): name for i, name in shuffled})
    elif form == "json by name":
        text = json.dumps({name: i for i, name in shuffled})
    else:
        text = HEADS.get(form, "") + "".join(WRITERS[form](i, name) for i, name in shuffled)
    assert parse_labels(text.encode()).names == wanted
