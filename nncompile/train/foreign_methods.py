"""What the methods of other libraries' trainers are called here."""

from __future__ import annotations

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
    "optimizer": "trainer.recipe holds it, its slots are in trainer.state",
    "summary": "trainer.model.summary()",
}
