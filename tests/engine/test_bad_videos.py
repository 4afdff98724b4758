"""Videos that cannot be read, and settings that do not fit the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pytest
from built_in_families import family_folders
from video_jobs import IMAGE, ROWS, VIDEOS, mapped, table
from videos import as_stream, index_first, video, with_frames_far_away
from vllm.multimodal.video import VideoLoader

import jobs
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.model.rendering import video_frames

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a family, made when it is first asked for."""
    return family_folders(tmp_path_factory.mktemp)


STREAMED = index_first(VIDEOS[1])
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd.ts\n#EXT-X-ENDLIST\n"
WEBM, TS = video(5, form="webm"), video(5, frames=50, fps=25.0, form="ts")
BAD = {
    "empty": (b"", "video_empty: the video has no bytes"),
    "no video": (IMAGE, "video_decode: no video that is known by its first bytes"),
    "playlist": (HLS, "video_decode: no video that is known by its first bytes"),
    "cut off": (VIDEOS[1][: len(VIDEOS[1]) // 2], "video_decode: the file is cut off: it has "),
    "frames cut off": (STREAMED[: len(STREAMED) // 3], "video_decode: the file is cut off: it has 5,18"),
    "AVI cut off": (VIDEOS[3][: len(VIDEOS[3]) // 2], "video_decode: the file is cut off: it has "),
    "WebM cut off": (WEBM[: len(WEBM) // 2], "video_decode: the file is cut off: it has "),
    "WebM of a browser": (as_stream(WEBM), "video_decode: its container tells no number of frames: "),
    "transport stream": (TS, "video_decode: OpenCV does not find its first frame again"),
    "frames far away": (with_frames_far_away(VIDEOS[1]), "video_decode: "),
    "zeros": (VIDEOS[1][:64] + bytes(4000), "video_decode: "),
    "one frame": (video(1, frames=1), "video_decode: vLLM's loader cannot take it: ZeroDivisionError"),
    "missing": ("b.mp4", "video_not_found: no file b.mp4 in input.media_root"),
    "folder": (".", "video_unreadable: .: Is a directory"),
    "outside": ("../a.mp4", "path_not_allowed: ../a.mp4 leads out of input.media_root"),
    "url": ("https://example.org/a.mp4", "url_not_allowed: "),
}


def test_a_bad_video_is_an_error_of_its_row(tmp_path: Path, folder: Folder) -> None:
    cells = [
        {"bytes": None if isinstance(bad, str) else bad, "path": bad if isinstance(bad, str) else None}
        for bad, _ in BAD.values()
    ]
    columns = pa.table({"video": [*cells, {"bytes": VIDEOS[0], "path": None}], "prompt": ["what?"] * (len(cells) + 1)})
    columns = columns.append_column("uid", pa.array([str(number) for number in range(len(columns))]))
    *failures, good = mapped(tmp_path / "job", folder("qwen2_5_vl"), columns, tmp_path, chat=True)
    assert isinstance(good, MappedRow), good
    for failure, (case, (_, error)) in zip(failures, BAD.items(), strict=True):
        assert isinstance(failure, RowFailure) and failure.error.startswith(error), (case, failure)


def test_frames_are_counted_before_they_are_decoded(
    tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first two videos, four frames each; the processor's part by what it made of those before."""
    first, second = 4 * 64 * 48, 4 * 96 * 64
    most = first + second
    needed: list[int] = []
    monkeypatch.setattr(video_frames, "need", needed.append)
    columns = table([([], VIDEOS[:2], "what?"), ([], VIDEOS[:1], "what?")])
    for limit, fails in ((most, False), (most - 1, True)):
        monkeypatch.setattr(video_frames, "_ROW_PIXELS", limit)
        large, small = mapped(tmp_path / str(limit), folder("qwen2_5_vl"), columns, chat=True)
        assert isinstance(small, MappedRow) and isinstance(large, RowFailure) is fails, (large, small)
        if isinstance(large, MappedRow):
            expected = [15 * first, 15 * second, int(first * (6 + 3 * large.nbytes / most))]
            assert needed == expected
            needed.clear()
    assert isinstance(large, RowFailure) and large.error.startswith("video_too_large: 4 frames of 96 x 64, ")
    assert needed == [15 * first, 15 * first]


@pytest.mark.parametrize(("missing", "fails"), [(1, False), (2, True)])
def test_containers_may_count_one_frame_too_many(
    missing: int, fails: bool, tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = VideoLoader.read_frames
    short = lambda *given, **options: tuple(part[:-missing] for part in read(*given, **options))  # noqa: E731
    monkeypatch.setattr(VideoLoader, "read_frames", short)
    (row,) = mapped(tmp_path, folder("qwen3_vl"), table([([], VIDEOS[:1], "what?")]), chat=True)
    assert isinstance(row, RowFailure) is fails, row
    error = "video_decode: only 2 of 4 sampled frames can be decoded: damaged"
    assert not isinstance(row, RowFailure) or row.error == error


def test_a_video_is_decoded_by_one_thread(tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's decoders take as many as there are cores, in each worker process."""
    threads: list[float] = []
    read = VideoLoader.read_frames

    def counted(capture: Any, *given: Any, **options: Any) -> Any:
        threads.append(capture.get(cv2.CAP_PROP_N_THREADS))
        return read(capture, *given, **options)

    monkeypatch.setattr(VideoLoader, "read_frames", counted)
    (row,) = mapped(tmp_path, folder("qwen3_vl"), table([([], VIDEOS[:1], "what?")]), chat=True)
    assert isinstance(row, MappedRow) and threads == [1]


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "setting that the loader does not read": (
        "qwen2_5_vl",
        {"media_io_kwargs": {"video": {"num_frames": 8}}},
        "engine.media_io_kwargs.video.num_frames does nothing: vLLM's loader qwen2_vl",
    ),
    "loader that there is not": (
        "qwen3_vl",
        {"media_io_kwargs": {"video": {"video_backend": "avi"}}},
        "engine.media_io_kwargs.video.video_backend = 'avi': expected one of ",
    ),
    "no room for videos": ("qwen3_vl", {"limit_mm_per_prompt": {"video": 0}}, " takes no videos"),
    "model without videos": ("mistral3", {}, " takes no videos"),
    "model whose videos vLLM does not take": ("smolvlm", {}, " takes no videos"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_the_model_is_refused(case: str, tmp_path: Path, folder: Folder) -> None:
    family, engine, says = REFUSALS[case]
    with pytest.raises(JobError) as caught:
        mapped(tmp_path, folder(family), table(ROWS), engine=engine, chat=True)
    assert says in str(caught.value)


def test_a_model_without_videos_is_named_before_a_row_is_read(tmp_path: Path) -> None:
    """The model of the demo, whose class is run-batch's own."""
    columns = {**jobs.rows(3), "video": VIDEOS[:3]}
    finished = jobs.run(jobs.write_job(tmp_path, columns, input={"video_column": "video", "image_column": "image"}))
    assert finished.returncode == 2 and "Traceback" not in finished.stderr, finished.stderr
    assert f"input.video_column: {jobs.TABLES['model']['path']} takes no videos" in finished.stderr
