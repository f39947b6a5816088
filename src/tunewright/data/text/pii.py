"""Personal data in texts, found by rules: what is tested by a checksum or a calendar is sure, a name is a guess and called one.

Found are e-mail addresses, phone numbers, payment cards (Luhn), IBANs (mod 97), IP addresses, Chinese resident identity numbers
(GB 11643: a date and a checksum), US social security numbers, and, as best effort, names behind a title or before an honorific.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

NAME = "name (a guess)"


@dataclass(frozen=True, kw_only=True, order=True)
class Personal:
    """One piece of personal data in a text."""

    start: int
    stop: int
    kind: str
    text: str

    @property
    def masked(self) -> str:
        """So much of it that its owner can find it, and nobody else learns it."""
        return self.text[0] + "…" + self.text[-1] if len(self.text) > 2 else self.text[0] + "…"


# Another way to find pieces in a text; the surest first.
Finder = Callable[[str], list[Personal]]


def find_personal(text: str, *, names: bool = True, besides: Finder | None = None) -> list[Personal]:
    """Return all pieces in order; they do not overlap: of two that do, the one whose rule is the stricter counts.

    Args:
        names: also guess at names.
        besides: what finds more, where no rule found anything.
    """
    found: list[Personal] = []

    def is_free(start: int, stop: int) -> bool:
        return not any(start < other.stop and other.start < stop for other in found)

    for kind, (pattern, sound) in RULES.items():
        if kind == NAME and not names:
            continue
        for match in pattern.finditer(text):
            start, stop = match.span(match.lastindex or 0)
            if is_free(start, stop) and sound(text[start:stop]):
                found.append(Personal(start=start, stop=stop, kind=kind, text=text[start:stop]))
    for piece in besides(text) if besides is not None and text.strip() else []:
        if is_free(piece.start, piece.stop):
            found.append(piece)
    return sorted(found)


# GB 11643-1999: weights 2^(17−i) mod 11 of the first 17 digits, and the sign that makes the sum 1 mod 11.
_REGIONS = {
    *range(11, 16),
    *range(21, 24),
    *range(31, 38),
    *range(41, 47),
    *range(50, 55),
    *range(61, 66),
    71,
    81,
    82,
    83,
}


def is_resident_id(text: str) -> bool:
    """Return whether 18 signs are a Chinese resident identity number: a region, a date of birth, and the checksum."""
    if int(text[:2]) not in _REGIONS:
        return False
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return 1900 <= born.year <= date.today().year and "10X98765432"[total % 11] == text[17].upper()


def is_card(text: str) -> bool:
    """Return whether digits are a card's: an issuer's beginning and length (ISO/IEC 7812), and Luhn's checksum."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    number = "".join(map(str, digits))
    issuer = (
        (number[0] == "4" and len(number) in (13, 16, 19))
        or (51 <= int(number[:2]) <= 55 and len(number) == 16)
        or (2221 <= int(number[:4]) <= 2720 and len(number) == 16)
        or (number[:2] in ("34", "37") and len(number) == 15)
        or (number[:4] == "6011" and len(number) == 16)
        or (number[:2] == "65" and len(number) == 16)
        or (number[:2] == "62" and 16 <= len(number) <= 19)
        or (3528 <= int(number[:4]) <= 3589 and len(number) == 16)
        or (number[:2] in ("36", "38") and len(number) == 14)
    )
    doubled = sum(sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return issuer and doubled % 10 == 0 and len(set(digits)) > 1


# Lengths by country, from the SWIFT registry of IBANs, release 98; other countries' codes are not taken for one.
_LENGTHS = (
    "AD24 AE23 AT20 BE16 BG22 CH21 CY28 CZ24 DE22 DK18 EE20 ES24 FI18 FR27 GB22 GR27 HR21 HU28 IE22 IL23 "
    "IS26 IT27 LI21 LT20 LU20 LV21 MC27 MT31 NL18 NO15 PL28 PT25 RO24 SA24 SE24 SI19 SK24 SM27 TR26"
)
_IBAN = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}


