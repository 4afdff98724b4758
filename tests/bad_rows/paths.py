"""Paths and URLs that lead nowhere, or where they must not; images in text."""

import os
import socket
from base64 import b64encode, encodebytes
from pathlib import Path
from urllib.parse import quote_from_bytes

from pictures import encoded, picture

from bad_rows.row import BadRow, case, good_image, of_bytes, of_path


def _paths() -> None:
    """Paths that lead nowhere, or where they must not (see make_media)."""
    for name, path, kind in [
        ("missing file", "nothing.png", "image_not_found"),
        ("path in a file", "good.png/a.png", "image_unreadable"),
        ("empty path", "", "image_not_found"),
        ("path with NUL", "good\0.png", "image_not_found"),
        ("folder", "folder", "image_unreadable"),
        ("media root itself", ".", "image_unreadable"),
        ("FIFO", "fifo", "image_unreadable"),
        ("socket", "socket", "image_unreadable"),
        ("link to itself", "loop", "image_unreadable"),
        ("name that is too long", "a" * 5000, "image_unreadable"),
        ("file that is too large", "large", "image_too_large"),
        ("empty file", "empty.png", "image_empty"),
        ("file of text", "text.png", "image_decode"),
        ("path above the root", "../secret.png", "path_not_allowed"),
        ("absolute path", "/etc/hostname", "path_not_allowed"),
        ("device", "/dev/zero", "path_not_allowed"),
        ("link out of the root", "link.png", "path_not_allowed"),
        ("folder that is a link out of the root", "way-out/secret.png", "path_not_allowed"),
        ("URL of a host that is not listed", "https://images.example.org/a.png?key=s3cret", "url_not_allowed"),
        ("URL with a password", "http://user:s3cret@localhost/a.png", "url_not_allowed"),
        ("URL of a loopback address", "http://127.0.0.1:1/a.png", "url_not_allowed"),
        ("URL of cloud metadata", "http://169.254.169.254/latest/meta-data/", "url_not_allowed"),
        ("file URL", "file:///etc/hostname", "url_not_allowed"),
        ("data: URL of a signature alone", "data:image/png;base64,iVBORw0KGgo=", "image_decode"),
        ("data: URL of text", "data:text/plain,no%20image", "image_decode"),
        ("data: URL of nothing", "data:image/png;base64,", "image_empty"),
        ("data: URL without data", "data:image/png;base64", "image_form"),
        ("data: URL of damaged base64", "data:image/png;base64,iVBORw0K*Ggo=", "image_decode"),
        ("base64 that is cut off", b64encode(encoded(picture(4))).decode()[:5000], "image_decode"),
        ("base64 of an SVG", b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "image_not_found"),
        ("URL of a bucket", "s3://key:s3cret@bucket/a.png", "url_not_allowed"),
    ]:
        case(name, lambda rng, path=path, kind=kind: BadRow((kind,), of_path(path)))  # type: ignore[misc]
    for name, text in {
        "image in a data: URL": "data:image/png;base64," + b64encode(encoded(picture(4))).decode(),
        "image in a data: URL with escapes": "data:," + quote_from_bytes(encoded(picture(4))),
        "image in base64": encodebytes(encoded(picture(4))).decode(),
    }.items():
        case(name, lambda rng, text=text: BadRow((), of_path(text), same_as=picture(4)))  # type: ignore[misc]
    case("null in the list", lambda rng: BadRow(("image_null",), [*of_bytes(good_image(rng)), None]))
    case("struct of nulls", lambda rng: BadRow(("image_null",), [{"bytes": None, "path": None}]))
    case("more images than placeholders", lambda rng: BadRow(("placeholders",), 2 * of_bytes(good_image(rng))))
    case(
        "many times the largest file",
        lambda rng: BadRow(("image_too_large",), 40 * of_path("four-megabytes")),
    )


def make_media(root: Path) -> None:
    """The files that the paths of CASES name."""
    (root / "folder").mkdir(parents=True)
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")  # its own path may be longer than sockets allow
        os.close(here)
    (root / "loop").symlink_to("loop")
    (root / "link.png").symlink_to("../secret.png")
    (root / "way-out").symlink_to("..")
    (root.parent / "secret.png").write_bytes(encoded(picture(1)))
    (root / "good.png").write_bytes(encoded(picture(2)))
    (root / "text.png").write_text("no image")
    (root / "empty.png").touch()
    # A small image with zeros behind it: whole for a decoder, and large for a disk.
    for name, size in (("large", (128 << 20) + 1), ("four-megabytes", 4 << 20)):
        (root / name).write_bytes(encoded(picture(3, (9, 9))))
        os.truncate(root / name, size)


_paths()
