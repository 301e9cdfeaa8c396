"""Runs an ONNX file in MLServer: `pip install mlserver onnxruntime`, `mlserver start DIRECTORY`."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import get_model_uri


class OnnxRuntime(MLModel):
    """The model of the file that its settings name."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")  # int8 without overflow
        self.session = onnxruntime.InferenceSession(await get_model_uri(self.settings), options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {x.name: NumpyCodec.decode_input(x) for x in payload.inputs}
        wanted = [x.name for x in payload.outputs or self.settings.outputs]
        results = zip(wanted, self.session.run(wanted, feeds), strict=True)
        types = {x.name: x.datatype for x in self.settings.outputs}
        outputs = [
            ResponseOutput(name=name, datatype=types[name], shape=y.shape, data=y.ravel().tolist())
            for name, y in results
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
