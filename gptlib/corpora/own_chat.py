"""Your own questions and answers, from a table or from records (chapter 11).

A table is a CSV file. Its first line names the columns, and each further line is a conversation:

    question,answer
    Who nods?,Owl.

A file of records is JSONL: each line is JSON, with the same names or with messages:

    {"question": "Who nods?", "answer": "Owl.", "system": "Owl nods."}
    {"messages": [{"role": "user", "content": "Who nods?"},
                  {"role": "assistant", "content": "Owl."}]}          (all in one line)
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from gptlib.checks import check_arguments, existing_file
from gptlib.config import did_you_mean
from gptlib.corpora.chat import Conversation, conversation_kind
from gptlib.data import DataError

# The roles of messages in chat exports, and ours.
MESSAGE_ROLES = {"system": "system", "user": "question", "assistant": "answer"}


@check_arguments(DataError, path=existing_file)
def read_conversations(path: str | Path) -> list[Conversation]:
    """Return the conversations of a .csv or .jsonl file. A system text is optional.

    Raises:
        DataError: the file is of another kind, is not utf-8, or a line is no conversation. The
            message names the line.
    """
    path = Path(path)
    readers = {".csv": table_records, ".jsonl": json_records}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path.name} should be a .csv or a .jsonl file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not utf-8 text: see byte {error.start}") from None
    found = []
    for line, record in readers[path.suffix.lower()](text, path.name):
        where = f"{path.name}, line {line}"
        turns = record_turns(record, where)
        try:
            found.append(conversation_kind("the conversation", turns))
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
    if not found:
        raise DataError(f"{path.name} holds no conversation")
    return found


def table_records(text: str, name: str) -> Iterator[tuple[int, dict]]:
    """Yield the number of the last line and the record of each row of a table."""
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    try:
        for row in rows:
            yield rows.line_num, {key: value for key, value in row.items() if key}
    except csv.Error as error:
        raise DataError(f"{name}, line {rows.line_num} is no row of a table: {error}") from None


def json_records(text: str, name: str) -> Iterator[tuple[int, dict]]:
    """Yield the number and the record of each line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}, line {number} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(
                f"{name}, line {number} should be a record, such as "
                '{"question": "…", "answer": "…"}'
            )
        yield number, record


def record_turns(record: dict, where: str) -> list[tuple]:
    """Return the turns of a record. Their roles and texts are not checked yet."""
    if "messages" in record:
        return message_turns(record["messages"], where)
    for name in ("question", "answer"):
        if name not in record:
            raise DataError(f"{where} has no {name!r}{did_you_mean(name, list(record))}")
    system = [("system", record["system"])] if record.get("system") else []
    return [*system, ("question", record["question"]), ("answer", record["answer"])]


def message_turns(messages: list, where: str) -> list[tuple]:
    if not isinstance(messages, list):
        raise DataError(f"{where}: messages should be a list")
    turns = []
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise DataError(f"{where}: each message should have a role and a content")
        role = message["role"]
        if not isinstance(role, str) or role not in MESSAGE_ROLES:
            known = did_you_mean(str(role), MESSAGE_ROLES)
            raise DataError(f"{where} has the role {role!r}{known}")
        turns.append((MESSAGE_ROLES[role], message["content"]))
    return turns
