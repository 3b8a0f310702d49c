"""Tables, records, chats, web pages, books and Wikipedia become documents.

Every file is made here, so that no test needs a network or a file of somebody else.
"""

import json
import zipfile

import pyarrow
import pytest
from pyarrow import parquet

from gptlib.corpora.documents import load_documents
from gptlib.corpora.formats import messages_only, read_wikipedia
from gptlib.corpora.plain_text import Document
from gptlib.data import DataError

STORY = "Die Äpfel sind süß. 苹果很甜。 🙂"


def read(source, **how):
    return list(load_documents(source, **how))


# Tables and records -------------------------------------------------------------------------------

def write_csv(path, delimiter=","):
    rows = [("title", "text"), ("first", STORY), ("empty", " "), ("second", 'a "quoted"\ntext')]
    lines = [delimiter.join(f'"{value.replace(chr(34), chr(34) * 2)}"' for value in row)
             for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_each_row_of_a_table_with_text_is_a_document(tmp_path, name, delimiter):
    write_csv(tmp_path / name, delimiter)
    assert read(tmp_path) == [
        Document(STORY, f"{name}:1", "first"), Document('a "quoted"\ntext', f"{name}:3", "second")]


def test_another_column_can_hold_the_text(tmp_path):
    write_csv(tmp_path / "a.csv")
    assert [d.text for d in read(tmp_path / "a.csv", column="title")] == [
        "first", "empty", "second"]
    with pytest.raises(DataError, match="has no column 'texts': did you mean 'text'?"):
        read(tmp_path / "a.csv", column="texts")


def test_records_in_lines_and_in_a_list(tmp_path):
    records = [{"title": "first", "text": STORY}, {"text": ""}, {"text": "two"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")
    (tmp_path / "b.json").write_text(json.dumps(records))
    expected = [(STORY, "first"), ("two", "")]
    for name in ("a.jsonl", "b.json"):
        documents = read(tmp_path / name)
        assert [(d.text, d.title) for d in documents] == expected
        assert [d.source for d in documents] == [f"{name}:1", f"{name}:3"]


def test_parquet(tmp_path):
    table = pyarrow.table({"id": [1, 2, 3], "title": ["first", None, "third"],
                           "text": [STORY, "two", None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path) == [
        Document(STORY, "a.parquet:1", "first"), Document("two", "a.parquet:2")]
    with pytest.raises(DataError, match="a.parquet has no column 'txt'"):
        read(tmp_path / "a.parquet", column="txt")


@pytest.mark.parametrize(("name", "content", "fragment"), [
    ("a.jsonl", b'{"text": "one"}\n{"text": ', "a.jsonl, line 2 is not JSON"),
    ("a.jsonl", b'["one"]', "a.jsonl:1 is list, it should be a record"),
    ("a.jsonl", b'{"text": 5}', "a.jsonl:1: text is int, it should be text"),
    ("a.json", b"[" * 100_000, "a.json is not JSON"),
    ("a.json", b'{"messages": [{"role": "user"}]}', "a.json:1: each message should have a role"),
    ("a.jsonl", b'{"text": "a \\ud83d b"}', "a.jsonl:1 has half a surrogate pair"),
    ("a.parquet", b"PAR1 not a table", "a.parquet is not a Parquet table"),
    ("a.csv", "text\nsüß".encode("cp1252"), "a.csv is not utf-8 text"),
    ("a.pdf", b"%PDF-1.4 broken", "a.pdf is not a PDF file that can be read"),
    ("a.docx", b"no zip", "a.docx is not a DOCX file that can be read"),
], ids=["half a line", "a list", "a number", "deep JSON", "half a message",
        "half a surrogate pair", "parquet", "csv", "pdf", "docx"])
def test_damaged_files_are_named(tmp_path, name, content, fragment):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=fragment):
        read(tmp_path / name)


# Chats --------------------------------------------------------------------------------------------

def test_a_conversation_becomes_one_document(tmp_path):
    messages = [{"role": "user", "content": "Where is the ring?"},
                {"role": "assistant", "content": "In the garden."}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    assert read(tmp_path) == [
        Document("user: Where is the ring?\nassistant: In the garden.\n", "a.jsonl:1")]


def test_a_message_without_text_is_left_out_and_parts_of_a_message_are_joined(tmp_path):
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is"},
                                             {"type": "image_url", "image_url": {}},
                                             {"type": "text", "text": "this?"}]},
                {"role": "assistant", "content": None}, {"role": "tool", "content": "a ring"}]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": messages}, {"messages": []}]))
    assert [d.text for d in read(tmp_path)] == ["user: What is\nthis?\ntool: a ring\n"]


def test_a_message_of_another_shape_is_named(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({"messages": [{"role": "user", "content": {"a": 1}}]}))
    with pytest.raises(DataError, match="a.json:1: the content of a message is dict"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("text", [
    "12/31/23, 9:15 PM - Anna: Hello!\nhow are you?\n12/31/23, 9:16 PM - Ben: Fine\n",
    "[31.12.2023, 21:15:02] Anna: Hello!\nhow are you?\n[31.12.2023, 21:16:40] Ben: Fine\n",
], ids=["Android", "iPhone"])
def test_dates_of_an_exported_chat_are_left_out(tmp_path, text):
    (tmp_path / "chat.txt").write_text(text, encoding="utf-8")
    assert read(tmp_path)[0].text == "Anna: Hello!\nhow are you?\nBen: Fine\n"


def test_a_log_of_a_program_keeps_its_dates():
    log = "2023-12-31 21:15:02 INFO: started\n2023-12-31 21:15:03 ERROR disk: full\n"
    assert messages_only(log) == log


def test_other_texts_with_colons_stay_as_they_are():
    play = "First Citizen:\nBefore we proceed, hear me.\nAll: 12:30, speak.\n"
    assert messages_only(play) == play


# Web pages, books, documents ----------------------------------------------------------------------

def write_html(path):
    path.write_text("<html><head><title>A page</title><style>p {}</style></head><body>"
                    f"<p>{STORY}</p><script>no text</script></body></html>", encoding="utf-8")


def write_docx(path):
    content = "http://schemas.openxmlformats.org/"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", (
            f'<Types xmlns="{content}package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/'
            'vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/word/document.xml" ContentType="application/'
            'vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'))
        archive.writestr("_rels/.rels", (
            f'<Relationships xmlns="{content}package/2006/relationships"><Relationship Id="r1" '
            f'Type="{content}officeDocument/2006/relationships/officeDocument" '
            'Target="word/document.xml"/></Relationships>'))
        archive.writestr("word/document.xml", (
            f'<w:document xmlns:w="{content}wordprocessingml/2006/main"><w:body><w:p><w:r>'
            f"<w:t>{STORY}</w:t></w:r></w:p></w:body></w:document>"))


def write_epub(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", (
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
            '<rootfiles><rootfile full-path="book.opf" '
            'media-type="application/oebps-package+xml"/></rootfiles></container>'))
        archive.writestr("book.opf", (
            '<package xmlns="http://www.idpf.org/2007/opf" version="2.0">'
            '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A book</dc:title>'
            '</metadata><manifest><item id="c1" href="c1.xhtml" '
            'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="c1"/></spine>'
            "</package>"))
        archive.writestr("c1.xhtml", (
            '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>one</title></head><body>'
            f"<p>{STORY}</p></body></html>"))


