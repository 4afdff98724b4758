"""Which files are images, by their names."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".jp2", ".jpx", ".ico", ".qoi"),
)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image."""
    return name.lower().endswith(SUFFIXES)
