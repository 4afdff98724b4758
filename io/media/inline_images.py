"""Images that are written into text themselves: data: URLs (RFC 2397), and base64 of an image file.

Text is base64 of an image if it decodes to the first bytes of an image file; no other text is. Nothing is fetched.
"""

import binascii
import re
from urllib.parse import unquote_to_bytes

from run_batch.io.media.errors import MediaError

_DATA_URL = re.compile(r"\s*data:", re.IGNORECASE)
# A media type and its parameters; far more than any writer needs.
_MAX_HEADER_CHARACTERS = 1000
# Percent-decoding makes an object of every escape: of so much text at a time, a hostile cell cannot exhaust the memory.
_PERCENT_DECODED_AT_ONCE = 1 << 16
_SPACE = b" \t\n\v\f\r"
_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")
# As much of a text as tells whether it is base64 of an image.
_BEGINNING_CHARACTERS = 128
_SHOWN_CHARACTERS = 40
# Longer and more exact than what a decoder needs to know its format: a path may happen to begin with `Qk0` ("BM").
_IMAGE_FILE = re.compile(
    rb"""\xff\xd8\xff                              # JPEG
       | \x89PNG\r\n\x1a\n
       | GIF8[79]a
       | RIFF....WEBP
       | BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}  # BMP, with the size of its header
       | II[*+]\0 | MM\0[*+]                       # TIFF
       | .{4}ftyp                                  # AVIF
       | \0{3}\x0cjP\x20\x20\r\n\x87\n | \xff\x4f\xff\x51\0  # JPEG 2000
       | \0\0\x01\0.\0.{3}\0                      # ICO
       | qoif
    """,
    re.VERBOSE | re.DOTALL,
)


def is_data_url(text: str) -> bool:
    """Whether text is a data: URL, with upper or lower case letters and white space before it."""
    return _DATA_URL.match(text) is not None


def read_data_url(text: str, max_bytes: int) -> bytes:
    """Decode the content of a data: URL, whatever media type it declares.

    Base64 may have line breaks and other white space in it, the URL-safe alphabet, and no padding.

    Args:
        max_bytes: more is not decoded.

    Raises:
        MediaError: `image_form` if it has no data, `image_decode` for damaged base64, or `image_too_large`.
    """
    comma = text.find(",", 0, _MAX_HEADER_CHARACTERS)
    if comma < 0:
        raise MediaError("image_form", f"a data: URL without a comma before its data: {_shown(text)}")
    parameters = text[:comma].split(";")[1:]
    is_base64 = any(parameter.strip().lower() == "base64" for parameter in parameters)
    _check_size(text, comma + 1, is_base64, max_bytes)
    # As browsers do: what follows `#` is not data, and line breaks are not part of a URL.
    data = text[comma + 1 :].partition("#")[0].encode().translate(None, b"\t\r\n").strip(b" ")
    data = _percent_decoded(data)
    return _decode_base64(data, text) if is_base64 else data


def begins_as_base64_image(text: str) -> bool:
    """Whether the first characters of text are base64 of the first bytes of an image file."""
    beginning = _plain(text[:_BEGINNING_CHARACTERS].encode(errors="replace"))
    length = _base64_length(beginning) // 4 * 4
    return _IMAGE_FILE.match(binascii.a2b_base64(beginning[:length])) is not None


def is_base64(text: str) -> bool:
    """Whether text has no other characters than base64 has, white space included; it may still be cut off."""
    plain = _plain(text.encode())
    return _base64_length(plain) == len(plain)


def read_base64(text: str, max_bytes: int) -> bytes:
    """Decode base64, with white space, of either alphabet, with or without padding.

    Args:
        max_bytes: more is not decoded.

    Raises:
        MediaError: `image_decode` if it is damaged, or `image_too_large`.
    """
    _check_size(text, 0, True, max_bytes)
    return _decode_base64(text.encode(), text)


def _decode_base64(data: bytes, text: str) -> bytes:
    plain = _plain(data)
    try:
        return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4), strict_mode=True)
    except binascii.Error:
        raise MediaError("image_decode", f"{_damage(plain)}: {_shown(text)}") from None


def _damage(plain: bytes) -> str:
    valid = _base64_length(plain)
    if valid < len(plain):
        return f"damaged base64, with {plain[valid : valid + 1]!r} after {valid:,} characters"
    return f"base64 that is cut off after {valid:,} characters"


def _plain(base64: bytes) -> bytes:
    """Base64 in the standard alphabet, without white space and padding."""
    return base64.translate(_URL_SAFE_TO_STANDARD, _SPACE).rstrip(b"=")


def _base64_length(data: bytes) -> int:
    """How many of the first characters are of base64's standard alphabet."""
    found = _BASE64.match(data)
    assert found is not None
    return found.end()


def _percent_decoded(data: bytes) -> bytes:
    decoded, start = bytearray(), 0
    while start < len(data):
        end = start + _PERCENT_DECODED_AT_ONCE
        cut = data.rfind(b"%", end - 2, end)
        end = end if cut < 0 else cut  # not within an escape
        decoded += unquote_to_bytes(data[start:end])
        start = end
    return bytes(decoded)


def _check_size(text: str, start: int, is_base64: bool, max_bytes: int) -> None:
    """Refuse text whose data, from `start` on, is more than `max_bytes`, before it is copied or decoded."""
    spaces, escapes = sum(map(text.count, _SPACE.decode())), text.count("%")
    characters = len(text) - start - spaces
    # An escape stands for one character, which may be white space; two characters may be padding.
    least = (characters - 3 * escapes - 2) * 3 // 4 if is_base64 else characters - 2 * escapes
    if least > max_bytes:
        raise MediaError("image_too_large", f"more than {max_bytes:,} bytes, which is the limit: {_shown(text)}")


def _shown(text: str) -> str:
    """The beginning of a text, which may be long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
