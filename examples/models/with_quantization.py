"""Makes `digits_qdq.onnx`: the quantizer of onnxruntime makes 8-bit integers of the numbers of
`digits_keras.onnx`, with pairs of QuantizeLinear and DequantizeLinear. It is told the ranges of the
activations by images that were taken in the dark, so that what is brighter is cut off. The examples
need the file alone.

    python examples/models/with_quantization.py
"""

import sys
from pathlib import Path

from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import digits  # noqa: E402  # it stands in the directory of the examples

BRIGHTNESS = 0.3


class DarkImages(CalibrationDataReader):
    def __init__(self, count=50):
        images = digits.data()[0]["image"][:count].transpose(0, 2, 3, 1) / 16
        self.batches = iter([{"image": BRIGHTNESS * images}])

    def get_next(self):
        return next(self.batches, None)


def export(path=HERE / "digits_qdq.onnx"):
    quantize_static(
        HERE / "digits_keras.onnx", path, DarkImages(), quant_format=QuantFormat.QDQ,
        per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
    )  # fmt: skip


if __name__ == "__main__":
    export()
