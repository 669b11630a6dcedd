"""A diffusers pipeline as a model: Stable Diffusion 3, tiny and with random weights, so that nothing is downloaded.

With a real one, only the first line of ``main`` changes::

    pipeline = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3.5-medium").to("cuda")
"""

import string

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from rollflow import generate, load_model
from rollflow.rewards.pixels.colorfulness import Colorfulness

WORDS = ["<pad>", "</s>", "<unk>", *string.printable]
WIDTH = 32


def tiny_pipeline() -> StableDiffusion3Pipeline:
    """Build a pipeline with every component of Stable Diffusion 3 except T5, which is optional."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=2 * WIDTH,
            out_channels=4,
            pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=1,
            shift_factor=0.06,
            scaling_factor=1.5,
        ),
        text_encoder=CLIPTextModelWithProjection(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        text_encoder_3=None,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=None,
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per character."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, model_max_length=77, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def main() -> None:
    """Print the colourfulness of a plain sample, and of one found with 100 NFE."""
    pipeline = tiny_pipeline()
    arguments = {"height": 16, "width": 16, "guidance_scale": 4.0, "max_sequence_length": 16}
    model = load_model(pipeline, arguments)
    for method, nfe in (("bon", 10), ("svdd", 100)):
        result = generate("a red door", model=model, reward=Colorfulness(), method=method, nfe=nfe)
        print(
            f"{method}, {result.spent.nfe} NFE: colourfulness {result.reward:.2f}, picture {tuple(result.sample.shape)}"
        )


if __name__ == "__main__":
    main()
