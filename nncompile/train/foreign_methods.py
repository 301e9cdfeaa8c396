"""What the methods of other libraries' trainers are called here."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import UnknownNameError

_RATE = "trainer.learning_rate = 1e-4; of some parameters: set_learning_rate(1e-4, group=...)"
# By the names of torch's and Keras's methods, what does the same here.
FOREIGN_METHODS = {
    **dict.fromkeys(("train", "learn", "train_step", "run"), "trainer.fit(data) trains"),
    **dict.fromkeys(("fit_generator", "train_on_batch"), "use trainer.fit([batch, ...])"),
    **dict.fromkeys(("test", "test_step", "validate", "score"), "trainer.evaluate(data)"),
    **dict.fromkeys(("forward", "predict_on_batch", "predict_step"), "trainer.predict(inputs)"),
    **dict.fromkeys(
        ("eval", "no_grad"), "predict and evaluate already run in inference mode: leave it out"
    ),
    **dict.fromkeys(("zero_grad", "backward"), "fit does that at each step: leave it out"),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), 'Trainer(recipe, providers="cuda")'),
    **dict.fromkeys(("save_weights", "save_model", "save_checkpoint"), "trainer.save(path)"),
    **dict.fromkeys(("to_onnx", "to_torchscript", "deploy"), "trainer.export(path)"),
    **dict.fromkeys(
        ("load_weights", "load_checkpoint"), "trainer.load(path), or load_params(path) by name"
    ),
    **dict.fromkeys(("state_dict", "get_weights", "parameters", "weights"), "trainer.params"),
    **dict.fromkeys(("load_state_dict", "set_weights"), "trainer.set_params({path: array})"),
    "compile": "Trainer(training(model, optimizer=adam(1e-3)))",
    "history": "fit returns it: history = trainer.fit(data)",
    "optimizer": "trainer.recipe holds it, its slots are in trainer.state; "
    "trainer.learning_rate is its rate, to read and to set",
    **dict.fromkeys(("lr", "rate", "get_lr", "get_last_lr"), "trainer.learning_rate"),
    **dict.fromkeys(("set_lr", "param_groups", "adjust_learning_rate"), _RATE),
    "summary": "trainer.model.summary()",
}

# By the attributes that people set, the way that has an effect.
SETTING = {
    **dict.fromkeys(("lr", "rate", "optimizer", "optimizer_lr"), _RATE),
    **dict.fromkeys(("params", "state", "weights"), "trainer.set_params({path: array})"),
    **dict.fromkeys(("step", "epoch"), "trainer.load(path) goes on from a checkpoint"),
    **dict.fromkeys(
        ("batch_size", "epochs", "steps", "callbacks", "shuffle", "verbose"),
        "it is an option of fit: trainer.fit(data, batch_size=32)",
    ),
    **dict.fromkeys(
        ("recipe", "model", "providers", "threads", "compiled"),
        "make another trainer: Trainer(recipe, providers=...)",
    ),
}


class SetBySeed:
    """A class whose objects have no attribute to set from outside but `seed` and properties that
    take values: setting another one would have no effect, and nobody would notice."""

    def __setattr__(self, name: str, x: Any) -> None:
        known = getattr(type(self), name, None)
        can_set = name == "seed" or (isinstance(known, property) and known.fset is not None)
        is_known = name.startswith("_") or can_set or "_fixed" not in self.__dict__
        # A class of the user's own has attributes of its own.
        if not is_known and type(self).__module__.startswith("nncompile."):
            raise UnknownNameError(
                f"setting {name!r} of a {type(self).__name__.lower()} has no effect",
                hint=SETTING.get(name, "only its seed and its learning_rate can be set"),
            )
        super().__setattr__(name, x)
