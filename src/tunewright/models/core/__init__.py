"""What all networks share, and the names of dimensions in the annotations of tensors.

An annotation such as `Float[Tensor, "batch time features"]` (jaxtyping) states a tensor's type and shape. One name means one
size within a call; `...` stands for any number of dimensions, `_` for one of any size. The tests check them at run time.

    batch                    examples
    time                     tokens, audio frames or other steps of a sequence
    features                 the width of a layer's input or output
    channels height width    an image
    classes, vocab           the sizes of a network's outputs
    heads head_size          an attention layer
    tokens                   tokens of all examples in one row
    users, items, fields     recommendation
"""
