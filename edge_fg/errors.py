"""Every failure that edge_fg reports, in one tree.

::

    EdgeFGError                          catch this one to catch all of ours
    ├── UsageError                       wrong arguments or a wrong configuration (exit code 2)
    │   └── PreprocessError              a preprocessing description that can't be followed
    ├── MissingDependencyError           an optional package is needed; says which extra brings it
    ├── OutputError                      a file can't be written (read-only, full, exists)
    ├── ImageError                       one image or frame can't be used
    ├── SourceError                      a camera, video, directory or glob can't be opened or read
    │   └── TruncatedSourceError         it ended before its own header said it would
    ├── LabelsError                      labels missing, malformed or not matching the classes
    ├── ModelError                       an ONNX model can't be used
    │   ├── ModelFormatError             not ONNX, truncated, or weights missing
    │   ├── NotAClassifierError          inputs or outputs are not those of an image classifier
    │   └── UnsupportedNodeError         one node can't be converted; names the node
    ├── DatasetError                     a calibration or evaluation set can't be used
    ├── CalibrationError                 ranges can't be found (NaN, constant, all-black images)
    ├── BudgetError                      the accuracy budget was not met (exit code 3)
    ├── BundleError                      a bundle can't be used
    │   ├── BundleFormatError            the manifest or a file in it breaks the schema
    │   ├── BundleVersionError           written by a newer edge_fg
    │   ├── BundleIntegrityError         a file is missing or its hash differs
    │   └── UnsafeBundleError            paths outside, links, zip bombs: refused
    ├── UnansweredError                  a frame given to `submit` was left out on purpose
    │   ├── SupersededError              a newer frame came before its turn
    │   └── DeadlineError                its turn came after its deadline
    ├── BackendError                     inference failed
    │   ├── BackendUnavailableError      the backend asked for can't run here; says why
    │   │   └── CudaUnavailableError     no driver, no device, or a driver that is too old
    │   └── CudaError                    a call of the CUDA driver failed
    │       ├── DeviceMemoryError        the GPU's memory, or page-locked memory, is full
    │       └── DeviceLostError          the GPU failed: only a new process can use it again
    └── CompileError                     TensorRT could not build a plan

Each message is one line: what was wrong, where, and what to do about it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


class EdgeFGError(Exception):
    """Base of every error that edge_fg reports."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message as one line of less than 2 kB, so that a log keeps it together.

        Control characters are escaped: in quoted text they could control a terminal.
        """
        from edge_fg.printing import message  # when there is one: `import edge_fg` stays small

        return message(" ".join(super().__str__().split()))


class UsageError(EdgeFGError, ValueError):
    """Wrong arguments or a wrong configuration file."""

    exit_code = 2


class PreprocessError(UsageError):
    """A preprocessing description that can't be followed."""


class MissingDependencyError(EdgeFGError, ImportError):
    """An optional package is needed and missing, or is there and can't be imported.

    `package` is its name on PyPI, `extra` the extra of ``edge-fg`` that brings it, `purpose`
    what it is needed for, to be read after "to", and `module` what is imported, where that isn't
    the package's name. Raised from the import's error, it says why the import failed.
    """

    def __init__(self, package: str, extra: str, purpose: str, module: str = "") -> None:
        super().__init__(
            f"{package} is needed to {purpose} and is not installed: "
            f"run `pip install 'edge-fg[{extra}]'`"
        )
        self.package = package
        self.extra = extra
        self._needed = f"{package} is needed to {purpose}"
        self._module = module or package.lower().replace("-", "_")

    def __str__(self) -> str:
        """Return the message; where something else than the package is missing, it says that."""
        from edge_fg.printing import import_failure, message

        why = import_failure(self.__cause__, self._module)
        return super().__str__() if why is None else message(f"{self._needed}, and {why}")


class OutputError(EdgeFGError, OSError):
    """A file or folder can't be written."""


class ImageError(EdgeFGError, ValueError):
    """One image or frame can't be used."""


class SourceError(EdgeFGError):
    """A camera, video, directory or glob can't be opened or read."""


class TruncatedSourceError(SourceError):
    """A source ended before its own header said that it would."""


class LabelsError(EdgeFGError, ValueError):
    """Labels are missing, malformed or don't match the classes."""


class ModelError(EdgeFGError):
    """An ONNX model can't be used."""


class ModelFormatError(ModelError):
    """The file is not ONNX, is truncated, or its weights are missing."""


class NotAClassifierError(ModelError):
    """The inputs or outputs are not those of an image classifier."""


class UnsupportedNodeError(ModelError):
    """One node of the model can't be converted; the message names it."""


class DatasetError(EdgeFGError):
    """A calibration or evaluation set can't be used."""


class CalibrationError(EdgeFGError):
    """Ranges can't be found."""


class BudgetError(EdgeFGError):
    """The accuracy budget was not met, or a model is right only by chance: no bundle is written."""

    exit_code = 3


class BundleError(EdgeFGError):
    """A bundle can't be used."""


class BundleFormatError(BundleError):
    """The manifest, or a file of the bundle, breaks the schema."""


class BundleVersionError(BundleError):
    """The bundle was written by a newer edge_fg."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing or its hash differs."""


class UnsafeBundleError(BundleError):
    """The bundle reaches outside itself, or was made to exhaust the machine."""


class UnansweredError(EdgeFGError):
    """A submitted frame was left out on purpose: go on with the next."""


class SupersededError(UnansweredError):
    """A newer frame was submitted before this one's turn came."""


class DeadlineError(UnansweredError):
    """The turn of a submitted frame came after its deadline."""


class BackendError(EdgeFGError):
    """Inference failed."""


class BackendUnavailableError(BackendError):
    """The backend asked for can't run on this machine."""


class CudaUnavailableError(BackendUnavailableError):
    """CUDA can't be used here: no driver, no device, or a driver that is too old."""


class CudaError(BackendError):
    """A call of the CUDA driver failed, or what it works on is closed."""


class DeviceMemoryError(CudaError):
    """The GPU's memory, or the memory that can be page-locked, is full."""


class DeviceLostError(CudaError):
    """The GPU failed and this process can't use it any more: start a new one."""


class CompileError(EdgeFGError):
    """TensorRT could not build a plan."""


def import_optional(module: str, package: str, extra: str, purpose: str) -> Any:
    """Return `module`, which `package` (its name on PyPI) and `extra` of ``edge-fg`` bring.

    `purpose` says what it is needed for, to be read after "to". Raises `MissingDependencyError`,
    which tells a package that is not installed from one whose import fails, and why that does.
    """
    name = module.partition(".")[0]
    try:
        importlib.import_module(name)  # it is what may be missing, not a module in it
        return importlib.import_module(module)
    except Exception as error:  # a broken package raises whatever it likes
        # What OpenCV leaves of a failed import makes the next one fail for another reason.
        if module == "cv2" and hasattr(sys, "OpenCV_LOADER"):
            del sys.OpenCV_LOADER
        raise MissingDependencyError(package, extra, purpose, name) from error