@pytest.mark.parametrize(("name", "write", "title"), [
    ("a.html", write_html, "A page"), ("a.docx", write_docx, ""), ("a.epub", write_epub, "A book"),
])
def test_pages_and_books_are_converted(tmp_path, name, write, title):
    write(tmp_path / name)
    document, = read(tmp_path)
    assert STORY in document.text and document.source == name
    assert "no text" not in document.text
    assert document.title == title


def pdf(text):
    """Return a PDF with one page. It shows the text in Helvetica."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        b"/Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return content + (b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\n"
                      b"startxref\n%d\n%%%%EOF\n" % (table, len(content)))


def test_a_pdf_is_read(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("To be, or not to be."))
    document, = read(tmp_path)
    assert document.text.strip() == "To be, or not to be."


def test_a_scan_without_text_says_what_to_do(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf(""))
    with pytest.raises(DataError, match="a.pdf holds no text: if it is a scan"):
        read(tmp_path / "a.pdf")


# Wikipedia ----------------------------------------------------------------------------------------

def test_wikitext_loses_its_marks(tmp_path):
    (tmp_path / "a.wiki").write_text(
        "'''Rome''' is a [[city]] in [[Italy|the south]].{{citation needed}}\n", encoding="utf-8")
    assert read(tmp_path)[0].text == "Rome is a city in the south.\n"


def test_footnotes_of_wikitext_are_left_out(tmp_path):
    (tmp_path / "a.wiki").write_text(
        "It is old.<ref>A [[book]], page 7.</ref> It is large.<ref name=b /> It grows.\n")
    assert read(tmp_path)[0].text == "It is old. It is large. It grows.\n"


def test_articles_of_wikipedia_are_streamed(tmp_path, monkeypatch):
    import datasets

    table = pyarrow.table({"id": ["1", "2"], "url": ["https://a", "https://b"],
                           "title": ["Rom", "Ulm"], "text": [STORY, "Ulm liegt an der Donau."]})
    parquet.write_table(table, tmp_path / "a.parquet")
    original, asked = datasets.load_dataset, []

    def load_from_file(path, name, **how):
        asked.append((path, name))
        return original("parquet", data_files=str(tmp_path / "a.parquet"), **how)

    monkeypatch.setattr(datasets, "load_dataset", load_from_file)
    articles = load_documents("wikipedia:de")
    assert next(articles) == Document(STORY, "https://a", "Rom")
    assert next(articles).title == "Ulm"
    assert asked == [("wikimedia/wikipedia", "20231101.de")]


def test_a_wikipedia_that_is_not_available_is_named(monkeypatch):
    import datasets

    def no_network(*names, **how):
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(DataError, match=r"wikipedia:xx is not available \(ConnectionError\)"):
        next(read_wikipedia("xx"))


def test_a_network_that_fails_on_the_way_is_named(monkeypatch):
    import datasets

    def articles(*names, **how):
        yield {"text": STORY, "url": "https://a", "title": "Rom"}
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", articles)
    found = read_wikipedia("de")
    assert next(found).title == "Rom"
    with pytest.raises(DataError, match="wikipedia:de stopped after 1 articles"):
        next(found)
