"""Tiny language models as Hugging Face has them: folders with random or trained weights, a tokenizer, and a text."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ROOT

VOCABULARY, POSITIONS = 96, 48
KINDS = ("llama", "gpt2", "opt")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers says and draws while it saves and loads."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def config(kind: str, **more: Any) -> Any:
    import transformers

    sizes = {
        "llama": {"intermediate_size": 40, "num_key_value_heads": 2},
        "mixtral": {
            "intermediate_size": 24,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        "qwen3_moe": {
            "moe_intermediate_size": 20,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
        "gemma2": {"intermediate_size": 40, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
        "gpt_oss": {
            "intermediate_size": 20,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 6,
        },
        "llama4_text": {
            "intermediate_size": 20,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "interleave_moe_layer_step": 1,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
            "attention_chunk_size": 6,
        },
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 24},
        "gpt2": {"n_positions": POSITIONS},
    }[kind]
    common = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 24}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    positions = {"max_position_embeddings": POSITIONS} if kind != "gpt2" else {}
    made: Any = transformers.AutoConfig.for_model(kind)
    return type(made)(**{**common, **special, **positions, **sizes, "tie_word_embeddings": kind == "gpt2", **more})


def network(kind: str, dtype: torch.dtype = torch.float64, **more: Any) -> Any:
    """A network with random weights, larger than usual, so that its blocks do something."""
    import transformers

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(config(kind, **more)).to(dtype).eval()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return made


def save(made: Any, folder: Path, shard: str | None = None) -> Path:
    """A folder of the network with the tokenizer of `text`."""
    with quiet():
        made.save_pretrained(folder, **({} if shard is None else {"max_shard_size": shard}))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def save_as_held(made: Any, folder: Path, shards: int = 1) -> Path:
    """The same with the tensors as the network holds them, experts in stacks, which transformers takes apart."""
    import json

    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    made.config.architectures = [type(made).__name__]
    with quiet():
        made.config.save_pretrained(folder)
    tensors = {name: one.contiguous() for name, one in made.state_dict().items()}
    files = ["model.safetensors"] if shards == 1 else [f"model-{k}-of-{shards}.safetensors" for k in range(shards)]
    for k, file in enumerate(files):
        save_file({name: tensors[name] for name in list(tensors)[k::shards]}, folder / file, {"format": "pt"})
    if shards > 1:
        where = {name: files[k % shards] for k, name in enumerate(tensors)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def load(folder: Path) -> Any:
    import transformers

    with quiet():
        made = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    if hasattr(made.config, "_experts_implementation"):
        made.config._experts_implementation = "eager"  # the others know no float64
    return made


def text() -> str:
    """Forty thousand characters of English: of a time of docs/methods.md, so that a change there changes no loss here."""
    return (ROOT / "tests" / "english.txt").read_text(encoding="utf-8")


def tokenizer() -> Any:
    """A byte-pair tokenizer of the text's own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    made.train_from_iterator(
        [text()[:8_000]],
        trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, special_tokens=["<p>", "<b>", "<e>"]),
    )
    return made


def tokens(length: int) -> np.ndarray:
    """All of the text, in sequences."""
    ids = tokenizer().encode(text()).ids
    return np.array(ids[: len(ids) // length * length], np.int64).reshape(-1, length)


def loss(made: Any, sequences: np.ndarray) -> float:
    """The mean cross-entropy of the next token, in nats."""
    with torch.no_grad():
        given = torch.from_numpy(sequences)
        logits = made(input_ids=given).logits[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), given[:, 1:].flatten()))


def train(made: Any, sequences: np.ndarray, steps: int, batch: int = 16, lr: float = 1e-2) -> None:
    """Adam over batches drawn by a seed of its own."""
    optimizer = torch.optim.Adam(made.parameters(), lr=lr)
    draw = np.random.default_rng(0)
    made.train()
    for _ in range(steps):
        given = torch.from_numpy(sequences[draw.integers(0, len(sequences), batch)])
        logits = made(input_ids=given).logits[:, :-1]
        value = torch.nn.functional.cross_entropy(logits.flatten(0, 1), given[:, 1:].flatten())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    made.eval()
