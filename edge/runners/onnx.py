"""ONNX Runtime, on the CPU or through CUDA. CUDA has not run on a device yet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edge.bundle import Bundle, Precision
from edge.errors import BundleError, InputError, MissingPackageError
from edge.machine import package_versions
from edge.pixels import Image
from edge.protocols import Heads

_ERRORS_ONLY = 3


class OnnxRunner:
    """One `.onnx` artefact, loaded from verified bytes; its input is the camera's uint8 pixels.

    Args:
        threads: of this model.
        profile_prefix: path and begin of the name of ONNX Runtime's own profile; empty for none.

    Raises:
        InputError: ONNX Runtime has not the provider, cannot start it, or refuses the file. BundleError: its input
            or heads are not the manifest's.
    """

    provider = "CPUExecutionProvider"

    def __init__(
        self, bundle: Bundle, precision: Precision, threads: int = 1, profile_prefix: str = ""
    ) -> None:
        self._check_build()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackageError("onnxruntime", "onnx", "The backend onnx") from error
        if self.provider not in onnxruntime.get_available_providers():
            raise InputError(_no_provider(self.provider))
        content = bundle.content(bundle.artefact("onnx", precision))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if profile_prefix:
            options.enable_profiling, options.profile_file_prefix = True, profile_prefix
        # Spinning workers would take the processor from the decoder between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=[self.provider])
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            raise InputError(
                f"{bundle.folder}: ONNX Runtime cannot load the {precision} artefact: {error}"
            ) from error
        if self._session.get_providers()[0] != self.provider:  # it falls back to the CPU without a word
            raise InputError(f"ONNX Runtime could not start {self.provider}; its log says why.")
        pixels = self._session.get_inputs()[0]
        self._input = pixels.name
        self._names = [output.name for output in bundle.manifest.outputs]
        held = {output.name: output.shape for output in self._session.get_outputs()}
        if not set(self._names) <= held.keys():
            raise BundleError(
                f"{bundle.folder}: the manifest names the outputs {', '.join(self._names)}; the ONNX file has "
                f"{', '.join(held)}. Export the bundle anew."
            )
        bundle.check_shapes(pixels.shape, {name: held[name] for name in self._names})

    def _check_build(self) -> None:
        """Raises InputError where the provider's library is not there, before anything is loaded."""

    def infer(self, pixels: Image) -> Heads:
        """uint8 (1, H, W, 3) RGB in; float32 heads out, fresh arrays."""
        return dict(zip(self._names, self._session.run(self._names, {self._input: pixels}), strict=True))

    def end_profiling(self) -> str:
        """Finish the profile; the path of its file (JSON, the Chrome trace event format)."""
        return str(self._session.end_profiling())

    def close(self) -> None:
        """Free the session."""
        self._session = None


class OnnxCudaRunner(OnnxRunner):
    """The same on an NVIDIA GPU, through ONNX Runtime's CUDA provider."""

    provider = "CUDAExecutionProvider"

    def _check_build(self) -> None:
        # A daemon probes for CUDA on every machine: loading the build for the CPU would cost it 28 MB for nothing.
        spec = find_spec("onnxruntime")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if not any(Path(folder, "capi").glob("*onnxruntime_providers_cuda*")):
                raise InputError(_no_provider(self.provider))


def _no_provider(provider: str) -> str:
    version = package_versions(["onnxruntime"]).get("onnxruntime", "of another name")
    return (
        f"This ONNX Runtime ({version}) has no {provider}: it is a build for the CPU. "
        "On a Jetson take NVIDIA's wheel of onnxruntime-gpu for its JetPack."
    )