def is_iban(text: str) -> bool:
    """Return whether signs are an account's: a country, its length, and 1 as the remainder by 97 (ISO 13616)."""
    plain = text.replace(" ", "")
    if _IBAN.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def is_address(text: str) -> bool:
    """Return whether it is an IP address of a machine; 0.0.0.0, :: and the own machine's are nobody's."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_unspecified or found.is_loopback)


def is_phone(text: str) -> bool:
    """Return whether there are as many digits as a phone number has: 7 to 15 (E.164), and not all the same."""
    digits = [sign for sign in text if sign.isdigit()]
    return 7 <= len(digits) <= 15 and len(set(digits)) > 1


def _always(_text: str) -> bool:
    return True


# No digit, letter or point may touch a number from outside: it would be part of something longer. Chinese letters may.
_LEFT, _RIGHT = r"(?<![A-Za-z0-9_.+-])", r"(?![A-Za-z0-9_]|[.-][0-9])"
_SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜谢邹喻柏窦章苏潘葛范彭鲁韦马苗方俞任袁柳史唐费薛雷贺倪汤"
    "罗郝安常于傅齐康余顾孟黄穆萧尹姚邵汪祁毛狄宋庞熊纪舒屈项董梁杜阮蓝季贾江童颜郭梅盛林钟徐邱骆高夏蔡田樊胡凌霍万柯卢莫房"
    "丁邓洪包左石崔吉龚程邢裴陆翁甄曲侯全宁仇祖武刘景詹龙叶黎白蒲卓蒙乔阎冉桑温庄晏柴瞿连易廖耿文曾沙关"
)
# By the strictness of the rule: what an earlier one has taken no later one takes.
RULES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "e-mail": (
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}(?![A-Za-z0-9-])"
        ),
        _always,
    ),
    "resident identity number": (re.compile(rf"{_LEFT}[1-9]\d{{16}}[\dXx]{_RIGHT}"), is_resident_id),
    "IBAN": (re.compile(rf"{_LEFT}[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]){{11,27}}{_RIGHT}"), is_iban),
    "payment card": (re.compile(rf"{_LEFT}\d(?:[ -]?\d){{12,18}}{_RIGHT}"), is_card),
    "social security number": (
        re.compile(rf"{_LEFT}(?!000|666|9\d\d)\d{{3}}-(?!00)\d{{2}}-(?!0000)\d{{4}}{_RIGHT}"),
        _always,
    ),
    "IP address": (
        re.compile(
            r"(?<![\w.:])(?<![vV]ersion )(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
            r"|(?:[0-9A-Fa-f]{1,4}:|::)(?:[0-9A-Fa-f]{0,4}:){0,6}[0-9A-Fa-f]{1,4}(?![\w:]))"
        ),
        is_address,
    ),
    "phone": (
        re.compile(
            rf"{_LEFT}(?:(?:\+86|0086)[ -]?)?1[3-9]\d(?:[ -]?\d{{4}}){{2}}{_RIGHT}"  # a Chinese mobile
            rf"|{_LEFT}(?:\(0\d{{2,3}}\)|（0\d{{2,3}}）|0\d{{2,3}}-)\s?[2-9]\d{{6,7}}{_RIGHT}"  # a Chinese landline
            rf"|(?<![\w+])\+[1-9]\d{{0,2}}(?:[ .-]?\(?\d{{1,4}}\)?){{2,5}}{_RIGHT}"  # any country
            rf"|(?<![\w.-])\([2-9]\d{{2}}\) ?\d{{3}}[-. ]\d{{4}}{_RIGHT}|{_LEFT}[2-9]\d{{2}}[-.]\d{{3}}[-.]\d{{4}}{_RIGHT}"  # North America
        ),
        is_phone,
    ),
    NAME: (
        re.compile(
            r"\b(?:Mr|Mrs|Ms|Dr|Prof)\.? ((?:[A-Z][a-z]+|[A-Z]\.)(?: (?:[A-Z][a-z]+|[A-Z]\.)){0,2})"
            r"|\b[Mm]y name is ((?:[A-Z][a-z]+)(?: [A-Z][a-z]+){0,2})"
            rf"|(?<![感多致])((?:[{_SURNAMES}]|欧阳|司马|上官|诸葛)[\u4e00-\u9fff]{{0,2}}?)(?=先生|女士|小姐|老师|医生|教授|经理|律师)"
            r"|(?:姓名|联系人|收件人)[:：] ?([\u4e00-\u9fff]{2,4})(?![\u4e00-\u9fff])"
        ),
        _always,
    ),
}


def token_of(kind: str, number: int) -> str:
    """Return the placeholder in a redacted text: [EMAIL_1]; no sign that CSV or JSON would have to escape."""
    word = "".join(sign for sign in kind.split(" (")[0].upper() if sign.isalnum() or sign == " ").replace(" ", "_")
    return f"[{word}_{number}]"


@dataclass
class Redaction:
    """The token of each value: the same value has the same token throughout."""

    tokens: dict[str, str]
    """From the token to its value."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many different values of each kind have a token."""

    def __post_init__(self) -> None:
        self._known = {value: token for token, value in self.tokens.items()}

    def redact(self, text: str, *, names: bool, besides: Finder | None = None) -> str:
        """Return the text with a token in each piece's place."""
        parts: list[str] = []
        at = 0
        for piece in find_personal(text, names=names, besides=besides):
            parts += [text[at : piece.start], self._token(piece)]
            at = piece.stop
        return "".join([*parts, text[at:]])

    def restore(self, text: str) -> str:
        """Return the text as it was."""
        return re.sub(r"\[[A-Z_]+_\d+\]", lambda match: self.tokens.get(match[0], match[0]), text)

    def _token(self, piece: Personal) -> str:
        if piece.text not in self._known:
            self.counts[piece.kind] = self.counts.get(piece.kind, 0) + 1
            number = self.counts[piece.kind]
            while (token := token_of(piece.kind, number)) in self.tokens:
                number += 1
            self.tokens[token] = piece.text
            self._known[piece.text] = token
        return self._known[piece.text]
