"""Keras, as its tutorial writes it; the backend comes from KERAS_BACKEND."""

import json
import sys
import time

import keras
from mnist import load

keras.utils.set_random_seed(int(sys.argv[2]))
x_train, y_train, x_test, y_test = load(sys.argv[1])
x_train, x_test = x_train / 255.0, x_test / 255.0
model = keras.Sequential(
    [
        keras.layers.Input((28, 28)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10),
    ]
)
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
start = time.perf_counter()
model.fit(x_train, y_train, epochs=5, batch_size=32, verbose=0)
seconds = time.perf_counter() - start
_, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(json.dumps({"fit_seconds": seconds, "accuracy": float(accuracy)}))
