"""Personal data: what each rule takes and leaves, on a labelled corpus; redaction and its way back; `data check --pii`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tunewright.commands.redact import redact_file, restore_file
from tunewright.data.text.pii import NAME, Personal, Redaction, find_personal, is_card, is_iban, is_resident_id
from tunewright.data.text.presidio import presidio
from tunewright.errors import RecipeError, UserError

MAIL, PHONE, CARD, IBAN, IP, ID, SSN = (
    "e-mail",
    "phone",
    "payment card",
    "IBAN",
    "IP address",
    "resident identity number",
    "social security number",
)

# (text, what a person marked in it). None of the people and numbers is real: cards are the issuers' test numbers, IBANs the
# registry's examples, identity numbers the standard's examples or made for this file.
CORPUS: list[tuple[str, list[tuple[str, str]]]] = [
    ("Write to jane.doe@example.com today.", [(MAIL, "jane.doe@example.com")]),
    ("<bob+news@mail.example.co.uk>, please", [(MAIL, "bob+news@mail.example.co.uk")]),
    ("请发到zhang_wei@example.cn，谢谢", [(MAIL, "zhang_wei@example.cn")]),
    ("a@b.io;c@d.org", [(MAIL, "a@b.io"), (MAIL, "c@d.org")]),
    ("mailto:info@xn--bcher-kva.example", [(MAIL, "info@xn--bcher-kva.example")]),
    ("UPPER.CASE@EXAMPLE.COM wrote", [(MAIL, "UPPER.CASE@EXAMPLE.COM")]),
    ("first-last@sub.dept.example.edu.", [(MAIL, "first-last@sub.dept.example.edu")]),
    ("邮箱：user123@163.example；", [(MAIL, "user123@163.example")]),
    ("tweet @someone about it", []),
    ("x = a @ b", []),
    ("meet me @ 5pm", []),
    ("user@localhost has no domain", []),
    ("我的手机是13812345678。", [(PHONE, "13812345678")]),
    ("电话 138 1234 5678", [(PHONE, "138 1234 5678")]),
    ("手机：139-1234-5678，随时联系", [(PHONE, "139-1234-5678")]),
    ("+86 13912345678", [(PHONE, "+86 13912345678")]),
    ("+86-139-1234-5678", [(PHONE, "+86-139-1234-5678")]),
    ("座机010-62751234转801", [(PHONE, "010-62751234")]),
    ("（021）65642222", [(PHONE, "（021）65642222")]),
    ("0755-26536114", [(PHONE, "0755-26536114")]),
    ("Call (415) 555-2671 now", [(PHONE, "(415) 555-2671")]),
    ("415-555-2671 or 415.555.2672", [(PHONE, "415-555-2671"), (PHONE, "415.555.2672")]),
    ("+1 415 555 2671", [(PHONE, "+1 415 555 2671")]),
    ("+44 20 7946 0958", [(PHONE, "+44 20 7946 0958")]),
    ("+49 (30) 901820", [(PHONE, "+49 (30) 901820")]),
    ("+33 1 70 18 99 00.", [(PHONE, "+33 1 70 18 99 00")]),
    ("order 20240102123311", []),
    ("12345678901 is no mobile", []),
    ("tel 1234567", []),
    ("2024-01-02 10:20:30", []),
    ("1998-2004", []),
    ("the price rose by +15 to 120", []),
    ("pi is 3.14159265358979", []),
    ("room 101, floor 12", []),
    ("13800000 people", []),
    ("4111 1111 1111 1111", [(CARD, "4111 1111 1111 1111")]),
    ("card 5555-5555-5555-4444 exp 12/29", [(CARD, "5555-5555-5555-4444")]),
    ("378282246310005", [(CARD, "378282246310005")]),
    ("6011111111111117", [(CARD, "6011111111111117")]),
    ("卡号4012888888881881，", [(CARD, "4012888888881881")]),
    ("2223003122003222", [(CARD, "2223003122003222")]),
    ("3530 1113 3330 0000", [(CARD, "3530 1113 3330 0000")]),
    ("30569309025904 is no longer issued; 36227206271667 is", [(CARD, "36227206271667")]),
    ("银联6200000000000005", [(CARD, "6200000000000005")]),
    ("4111 1111 1111 1112", []),
    ("1234567812345670", []),
    ("0000 0000 0000 0000", []),
    ("isbn 9783161484100", []),
    ("9999999999999995", []),
    ("DE89370400440532013000", [(IBAN, "DE89370400440532013000")]),
    ("GB82 WEST 1234 5698 7654 32", [(IBAN, "GB82 WEST 1234 5698 7654 32")]),
    ("FR14 2004 1010 0505 0001 3M02 606", [(IBAN, "FR14 2004 1010 0505 0001 3M02 606")]),
    ("to CH9300762011623852957, thanks", [(IBAN, "CH9300762011623852957")]),
    ("NL91ABNA0417164300", [(IBAN, "NL91ABNA0417164300")]),
    ("NO9386011117947", [(IBAN, "NO9386011117947")]),
    ("GB82 WEST 1234 5698 7654 33", []),
    ("XX82370400440532013000", []),
    ("AB12CD34EF56GH78", []),
    ("from 203.0.113.7 to 198.51.100.22", [(IP, "203.0.113.7"), (IP, "198.51.100.22")]),
    ("host 192.168.1.10:8080", [(IP, "192.168.1.10")]),
    ("2001:db8:85a3::8a2e:370:7334", [(IP, "2001:db8:85a3::8a2e:370:7334")]),
    ("fe80::1ff:fe23:4567:890a", [(IP, "fe80::1ff:fe23:4567:890a")]),
    ("256.1.1.1", []),
    ("127.0.0.1 and ::1", []),
    ("version 1.2.3.4", []),
    ("v10.0.2.15", []),
    ("section 1.2.3", []),
    ("at 10:30:45 and 12:00", []),
    ("std::vector", []),
    ("身份证号11010519491231002X", [(ID, "11010519491231002X")]),
    ("440524188001010014", []),  # the standard's example of a person born in 1880: no living one
    ("440308199001010017", [(ID, "440308199001010017")]),
    ("证件 31010119850720301X 已登记", [(ID, "31010119850720301X")]),
    ("11010519491231002x", [(ID, "11010519491231002x")]),
    ("110105194912310021", []),
    ("990105194912310021", []),
    ("110105199902300014", []),
    ("SSN 219-09-9999", [(SSN, "219-09-9999")]),
    ("000-12-3456", []),
    ("666-12-3456", []),
    ("900-12-3456", []),
    ("123-00-4567", []),
    ("Dr. John Smith signed", [(NAME, "John Smith")]),
    ("Mrs Dalloway said", [(NAME, "Dalloway")]),
    ("Hello, my name is Ada Lovelace.", [(NAME, "Ada Lovelace")]),
    ("王小明先生您好", [(NAME, "王小明")]),
    ("感谢李老师的帮助", [(NAME, "李")]),
    ("姓名：欧阳修", [(NAME, "欧阳修")]),
    ("联系人: 张伟 13712345678", [(NAME, "张伟"), (PHONE, "13712345678")]),
    ("The doctor came.", []),
    ("老师和医生都很好", []),
    ("no personal data in this sentence", []),
    ("这本书写得很好，值得一读。", []),
    ("", []),
    (
        "a@example.com 13812345678 4111111111111111",
        [(MAIL, "a@example.com"), (PHONE, "13812345678"), (CARD, "4111111111111111")],
    ),
]


@pytest.mark.parametrize("text, marked", CORPUS)
def test_each_case_gives_what_a_person_marked(text: str, marked: list[tuple[str, str]]) -> None:
    assert [(piece.kind, piece.text) for piece in find_personal(text)] == marked


def test_recall_and_precision_on_the_corpus() -> None:
    found = {
        (number, piece.kind, piece.text) for number, (text, _) in enumerate(CORPUS) for piece in find_personal(text)
    }
    marked = {(number, kind, value) for number, (_, pieces) in enumerate(CORPUS) for kind, value in pieces}
    assert len(marked) >= 60 and sum(not pieces for _, pieces in CORPUS) >= 30
    assert len(found & marked) / len(marked) >= 0.98
    assert len(found & marked) / len(found) >= 0.95


@pytest.mark.parametrize(
    "sound, good",
    [(is_card, "4111111111111111"), (is_iban, "DE89370400440532013000"), (is_resident_id, "11010519491231002X")],
)
def test_a_checksum_refuses_every_single_changed_digit(sound, good: str) -> None:
    assert sound(good)
    for place, sign in enumerate(good):
        if sign.isdigit():
            changed = good[:place] + str((int(sign) + 1) % 10) + good[place + 1 :]
            assert not sound(changed)


def test_redaction_is_undone_by_its_map_and_equal_values_get_equal_tokens() -> None:
    text = "a@example.com wrote to b@example.com; a@example.com waits"
    redaction = Redaction({})
    redacted = redaction.redact(text, names=True)
    assert redacted == "[EMAIL_1] wrote to [EMAIL_2]; [EMAIL_1] waits"
    assert redaction.restore(redacted) == text
    assert not find_personal(redacted)


def test_a_token_that_stands_in_the_text_already_is_not_given_again() -> None:
    redaction = Redaction({"[EMAIL_1]": "old@example.com"})
    assert redaction.redact("new@example.com", names=False) == "[EMAIL_2]"


@pytest.mark.parametrize(
    "name, text",
    [
        ("rows.csv", 'text,label\n"call 13812345678, please",good\nmy mail is a@example.com,bad\n'),
        (
            "rows.jsonl",
            '{"text": "one\\na@example.com", "label": 1}\n{"text": "王小明先生", "more": ["b@example.com"]}\n',
        ),
        ("rows.txt", "a@example.com\nnothing\n"),
    ],
)
def test_a_file_is_redacted_and_restored(tmp_path: Path, name: str, text: str) -> None:
    source, clean, mapped, back = (
        tmp_path / name,
        tmp_path / f"clean-{name}",
        tmp_path / "map.json",
        tmp_path / f"back-{name}",
    )
    source.write_text(text, encoding="utf-8")
    counts = redact_file(source, clean, mapped)
    assert counts["e-mail"] >= 1
    assert "example.com" not in clean.read_text(encoding="utf-8")
    assert mapped.stat().st_mode & 0o077 == 0
    restore_file(clean, back, mapped)
    read = json.loads if name.endswith("jsonl") else str
    assert [*map(read, back.read_text(encoding="utf-8").splitlines())] == [*map(read, text.splitlines())]


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a@example.com\n")
    (tmp_path / "b.txt").write_text("mine\n")
    with pytest.raises(UserError, match="already exists"):
        redact_file(tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "map.json")
    assert (tmp_path / "b.txt").read_text() == "mine\n" and not (tmp_path / "map.json").exists()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(UserError, match="csv, tsv, jsonl or txt"):
        redact_file(tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "map.json")


def test_presidio_finds_more_and_the_rules_come_first(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="Presidio is no part of the extras")
    said: list[str] = []
    find = presidio("en", said.append)
    text = "Mail ann@example.com, see https://example.org/ann, passport A12345678"
    found = find_personal(text, besides=find)
    assert [piece.kind for piece in found if piece.text == "ann@example.com"] == ["e-mail"]
    assert any("url" in piece.kind and "example.org" in piece.text for piece in found)
    assert said and ("spaCy" in said[0])
    (tmp_path / "in.txt").write_text(text)
    redact_file(tmp_path / "in.txt", tmp_path / "out.txt", tmp_path / "map.json", besides=find)
    assert "[URL_1]" in (tmp_path / "out.txt").read_text()
    restore_file(tmp_path / "out.txt", tmp_path / "again.txt", tmp_path / "map.json")
    assert (tmp_path / "again.txt").read_text() == text


def test_what_is_found_besides_gives_way_to_the_rules() -> None:
    def find(text: str) -> list[Personal]:
        return [
            Personal(start=0, stop=20, kind="person (Presidio)", text=text[:20]),
            Personal(start=26, stop=30, kind="place (Presidio)", text=text[26:30]),
        ]

    text = "Mail ann@example.com from Oslo"
    assert [piece.kind for piece in find_personal(text, besides=find)] == ["e-mail", "place (Presidio)"]


def test_presidio_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(RecipeError, match="Presidio is not installed"):
        presidio("en", print)
