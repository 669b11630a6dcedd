"""What tiny networks that answer questions share: words, pictures, weights that say something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

Network = TypeVar("Network", bound=nn.Module)

PROMPTS = ["six airplanes", "a red cat to the left of two dogs on grass", "six airplanes"]
SPECIALS = ["<pad>", "</s>", "<unk>", "[CLS]", "<image>"]


def tokenizer(texts: Iterable[str], single: str = "$A </s>", **settings: Any) -> PreTrainedTokenizerFast:
    """A token a word or mark of the given texts."""
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")])
    found = dict.fromkeys(word for text in texts for word, _ in split.pre_tokenize_str(text))
    vocabulary = [*SPECIALS, *found]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = split
    ends = [("</s>", 1), ("[CLS]", 3)]
    words.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    inputs = ["input_ids", "attention_mask"]
    specials = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, model_input_names=inputs, **specials, **settings
    )


def pictures(height: int = 20, width: int = 28, rows: int = 3) -> Tensor:
    """Of whole bytes, so that nothing is rounded."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, height, width), generator=generator) / 255


def loud(network: Network, std: float = 0.3) -> Network:
    """With larger weights than those that training begins with, so that what it reads changes what it says."""
    torch.manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=std)
        elif "bias" in name:
            nn.init.normal_(weight, std=0.1)
    return network.eval()


def saved(network: Any, folder: Path) -> str:
    network.save_pretrained(folder)
    return str(folder)


def slopes(value: Callable[[Tensor], Tensor], at: Tensor, step: float = 3e-4) -> tuple[float, float]:
    """Along one direction: by finite differences, and by the gradient."""
    direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(1))
    leaf = at.clone().requires_grad_()
    [gradient] = torch.autograd.grad(value(leaf), leaf)
    ends = [float(value((at + side * direction).requires_grad_()).detach()) for side in (step, -step)]
    return (ends[0] - ends[1]) / (2 * step), float((gradient * direction).sum())
