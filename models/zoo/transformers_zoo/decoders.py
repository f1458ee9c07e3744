"""Decoders of words: language models without a cache."""

from typing import Any

from models.zoo.cases import Case
from models.zoo.transformers_zoo.encoders import TEXT
from models.zoo.transformers_zoo.making import Inputs, row, words

LANGUAGE = TEXT | {"use_cache": False}
GROUPED = LANGUAGE | {"num_key_value_heads": 2, "head_dim": 16}


def decoder(model: str, inputs: Inputs | None = None, **settings: Any) -> Case:
    return row(model, LANGUAGE | settings, inputs or words(), family="decoder")


def grouped(model: str, inputs: Inputs | None = None, name: str = "", **settings: Any) -> Case:
    """With two heads of keys and values for four of queries."""
    return row(model, GROUPED | settings, inputs or words(), family="decoder", name=name)


def experts(model: str, **settings: Any) -> Case:
    """With a mixture of four experts, of which two answer."""
    mixture = {
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "experts_implementation": "batched_mm",  # what torch.onnx can export
    }
    return row(model, GROUPED | mixture | settings, words(), family="mixture of experts")


CASES = (
    decoder("GPT2LMHeadModel", n_embd=64, n_layer=2, n_head=4, n_positions=64),
    decoder("GPTBigCodeForCausalLM", n_embd=64, n_layer=2, n_head=4, n_positions=64),
    decoder("GPTNeoForCausalLM", num_layers=2, num_heads=4, window_size=8,
            attention_types=[[["global", "local"], 1]]),
    decoder("GPTNeoXForCausalLM"),
    decoder("GPTJForCausalLM", n_embd=64, n_layer=2, n_head=4, rotary_dim=8),
    decoder("CodeGenForCausalLM", n_embd=64, n_layer=2, n_head=4, rotary_dim=8),
    decoder("OPTForCausalLM", ffn_dim=128, word_embed_proj_dim=32),
    decoder("BloomForCausalLM", n_layer=2, n_head=4),
    decoder("MptForCausalLM", d_model=64, n_layers=2, n_heads=4, max_seq_len=64,
            expansion_ratio=2),
    decoder("FalconForCausalLM", alibi=False, multi_query=True, parallel_attn=True,
            new_decoder_architecture=False),
    row("FalconForCausalLM", LANGUAGE | {"num_kv_heads": 2, "new_decoder_architecture": True},
        words(), family="decoder", name="FalconForCausalLM, grouped"),
    decoder("OpenAIGPTLMHeadModel", n_embd=64, n_layer=2, n_head=4, n_positions=64),
    decoder("XGLMForCausalLM", d_model=64, num_layers=2, attention_heads=4, ffn_dim=128),
    decoder("CTRLLMHeadModel", n_embd=64, n_layer=2, n_head=4, n_positions=64, dff=128),
    decoder("BioGptForCausalLM"),
    decoder("PersimmonForCausalLM"),
    decoder("PhiForCausalLM", partial_rotary_factor=0.5),
    grouped("LlamaForCausalLM"),
    grouped("MistralForCausalLM", sliding_window=8),
    grouped("Qwen2ForCausalLM"),
    grouped("Qwen3ForCausalLM"),
    grouped("GemmaForCausalLM"),
    grouped("Gemma2ForCausalLM", sliding_window=8),
    grouped("Gemma3ForCausalLM", sliding_window=8),
    grouped("Phi3ForCausalLM"),
    grouped("StableLmForCausalLM", partial_rotary_factor=0.5),
    grouped("CohereForCausalLM"),
    grouped("Cohere2ForCausalLM", sliding_window=8),
    grouped("OlmoForCausalLM"),
    grouped("Olmo2ForCausalLM"),
    grouped("GraniteForCausalLM"),
    grouped("Starcoder2ForCausalLM", sliding_window=8),
    grouped("GlmForCausalLM"),
    grouped("Glm4ForCausalLM"),
    grouped("NemotronForCausalLM"),
    grouped("SmolLM3ForCausalLM"),
    grouped("HeliumForCausalLM"),
    grouped("DiffLlamaForCausalLM"),
    grouped("Exaone4ForCausalLM", sliding_window=8),
    grouped("LlamaForSequenceClassification", num_labels=5),
    grouped("Lfm2ForCausalLM", layer_types=["conv", "full_attention"]),
    experts("MixtralForCausalLM"),
    experts("Qwen2MoeForCausalLM", shared_expert_intermediate_size=64),
    experts("Qwen3MoeForCausalLM"),
    experts("OlmoeForCausalLM"),
    experts("GptOssForCausalLM", sliding_window=8),
    experts("DeepseekV3ForCausalLM", n_routed_experts=4, n_group=1, topk_group=1, q_lora_rank=32,
            kv_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16,
            first_k_dense_replace=1, num_key_value_heads=4, head_dim=8),
    experts("DeepseekV2ForCausalLM", n_routed_experts=4, n_group=1, topk_group=1, q_lora_rank=32,
            kv_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16,
            first_k_dense_replace=1, num_key_value_heads=4),
    experts("GraniteMoeForCausalLM"),
    decoder("MambaForCausalLM", state_size=8, time_step_rank=8, expand=2),
    decoder("Mamba2ForCausalLM", state_size=8, num_heads=8, head_dim=16, n_groups=1, chunk_size=8,
            expand=2),
    decoder("RwkvForCausalLM", context_length=32, attention_hidden_size=64),
    grouped("RecurrentGemmaForCausalLM", block_types=["recurrent", "attention"], lru_width=64,
            attention_window_size=8),
)  # fmt: skip
