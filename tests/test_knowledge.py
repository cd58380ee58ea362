"""Facts are read in every way they are written, refused with their place where they are none, and found by a text."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from antiphon.core.config import Data
from antiphon.core.errors import AntiphonError, DataError
from antiphon.data import knowledge
from antiphon.data.columns import Pair
from antiphon.data.corpus import open_pairs
from antiphon.data.facts import MARKS, Finder, fingerprints, linear, nodes
from antiphon.data.knowledge import Base, Fact, dump, key, label, mentions, parse, relation_label, topics
from antiphon.data.report import Report

AARHUS = [
    Fact("Aarhus", "leaderName", "Jacob_Bundsgaard"),
    Fact("Aarhus_Airport", "cityServed", "Aarhus"),
    Fact("Aarhus_Airport", "runwayLength", "2702.0"),
]


@pytest.mark.parametrize(
    "value",
    [
        "Aarhus | leaderName | Jacob_Bundsgaard && Aarhus_Airport | cityServed | Aarhus && "
        "Aarhus_Airport | runwayLength | 2702.0",
        json.dumps(AARHUS),
        [" | ".join(fact) for fact in AARHUS],
        [fact._asdict() for fact in AARHUS],
        [*AARHUS[:2], ["Aarhus_Airport", "runwayLength", 2702.0]],
        dump(AARHUS),
    ],
)
def test_facts_are_read_in_every_way_they_are_written(value: object) -> None:
    assert parse(value) == AARHUS


@pytest.mark.parametrize("value", ["", "  ", "[]", []])
def test_there_may_be_no_facts(value: object) -> None:
    assert parse(value) == []


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("a | b", "fact 1 is not subject"), ("a | b | c && d|e|f", "fact 2 is not"), ("a | b | c | d", "fact 1"),
        ([["a", "b"]], "fact 1"), ([["a", "", "c"]], "fact 1"), ([["a", None, "c"]], "fact 1"), (7, "neither text nor"),
        ([["a", "b", "c\0"]], "NUL"), ("[1, 2]", "fact 1"), ("[broken", "fact 1"), ([["a", True, "c"]], "fact 1"),
    ],
)  # fmt: skip
def test_what_is_no_fact_is_refused(value: object, what: str) -> None:
    with pytest.raises(DataError, match=what):
        parse(value)


def test_a_broken_fact_in_a_file_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("source\ttarget\tfacts\nx\ty\ta | b | c\nx\tz\ta | b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs.tsv:3: fact 1 is not subject.*'a \| b'.*damaged=skip"):
        list(open_pairs(path, Data()))
    path.write_text("source\ttarget\tfacts\n" + "x\ty\ta | b | c\n" * 20 + "x\tz\ta | b\n", encoding="utf-8")
    corpus = open_pairs(path, Data(damaged="skip"))
    assert len(list(corpus)) == 20
    assert any("1 x skipped: fact 1 is not subject" in line for line in corpus.report.lines())


def test_without_a_source_the_subjects_are_the_source(tmp_path: Path) -> None:
    rows = [{"triples": [" | ".join(fact) for fact in AARHUS], "refs": ["One.", "Two."], "seen": True}]
    path = tmp_path / "webnlg.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    table = tmp_path / "pairs.tsv"
    table.write_text(
        "facts\ttarget\n" + " && ".join(" | ".join(fact) for fact in AARHUS) + "\tOne.\n", encoding="utf-8"
    )
    named = open_pairs(table, Data(columns=("facts", "target")))
    for corpus in (open_pairs(path, Data()), open_pairs(rows, Data()), open_pairs(table, Data()), named):
        pair = next(iter(corpus))
        assert (pair.source, pair.target) == ("Aarhus ; Aarhus Airport", "One.")
        assert parse(pair.context["facts"]) == AARHUS
    assert next(iter(open_pairs([("ask", "say", {"facts": AARHUS})], Data()))).source == "ask"
    assert next(iter(open_pairs(open_pairs(rows, Data()), Data()))).source == "Aarhus ; Aarhus Airport"


def test_names_are_read_as_text() -> None:
    assert label("Aarhus_Airport") == "Aarhus Airport"
    assert label('"14L/32R"') == "14L/32R"
    assert label("_") == "_"
    assert relation_label("leaderName") == "leader Name"
    assert relation_label("制片成本") == "制片成本"
    assert topics(AARHUS) == "Aarhus ; Aarhus Airport"


def test_a_mention_knows_no_case_accents_or_brackets() -> None:
    assert mentions("He lives in SAO PAULO.", "São_Paulo")
    assert mentions("I saw Acharya.", "Acharya_(film)")
    assert mentions("知道恋恋笔记本这部电影吗？", "恋恋笔记本（美国2004年爱情片）")
    assert not mentions("The oslomet", "Oslo")
    assert not mentions("anything", "...")
    assert key("Ein Straße, 2702.0") == " ein strasse 2702 0 "


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


TURTLE = """@prefix r: <http://example.org/resource/> .
@prefix o: <http://example.org/ontology#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
r:Q1 rdfs:label "Aarhus" ; o:leaderName r:Jacob_Bundsgaard .
r:Aarhus_Airport o:cityServed r:Q1 ; o:runwayLength "2702.0" .
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("base.tsv", "".join("\t".join(fact) + "\n" for fact in AARHUS)),
        ("base.tsv.gz", "".join("\t".join(fact) + "\n" for fact in AARHUS)),
        ("base.json", json.dumps(AARHUS)),
        ("base.json", json.dumps({"Aarhus": AARHUS[:1], "more": [fact._asdict() for fact in AARHUS[1:]]})),
        ("base.jsonl", "".join(json.dumps(fact) + "\n" for fact in AARHUS)),
        ("base.ttl", TURTLE),
    ],
)
def test_a_knowledge_base_is_read_from_any_format(name: str, content: str, tmp_path: Path) -> None:
    if name.endswith(".ttl"):
        pytest.importorskip("rdflib")
    report = Report()
    assert sorted(knowledge.read(write(tmp_path, name, content), report).facts) == sorted(AARHUS)
    assert not report.counts


