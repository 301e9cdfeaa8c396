"""The model file whose compile time is measured: a 784-256-128-10 perceptron with Adam."""

from dsl import Dense, adam, cross_entropy, f32, i64, model, relu, training


@model
def perceptron(image=f32["batch", 784], label=i64["batch"]):
    logits = image >> Dense(256, relu) >> Dense(128, relu) >> Dense(10)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


recipe = training(perceptron, minimize="loss", optimizer=adam(1e-3), batch_size=32)
