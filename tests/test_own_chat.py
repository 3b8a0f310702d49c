"""A reader's own questions and answers are read from tables and records."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib.corpora.own_chat import read_conversations
from gptlib.data import DataError

RECORDS = [
    {"question": "Who nods?", "answer": "Owl."},
    {"question": 'A "quoted" word, and a comma?\nAnd a new line?', "answer": "Jä, 🙂\u2028</A>."},
    {"question": "Where?", "answer": "", "system": "It is noon."},
]
EXPECTED = [
    ([("system", record["system"])] if "system" in record else [])
    + [("question", record["question"]), ("answer", record["answer"])]
    for record in RECORDS
]


def write_csv(path, records, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer", "system"])
        writer.writeheader()
        writer.writerows(records)
    return path


def write_jsonl(path, records, encoding="utf-8", end="\n"):
    path.write_bytes(end.join(json.dumps(record, ensure_ascii=False) for record in records)
                     .encode(encoding))
    return path


def write_text(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_and_records_give_the_same_conversations(tmp_path, encoding):
    assert read_conversations(write_csv(tmp_path / "a.csv", RECORDS, encoding)) == EXPECTED
    assert read_conversations(write_jsonl(tmp_path / "a.jsonl", RECORDS, encoding)) == EXPECTED


def test_line_ends_of_windows_and_empty_lines_do_not_matter(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", RECORDS, end="\r\n\r\n")
    assert read_conversations(path) == EXPECTED


def test_messages_become_turns(tmp_path):
    messages = [("system", "It is noon."), ("user", "Who?"), ("assistant", "Owl."),
                ("user", "And?"), ("assistant", "King.")]
    record = {"messages": [{"role": role, "content": text} for role, text in messages]}
    assert read_conversations(write_jsonl(tmp_path / "a.jsonl", [record])) == [[
        ("system", "It is noon."), ("question", "Who?"), ("answer", "Owl."),
        ("question", "And?"), ("answer", "King.")]]


@given(texts=st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r")),
                                st.text(st.characters(codec="utf-8", exclude_characters="\r"))),
                      min_size=1))
def test_any_text_in_records_is_read_as_it_is(tmp_path_factory, texts):
    records = [{"question": question, "answer": answer} for question, answer in texts]
    path = write_jsonl(tmp_path_factory.mktemp("own") / "a.jsonl", records)
    expected = [[("question", question), ("answer", answer)] for question, answer in texts]
    assert read_conversations(path) == expected


BAD = {
    "a text file": ("a.txt", "Who?", "a.txt should be a .csv or a .jsonl file"),
    "an empty table": ("a.csv", "", "a.csv holds no conversation"),
    "a table without rows": ("a.csv", "question,answer\n", "a.csv holds no conversation"),
    "no records": ("a.jsonl", "\n\n", "a.jsonl holds no conversation"),
    "a misspelt column": ("a.csv", "question,anwser\na,b\n", "line 2 has no 'answer': did you"),
    "an open quote": ("a.csv", 'question,answer\n"a,b\n', "is no row of a table"),
    "no JSON": ("a.jsonl", '{"question": "a", "answer": "b"}\n{oh', "a.jsonl, line 2 is not JSON"),
    "a list": ("a.jsonl", "[1]", "line 1 should be a record"),
    "a number": ("a.jsonl", '{"question": 1, "answer": "b"}', "line 1: the text of the conv"),
    "no list": ("a.jsonl", '{"messages": "a"}', "line 1: messages should be a list"),
    "no message": ("a.jsonl", '{"messages": ["a"]}', "should have a role and a content"),
    "an unknown role": ("a.jsonl", '{"messages": [{"role": "users", "content": "a"}]}',
                        "line 1 has the role 'users': did you mean 'user'"),
    "a list as a role": ("a.jsonl", '{"messages": [{"role": [], "content": "a"}]}', "the role"),
    "an answer first": ("a.jsonl", '{"messages": [{"role": "assistant", "content": "a"}]}',
                        "line 1: the conversation has the roles answer"),
    "no messages": ("a.jsonl", '{"messages": []}', "has the roles of no turn"),
    "too deep": ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
}


@pytest.mark.parametrize(("name", "text", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_an_error_that_names_the_line(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_conversations(write_text(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_another_encoding_are_named(tmp_path):
    with pytest.raises(DataError, match="should be an existing file"):
        read_conversations(tmp_path / "nowhere.csv")
    (tmp_path / "a.csv").write_bytes("question,answer\nä,b\n".encode("latin-1"))
    with pytest.raises(DataError, match="a.csv is not utf-8 text: see byte 16"):
        read_conversations(tmp_path / "a.csv")
