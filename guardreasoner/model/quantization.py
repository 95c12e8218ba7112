"""Whether bitsandbytes works here: it loads without its kernels, too, and then fails in the middle of a run."""

from functools import lru_cache

from guardreasoner.errors import InputError

_OTHERWISE = (
    "or leave the quantization out (a fit: model.backbone.quantization: null and model.optimizer torch.optim.AdamW)"
)


@lru_cache(maxsize=1)
def require_four_bit() -> None:
    """Require that weights can be quantized to 4 bits on the device that they are loaded to.

    Raises:
        InputError: bitsandbytes is missing, too old, or has no kernels for this device.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(torch.ones(64, device=device), quant_type="nf4", compress_statistics=True)
        works = bool(torch.isfinite(dequantize_4bit(packed, state)).all())
    except ImportError as error:
        raise InputError(
            f"model.backbone.quantization: 4bit needs bitsandbytes, which cannot be imported: {_line(error)}",
            f"pip install 'bitsandbytes>=0.46', {_OTHERWISE}",
        ) from error
    except (RuntimeError, NotImplementedError, AttributeError, OSError) as error:
        raise InputError(
            f"model.backbone.quantization: 4bit: bitsandbytes has no kernels for this {device}: {_line(error)}",
            f"install a build for it (python -m bitsandbytes tells what it found), {_OTHERWISE}",
        ) from error
    if not works:
        raise InputError(f"model.backbone.quantization: 4bit: bitsandbytes computes wrong values on this {device}")


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
