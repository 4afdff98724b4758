"""How an image of a row can be bad."""


class MediaError(Exception):
    """This row's image cannot be read; the job goes on without the row.

    Args:
        kind: stable name that users filter on, one of docs/errors.md.
        message: what is wrong with this row.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message
