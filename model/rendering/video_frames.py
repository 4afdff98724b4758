"""Decodes the frames of videos that vLLM's own loader for a model samples.

vLLM's code chooses the frames and decodes them, as for a `video_url` of `LLM.chat`. Before it does, what the frames
will take is counted.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, get_video_loader_backend_for_processor
from vllm.multimodal.video_decoders import VideoSourceMetadata, VideoTargetMetadata
from vllm.transformers_utils.processor import get_video_processor_cls_name

from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.images.image_memory import need
from run_batch.model.images.quiet import quiet_decoders
from run_batch.model.rendering.job_faults import describe, raise_if_no_rows_fault
from run_batch.model.rendering.row_video import EncodedVideo
from run_batch.model.rendering.video_capture import RewoundCapture, open_capture, safe_captures
from run_batch.model.rendering.video_container import check_container

# Of all frames that are sampled of a row's videos together: 3 GB.
_ROW_PIXELS = 1_000_000_000
# Bytes that a pixel takes: decoded, and as the processor's copy of it.
_DECODED = 3 * 2
# A processor takes three times the bytes of the tensors that it makes, for the models that are tested; of the first
# video, bytes for each pixel.
_COPIES, _FIRST_PROCESSED = 3, 9.0
# Bytes of a file for each of its frames: fewer than any container needs to list one.
_LEAST_FRAME_BYTES = 4
# The loader for models that have none of their own.
_PLAIN_LOADER = "opencv"
# Lengths in frames, and rates, of videos by which a setting is known that changes nothing for a loader.
_PROBES = [(frames, rate) for frames in (2, 31, 500, 20_000) for rate in (5.0, 25.0, 60.0)]
# Frames that vLLM asks its loaders for by default; some do not care.
_FRAMES = 32
_SAMPLED_BY = ("num_frames", "fps", "min_frames", "max_frames", "max_duration")


@dataclass(frozen=True, slots=True)
class SampledVideo:
    """The frames of a video that the model sees.

    Attributes:
        frames: uint8 (frames, height, width, 3), RGB.
        metadata: as vLLM's loader gives it: rate and length of the whole video, indices of the frames.
    """

    frames: np.ndarray
    metadata: Mapping[str, Any]

    @property
    def pixels(self) -> int:
        """Pixels of all frames."""
        return int(np.prod(self.frames.shape[:3]))


def video_shape(video: EncodedVideo) -> tuple[int, ...]:
    """Frames, width and height of a video, as its file tells them; empty for one that does not, or cannot be read."""
    names = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    try:
        check_container(video.encoded)
        with quiet_decoders():
            capture = open_capture(video.encoded)
    except (RowError, ValueError, cv2.error):  # the row's own error says why
        return ()
    shape = tuple(int(capture.get(name)) for name in names)
    return shape if min(shape) > 0 else ()


class FrameSampler:
    """Samples the frames of rows' videos for one model.

    Attributes:
        description: which loader samples, and how, for people.
    """

    def __init__(self, model_config: Any) -> None:
        """Choose the loader: the job's, or that of the model's video processor.

        Raises:
            SettingsError: engine.media_io_kwargs.video does not fit it.
        """
        settings = dict((model_config.multimodal_config.media_io_kwargs or {}).get("video", {}))
        name = settings.pop("video_backend", None) or _loader_of(model_config)
        if name not in VIDEO_LOADER_REGISTRY.name2class or VIDEO_LOADER_REGISTRY.backend_requires_gpu(name):
            known = ", ".join(sorted(n for n in VIDEO_LOADER_REGISTRY.name2class if _runs_on_cpu(n)))
            raise SettingsError(f"engine.media_io_kwargs.video.video_backend = {name!r}: expected one of {known}")
        self._loader = VIDEO_LOADER_REGISTRY.name2class[name]
        self._io = VideoMediaIO(ImageMediaIO(), video_backend=name, **settings)
        _refuse_needless(name, self._loader, settings)
        self._io.video_loader = _watched(self._loader, self._check_source, self._read_frames)
        self._pixels, self._encoded = 0, b""
        self._seen = [0, 0]  # pixels of the videos so far, and bytes of their tensors
        shown = ", ".join(f"{key} = {value}" for key, value in settings.items())
        self.description = f"frames sampled by vLLM's loader {name}" + (f" ({shown})" if shown else "")

    def sample(self, videos: Sequence[EncodedVideo]) -> list[SampledVideo]:
        """Sample the frames of one row's videos.

        Raises:
            RowError: `video_empty`, `video_decode`, or `video_too_large` for the frames of all of them.
        """
        self._pixels = 0
        return [self._sample(video) for video in videos]

    def processed(self, nbytes: int) -> None:
        """Tell that the videos that were sampled last became so many bytes of tensors: by these, others are counted."""
        if self._pixels:
            self._seen = [self._seen[0] + self._pixels, self._seen[1] + nbytes]
        self._pixels = 0

    def _sample(self, video: EncodedVideo) -> SampledVideo:
        check_container(video.encoded)
        self._encoded = video.encoded
        try:
            with quiet_decoders(), safe_captures():
                frames, metadata = self._io.load_bytes(video.encoded).media
        except RowError:
            raise
        # vLLM's loaders and OpenCV raise exceptions of any type for files that they cannot read.
        except Exception as error:
            raise_if_no_rows_fault(error)
            raise RowError("video_decode", f"vLLM's loader cannot take it: {describe(error)}") from error
        return SampledVideo(frames, metadata)

    def _check_source(self, frames: int) -> None:
        """Refuse what a damaged index says: vLLM's loaders would look for so many frames, one by one."""
        if frames < 1:
            raise RowError(
                "video_decode",
                "its container tells no number of frames: damaged, or written as a stream; `ffmpeg -i IN -c copy "
                "OUT.mp4` counts what is there",
            )
        nbytes = len(self._encoded)
        if frames * _LEAST_FRAME_BYTES > nbytes:
            raise RowError(
                "video_decode", f"damaged: {nbytes:,} bytes cannot hold the {frames:,} frames that it counts"
            )

    def _read_frames(self, capture: Any, indices: list[int], total_frames_num: int, **options: Any) -> Any:
        """What the loader reads, of a video that turns out whole."""
        asked = len(set(indices))
        size = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self._count(asked, *size)
        rewound = RewoundCapture(capture)
        frames, valid = self._loader.read_frames(rewound, indices, total_frames_num, **options)
        # Many containers count one frame more than they have.
        if not valid or len(valid) < asked - 1:
            raise RowError("video_decode", f"only {len(valid)} of {asked} sampled frames can be decoded: damaged")
        if not rewound.begins_as(self._encoded):
            raise RowError(
                "video_decode",
                "OpenCV does not find its first frame again, so that vLLM's loader would show others than it says; "
                "write it to another container: `ffmpeg -i IN -c copy OUT.mp4`",
            )
        return frames, valid

    def _count(self, frames: int, width: int, height: int) -> None:
        """Count frames that are about to be decoded."""
        self._pixels += frames * width * height
        if self._pixels > _ROW_PIXELS:
            raise RowError(
                "video_too_large",
                f"{frames} frames of {width} x {height}, {self._pixels:,} pixels in all frames of the row; limit: "
                f"{_ROW_PIXELS:,}. Settings in engine.media_io_kwargs.video sample fewer",
            )
        seen_pixels, seen_bytes = self._seen
        processed = _COPIES * seen_bytes / seen_pixels if seen_pixels else _FIRST_PROCESSED
        need(int(frames * width * height * (_DECODED + processed)))


