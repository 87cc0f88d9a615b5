"""Make the example's files: train the digits network, rescale some channels, export it, and store its data.

Run ``python examples/digits/train.py`` from the repository root. Nothing is downloaded: scikit-learn ships the digits.
"""

import argparse
import ast
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import torch
from network import SIDE, DigitsNet, rescale_channels
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

SEED = 7
EVALUATION = 768
CALIBRATION = 256
EPOCHS = 40
BATCH = 64
RESCALED = {"block3": 9.0, "block6": 9.5}  # block: the widest ratio of two channels, in powers of two


def load_images() -> tuple[Tensor, Tensor]:
    """All 1,797 digits in one random order: images (n, 1, 16, 16) in [0, 1], and labels (n,)."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    images = torch.from_numpy(pixels[order].astype(np.float32) / 16.0).reshape(-1, 1, 8, 8)
    images = functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return images, torch.from_numpy(labels[order].astype(np.int64))


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images, moved together by up to two pixels each way, with noise: there are only about 1,000 to learn from."""
    rows, columns = torch.randint(-2, 3, (2,), generator=generator).tolist()
    noise = 0.1 * torch.randn(images.shape, generator=generator)
    return torch.roll(images, (rows, columns), (2, 3)) + noise


def train(images: Tensor, labels: Tensor) -> DigitsNet:
    """A trained network, in evaluation mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = DigitsNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):  # (batches, BATCH)
            optimizer.zero_grad()
            scores = network(shifted(images[batch], generator))
            functional.cross_entropy(scores, labels[batch], label_smoothing=0.05).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def unequal_factors(channels: int, octaves: float, generator: torch.Generator) -> Tensor:
    """Positive factors (channels,), log-uniform over ``octaves`` powers of two; the largest is 1."""
    exponents = torch.rand(channels, generator=generator) * octaves
    return torch.exp2(exponents.min() - exponents)


def rescale(network: DigitsNet) -> None:
    """Leave the channels of the blocks in RESCALED as unequal as stated there, without changing the function."""
    generator = torch.Generator().manual_seed(SEED)
    for name, octaves in RESCALED.items():
        block = network.get_submodule(name)
        rescale_channels(block, unequal_factors(block.depthwise.out_channels, octaves, generator))  # type: ignore[arg-type, union-attr]


@torch.no_grad()
def accuracy(network: DigitsNet, images: Tensor, labels: Tensor) -> float:
    """The share of images whose highest score is the label's."""
    return float((network(images).argmax(1) == labels).double().mean())


def forget_sources(program: torch.export.ExportedProgram) -> None:
    """Drop the stack traces, which hold the paths of the machine that exported."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)


def tidy(model: onnx.ModelProto) -> None:
    """Name each node after its module (``block3.pointwise``, ``block3.add``); drop metadata and unused initializers.

    The exporter's own names end in running numbers, and its metadata says ``block3.pointwise_bn`` for a convolution
    that a BatchNorm was folded into.
    """
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(
            metadata.get("pkg.torch.onnx.name_scopes", "['', '']")
        )  # from the root to the operation
        weight = next((name for name in node.input if name.endswith(".weight")), None)
        name = weight.removesuffix(".weight") if weight else f"{scopes[-2]}.{node.op_type.lower()}".lstrip(".")
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1
        node.ClearField("metadata_props")
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for holder in (model, model.graph, *model.graph.value_info, *model.graph.input, *model.graph.output, *kept):
        holder.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)


def export(network: DigitsNet, images: Tensor, folder: Path) -> None:
    """Write ``digits.pt2`` and ``digits.onnx``, both with a free batch size."""
    example = (images[:2].clone(),)  # a copy: the archive would store all that a view looks at
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=4096)}}
    program = torch.export.export(network, example, dynamic_shapes=dynamic)
    forget_sources(program)
    torch.export.save(program, folder / "digits.pt2")
    onnx_program = torch.onnx.export(
        network,
        example,
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes=dynamic,
        external_data=False,
        verbose=False,
    )
    if onnx_program is None:
        raise RuntimeError("the ONNX exporter gave no program")
    model = onnx_program.model_proto
    tidy(model)
    onnx.save(model, folder / "digits.onnx")


def save_samples(path: Path, images: Tensor, labels: Tensor) -> None:
    """Write the arrays ``inputs`` and ``labels``."""
    inputs: NDArray[np.float32] = images.numpy()
    np.savez_compressed(path, inputs=inputs, labels=labels.numpy())


def main() -> None:
    """Make every file of the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    folder: Path = parser.parse_args().out
    torch.set_num_threads(1)  # so that sums, and with them the weights, come out the same every time
    torch.use_deterministic_algorithms(True)

    images, labels = load_images()
    held_out, seen = slice(0, EVALUATION), slice(EVALUATION, None)
    network = train(images[seen], labels[seen])
    trained = accuracy(network, images[held_out], labels[held_out])
    rescale(network)
    print(f"top-1 of {EVALUATION} held-out digits: {trained:.4f} as trained, ", end="")
    print(f"{accuracy(network, images[held_out], labels[held_out]):.4f} after rescaling")

    export(network, images[held_out], folder)
    save_samples(folder / "eval.npz", images[held_out], labels[held_out])
    save_samples(folder / "calib.npz", images[seen][:CALIBRATION], labels[seen][:CALIBRATION])


if __name__ == "__main__":
    main()