def test_nameless_nodes_are_called_the_same_each_time(tmp_path: Path) -> None:
    text = '@prefix : <http://x/> .\n:Aarhus :address [ :city "Ville" ] . :Aarhus :mayor _:m . _:m :name "Jacob" .\n'
    path = write(tmp_path, "a.ttl", text)
    first, second = (knowledge.read(path, Report()).facts for _ in range(2))
    assert first == second
    assert len(first) == 4


def test_a_first_line_may_name_the_parts_of_facts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "subject\trelation\tobject\nAarhus\tleader\tJacob\n")
    assert len(knowledge.read(path, Report()).facts) == 1


def test_turtle_without_rdflib_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdflib", None)
    with pytest.raises(AntiphonError, match=r"pip install 'antiphon\[knowledge\]'"):
        knowledge.read(write(tmp_path, "base.ttl", TURTLE), Report())


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("base.tsv", "a\tb\tc\nd\te\n", r"base.tsv:2: is no fact"),
        ("base.tsv", "\n", "no fact in it"),
        ("base.tsv", "a\tb\tc\0\n", "base.tsv:1: .*NUL"),
        ("base.json", "{", "is not JSON"),
        ("base.json", "7", "neither a list"),
        ("base.json", '[["a", "b", "c"], ["d"]]', "base.json, fact 2: is no fact"),
        ("base.jsonl", '["a", "b", "c"]\n["a"', "base.jsonl:2: is not JSON"),
        ("base.nt", "this is not RDF", "is not readable nt"),
        ("base.ttl", "@prefix : <http://x/> .\n:a :b \n", r"is not readable turtle: [^<^]*; repair it$"),
    ],
)
def test_a_broken_knowledge_base_is_refused_with_its_place(name: str, content: str, what: str, tmp_path: Path) -> None:
    if name.endswith((".nt", ".ttl")):
        pytest.importorskip("rdflib")
    with pytest.raises(DataError, match=what):
        knowledge.read(write(tmp_path, name, content), Report())


def test_odd_lines_of_a_knowledge_base_are_counted(tmp_path: Path) -> None:
    report = Report()
    knowledge.read(write(tmp_path, "base.tsv", "a\tb\tc\n\na\tb\tc\na\tb\t...\n"), report)
    assert report.counts == {
        "blank line skipped": 1, "repeated fact left out": 1,
        "entity without a letter or digit, which no text can mention": 1,
    }  # fmt: skip


def test_facts_are_found_by_what_a_text_mentions() -> None:
    base = Base.of(AARHUS)
    assert base.about("Which city is served by aarhus airport?") == [AARHUS[1], AARHUS[2]]
    assert set(base.about("Who leads Aarhus?")) == {AARHUS[0], AARHUS[1]}
    assert base.about("Who is the leader of Aarhus?")[0] == AARHUS[0]
    assert base.about("What does Jacob Bundsgaard lead?") == [AARHUS[0]]
    assert base.about("Aarhusian airports") == []


def test_a_pair_gets_its_own_facts_first_and_no_more_than_it_may() -> None:
    own, report = Fact("x", "y", "z"), Report()
    pair = Pair("Aarhus Airport and Aarhus", "", (), {"facts": dump([own, own])})
    assert Finder(9, Base.of(AARHUS))(pair)[0] == own
    assert len(Finder(9, Base.of(AARHUS))(pair)) == 4
    assert Finder(2, Base.of(AARHUS))(pair, report) == [own, AARHUS[1]]
    assert report.counts == {"repeated fact left out": 1, "fact beyond data.facts=2 left out": 2}
    with pytest.raises(DataError, match=r"facts that the model wants are missing.*--knowledge"):
        Finder(2)(Pair("Aarhus", ""))


def test_facts_in_a_row_begin_each_part_with_its_mark() -> None:
    tokens = linear(AARHUS[:1], str.split, None)
    assert tokens == [MARKS[0], "Aarhus", MARKS[1], "leader", "Name", MARKS[2], "Jacob", "Bundsgaard"]
    report = Report()
    assert linear(AARHUS, str.split, 9, report) == tokens
    assert sum(report.counts.values()) == 2


def test_the_graph_has_each_entity_once_and_a_node_for_each_relation() -> None:
    graph = nodes(AARHUS, str.split, None)
    words = ["Aarhus", "Jacob", "Bundsgaard", "leader", "Name", "Aarhus", "Airport", "city", "Served", "2702.0"]
    assert graph.tokens == [*words, "runway", "Length"]
    assert graph.node == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 7]
    assert graph.subject == [0, 0, 0, 1, 1, 0, 0, 4, 4, 0, 4, 4]
    assert graph.object == [0, 0, 0, 2, 2, 0, 0, 1, 1, 0, 6, 6]
    assert nodes(AARHUS[::-1], str.split, None) == graph
    report = Report()
    small = nodes(AARHUS, str.split, 9, report)
    assert len(small.tokens) == 9
    assert sum(report.counts.values()) == 1


def test_entities_are_the_same_however_written() -> None:
    assert fingerprints(["São_Paulo", "sao paulo"]) == fingerprints(["Sao Paulo"])
    assert len(fingerprints(["Aarhus", "Aarhus_Airport"])) == 2
    assert all(0 <= number < 1 << 64 for number in fingerprints(["Aarhus", "Oslo"]))
