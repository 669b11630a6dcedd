"""Kolors."""

from __future__ import annotations

import warnings

from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import BatchEncoding

from families.family import Family, Tiny
from families.parts import VOCABULARY, WIDTH, autoencoder, ddim, seeded, tokenizer, unet

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    from diffusers import KolorsPipeline
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel


class Positioned(PreTrainedTokenizerFast):
    """Pads on the left, and counts from where the text begins."""

    def __call__(self, text: list[str], **settings: object) -> BatchEncoding:
        tokens: BatchEncoding = super().__call__(text, padding_side="left", **settings)
        tokens["position_ids"] = (tokens["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return tokens


def _chat_glm() -> ChatGLMModel:
    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        ffn_hidden_size=WIDTH,
        kv_channels=16,
        num_attention_heads=2,
        seq_length=16,
        multi_query_attention=True,
        add_qkv_bias=True,
        original_rope=True,
    )
    model = ChatGLMModel(config, empty_init=False)
    seeded(2)
    for weights in model.parameters():  # some are left as the memory was
        nn.init.normal_(weights, std=0.1)
    return model.eval()


def text_to_image() -> Tiny:
    network = unet(
        use_linear_projection=True,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    pipeline = KolorsPipeline(
        vae=autoencoder(4, use_quant_conv=True, use_post_quant_conv=True, shift_factor=None),
        text_encoder=_chat_glm(),
        tokenizer=tokenizer(kind=Positioned),
        unet=network,
        scheduler=ddim(num_train_timesteps=1100, beta_end=0.014),
    )
    arguments = {
        "height": 16,
        "width": 16,
        "max_sequence_length": 16,
        "negative_prompt": ["fog"],  # a list, as prompts are
        "guidance_scale": 3.0,
    }
    return Tiny(pipeline, arguments)


FAMILIES: dict[str, Family] = {"KolorsPipeline": text_to_image}