def _loader_of(model_config: Any) -> str:
    return get_video_loader_backend_for_processor(get_video_processor_cls_name(model_config)) or _PLAIN_LOADER


def _runs_on_cpu(loader: str) -> bool:
    return not VIDEO_LOADER_REGISTRY.backend_requires_gpu(loader)


def _watched(loader: Any, check_source: Callable[[int], None], read: Callable[..., Any]) -> Any:
    """A loader whose videos are checked before it chooses frames, and again when it reads them.

    Args:
        check_source: called with the frames that the container counts, before the loader chooses any.
        read: called in place of the loader's `read_frames`, with the same arguments.
    """

    def prepare_source(cls: Any, source: VideoSourceMetadata) -> VideoSourceMetadata:
        check_source(source.total_frames_num)
        prepared: VideoSourceMetadata = loader._prepare_source(source)
        return prepared

    def read_frames(cls: Any, *given: Any, **options: Any) -> Any:
        return read(*given, **options)

    own = {"_prepare_source": classmethod(prepare_source), "read_frames": classmethod(read_frames)}
    return type(loader.__name__, (loader,), own)()


def _refuse_needless(name: str, loader: Any, settings: Mapping[str, Any]) -> None:
    """Refuse settings that this loader does not read: vLLM would ignore them without a word."""
    for key in _SAMPLED_BY:
        if key in settings and not _matters(loader, settings, key):
            raise SettingsError(
                f"engine.media_io_kwargs.video.{key} does nothing: vLLM's loader {name}, which samples the frames of "
                "this model's videos, does not read it, or another setting decides; remove it"
            )


def _matters(loader: Any, settings: Mapping[str, Any], key: str) -> bool:
    """Whether other values of a setting give other frames of some video."""
    return any(
        _indices(loader, settings, *probe) != _indices(loader, {**settings, key: other}, *probe)
        for probe in _PROBES
        for other in (settings[key] + 7, max(settings[key] // 2, 1))
    )


def _indices(loader: Any, settings: Mapping[str, Any], frames: int, rate: float) -> list[int]:
    """The frames of a video that a loader samples; none where it cannot."""
    defaults = {name: item.default for name, item in inspect.signature(loader.load_bytes).parameters.items()}
    if not {name for name in _SAMPLED_BY[:2] if name in settings} <= defaults.keys():
        return []
    values = {"num_frames": _FRAMES, "fps": defaults.get("fps", -1), "max_duration": 300, **settings}
    target = VideoTargetMetadata(values["num_frames"], values["fps"], values["max_duration"])
    others = {name: settings[name] for name in ("min_frames", "max_frames") if name in settings}
    try:
        source = loader._prepare_source(VideoSourceMetadata(frames, rate, frames / rate))
        return list(loader.compute_frames_index_to_sample(source=source, target=target, **others))
    except (ValueError, ZeroDivisionError):
        return []
