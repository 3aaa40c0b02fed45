"""The builder's branch of the error tree, and the one place where foreign errors are put into our words."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from serving.errors import ProblemsError, TritonRepoError


class SpecError(ProblemsError):
    """The spec cannot be used; carries every problem that was found, not only the first."""

    subject = "spec"


class SourceError(TritonRepoError):
    """A model's source gave no usable module: it raised, is missing, or is of the wrong kind."""


class EnsembleError(TritonRepoError):
    """The steps of an ensemble cannot be wired, do not fit each other, or are not there."""


class SampleError(TritonRepoError):
    """The samples do not fit the spec, or could not be made."""


class ExportError(TritonRepoError):
    """The module could not be turned into ONNX, or into one that keeps the spec's promises."""


class InterfaceError(TritonRepoError):
    """What the module takes or gives differs from the spec."""


class ConfigError(TritonRepoError):
    """``config.pbtxt`` could not be made from the spec, or does not fit the artifact."""


class ParityError(TritonRepoError):
    """An artifact's answers differ from PyTorch's beyond the tolerance."""


class AccuracyError(TritonRepoError):
    """An artifact loses more accuracy than the spec allows."""


class PrecisionError(TritonRepoError):
    """The model could not be brought to another precision, or not within the accuracy that was asked for."""


class RecipeError(TritonRepoError):
    """A recipe file cannot be used, or does not fit the model."""


class CalibrationError(TritonRepoError):
    """Calibration samples are missing, or say nothing about the ranges of the model's values."""


class EngineError(TritonRepoError):
    """A TensorRT engine could not be built, or would not fit the server or the GPU it is for."""


class PythonModelError(TritonRepoError):
    """A user's class cannot be a model: it, its files or its packages; or it answered something else than it should."""


class UnavailableError(TritonRepoError):
    """This machine lacks what a variant needs: a GPU, a library. It says where and how it can be built."""


class CacheError(TritonRepoError):
    """What a step made could not be kept, or not be read back."""


class BuildError(TritonRepoError):
    """A build could not go on for a reason that lies in no single stage."""


class WorkerError(TritonRepoError):
    """The process that built a model died: killed, out of memory, crashed in a library."""


class PublishError(TritonRepoError):
    """The repository could not be written."""


class RepositoryError(TritonRepoError):
    """What was asked of a repository cannot be done with what lies in it."""


class ManifestError(TritonRepoError):
    """A ``manifest.json`` that is not as ``build-repo`` wrote it."""


class LockedError(TritonRepoError):
    """Another process is at work on the same repository."""


class ReloadError(TritonRepoError):
    """A running server could not be brought to serve another version; what it serves instead is said."""


def user_code_error(
    kind: type[TritonRepoError], what: str, exc: BaseException, *, folder: Path, fix: str = "", where: str = ""
) -> TritonRepoError:
    """An exception out of the user's own code, with the line of that code where it was raised.

    Args:
        kind: the class of error to make.
        what: what we were doing, as a sentence.
        exc: the exception that came out.
        folder: the folder of the user's code; the innermost frame below it is the place that is named.
        fix: what to do about it.
        where: the place, where it is known already.
    """
    if isinstance(exc, SystemExit):
        fix = "return, or raise an exception that says what is wrong: sys.exit() would end the whole build"
    fix = fix or "mend the code at the line named above"
    return kind(what, where=where or user_line(exc, folder), got=describe(exc), fix=fix)


def user_line(exc: BaseException, folder: Path) -> str:
    """``file:line, in function`` of the innermost frame below ``folder``; of the innermost of all if there is none."""
    frames = traceback.extract_tb(exc.__traceback__)
    root = str(folder.resolve())
    files = [str(Path(frame.filename).resolve()) for frame in frames]
    own = [
        frame
        for frame, file in zip(frames, files, strict=True)
        if file.startswith(root + "/") and "site-packages" not in file  # a virtual environment may be inside the folder
    ]
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}:{exc.lineno}"
    if not frames:
        return str(folder)
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}, in {frame.name}"


def describe(exc: BaseException, *, limit: int = 600) -> str:
    """``Type: message`` of an exception, cut to ``limit`` characters."""
    return _cut(f"{type(exc).__name__}: {exc}".strip().rstrip(":"), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def ort_reason(exc: BaseException) -> str:
    """An exception of ONNX Runtime without the places of its own C++ sources, which are longer than the reason."""
    text = str(exc)
    while (begin := text.find("/onnxruntime_src/")) >= 0:
        depth, end = 0, text.find("(", begin)
        while 0 <= end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
            if depth == 0:
                break
        text = text[:begin] + (text[end:].removeprefix(" const") if end >= 0 else "")
    plain = " ".join(re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text).split())
    return _cut(f"{type(exc).__name__}: {plain}", 600)
